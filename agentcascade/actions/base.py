"""Action keys: the canonical form under which two samples' actions count as the same.

A format turns an assistant message into an `Action` or raises `InvalidAction`, and nothing else, whatever a model
wrote; an invalid sample votes for nothing. A key joins only what cannot differ in meaning: `cd ..` is not `cd .`, and
`README` is not `readme`. Where a world does not care, `fold` joins more.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from math import copysign
from typing import Any, Protocol

from agentcascade._util import bounds
from agentcascade._util.recent_cache import RecentCache
from agentcascade.errors import ConfigError, InvalidAction, did_you_mean
from agentcascade.messages import text_of
from agentcascade.models import json_schema
from agentcascade.types import Action, Message, Situation, Tool

Validator = Callable[[Action, Situation], str | None]
"""Returns why an action is impossible in a situation, or None when it is possible."""

REACT = r"(?m)^[ \t*]*Action\**:\**[ \t]*(?P<action>[^\n]+)"
"""The ReAct convention: the text after the last line-initial ``Action:``, which Markdown may have set in bold."""

MOST_CALLS = 1_000
"""Tool calls in one message"""
REMEMBERED = 1_000_000
"""Characters of texts whose actions are known: a conversation comes with all its earlier answers again and again."""
_THOUGHT = re.compile(r"^\**(?:Thought|Reasoning)\**:\**\s*", re.IGNORECASE)


class ActionFormat(Protocol):
    """Format of actions: reads them off messages. `actions.format` names one, or another package's.

    >>> from agentcascade import ActionFormat
    >>> from agentcascade.actions import TextActions
    >>> words: ActionFormat = TextActions()
    >>> words.parse({"role": "assistant", "content": " take mug "}).key
    'take mug'
    """

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        """Parse the action of an assistant message.

        Args:
            message: In OpenAI's shape.
            tools: That it could call.

        Raises:
            InvalidAction: It states none, or one that cannot be used.
        """
        ...


def readable(message: Message) -> str:
    """The text of a message. Raises `InvalidAction` where it is longer than any text that is parsed."""
    text = text_of(message)
    if len(text) > bounds.LONGEST:
        raise InvalidAction(f"an answer of {len(text):,} characters: {bounds.LONGEST:,} is the most")
    return text


def canonical_text(text: str) -> str:
    """The text without white space around it; line ends are ``\\n``."""
    return bounds.escape_surrogates(text.strip().replace("\r\n", "\n"))


def folded_text(text: str) -> str:
    """Unicode-normalised, case-folded, white space folded, without surrounding quotes and final full stop."""
    folded = " ".join(unicodedata.normalize("NFKC", bounds.escape_surrogates(text)).casefold().split())
    while (bare := folded.strip("`'\"* ").rstrip(".").rstrip()) != folded:
        folded = bare
    return folded


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and 1.0 written as 1; raises `InvalidAction` for NaN and infinities, and past the bounds
    of `agentcascade.bounds`.
    """

    def plain(v: Any) -> Any:
        if isinstance(v, float) and v.is_integer() and (v or copysign(1, v) > 0):  # -0.0 is not 0
            return int(v)
        if isinstance(v, dict):
            named = {str(k): plain(x) for k, x in v.items()}
            if len(named) < len(v):
                raise ValueError("two fields have one name")
            return named
        return [plain(x) for x in v] if isinstance(v, (list, tuple)) else v

    try:
        bounds.count_values(value)
        text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidAction(f"not a JSON value that can be compared: {str(error)[:120]}") from error
    return bounds.escape_surrogates(text)


class TextActions:
    """The whole text is the action. `fold`: in whatever case, Unicode form, quotes and spacing."""

    def __init__(self, fold: bool = False) -> None:
        self._canonical = folded_text if fold else canonical_text

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        """The whole text, as `ActionFormat.parse`. Raises `InvalidAction` for an empty one."""
        text = canonical_text(readable(message))
        key = self._canonical(text)
        if not key:
            raise InvalidAction("the message is empty")
        return Action(key=key, text=text)


class RegexActions:
    """The last match of `pattern` is the action (its group `action`, else group 1); what stands before is reasoning.

    Raises `ConfigError` when the pattern does not compile or has no group. A pattern that takes too long on an answer
    makes it invalid.
    """

    def __init__(self, pattern: str = REACT, fold: bool = False) -> None:
        self._canonical = folded_text if fold else canonical_text
        try:
            seconds = None if pattern == REACT else bounds.MATCH_SECONDS
            self._pattern = bounds.Pattern(pattern, ignore_case=True, seconds=seconds)
        except ValueError as error:
            raise ConfigError(f"actions.pattern {pattern!r} is not a regular expression: {error}") from error
        if not self._pattern.groups:
            raise ConfigError(f"actions.pattern {pattern!r} needs a group, e.g. {REACT!r}")
        self._group: str | int = "action" if "action" in self._pattern.groupindex else 1
        self._parsed: RecentCache[str, Action] = RecentCache(REMEMBERED, lambda text, action: len(text) + 500)

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        """The pattern's last match, as `ActionFormat.parse`. Raises `InvalidAction` where there is none."""
        text = readable(message)
        action = self._parsed.get(text)
        if action is None:
            action = self._parse(text)
            self._parsed.put(text, action)
        return action

    def _parse(self, text: str) -> Action:
        try:
            last = next(iter(deque(self._pattern.finditer(text), maxlen=1)), None)
        except bounds.OutOfBounds as error:
            raise InvalidAction(str(error)) from error
        found = last.group(self._group) if last else None
        key = self._canonical(found) if found else ""
        if last is None or found is None or not key:
            raise InvalidAction(f"no action in {text[:80]!r}")
        reasoning = bounds.escape_surrogates(text[: last.start()].strip())
        return Action(key=key, text=canonical_text(found), reasoning=_THOUGHT.sub("", reasoning))


class JsonActions:
    """The text is one JSON value (a Markdown fence around it is allowed); formatting and key order do not matter."""

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        """The JSON value in canonical form, as `ActionFormat.parse`. Raises `InvalidAction` for a text that is none."""
        key = canonical_json(self.value(message))
        return Action(key=key, text=key)

    def value(self, message: Message) -> Any:
        """The value itself, parsed. Raises `InvalidAction` for a text that is no JSON."""
        text = text_of(message).strip()
        if text.startswith("```") and text.endswith("```") and len(text) >= 6:
            text = text[3:-3].removeprefix("json")
        try:
            return bounds.loads(text)
        except ValueError as error:
            raise InvalidAction(f"not JSON: {text[:80]!r} ({str(error)[:80]})") from error


class ToolCallActions:
    """OpenAI tool calls: names and JSON arguments, checked against the tools' schemas when they are given.

    Parallel calls are a set, so their order does not matter, unless one of them is of an `ordered` tool; call ids never
    do. A message without a call is a final answer and votes under its text.
    """

    def __init__(self, fold: bool = False, ordered: Collection[str] = ()) -> None:
        self._canonical, self._ordered = folded_text if fold else canonical_text, frozenset(ordered)

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        """The calls, as `ActionFormat.parse`. Raises `InvalidAction` for none, and for what their schemas refuse."""
        calls = message.get("tool_calls") or []
        text = canonical_text(readable(message))
        if not calls:
            if not text:
                raise InvalidAction("neither a tool call nor text")
            return Action(key=f"answer:{self._canonical(text)}", text=text)
        if not isinstance(calls, list) or not all(isinstance(c, Mapping) for c in calls) or len(calls) > MOST_CALLS:
            raise InvalidAction(f"the tool calls are no list of at most {MOST_CALLS:,} calls")
        known = None if tools is None else _known(tools)
        named = [self._key(call, known) for call in calls]
        keys = [key for _, key in named]
        if not any(name in self._ordered for name, _ in named):
            keys.sort()
        return Action(key="; ".join(keys), text="; ".join(keys), reasoning=text)

    def _key(self, call: Mapping[str, Any], known: Mapping[str, Any] | None) -> tuple[str, str]:
        custom = call.get("custom")
        function = custom if isinstance(custom, Mapping) else call.get("function")
        function = function if isinstance(function, Mapping) else {}
        name = function.get("name") or ""
        if not isinstance(name, str) or len(name) > 1_000:
            raise InvalidAction(f"{str(name)[:80]!r} is no name of a tool")
        if known is not None and name not in known:
            raise InvalidAction(f"there is no tool '{name[:80]}': {did_you_mean(name[:80], known)[:500]}")
        written = bounds.escape_surrogates(name)
        if isinstance(custom, Mapping):
            return name, f"{written}({canonical_json(str(custom.get('input') or ''))})"
        raw = function.get("arguments")
        try:
            arguments = bounds.loads(raw or "{}") if isinstance(raw, str) or not raw else raw
        except ValueError as error:
            why = f" ({str(error)[:80]})" if isinstance(error, bounds.OutOfBounds) else ""
            raise InvalidAction(f"arguments of '{name}' are not JSON: {str(raw)[:80]!r}{why}") from error
        key = f"{written}({canonical_json(arguments)})"
        if known is not None and known[name]:
            json_schema.check(arguments, known[name], f"arguments of '{name}'")
        return name, key


def _known(tools: Sequence[Tool]) -> dict[str, Any]:
    """Names of tools with the schemas of their parameters; other things, such as a provider's own search, are none."""
    found: dict[str, Any] = {}
    for tool in tools:
        for kind in ("function", "custom"):
            made = tool.get(kind) if isinstance(tool, Mapping) else None
            if isinstance(made, Mapping) and isinstance(made.get("name"), str):
                found[made["name"]] = made.get("parameters")
    return found


def called(message: Message) -> set[str]:
    """Names of the tools that a message calls."""
    calls = message.get("tool_calls")
    made = (
        [c.get("function") or c.get("custom") for c in calls if isinstance(c, Mapping)]
        if isinstance(calls, list)
        else []
    )
    return {str(f.get("name")) for f in made if isinstance(f, Mapping)}


class AutoActions:
    """Tool calls where the message has some, else the whole text."""

    def __init__(self, fold: bool = False, ordered: Collection[str] = ()) -> None:
        self._tools, self._text = ToolCallActions(fold, ordered), TextActions(fold)

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        """Tool calls or text, as `ActionFormat.parse`. Raises `InvalidAction` as the format that it comes to does."""
        return (self._tools if message.get("tool_calls") or tools else self._text).parse(message, tools)


def parse_as(
    formats: ActionFormat, message: Message, tools: Sequence[Tool] | None, response_format: Any = None
) -> Action:
    """The action of `message`; where the caller asked for JSON and set no format of its own, the parsed value.

    Raises `InvalidAction`, also for JSON that does not fit the schema of `response_format`.
    """
    schema = _asked(response_format) if isinstance(formats, AutoActions) and not message.get("tool_calls") else None
    if schema is None:
        return formats.parse(message, tools)
    value = JsonActions().value(message)
    key = canonical_json(value)
    if schema:
        json_schema.check(value, schema, "the answer")
    return Action(key=key, text=key)


def _asked(response_format: Any) -> Mapping[str, Any] | None:
    """The schema that JSON was asked for by; {} for any JSON, None where none was asked for."""
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind not in ("json_object", "json_schema"):
        return None
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, Mapping) else None
    return schema if isinstance(schema, Mapping) else {}


def slow(
    formats: ActionFormat, message: Message, tools: Sequence[Tool] | None = None, response_format: Any = None
) -> bool:
    """Whether parsing `message` may take more than some milliseconds: it is long for its format, or a schema is slow.

    A format says by `at_once` how many characters it can parse in the event loop.
    """
    calls = message.get("tool_calls")
    called = (
        [c["function"] for c in calls if isinstance(c, Mapping) and isinstance(c.get("function"), Mapping)]
        if (isinstance(calls, list))
        else []
    )
    known = _known(tools or ()) if called else {}
    if any(json_schema.is_slow(known.get(str(f.get("name")))) for f in called) or json_schema.is_slow(
        _asked(response_format)
    ):
        return True
    length = len(text_of(message)) + sum(len(f["arguments"]) for f in called if isinstance(f.get("arguments"), str))
    return length > getattr(formats, "at_once", bounds.AT_ONCE)


def one_of(commands: Callable[[Situation], Sequence[str]], *, fold: bool = False) -> Validator:
    """A validator for environments that list their admissible commands; `fold` where `actions.fold` is set."""
    canonical = folded_text if fold else canonical_text

    def check(action: Action, situation: Situation) -> str | None:
        allowed = {canonical(c) for c in commands(situation)}
        return None if action.key in allowed else f"'{action.text[:200]}' is not an admissible command"

    return check
