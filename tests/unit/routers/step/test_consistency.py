"""Routers: the rules of consistency, and that stopping early never decides otherwise than looking at every sample."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentcascade.actions.base import RegexActions
from agentcascade.actions.voting import next_wave, tally
from agentcascade.assembly.components import make_router
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import RouterConfig
from agentcascade.errors import ConfigError
from agentcascade.models.scripted import ScriptedModel
from agentcascade.models.tokens import token_counter
from agentcascade.protocols import Router, Verdict
from agentcascade.routers.step.consistency import AgreementThreshold, AlwaysStudent, AlwaysTeacher, RandomMix, Unanimity
from agentcascade.step.context import StepContext
from agentcascade.types import Action, Decision, Message, Sample, Situation, Step, Tally

HERE = Situation(goal="g", episode="ep")
TASK: list[Message] = [{"role": "user", "content": "put a mug on the desk"}]

Key = str | None
"""An action's key; None for a sample without a valid action."""


def votes(keys: Sequence[Key]) -> Tally:
    message: Message = {"role": "assistant", "content": "x"}
    return tally([Sample(message=message, action=Action(key=k, text=k) if k else None) for k in keys])


keys = st.sampled_from(["a", "b", "c", None])
thresholds = st.builds(
    AgreementThreshold,
    n=st.integers(1, 9),
    threshold=st.floats(0, 1, exclude_min=True) | st.sampled_from([1 / 3, 0.5, 2 / 3, 0.1, 0.7]),
)
routers = st.one_of(
    thresholds,
    st.builds(Unanimity, n=st.integers(1, 9)),
    st.builds(RandomMix, p=st.floats(0, 1), seed=st.integers()),
    st.builds(AlwaysStudent),
    st.builds(AlwaysTeacher),
)


@given(routers, st.data())
def test_a_verdict_comes_with_the_last_sample_at_the_latest_and_never_flips(
    router: Router, data: st.DataObject
) -> None:
    n = router.samples(HERE)
    drawn = data.draw(st.lists(keys, min_size=n, max_size=n))
    verdicts = [router.judge(HERE, votes(drawn[:i]), n - i) for i in range(n + 1)]
    final = verdicts[-1]
    assert final is not None
    first = next(i for i, verdict in enumerate(verdicts) if verdict is not None)
    assert verdicts[first:] == [final] * (n + 1 - first)
    assert final is Verdict.DEFER or any(drawn), "nothing can be accepted where no sample holds an action"


@given(thresholds, st.data())
def test_sampling_goes_on_only_while_both_verdicts_are_possible(
    router: AgreementThreshold, data: st.DataObject
) -> None:
    drawn = data.draw(st.lists(keys, max_size=router.n))
    assume(2 * router.needed > router.n)  # below, sampling also goes on while another action may overtake
    left = router.n - len(drawn)
    so_far = votes(drawn)
    top = so_far.top[0] if so_far.top else "a"
    ends = {router.judge(HERE, votes([*drawn, *[key] * left]), 0) for key in (top, None)}
    verdict = router.judge(HERE, so_far, left)
    assert ends == ({verdict} if verdict else {Verdict.ACCEPT, Verdict.DEFER})


@given(thresholds, st.data())
@settings(deadline=None)
def test_acceptance_is_the_share_of_all_samples_invalid_ones_included(
    router: AgreementThreshold, data: st.DataObject
) -> None:
    drawn = data.draw(st.lists(keys, min_size=router.n, max_size=router.n))
    most = max(drawn.count(k) for k in "abc")
    agree = most > 0 and most / router.n >= router.threshold - 1e-9
    assert router.judge(HERE, votes(drawn), 0) is (Verdict.ACCEPT if agree else Verdict.DEFER)


@given(routers, st.data())
@settings(deadline=None)
def test_waves_of_any_router_end_with_the_verdict_of_all_samples(router: Router, data: st.DataObject) -> None:
    n = router.samples(HERE)
    drawn = data.draw(st.lists(keys, min_size=n, max_size=n))
    taken, verdict = 0, router.judge(HERE, votes([]), n)
    while verdict is None:
        taken += next_wave(router, HERE, votes(drawn[:taken]), n - taken)
        assert taken <= n
        verdict = router.judge(HERE, votes(drawn[:taken]), n - taken)
    assert verdict is router.judge(HERE, votes(drawn), 0)


@pytest.mark.parametrize(
    ("n", "threshold", "needed"),
    [
        (3, 1.0, 3),
        (3, 2 / 3, 2),
        (3, 0.67, 3),
        (3, 1 / 3, 1),
        (10, 0.7, 7),
        (25, 7 / 25, 7),
        (1, 0.01, 1),
        (3, 1e-12, 1),
    ],
)
def test_the_votes_needed_are_the_share_rounded_up(n: int, threshold: float, needed: int) -> None:
    router = AgreementThreshold(n, threshold)
    accepted = [router.judge(HERE, votes([*["a"] * i, *[None] * (n - i)]), 0) is Verdict.ACCEPT for i in range(n + 1)]
    assert accepted == [i >= needed for i in range(n + 1)]


def test_unanimity_defers_at_the_first_dissent_and_accepts_only_at_the_end() -> None:
    router = Unanimity()
    assert router.samples(HERE) == 3
    assert router.judge(HERE, votes(["a", "a"]), 1) is None
    assert router.judge(HERE, votes(["a", "a", "a"]), 0) is Verdict.ACCEPT
    assert router.judge(HERE, votes(["a", "b"]), 1) is Verdict.DEFER
    assert router.judge(HERE, votes([None]), 2) is Verdict.DEFER


def test_a_random_mix_draws_by_seed_episode_and_step_alone() -> None:
    def draw(seed: int, episode: str, step: int, goal: str = "g") -> int:
        history = (Step(observation="o", action="a"),) * step
        return RandomMix(0.5, seed=seed).samples(Situation(goal=goal, episode=episode, history=history))

    base = [draw(0, "e", i) for i in range(64)]
    assert base == [draw(0, "e", i, goal="another") for i in range(64)]
    assert base != [draw(1, "e", i) for i in range(64)]
    assert base != [draw(0, "f", i) for i in range(64)]
    assert {RandomMix(0.0).samples(HERE), RandomMix(1.0).samples(HERE)} == {1, 0}


@pytest.mark.parametrize("name", ["teacher", "student", "random", "unanimity", "threshold"])
def test_every_router_is_registered_under_its_name(name: str) -> None:
    assert make_router(RouterConfig(name=name, options={"p": 0.5} if name == "random" else {})).name == name


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unanimity", {"n": 0}, r"router\.n is 0"),
        ("unanimity", {"n": 2.5}, r"router\.n is 2\.5"),
        ("threshold", {"threshold": 0}, r"router\.threshold is 0"),
        ("threshold", {"threshold": float("nan")}, r"router\.threshold is nan"),
        ("random", {"p": -0.1}, r"router\.p is -0\.1"),
        ("random", {"p": float("nan")}, r"router\.p is nan"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_router(RouterConfig(name=name, options=options))


@given(thresholds.filter(lambda r: 2 * r.needed > r.n), st.data())
def test_a_staged_step_is_decided_as_one_that_buys_all_samples_at_once(
    router: AgreementThreshold, data: st.DataObject
) -> None:
    """Where a majority is needed the action is the same too, not only who answers."""
    drawn = data.draw(st.lists(keys, min_size=router.n, max_size=router.n))
    texts = [f"Action: {key}" if key else "no idea" for key in drawn]

    async def step(staged: Literal["always", "never"]) -> Decision:
        student, teacher = ScriptedModel(texts, name="student"), ScriptedModel(["Action: ask"], name="teacher")
        config = CascadeConfig.load(sampling={"staged": staged})
        cascade = Cascade(
            StepContext(
                config=config,
                router=router,
                count=token_counter(),
                teacher=teacher,
                student=student,
                actions=RegexActions(),
            )
        )
        return (await cascade.step(TASK))[1]

    staged, at_once = asyncio.run(step("always")), asyncio.run(step("never"))
    assert (staged.answered_by, staged.action) == (at_once.answered_by, at_once.action)
    assert staged.samples <= at_once.samples == router.n


@given(st.integers(2, 9), st.floats(0.05, 0.5), st.lists(st.sampled_from("abc"), min_size=9, max_size=9))
def test_with_low_thresholds_too_staged_sampling_takes_the_action_that_all_at_once_takes(
    n: int, threshold: float, drawn: list[str]
) -> None:
    router = AgreementThreshold(n, threshold)
    taken = next(i for i in range(n + 1) if i and router.judge(HERE, votes(list(drawn[:i])), n - i) is not None)
    early, late = votes(list(drawn[:taken])), votes(list(drawn[:n]))
    if router.judge(HERE, late, 0) is Verdict.ACCEPT:
        assert early.top is not None
        assert late.top is not None
        assert early.top[0] == late.top[0]
