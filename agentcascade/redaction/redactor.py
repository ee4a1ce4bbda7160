"""Redaction of texts before anything is stored: keys, e-mail addresses, phone numbers, the user's own patterns.

Placeholders are stable, so two actions that differ in such a value alone become one in the records. The answers that an
agent gets are never touched.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

from agentcascade._util import known_secrets, secret_patterns
from agentcascade._util.bounds import Pattern
from agentcascade.errors import ConfigError
from agentcascade.redaction.presidio import presidio_hook
from agentcascade.types import Call, Decision, Draft, EpisodeEnd, Frozen, Outcome, Recall, Shadow, Trajectory

F = TypeVar("F", bound=Frozen)
log = logging.getLogger("agentcascade.redaction")

QUICK_CHARACTERS = 8_000


class Redactor:
    """Replaces what must not be stored by ``[key]``, ``[email]``, ``[phone]`` or the name of a pattern.

    Redacting a second time changes nothing, as far as hooks and lookarounds in patterns do not. A pattern that takes
    too long on a text raises `OutOfBounds`: `RedactingRecorder` withholds that text.

    Args:
        keys: Whether keys, passwords and tokens are replaced, by form and by value.
        emails: Whether e-mail addresses are replaced.
        phones: Whether phone numbers are replaced.
        patterns: Name → regular expression in Python's syntax, replaced by the name in brackets; they go first.
        presidio: Whether `presidio_hook` is one of the hooks.
        hooks: Functions from a text to a redacted text; they go last, in this order.

    Raises:
        ConfigError: For a pattern that does not compile, or whose name cannot stand in brackets.
        MissingExtra: For `presidio` without presidio-analyzer.

    >>> redactor = Redactor(patterns={"ticket": r"TCK-[0-9]+"})
    >>> redactor.text("ada@example.com asks for TCK-1234 with password=hunter22")
    '[email] asks for [ticket] with password=[key]'
    >>> redactor.value({"password": "hunter22", "room": "4"})
    {'password': '[key]', 'room': '4'}
    """

    def __init__(
        self,
        *,
        keys: bool = True,
        emails: bool = True,
        phones: bool = True,
        patterns: Mapping[str, str] | None = None,
        presidio: bool = False,
        hooks: Sequence[Callable[[str], str]] = (),
    ) -> None:
        self._own = [(f"[{name}]", _compiled(name, pattern)) for name, pattern in (patterns or {}).items()]
        self._keys = keys
        self._emails = emails
        self._phones = phones
        self._hooks = [*hooks, *([presidio_hook()] if presidio else [])]
        names = "|".join(re.escape(placeholder) for placeholder, _ in self._own)
        self._placeholders = re.compile(rf"\[(?:key|email|phone)\]{'|' + names if names else ''}")

    def is_quick(self, item: Frozen) -> bool:
        """Whether the record is redacted in less time than handing it to another thread would take."""
        characters = sum(map(len, _texts(item))) if isinstance(item, Decision) else _characters(item)
        return not self._hooks and characters <= QUICK_CHARACTERS

    def is_clean(self, texts: Sequence[str]) -> bool:
        """Whether it is known, by one pass over all of them, that `text` changes none of several short texts.

        None of our own patterns finds less in a text for the line ends around it; those of the user may.
        """
        if self._own or self._hooks:
            return False
        together = "\n".join(texts)
        return self.text(together) == together

    def text(self, text: str) -> str:
        """A text with placeholders for what must not be stored.

        Args:
            text: Any text, of any length.

        Raises:
            OutOfBounds: When one of `patterns` takes longer than 0.1 s.
            Exception: Whatever a hook raises.
        """
        for placeholder, pattern in self._own:
            text = self._replaced(text, pattern, placeholder)
        if self._keys:
            text = secret_patterns.replace_secrets(known_secrets.hide(text), secret_patterns.KEYS)
        if self._emails:
            text = secret_patterns.replace_emails(text)
        if self._phones:
            text = secret_patterns.replace_secrets(text, secret_patterns.PHONES)
        for hook in self._hooks:
            text = hook(text)
        return text

    def _replaced(self, text: str, pattern: Pattern, placeholder: str) -> str:
        """Whatever `pattern` finds outside placeholders, and is not empty."""
        spans = deque(m.span() for m in self._placeholders.finditer(text))

        def put(match: Any) -> str:
            start, end = match.span()
            while spans and spans[0][1] <= start:
                spans.popleft()
            same = start == end or (spans and spans[0][0] < end)
            return str(match[0]) if same else placeholder

        return pattern.sub(put, text)

    def value(self, value: Any) -> Any:
        """A value with every text in it redacted.

        Args:
            value: A text, or lists, tuples and mappings of such, keys included; anything else stays as it is. A text
                under a key such as ``password`` is replaced as a whole.

        Raises:
            Exception: As `text` does.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(k): "[key]" if self.hides(k, v) else self.value(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self.value(v) for v in value]
            return items if isinstance(value, list) else tuple(items)
        return value

    def hides(self, key: object, value: object) -> bool:
        """Whether `value` is a secret by the name of its key alone."""
        named = self._keys and isinstance(key, str) and isinstance(value, str) and value != ""
        return named and secret_patterns.SECRET_FIELD.fullmatch(str(key)[:100]) is not None

    def decision(self, decision: Decision) -> Decision:
        """A record with its texts redacted, as the methods below; votes for actions that become one are added up."""
        if len(decision.goal) <= 300 and self.is_clean(_texts(decision)):
            return decision
        changed = {
            "votes": self._votes(decision.votes),
            "struck": self._votes(decision.struck),
            "goal": self.text(decision.goal)[:300],
        }  # a column of 300 characters
        return self._with(decision, "action", "reason", "failures").model_copy(update=changed)

    def _votes(self, votes: Mapping[str, int]) -> dict[str, int]:
        redacted: dict[str, int] = {}
        for key, count in votes.items():
            key = self.text(key)
            redacted[key] = redacted.get(key, 0) + count
        return redacted

    def outcome(self, outcome: Outcome) -> Outcome:
        """The outcome of an action with its texts redacted."""
        return self._with(outcome, "goal", "observation", "before", "action", "result")

    def shadow(self, shadow: Shadow) -> Shadow:
        """The shadow with the texts of step and samples redacted."""
        samples = tuple(self._with(s, "action", "text", "invalid") for s in shadow.samples)
        return self._with(shadow, "goal", "observation", "teacher_action", "gold", "failures").model_copy(
            update={"samples": samples}
        )

    def draft(self, draft: Draft) -> Draft:
        """The draft of a step with its texts redacted."""
        return self._with(draft, "goal", "plan", "observation", "reasoning", "action")

    def end(self, end: EpisodeEnd) -> EpisodeEnd:
        """The end of an episode with goal and plan redacted."""
        return self._with(end, "goal", "plan")

    def recall(self, recall: Recall) -> Recall:
        """The recall with question, text and failures redacted."""
        runs = tuple(self._with(r, "failures") for r in recall.runs)
        return self._with(recall, "question", "text", "left_out").model_copy(update={"runs": runs})

    def trajectory(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory with goal, plan, steps and metadata redacted; its episode's id stays."""
        steps = tuple(self._with(s, "observation", "reasoning", "action") for s in trajectory.steps)
        redacted = self.value(trajectory.metadata)
        if "episode" in trajectory.metadata:  # an id, by which an episode is banked once
            redacted["episode"] = trajectory.metadata["episode"]
        return self._with(trajectory, "goal", "plan").model_copy(update={"steps": steps, "metadata": redacted})

    def _with(self, item: F, *fields: str) -> F:
        """A copy with these fields redacted; the item itself where nothing changes."""
        changed = {}
        for name in fields:
            before = getattr(item, name)
            after = self.value(before) if before else before
            if after != before:
                changed[name] = after
        return item.model_copy(update=changed) if changed else item


def _texts(decision: Decision) -> list[str]:
    """The texts of a decision that are redacted."""
    others = *decision.failures, *decision.votes, *decision.struck
    return [decision.goal, decision.action or "", decision.reason, *others]


def _characters(value: Any) -> int:
    """Of all texts in a record, as far as a few of its levels go; of calls there are many, and none holds a text."""
    if isinstance(value, str):
        return len(value)
    if value is None or isinstance(value, _WITHOUT_TEXT):
        return 0
    if isinstance(value, Frozen):
        value = tuple(value.__dict__.values())
    elif isinstance(value, Mapping):
        value = (*value.keys(), *value.values())
    return sum(map(_characters, value)) if isinstance(value, (list, tuple)) else 0


_WITHOUT_TEXT = (int, float, Decimal, datetime, Call)


def _compiled(name: str, pattern: str) -> Pattern:
    if not re.fullmatch(r"[\w .-]{1,60}", name):
        raise ConfigError(f"redaction.patterns: {name!r} cannot name a placeholder: use letters, digits, '_', '-', '.'")
    try:
        return Pattern(pattern)
    except ValueError as error:
        raise ConfigError(f"redaction.patterns.{name} {pattern!r} is not a regular expression: {error}") from error
