"""Action keys: the canonical form under which two samples' actions count as the same.

A format turns an assistant message into an `Action` or raises `InvalidAction`; an invalid sample votes for nothing.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from agentcascade.errors import ConfigError, InvalidAction, did_you_mean
from agentcascade.types import Action, Message, Situation, Tool

Validator = Callable[[Action, Situation], str | None]
"""Returns why an action is impossible in a situation, or None when it is possible."""

REACT = r"(?:^|\n)[\s*]*Action\**:\**[ \t]*(?P<action>[^\n]+)"
"""The ReAct convention: the text after the last line-initial ``Action:``, which Markdown may have set in bold."""


class ActionFormat(Protocol):
    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        """The action that `message` states; raises `InvalidAction`."""
        ...


def text_of(message: Message) -> str:
    """The text of a message; the text parts of multi-part content, joined by newlines."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    return str(content or "")


def canonical_text(text: str) -> str:
    """Unicode-normalised, case-folded, white space folded, without surrounding quotes and final full stop."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip("`'\"* ").rstrip(".").rstrip()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and 1.0 written as 1; raises `InvalidAction` for NaN and infinities."""

    def plain(v: Any) -> Any:
        if isinstance(v, float) and v.is_integer():
            return int(v)
        if isinstance(v, dict):
            return {str(k): plain(x) for k, x in v.items()}
        return [plain(x) for x in v] if isinstance(v, (list, tuple)) else v

    try:
        return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise InvalidAction(f"a JSON value is not a finite number: {error}") from error


class TextActions:
    """The whole text is the action."""

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        text = text_of(message).strip()
        key = canonical_text(text)
        if not key:
            raise InvalidAction("the message is empty")
        return Action(key=key, text=text)


class RegexActions:
    """The last match of `pattern` is the action (its group `action`, else group 1); what stands before is reasoning.

    Raises `ConfigError` when the pattern does not compile or has no group.
    """

    def __init__(self, pattern: str = REACT) -> None:
        try:
            self._pattern = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise ConfigError(f"actions.pattern {pattern!r} is not a regular expression: {error}") from error
        if not self._pattern.groups:
            raise ConfigError(f"actions.pattern {pattern!r} needs a group, e.g. {REACT!r}")
        self._group: str | int = "action" if "action" in self._pattern.groupindex else 1

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        text = text_of(message)
        matches = list(self._pattern.finditer(text))
        found = matches[-1].group(self._group) if matches else None
        if found is None or not canonical_text(found):
            raise InvalidAction(f"no action in {text[:80]!r}")
        reasoning = text[: matches[-1].start()].strip()
        return Action(
            key=canonical_text(found),
            text=found.strip(),
            reasoning=re.sub(r"^\**(?:Thought|Reasoning)\**:\**\s*", "", reasoning, flags=re.IGNORECASE),
        )


class JsonActions:
    """The text is one JSON value (a Markdown fence around it is allowed); formatting and key order do not matter."""

    _fence = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        text = text_of(message)
        fenced = self._fence.match(text)
        try:
            value = json.loads(fenced.group(1) if fenced else text)
        except (ValueError, RecursionError) as error:
            raise InvalidAction(f"not JSON: {text[:80]!r} ({error})") from error
        key = canonical_json(value)
        return Action(key=key, text=key)


class ToolCallActions:
    """OpenAI tool calls: names and JSON arguments, checked against the tools' schemas when they are given.

    Parallel calls are a set, so their order does not matter; call ids never do. A message without a call is a final
    answer and votes under its text.
    """

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        calls = message.get("tool_calls") or []
        text = text_of(message).strip()
        if not calls:
            if not text:
                raise InvalidAction("neither a tool call nor text")
            return Action(key=f"answer:{canonical_text(text)}", text=text)
        schemas = {t["function"]["name"]: t["function"].get("parameters") for t in tools or () if "function" in t}
        keys = sorted(self._key(call, schemas if tools is not None else None) for call in calls)
        return Action(key="; ".join(keys), text="; ".join(keys), reasoning=text)

    def _key(self, call: Mapping[str, Any], schemas: Mapping[str, Any] | None) -> str:
        function = call.get("function") or {}
        name, raw = function.get("name") or "", function.get("arguments")
        if schemas is not None and name not in schemas:
            raise InvalidAction(f"there is no tool '{name}': {did_you_mean(name, schemas)}")
        try:
            arguments = raw if isinstance(raw, dict) else json.loads(raw or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidAction(f"arguments of '{name}' are not JSON: {str(raw)[:80]!r}") from error
        if schemas is not None and schemas[name]:
            check_schema(arguments, schemas[name], f"arguments of '{name}'")
        return f"{name}({canonical_json(arguments)})"


class AutoActions:
    """Tool calls where the message has some, else the whole text."""

    def __init__(self) -> None:
        self._tools, self._text = ToolCallActions(), TextActions()

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        return (self._tools if message.get("tool_calls") or tools else self._text).parse(message, tools)


def parse_as(
    formats: ActionFormat, message: Message, tools: Sequence[Tool] | None, response_format: Any = None
) -> Action:
    """The action of `message`; where the caller asked for JSON and set no format of its own, the parsed value.

    Raises `InvalidAction`, also for JSON that does not fit the schema of `response_format`.
    """
    if not isinstance(formats, AutoActions) or not isinstance(response_format, Mapping) or message.get("tool_calls"):
        return formats.parse(message, tools)
    kind = response_format.get("type")
    if kind not in ("json_object", "json_schema"):
        return formats.parse(message, tools)
    action = JsonActions().parse(message)
    schema = (response_format.get("json_schema") or {}).get("schema")
    if schema:
        check_schema(json.loads(action.text), schema, "the answer")
    return action


def check_schema(value: Any, schema: Mapping[str, Any], what: str) -> None:
    """Raises `InvalidAction` when `value` does not fit the JSON schema; a broken schema checks nothing."""
    from jsonschema.exceptions import best_match

    validator = _validator(json.dumps(schema))
    error = best_match(validator.iter_errors(value)) if validator is not None else None
    if error is not None:
        where = ".".join(str(p) for p in error.absolute_path)
        raise InvalidAction(f"{what}{f' at {where}' if where else ''}: {error.message[:120]}")


def is_schema(value: Mapping[str, Any]) -> bool:
    """Whether it is a JSON schema that can be checked against."""
    return _validator(json.dumps(value)) is not None


@lru_cache(maxsize=1000)
def _validator(schema: str) -> Any:
    """A schema's validator, compiled once (an agent's few schemas recur at every step); None for a broken schema."""
    import jsonschema

    loaded = json.loads(schema)
    kind = jsonschema.validators.validator_for(loaded)
    try:
        kind.check_schema(loaded)
    except jsonschema.SchemaError:
        return None
    return kind(loaded)


def make_format(name: str, pattern: str | None = None) -> ActionFormat:
    """The format that a config names: auto, text, react, regex, json, tools, python or sql. Raises `ConfigError`."""
    formats: dict[str, Callable[[], ActionFormat]] = {
        "auto": AutoActions,
        "text": TextActions,
        "react": RegexActions,
        "regex": lambda: RegexActions(pattern or REACT),
        "json": JsonActions,
        "tools": ToolCallActions,
    }
    if name == "sql":
        from agentcascade.sql_keys import SqlActions

        return SqlActions(pattern or "mysql")
    if name == "python":
        from agentcascade.python_keys import PythonActions

        return PythonActions()
    if name not in formats:
        raise ConfigError(f"actions.format '{name}' is unknown: {did_you_mean(name, formats)}")
    return formats[name]()


def one_of(commands: Callable[[Situation], Sequence[str]]) -> Validator:
    """A validator for environments that list their admissible commands."""

    def check(action: Action, situation: Situation) -> str | None:
        allowed = {canonical_text(c) for c in commands(situation)}
        return None if action.key in allowed else f"'{action.text}' is not an admissible command"

    return check
