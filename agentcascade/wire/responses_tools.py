"""Tools of OpenAI's Responses: functions, custom tools, namespaces and hosted tools, to and from chat's functions.

A custom tool is, to the core, a function with one string; a tool of a namespace a function whose name holds both. What
the provider itself would run (a hosted tool) is no function: `ToolBook.hosted` has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from agentcascade.types import Tool
from agentcascade.wire.unusable import UnusableField

INPUT = "input"
"""The one parameter of the function that stands for a custom tool."""
LONGEST_NAME = 64
MOST_TOOLS = 2_000
HOSTED = (
    *("web_search", "file_search", "computer", "mcp", "code_interpreter", "image_generation", "local_shell", "shell"),
    *("apply_patch", "tool_search", "programmatic_tool_calling"),
)
"""What hosted tools' types begin with."""


class ResponsesName(NamedTuple):
    """A tool as a Responses client knows it."""

    name: str
    namespace: str | None = None
    custom: bool = False


@dataclass(frozen=True)
class ToolBook:
    """The tools of one request under both their names.

    Attributes:
        tools: As chat defines them.
        hosted: Those that the provider itself would run, as they came.
        names: Chat's name → that of Responses.
    """

    tools: Sequence[Tool] = ()
    hosted: Sequence[Mapping[str, Any]] = ()
    names: Mapping[str, ResponsesName] = field(default_factory=dict)

    def responses_name(self, chat_name: str) -> ResponsesName:
        """What the client calls it; a name that nobody defined is a function's."""
        return self.names.get(chat_name) or ResponsesName(chat_name)


def chat_name(name: str, namespace: str | None = None) -> str:
    """The name of a function for chat, which has no namespaces and at most 64 characters."""
    if not namespace:
        return name
    whole = f"{namespace}__{name}"
    if len(whole) <= LONGEST_NAME:
        return whole
    digest = blake2b(whole.encode(errors="replace"), digest_size=4).hexdigest()
    return f"{whole[: LONGEST_NAME - 9]}_{digest}"


def read_tools(tools: Iterable[Mapping[str, Any]]) -> ToolBook:
    """The tools of a Responses request. Raises `UnusableField` for one that is malformed or of no known type."""
    chat_tools: list[Tool] = []
    hosted: list[Mapping[str, Any]] = []
    names: dict[str, ResponsesName] = {}

    def add(tool: Mapping[str, Any], where: str, namespace: Mapping[str, Any] | None = None) -> None:
        kind = tool.get("type")
        if kind == "namespace" and namespace is None:
            _named(tool, where)
            inner = tool.get("tools")
            if not isinstance(inner, list):
                raise UnusableField(f"{where}.tools: a namespace needs a list of tools", f"{where}.tools")
            for i, one in enumerate(inner):
                add(_object(one, f"{where}.tools[{i}]"), f"{where}.tools[{i}]", tool)
            return
        if kind not in ("function", "custom"):
            if namespace is not None or not isinstance(kind, str) or not kind.startswith(HOSTED):
                raise UnusableField(f"{where}.type: there is no tool of type {str(kind)[:60]!r}", f"{where}.type")
            hosted.append(tool)
            return
        space = None if namespace is None else str(namespace["name"])
        known = ResponsesName(_named(tool, where), space, kind == "custom")
        name = chat_name(known.name, space)
        if name in names:
            raise UnusableField(f"{where}.name: there are two tools called {name[:80]!r}", f"{where}.name")
        if len(names) >= MOST_TOOLS:
            raise UnusableField(f"tools: there are more than {MOST_TOOLS:,}", "tools")
        names[name] = known
        chat_tools.append({"type": "function", "function": _function(tool, name, known, namespace)})

    for i, tool in enumerate(tools):
        add(_object(tool, f"tools[{i}]"), f"tools[{i}]")
    return ToolBook(tuple(chat_tools), tuple(hosted), names)


def write_tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Chat's tools as Responses defines them."""
    return [_written(tool) for tool in tools]


def _written(tool: Tool) -> dict[str, Any]:
    kind = tool.get("type", "function")
    inner = tool.get(kind)
    if kind == "function" and isinstance(inner, Mapping):
        return {"type": "function", "strict": False, "parameters": {"type": "object", "properties": {}}, **inner}
    if kind == "custom" and isinstance(inner, Mapping):
        form = inner.get("format")
        if isinstance(form, Mapping) and isinstance(form.get("grammar"), Mapping):
            return {"type": "custom", **inner, "format": {"type": "grammar", **form["grammar"]}}
        return {"type": "custom", **inner}
    return dict(tool)


def _function(
    tool: Mapping[str, Any], name: str, known: ResponsesName, namespace: Mapping[str, Any] | None
) -> dict[str, Any]:
    description = str(tool.get("description") or "")
    if namespace is not None and namespace.get("description"):
        description = f"{namespace['description']}\n\n{description}".strip()
    if known.custom:
        text = {"type": "string", "description": _form(tool.get("format"))}
        schema = {"type": "object", "properties": {INPUT: text}, "required": [INPUT], "additionalProperties": False}
        return {"name": name, "description": description, "parameters": schema}
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = description
    if tool.get("parameters") is not None:
        function["parameters"] = tool["parameters"]
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return function


def _form(form: object) -> str:
    """What a custom tool's text must be, in words: no schema can hold a grammar."""
    if not isinstance(form, Mapping) or form.get("type") != "grammar":
        return "The tool's input, as it is."
    grammar = form.get("grammar") if isinstance(form.get("grammar"), Mapping) else form
    assert isinstance(grammar, Mapping)
    return f"The tool's input, which must fit this {grammar.get('syntax')} grammar:\n{grammar.get('definition')}"


def arguments_of(text: str) -> str:
    """The arguments of the function that stands for a custom tool whose input is `text`."""
    return json.dumps({INPUT: text}, ensure_ascii=False)


def as_text(arguments: object) -> str:
    """Arguments or an input as a text; of a server that gives an object, as JSON."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else json.dumps(arguments, ensure_ascii=False, default=str)


def input_of(arguments: str) -> str:
    """A custom tool's input out of the arguments of its function; all of them where they are of another form."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    text = given.get(INPUT) if isinstance(given, dict) and len(given) == 1 else None
    return text if isinstance(text, str) else arguments


def read_choice(choice: Any, book: ToolBook) -> tuple[Any, ToolBook]:
    """(chat's `tool_choice`, the tools that may be called). Raises `UnusableField` for a choice of a hosted tool."""
    if choice is None or choice in ("auto", "none", "required"):
        return choice, book
    if not isinstance(choice, Mapping):
        raise UnusableField(
            f"tool_choice: {str(choice)[:60]!r} is none of auto, none, required or a tool", "tool_choice"
        )
    kind = choice.get("type")
    if kind in ("function", "custom"):
        return {"type": "function", "function": {"name": _chosen(choice, book)}}, book
    if kind == "allowed_tools":
        allowed = choice.get("tools")
        if not isinstance(allowed, list) or choice.get("mode") not in ("auto", "required"):
            raise UnusableField("tool_choice: allowed_tools needs tools and a mode, auto or required", "tool_choice")
        chosen = {_chosen(_object(t, "tool_choice.tools"), book) for t in allowed}
        tools = tuple(t for t in book.tools if t["function"]["name"] in chosen)
        return choice["mode"], ToolBook(tools, book.hosted, book.names)
    raise UnusableField(
        f"tool_choice: a tool of type {str(kind)[:60]!r} cannot be chosen here: choose a function or a custom tool",
        "tool_choice",
    )


def _chosen(choice: Mapping[str, Any], book: ToolBook) -> str:
    name = chat_name(str(choice.get("name") or ""), choice.get("namespace"))
    if name not in book.names:
        raise UnusableField(f"tool_choice: there is no function called {name[:80]!r} among the tools", "tool_choice")
    return name


def _named(tool: Mapping[str, Any], where: str) -> str:
    name = tool.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise UnusableField(f"{where}.name: a tool needs a name of at most 200 characters", f"{where}.name")
    return name


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnusableField(f"{where}: a tool is an object, not {type(value).__name__}", where)
    return value
