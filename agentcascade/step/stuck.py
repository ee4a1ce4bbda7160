"""Signals that a run is stuck: repeated action, error observation, nothing new, over plan, false "done", long silence.

Each is a number read off the steps so far, so it can be computed of any log. While one of them says so, the teacher
takes the steps (`router.stuck`): no sample is drawn. After at least `hold` of them, as soon as something new is seen,
or after `most`, the student has its turn again, and signals are counted from there.

That what is uncertain at one step makes the steps after it so, and what to spend is decided step by step, is from Lin
et al. 2025, "Plan and Budget" (section 3); there it is the uncertainty of an answer's reasoning, here that of a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from agentcascade._util import bounds
from agentcascade._util.line_counter import text_fingerprint
from agentcascade.actions.base import folded_text
from agentcascade.config.stuck import StuckConfig
from agentcascade.types import Situation, Step

Signal = Literal["repeated", "errors", "nothing_new", "over_plan", "false_done", "silence"]
SIGNALS: tuple[Signal, ...] = get_args(Signal)

LONGEST = 10_000
"""Characters at either end of a text by which texts are told apart."""
LOOKED_AT = 400
"""Characters at either end of a text in which phrases are looked for."""
LINES = 200
"""Of an observation, which are new one by one; what is behind them is as one."""
PERIOD = 8
"""Actions in the longest circle that is seen."""
BLANK = frozenset((text_fingerprint(""),))
PART = 200
"""Steps after which a run is read anew, as if it began there."""


class Event(NamedTuple):
    """What signals need to know of a step: the action before it, and the observation that it begins with."""

    action: int | None
    """Hash of the action before; None where there was none"""
    lines: frozenset[int]
    """Hashes of the observation's lines"""
    error: bool
    silent: bool
    done: bool
    """Whether the agent had said that it is finished"""


class Values(NamedTuple):
    """The signals as a step begins, counted since the student had its turn again."""

    repeated: int = 0
    errors: int = 0
    nothing_new: int = 0
    over_plan: float = 0.0
    false_done: int = 0
    silence: int = 0


class Stuck(NamedTuple):
    """Why the teacher takes a step of a run that is stuck."""

    signal: Signal
    value: float
    """When it was noticed"""
    since: int
    """Step at which it was noticed"""

    def __str__(self) -> str:
        return f"stuck since step {self.since}: {self.signal} {self.value:g}"


class Watch:
    """Follows one run: `observe` its events in order, and it says of each step whether the run is stuck.

    Args:
        settings: Of the signals.
        plan: Lines of the episode's plan; 0 where it has none.
        start: Step of the first event.
    """

    def __init__(self, settings: StuckConfig, plan: int = 0, start: int = 0) -> None:
        self._settings, self._plan, self._step = settings, plan, start - 1
        self._seen: set[int] = set()
        self._turn(start)
        self.stuck: Stuck | None = None

    def _turn(self, step: int) -> None:
        """The student has its turn from this step on."""
        self._from = step
        self._actions: list[int] = []
        self.values = Values()

    def observe(self, event: Event) -> Stuck | None:
        """Why the teacher is to take the step that begins with `event`; None where the student has its turn."""
        self._step += 1
        new = not event.error and not event.silent and not event.lines <= self._seen
        self._seen |= event.lines
        if self.stuck is not None:
            held = self._step - self.stuck.since
            if held >= self._settings.most or (held >= self._settings.hold and new):
                self.stuck = None
                self._turn(self._step)
            return self.stuck
        if event.action is None:
            return None
        self._actions.append(event.action)
        before, repeated = self.values, circles(self._actions)
        if repeated and new:  # who asks how far it is, and is told something else each time, is not stuck
            self._actions, repeated = [], 0
        self.values = Values(
            repeated=repeated,
            errors=before.errors + 1 if event.error else 0,
            nothing_new=0 if new else before.nothing_new + 1,
            over_plan=(self._step - self._from) / self._plan if self._plan else 0.0,
            false_done=before.false_done + event.done,
            silence=before.silence + 1 if event.silent else 0,
        )
        for signal in SIGNALS:
            value, enough = getattr(self.values, signal), getattr(self._settings, signal)
            if enough is not None and value >= enough:
                self.stuck = Stuck(signal, value, self._step)
                break
        return self.stuck


def circles(actions: list[int]) -> int:
    """How many times over the last actions, up to `PERIOD` of them, are the same as those before.

    >>> circles([1, 2, 1, 2]), circles([1, 2, 3, 2]), circles([4, 4, 4]), circles([1, 2, 3])
    (1, 0, 2, 0)
    """
    most = 0
    for period in range(1, min(PERIOD, len(actions) // 2) + 1):
        same = 0
        while same + period < len(actions) and actions[-1 - same] == actions[-1 - same - period]:
            same += 1
        most = max(most, same // period)
    return most


def find_stuck(settings: StuckConfig, situation: Situation) -> Stuck | None:
    """Why the teacher is to take the step of `situation`, by the steps before it; None where the student is asked."""
    start = situation.step // PART * PART
    plan = sum(bool(line.strip()) for line in situation.plan[:LONGEST].splitlines())
    watch, last = Watch(settings, plan, start), Step(observation=situation.observation, action="")
    for event in events((*situation.history[start:], last), settings):
        watch.observe(event)
    return watch.stuck


async def find_stuck_off_loop(settings: StuckConfig, situation: Situation) -> Stuck | None:
    """`find_stuck`, in a thread where the steps so far are long."""
    recent = situation.history[situation.step // PART * PART :]
    size = sum(len(step.observation) + len(step.action) + len(step.reasoning) for step in recent)
    return await bounds.off_loop(size > bounds.AT_ONCE, find_stuck, settings, situation)


def events(steps: Iterable[Step], settings: StuckConfig) -> Iterator[Event]:
    """The events of a run that begins with the first of `steps`; the last step's action may be missing."""
    before: Step | None = None
    for step in steps:
        yield event(before, step.observation, settings)
        before = step


def event(before: Step | None, observation: str, settings: StuckConfig) -> Event:
    """What an observation says, and what the step `before` it did. Bounded in time, however long the texts are."""
    said = _cut(observation, LONGEST).casefold()
    lines = map(str.strip, said.split("\n", LINES))
    return Event(
        action=None if before is None else text_fingerprint(folded_text(_cut(before.action, LONGEST))),
        lines=frozenset(map(text_fingerprint, lines)) - BLANK,
        error=before is not None and _has(said, settings.error_phrases),
        silent=not said or said.isspace() or said.strip() in settings.empty,
        done=before is not None and settings.false_done is not None and _is_done(before, settings),
    )


def _is_done(step: Step, settings: StuckConfig) -> bool:
    word = step.action[:LOOKED_AT].casefold().split("(", 1)[0].split("[", 1)[0].split(None, 1)
    if word and word[0].strip(".:!") in settings.done_actions:
        return True
    return any(_has(text.casefold(), settings.done_phrases) for text in (step.action, _cut(step.reasoning, LONGEST)))


def _has(text: str, phrases: tuple[str, ...]) -> bool:
    ends = _cut(text, LOOKED_AT)
    return any(phrase in ends for phrase in phrases)


def _cut(text: str, most: int) -> str:
    """`text`, or so many characters of its beginning and of its end, and its length."""
    return text if len(text) <= 2 * most else f"{text[:most]}\n{len(text)}\n{text[-most:]}"
