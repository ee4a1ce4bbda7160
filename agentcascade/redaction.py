"""What is replaced before anything is stored: keys, e-mail addresses, phone numbers, the user's own patterns.

Placeholders are stable, so two actions that differ in such a value alone become one in the records. The answers that an
agent gets are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from agentcascade.errors import ConfigError, MissingExtra
from agentcascade.protocols import Recorder
from agentcascade.types import Decision, Draft, EpisodeEnd, Frozen, Shadow, Trajectory

F = TypeVar("F", bound=Frozen)

KEYS = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s]{0,10000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
    r"|\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{12,250}"
    r"|\bac-[a-z0-9]{12}-[A-Za-z0-9_-]{20,100}"
    r"|\b(?:gsk|xai|hf|ghp|gho|ghs|ghu|ghr|glpat|npm|pypi)[-_][A-Za-z0-9_-]{16,250}"
    r"|\bgithub_pat_[A-Za-z0-9_]{20,250}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bAIza[A-Za-z0-9_-]{30,45}"
    r"|\bxox[abposr]-[A-Za-z0-9-]{10,250}"
    r"|\beyJ[A-Za-z0-9_-]{8,3000}\.[A-Za-z0-9_-]{8,3000}\.[A-Za-z0-9_-]{8,1000}"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,3000}"
    r"|(?<=://)[^\s/:@]{1,100}:[^\s/@]{1,200}(?=@)"
)
NAMED = re.compile(
    r"(?i)\b((?:api[_-]?key|access[_-]?token|auth[_-]?token|secret[_-]?key|client[_-]?secret|password|passwd|secret)"
    r"[\"']?\s{0,3}[:=]\s{0,3}[\"']?)(?!\[key\])([^\s\"',;&)}\]]{4,500})"
)
EMAILS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
PHONES = re.compile(
    r"(?<![\w.#/+-])(?:"
    r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}"
    r"|\(\d{3}\)[ .-]?\d{3}[ .-]\d{4}"
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"
    r")(?![\w-]|[.:/]\d)"
)
SIGNS_OF_KEYS = ("-", "_", "AKIA", "ASIA", "AIza", "eyJ", "earer ", "://")
SIGNS_OF_NAMES = ("key", "token", "secret", "passw")


class Redactor:
    """Replaces what must not be stored by ``[key]``, ``[email]``, ``[phone]`` or the name of a pattern.

    `patterns` maps names to regular expressions; `hooks` are functions of a text. With `presidio`, Microsoft Presidio's
    analyzer finds names, addresses and more; its placeholders are its entities' names. Raises `ConfigError` for a
    pattern that does not compile, `MissingExtra` without Presidio.
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
        self._keys, self._emails, self._phones = keys, emails, phones
        self._patterns = [(f"[{name}]", _compiled(name, pattern)) for name, pattern in (patterns or {}).items()]
        self._hooks = [*hooks, *([_presidio()] if presidio else [])]

    def text(self, text: str) -> str:
        """`text` with placeholders."""
        for placeholder, pattern in self._patterns:
            text = pattern.sub(placeholder, text)
        if self._keys:
            if any(sign in text for sign in SIGNS_OF_KEYS):
                text = KEYS.sub("[key]", text)
            lowered = text.casefold()
            if any(sign in lowered for sign in SIGNS_OF_NAMES):
                text = NAMED.sub(r"\1[key]", text)
        if self._emails and "@" in text:
            text = EMAILS.sub("[email]", text)
        if self._phones:
            text = PHONES.sub("[phone]", text)
        for hook in self._hooks:
            text = hook(text)
        return text

    def value(self, value: Any) -> Any:
        """The same for every text in lists, tuples and mappings, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(k): self.value(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.value(v) for v in value)
        return value

    def decision(self, decision: Decision) -> Decision:
        votes: dict[str, int] = {}
        for key, count in decision.votes.items():
            key = self.text(key)
            votes[key] = votes.get(key, 0) + count
        return self._with(decision, "goal", "action", "reason", "failures").model_copy(update={"votes": votes})

    def shadow(self, shadow: Shadow) -> Shadow:
        samples = tuple(self._with(s, "action", "text", "invalid") for s in shadow.samples)
        return self._with(shadow, "teacher_action", "failures").model_copy(update={"samples": samples})

    def draft(self, draft: Draft) -> Draft:
        return self._with(draft, "goal", "plan", "observation", "reasoning", "action")

    def end(self, end: EpisodeEnd) -> EpisodeEnd:
        return self._with(end, "goal", "plan")

    def trajectory(self, trajectory: Trajectory) -> Trajectory:
        steps = tuple(self._with(s, "observation", "reasoning", "action") for s in trajectory.steps)
        kept = {k: v if k == "episode" else self.value(v) for k, v in trajectory.metadata.items()}
        whole = self._with(trajectory, "goal", "plan", "category")
        return whole.model_copy(update={"steps": steps, "metadata": kept})

    def _with(self, item: F, *fields: str) -> F:
        """A copy with these fields redacted; the item itself where nothing changes."""
        changed = {}
        for name in fields:
            before = getattr(item, name)
            after = self.value(before) if before else before
            if after != before:
                changed[name] = after
        return item.model_copy(update=changed) if changed else item


class RedactingRecorder:
    """A recorder that stores nothing unredacted."""

    def __init__(self, recorder: Recorder, redactor: Redactor) -> None:
        self._recorder, self._redactor = recorder, redactor

    def record(self, decision: Decision) -> None:
        self._recorder.record(self._redactor.decision(decision))

    def shadowed(self, shadow: Shadow) -> None:
        self._recorder.shadowed(self._redactor.shadow(shadow))

    def drafted(self, draft: Draft) -> None:
        self._recorder.drafted(self._redactor.draft(draft))

    def finished(self, end: EpisodeEnd) -> None:
        self._recorder.finished(self._redactor.end(end))

    def flush(self) -> None:
        self._recorder.flush()

    def close(self) -> None:
        self._recorder.close()


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"redaction.patterns.{name} {pattern!r} is not a regular expression: {error}") from error


def _presidio() -> Callable[[str], str]:
    """Presidio's default analyzer, loaded once; it brings or asks for its own language model."""
    try:
        from presidio_analyzer import AnalyzerEngine
    except ImportError as error:
        raise MissingExtra("presidio-analyzer", "redaction", "redaction.presidio") from error
    engine = AnalyzerEngine()

    def hook(text: str) -> str:
        found = sorted(engine.analyze(text=text, language="en"), key=lambda r: (r.start, -r.end))
        parts, at = [], 0
        for result in found:
            if result.start >= at:
                parts += [text[at : result.start], f"[{result.entity_type.lower()}]"]
                at = result.end
        return "".join([*parts, text[at:]])

    return hook
