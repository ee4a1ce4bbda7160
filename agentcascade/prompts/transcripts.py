"""Transcripts: steps of trajectories as demonstrations show them, each rendered and its tokens counted once.

A window of a trajectory is a part of its transcript, and has the tokens of its steps. Transcripts are found by the
trajectory's id and go by its steps themselves: where a trajectory was edited or redacted, or another has its id, a new
one takes its place. A template of one's own is honoured; where steps and what is above them do not begin as lines whose
tokens can be counted apart, the tokens of the whole window are counted.
"""

from __future__ import annotations

import re
from array import array
from functools import lru_cache
from operator import is_
from sys import getsizeof

from agentcascade._util import forking
from agentcascade._util.line_counter import LINE_START, STEP, LineCounter
from agentcascade._util.recent_cache import RecentCache
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.protocols import TokenCounter
from agentcascade.types import Demonstration, Step

REMEMBERED = 20_000
"""Characters of the longest step that is kept, its parts and its text together, and of a goal with its plan."""
STEPS = 5_000
"""Of the longest trajectory that has a transcript."""
ALONE, EACH = 1_000, 24
"""Bytes of a transcript without its texts, and of a place for a step in it."""
OBJECTS = 400
"""Bytes of a step without its texts."""
FIELD = re.compile(r"%\((\w+)\)s")
WHOSE, WHICH = frozenset(("goal", "plan")), frozenset(("first", "last", "length"))
STEPS_BEHIND = "\n%(steps)s"
"""End of a form whose last lines are the steps."""

_lock = forking.lock()


def render_step(step: Step, prompts: Prompts = DEFAULT, tried: str = "") -> str:
    """A step of a demonstration; `tried` is what was tried in vain in its situation."""
    quote = prompts.quoting.text
    return prompts.render(
        "step",
        observation=quote(step.observation),
        reasoning=quote(step.reasoning) if step.reasoning else "",
        action=quote(step.action),
        tried=quote(tried) if tried else "",
    )


class Transcript:
    """Of one trajectory, for some prompts and a counter: what was shown of it so far."""

    __slots__ = (
        "counter",
        "goal",
        "head",
        "head_tokens",
        "last",
        "line",
        "plan",
        "quoted",
        "steps",
        "texts",
        "tokens",
        "weight",
    )

    def __init__(self, shown: Demonstration, prompts: Prompts, counter: LineCounter | None) -> None:
        self.goal, self.plan, self.counter = shown.goal, shown.plan, counter
        self.quoted = _quoted(shown, prompts)
        self.steps: list[Step | None] = [None] * shown.length
        """Written last, so that who finds its step here finds the rest."""
        self.texts = [""] * shown.length
        self.tokens = array("q", [0]) * (shown.length if counter else 0)
        """Of each step with the end of its line."""
        self.last = self.tokens[:]
        """Without it, as the last step of a window stands."""
        head, self.line = _lines_above(prompts, bool(self.quoted["plan"])) if counter else ("", "")
        """The last line above the steps as the left side of ``%``; none where all is counted anew."""
        self.head = head % self.quoted
        """Lines above that one."""
        self.head_tokens = counter.of_lines(self.head) if counter else 0
        self.weight: int = (
            ALONE + EACH * shown.length + sum(map(getsizeof, (self.goal, self.plan, *self.quoted.values(), self.head)))
        )

    def is_for(self, shown: Demonstration, counter: LineCounter | None) -> bool:
        """Whether it is a transcript of the same trajectory, as far as that can be told without its steps."""
        return (
            self.goal == shown.goal
            and self.plan == shown.plan
            and len(self.steps) == shown.length
            and (counter is None or counter is self.counter)
        )

    def add(self, shown: Demonstration, prompts: Prompts) -> bool:
        """Take in the steps that were not shown before; False where it holds others in their places."""
        for index, step in enumerate(shown.steps, shown.start):
            if self.steps[index] is None:
                self._put(index, step, prompts)
            held = self.steps[index]
            if held is not step:
                if held != step:
                    return False
                self.steps[index] = step  # the trajectory was read anew
        return True

    def _put(self, index: int, step: Step, prompts: Prompts) -> None:
        text = render_step(step, prompts)
        tokens, with_end = self.counter.of_step(text) if self.counter and text.startswith(STEP) else (0, 0)
        with _lock:
            if self.steps[index] is None:
                self.texts[index] = text
                if self.counter:
                    self.last[index], self.tokens[index] = tokens, with_end
                    if not text.startswith(STEP):
                        self.line = ""
                self.steps[index] = step
                weight = OBJECTS + sum(map(getsizeof, (text, step.observation, step.reasoning, step.action)))
                self.weight += weight
                TRANSCRIPTS.grew(weight)


BYTES = 112 << 20
"""Of a generation: a bank of 100,000 short steps fits in. Two thirds are the steps themselves, which it holds, too."""
TRANSCRIPTS: RecentCache[tuple[Prompts, str], Transcript] = RecentCache(BYTES, lambda _, transcript: transcript.weight)
"""By the ids of their trajectories: an episode's demonstrations are shown at every step, a bank's in many episodes."""


def render_demonstration(demonstration: Demonstration, prompts: Prompts = DEFAULT) -> str:
    """What stands under a heading; says which steps of how many it shows."""
    return _text(demonstration, prompts, _transcript(demonstration, prompts, None))


def render_and_count(demonstration: Demonstration, prompts: Prompts, count: TokenCounter) -> tuple[str, int]:
    """The same, and its tokens as `count` counts them."""
    counter = count if isinstance(count, LineCounter) else None
    transcript = _transcript(demonstration, prompts, counter)
    if counter is None or transcript is None or not transcript.line or demonstration.tried:
        text = _text(demonstration, prompts, transcript)
        return text, count(text)
    first, last = demonstration.start, demonstration.start + len(demonstration.steps) - 1
    line, tokens = _line(transcript.line, first + 1, last + 1, demonstration.length, counter)
    text = f"{transcript.head}{line}" + "\n".join(transcript.texts[first : last + 1])
    return text, transcript.head_tokens + tokens + sum(transcript.tokens[first:last]) + transcript.last[last]


def _transcript(shown: Demonstration, prompts: Prompts, counter: LineCounter | None) -> Transcript | None:
    """That holds the steps shown; None where they, or the trajectory, are too long to be kept."""
    start, steps = shown.start, shown.steps
    end = start + len(steps)
    if not start < end <= shown.length <= STEPS:
        return None
    transcript = TRANSCRIPTS.get(key := (prompts, shown.trajectory))
    if transcript is not None and transcript.is_for(shown, counter):
        if all(map(is_, transcript.steps[start:end], steps)):
            return transcript
    else:
        transcript = None
    if len(shown.goal) + len(shown.plan) > REMEMBERED or any(map(_is_long, steps)):
        return None
    if transcript is None or not transcript.add(shown, prompts):
        transcript = Transcript(shown, prompts, counter)
        TRANSCRIPTS.put(key, transcript)
        if not transcript.add(shown, prompts):  # another thread was quicker, with other steps
            return None
    return transcript


def _is_long(step: Step) -> bool:
    return len(step.observation) + len(step.reasoning) + len(step.action) > REMEMBERED // 2


def _text(shown: Demonstration, prompts: Prompts, transcript: Transcript | None) -> str:
    if transcript is None:
        texts = [render_step(step, prompts) for step in shown.steps]
    else:
        texts = transcript.texts[shown.start : shown.start + len(shown.steps)]
    for index in {tried.step - shown.start for tried in shown.tried}:
        if 0 <= index < len(texts):
            texts[index] = render_step(shown.steps[index], prompts, _tried(shown, index + shown.start))
    quoted = _quoted(shown, prompts) if transcript is None else transcript.quoted
    return prompts.render(
        "example",
        **quoted,
        first=str(shown.start + 1),
        last=str(shown.start + len(shown.steps)),
        length=str(shown.length),
        steps="\n".join(texts),
    )


def _tried(shown: Demonstration, index: int) -> str:
    return "; ".join(f"{t.action} → {t.result}" for t in shown.tried if t.step == index)


def _quoted(shown: Demonstration, prompts: Prompts) -> dict[str, str]:
    quote = prompts.quoting.text
    return {"goal": quote(shown.goal), "plan": quote(shown.plan) if shown.plan else ""}


@lru_cache(maxsize=64)
def _lines_above(prompts: Prompts, has_plan: bool) -> tuple[str, str]:
    """What stands above the steps, and its last line, as left sides of ``%``: lines whose tokens are counted apart.

    No line where they cannot be: where the steps do not stand last, or the line above does not say alone which they
    are, or does not begin as one that is counted apart.
    """
    form = prompts.templates["example"].form(plan="some" if has_plan else "")
    lead = form.removesuffix(STEPS_BEHIND)
    head, end, line = lead.rpartition("\n")
    if lead == form or not LINE_START.match(f"\n{line}") or _fields(head) - WHOSE or _fields(line) - WHICH:
        return "", ""
    return f"{head}{end}", f"{line}\n"


def _fields(form: str) -> set[str]:
    return set(FIELD.findall(form.replace("%%", "")))


@lru_cache(maxsize=4096)
def _line(form: str, first: int, last: int, length: int, counter: LineCounter) -> tuple[str, int]:
    """The last line above the steps with its end, and its tokens."""
    line = form % {"first": first, "last": last, "length": length}
    return line, counter.of_lines(line)
