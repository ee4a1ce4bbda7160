"""Transcripts: windows say and cost what they do when each is rendered and counted by itself."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade._util.line_counter import LineCounter
from agentcascade._util.recent_cache import RecentCache
from agentcascade.bank.windows import cut_window
from agentcascade.models.tokens import _encoding, token_counter
from agentcascade.prompts import transcripts
from agentcascade.prompts.prompts import DEFAULT, UNQUOTED, Prompts
from agentcascade.prompts.transcripts import render_and_count, render_demonstration, render_step
from agentcascade.types import Demonstration, Step, Trajectory, Tried

PIECES = ["a", "Goal: b", "Observation:", "\nObservation:", "\n", "\r\n", " ", ".", "%", "%%", "%(steps)s", "$goal"]
PIECES += ["(", "(steps 1", "\n(steps", "#", "7", "é", "本", "\u2028", "\x85", "<|im_end|>", "\nAction: x", "it's"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)
STEPS = st.builds(Step, observation=TEXTS, reasoning=TEXTS | st.just(""), action=TEXTS)
OWN = {
    "another order": {"example": "$steps\nThat was $goal ($first of $length).", "step": "$observation\n- $action"},
    "steps by other words": {"step": "Saw: $observation\nDid: $action"},
    "said twice, 100%": {"example": "$goal is 100%% of $goal%\n$steps\n$steps"},
    "a line of its own": {"example": "$goal\n$plan\nSteps $first-$last, 50% of $$:\n$steps"},
    "no line": {"example": "$first) $goal: $plan\n$steps"},
}
PROMPTS = [DEFAULT, UNQUOTED, *(Prompts(DEFAULT.quoting, texts) for texts in OWN.values())]


def rendered_anew(window: Demonstration, prompts: Prompts) -> str:
    quote = prompts.quoting.text
    tried = {
        index: "; ".join(f"{t.action} → {t.result}" for t in window.tried if t.step == index)
        for index in range(window.start, window.start + len(window.steps))
    }
    return prompts.render(
        "example",
        goal=quote(window.goal),
        plan=quote(window.plan) if window.plan else "",
        first=str(window.start + 1),
        last=str(window.start + len(window.steps)),
        length=str(window.length),
        steps="\n".join(render_step(s, prompts, tried[i]) for i, s in enumerate(window.steps, window.start)),
    )


encoder = lru_cache(maxsize=1)(_encoding)


def counted_anew(text: str) -> int:
    return LineCounter(encoder("cl100k_base").encode_ordinary)(text)


@given(
    st.lists(STEPS, min_size=1, max_size=7),
    TEXTS,
    TEXTS | st.just(""),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=5),
    st.sampled_from(PROMPTS),
    st.data(),
)
def test_windows_say_and_cost_what_they_do_by_themselves(
    steps: list[Step],
    goal: str,
    plan: str,
    cuts: list[tuple[int, int, int]],
    prompts: Prompts,
    data: st.DataObject,
) -> None:
    count = token_counter()
    for _ in range(2):
        trajectory = Trajectory(id="t", goal=goal, plan=plan, steps=tuple(steps), success=True)
        for match, before, after in cuts:
            window = cut_window(trajectory, match % len(steps), 0.5, before=before, after=after)
            if data.draw(st.booleans()):
                tried = Tried(step=window.match, action=data.draw(TEXTS), result="%s")
                window = window.model_copy(update={"tried": (tried,)})
            text = rendered_anew(window, prompts)
            assert render_and_count(window, prompts, count) == (text, counted_anew(text))
            assert render_demonstration(window, prompts) == text
        index = data.draw(st.integers(0, len(steps) - 1))  # and after an edit of one step, under the same id
        steps = [*steps[:index], data.draw(STEPS), *steps[index + 1 :]]


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> RecentCache[tuple[Prompts, str], transcripts.Transcript]:
    """An empty memory of a megabyte."""
    empty = RecentCache(1 << 20, transcripts.TRANSCRIPTS._weigh)
    monkeypatch.setattr(transcripts, "TRANSCRIPTS", empty)
    return empty


ABOVE = [
    ("mug\nObservation: a goal that looks like a step", UNQUOTED),
    ("100 % of %(first)s", DEFAULT),
    ("a mug", Prompts(DEFAULT.quoting, {"example": "Step $first:\n(of $length: $goal)\n$steps"})),
    ("a mug", Prompts(DEFAULT.quoting, {"example": "$goal %(first)s\nStep $first, 5%:\n$steps"})),
    ("a mug", Prompts(DEFAULT.quoting, {"example": "$goal, step $first:\n(of $length)\n$steps"})),
    ("a mug", Prompts(DEFAULT.quoting, {"example": "Steps:\n($goal)\n$steps"})),
    ("a mug", Prompts(DEFAULT.quoting, {"example": "$goal\n\n$steps"})),
    ("a mug", Prompts(DEFAULT.quoting, {"example": "$goal\nObservation: $first\n$steps"})),
]


@pytest.mark.parametrize(("goal", "prompts"), ABOVE)
def test_lines_above_the_steps_are_counted_apart_only_where_they_can_be(goal: str, prompts: Prompts) -> None:
    trajectory = trajectory_of(6).model_copy(update={"goal": goal})
    for match in (1, 3, 5):
        window = cut_window(trajectory, match, 0.5, before=1, after=1)
        text = rendered_anew(window, prompts)
        assert render_and_count(window, prompts, token_counter()) == (text, counted_anew(text))


def trajectory_of(length: int, name: str = "t", words: str = "a mug") -> Trajectory:
    steps = tuple(Step(observation=f"{words} {i}", reasoning="on", action=f"go {i}") for i in range(length))
    return Trajectory(id=name, goal=f"goal of {name}", plan="look", steps=steps, success=True)


def test_a_window_of_steps_shown_before_renders_and_hashes_nothing(
    remembered: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, trajectory = token_counter(), trajectory_of(9)
    for match in (0, 3, 6):
        render_and_count(cut_window(trajectory, match, 0.5, before=0, after=2), DEFAULT, count)
    window = cut_window(trajectory, 4, 0.5, before=2, after=2)
    text = rendered_anew(window, DEFAULT)
    monkeypatch.setattr(transcripts, "render_step", None)
    assert render_and_count(window, DEFAULT, count) == (text, counted_anew(text))
    read_anew = Trajectory.model_validate(trajectory.model_dump())
    again = cut_window(read_anew, 4, 0.5, before=2, after=2)
    assert again.steps[0] is not window.steps[0]
    assert render_and_count(again, DEFAULT, count) == (text, counted_anew(text))


def test_two_trajectories_of_one_id_do_not_mix(remembered: object) -> None:
    count, mugs, pens = token_counter(), trajectory_of(5), trajectory_of(5, words="a pen")
    elsewhere, otherwise = (mugs.model_copy(update={name: "another"}) for name in ("goal", "plan"))
    for trajectory, match in [
        *((mugs, 1), (pens, 2), (mugs, 3), (mugs, 0), (pens, 4), (pens, 0), (mugs, 2)),
        *((elsewhere, 2), (mugs, 2), (otherwise, 2)),
    ]:
        window = cut_window(trajectory, match, 0.5, before=1, after=1)
        text = rendered_anew(window, DEFAULT)
        assert render_and_count(window, DEFAULT, count) == (text, counted_anew(text))


def test_a_counter_of_ones_own_counts_whole_texts(remembered: object) -> None:
    window, asked = cut_window(trajectory_of(5), 2, 0.5, before=2, after=2), []

    def words(text: str) -> int:
        asked.append(text)
        return len(text.split())

    text, tokens = render_and_count(window, DEFAULT, words)
    assert (asked, tokens) == ([text], len(text.split()))
    assert render_and_count(window, DEFAULT, token_counter())[1] == counted_anew(text)


@pytest.mark.parametrize(
    "changed",
    [{"length": 6_000}, {"length": 2}, {"start": 10**9, "length": 10**9}, {"steps": ()}, {"goal": "g" * 30_000}],
)
def test_what_fits_no_transcript_is_rendered_by_itself(
    changed: dict[str, object], remembered: RecentCache[tuple[Prompts, str], transcripts.Transcript]
) -> None:
    window = cut_window(trajectory_of(5), 2, 0.5, before=2, after=2).model_copy(update=changed)
    text = rendered_anew(window, DEFAULT)
    assert render_and_count(window, DEFAULT, token_counter()) == (text, counted_anew(text))
    assert not remembered._young


def test_what_is_remembered_is_bounded_with_what_a_template_leaves_out(
    remembered: RecentCache[tuple[Prompts, str], transcripts.Transcript],
) -> None:
    short = Prompts(DEFAULT.quoting, {"step": "$observation: $action"})
    for i in range(400):
        words = f"{i} thinks " * (9_000 if i % 7 == 0 else 300)
        steps = tuple(Step(observation=f"see {j}", reasoning=words, action="act") for j in range(4))
        trajectory = Trajectory(id=f"t{i}", goal="look", steps=steps, success=True)
        for match in range(4):
            window = cut_window(trajectory, match, 0.5, before=0, after=0)
            assert render_and_count(window, short, token_counter())[0].endswith(f"\nsee {match}: act")
    held = {**remembered._young, **remembered._old}
    kept = [step for transcript in held.values() for step in transcript.steps if step is not None]
    assert 100 < sum(len(step.reasoning) for step in kept) < 2 << 20
    assert all(len(step.reasoning) < transcripts.REMEMBERED for step in kept)


def test_a_window_is_the_demonstration_that_its_fields_make() -> None:
    trajectory = trajectory_of(9)
    window = cut_window(trajectory, 1, 0.25, before=2, after=3)
    checked = Demonstration(
        trajectory="t",
        goal="goal of t",
        plan="look",
        steps=trajectory.steps[:5],
        start=0,
        match=1,
        length=9,
        score=0.25,
    )
    assert window == checked
    assert (window.model_dump(), window.model_fields_set) == (checked.model_dump(), checked.model_fields_set)
    assert window.model_dump(exclude_unset=True) == checked.model_dump(exclude_unset=True)
    assert (hash(window), repr(window), window.model_copy()) == (hash(checked), repr(checked), checked)
    assert Demonstration.model_validate_json(window.model_dump_json()) == window
    other = cut_window(trajectory, 1, 0.25, before=2, after=3)
    window.model_fields_set.add("tried")
    assert "tried" not in other.model_fields_set
