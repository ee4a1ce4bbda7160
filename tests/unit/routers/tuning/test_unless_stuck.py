"""Rule family `signals`: what `router.stuck` leaves to the teacher, replayed and certified on a log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.config.load import CascadeConfig
from agentcascade.config.stuck import StuckConfig
from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.routers.tuning.certification import certificate
from agentcascade.routers.tuning.columns import chain, columns
from agentcascade.routers.tuning.committees import Committee, committee
from agentcascade.routers.tuning.families import Votes, committees
from agentcascade.routers.tuning.fragments import dump, fragment, read
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.risks import Risk
from agentcascade.routers.tuning.rules import Chain, Scored, Threshold
from agentcascade.routers.tuning.tuner import Settings, tune
from agentcascade.routers.tuning.unless_stuck import UnlessStuck
from agentcascade.step.stuck import find_stuck
from agentcascade.steplog import jsonl
from agentcascade.steplog.types import LoggedStep
from agentcascade.types import Situation, Step


def run(episode: str, *steps: tuple[str, str], students: int = 1) -> list[LoggedStep]:
    """An episode of (observation, the teacher's action), at which every sample says what the teacher does."""
    logged = []
    for i, (observation, action) in enumerate(steps):
        asked = {f"s{k}": [action] * 3 for k in range(students)}
        line = {"id": f"{episode}-{i}", "episode": episode, "step": i, "observation": observation, "student": asked}
        logged.append(jsonl.parse_line(line | {"teacher": action, "gold": action}))
    return logged


def circle(episode: str, rounds: int = 3, students: int = 1) -> list[LoggedStep]:
    return run(episode, *[("A desk.", "go to desk 1"), ("A lamp.", "go to desk 2")] * rounds, students=students)


def search(episode: str, length: int = 6, students: int = 1) -> list[LoggedStep]:
    return run(episode, *[(f"Drawer {i}.", f"open drawer {i}") for i in range(length)], students=students)


RULE = UnlessStuck(Threshold(3, 3))
TEXTS = st.sampled_from(["", "[]", "Error: no", "a", "b", "a\nb"])
ACTIONS = st.sampled_from(["go", "Go ", "look", "submit", "take(1)"])
EPISODES = st.lists(st.lists(st.tuples(TEXTS, ACTIONS), min_size=1, max_size=9), min_size=1, max_size=4)
NUMBERS = st.one_of(st.none(), st.integers(1, 2))


@settings(max_examples=30, deadline=None)
@given(EPISODES, NUMBERS, NUMBERS, NUMBERS, st.randoms())
def test_a_replayed_run_is_stuck_where_the_cascade_would_find_it_so(episodes, repeated, errors, nothing_new, random):
    config = StuckConfig(repeated=repeated, errors=errors, nothing_new=nothing_new, silence=2, hold=2, most=3)
    log = [step for i, steps in enumerate(episodes) for step in run(str(i), *steps)]
    live = {
        (str(e), i): find_stuck(
            config,
            Situation(
                goal="",
                history=tuple(Step(observation=o, action=a) for o, a in steps[:i]),
                observation=steps[i][0],
            ),
        )
        for e, steps in enumerate(episodes)
        for i in range(len(steps))
    }
    random.shuffle(log)
    replayed = columns(log)
    assert replayed.runs is not None
    taken = UnlessStuck(Threshold(3, 3), config).on(replayed).taken
    rows = [(c.partition("/")[2], int(s)) for c, s in zip(replayed.runs.clusters, replayed.runs.steps)]
    assert [live[row] is None for row in rows] == taken.tolist()
    some = replayed.take(taken)
    assert UnlessStuck(Threshold(3, 3), config).on(some).taken.all()


def test_the_student_is_neither_taken_nor_paid_for_in_a_stuck_run() -> None:
    log = columns([*circle("a"), *search("b")])
    watched, plain = replay(log, RULE), replay(log, Threshold(3, 3))
    assert (plain.acceptance, watched.acceptance) == (1.0, 10 / 12)
    assert watched.cost == pytest.approx((10 * 0.06 + 2) / 12)
    assert watched.risks["wrong"] == 0.0


def test_steps_without_the_label_are_of_the_run_all_the_same() -> None:
    steps = circle("a")
    steps = [s.model_copy(update={"gold": None}) if s.step == 1 else s for s in steps] + search("b", 20)
    settings = Settings(max_risk=0.2, rules=("signals",), sizes=(3,), risk=Risk("wrong"))
    by_name = {c.rule.name: c.replayed.acceptance for c in tune(steps, settings).candidates}
    assert by_name["3 of 3, unless stuck"] == 23 / 25


def test_a_log_with_gaps_is_refused() -> None:
    steps = [s for s in circle("a") if s.step != 2]
    with pytest.raises(InvalidRequest, match=r"'default/a' has step 5 but not 2: log with shadow.rate 1"):
        RULE.on(columns(steps))
    with pytest.raises(InvalidRequest, match="no step of 'default/a' has the teacher's"):
        RULE.on(columns([s.model_copy(update={"teacher": None}) for s in circle("a")]))
    with pytest.raises(InvalidRequest, match="over_plan cannot be read off a log"):
        UnlessStuck(Threshold(3, 3), StuckConfig(over_plan=2)).on(columns(circle("a")))


def test_it_is_certified_and_configured_like_any_rule(tmp_path: Path) -> None:
    steps = [step for i in range(40) for step in (*search(f"s{i}"), *circle(f"c{i}"))]
    settings = Settings(max_risk=0.1, rules=("signals",), sizes=(3,), risk=Risk("teacher-disagreement"))
    tuned = tune(steps, settings)
    assert tuned.chosen is not None
    assert isinstance(tuned.chosen.rule, UnlessStuck)
    proof = certificate(tuned)
    assert proof["method"]["families"] == ["signals"]
    assert any(assumption.startswith("signals were read off") for assumption in proof["assumptions"])
    path = tmp_path / "rule.yaml"
    path.write_text(dump(proof["rule"], "tuned"), encoding="utf-8")
    assert read(path) == tuned.chosen.rule
    assert CascadeConfig.load(path).router.stuck == StuckConfig()


@pytest.mark.parametrize(
    "rule",
    [
        UnlessStuck(Threshold(3, 2), StuckConfig(errors=None, hold=5, error_phrases=("oh no",))),
        UnlessStuck(Chain((Threshold(3, 3), Threshold(3, 2)))),
        UnlessStuck(committees(["s0", "s1"], [1])[0][0]),
        UnlessStuck(Scored(Votes("margin", 3), 0.5)),
    ],
    ids=lambda rule: rule.name[:20],
)
def test_it_is_around_any_rule(rule: UnlessStuck, tmp_path: Path) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text(dump(fragment(rule), "a rule"), encoding="utf-8")
    again = read(path)
    assert (again, again.router) == (rule, rule.router)
    steps = [*circle("a", students=2), *search("b", students=2)]
    makers = {Chain: chain, Committee: committee}
    log = makers.get(type(rule.rule), columns)(steps)
    assert replay(log, rule).acceptance == 10 / 12


def test_wrong_settings_of_a_rule_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text("router: {name: unanimity, stuck: {hold: 0}}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rule.yaml: router.stuck.hold: "):
        read(path)
