"""Requests of Anthropic's Messages API as chat messages, tools and options, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentcascade.errors import InvalidRequest
from agentcascade.types import Message, Tool
from agentcascade.wire.anthropic_blocks import DETAILS
from agentcascade.wire.anthropic_messages import read_messages, write_messages

TRANSLATED = frozenset(
    {
        *("model", "messages", "system", "tools", "tool_choice", "stream"),
        *("max_tokens", "temperature", "top_p", "stop_sequences"),
    }
)
"""Fields of a request that chat messages, tools and options say as well."""
SAME_OPTIONS = ("max_tokens", "temperature", "top_p")
PASSED = frozenset(
    {
        *("thinking", "top_k", "service_tier", "container", "mcp_servers", "context_management", "output_config"),
        *("cache_control", "inference_geo", "speed", "diagnostics"),
    }
)
"""Options of a chat request that are Anthropic's own, by its names."""
TOOL_FIELDS = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})
JSON_ONLY = "Answer with one JSON object and nothing else."
"""Said to a model where a chat agent asks for ``{"type": "json_object"}``, which Anthropic has no option for."""
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
EMPTY_SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {}}


class MessagesRequest(NamedTuple):
    """A request of the Messages API, read."""

    model: str
    messages: list[Message]
    tools: list[Tool] | None
    options: dict[str, Any]
    """By their names in Chat Completions."""
    details: dict[str, Any]
    """Fields that Chat Completions has nothing for, as they came."""
    stream: bool


def read_request(body: Mapping[str, Any]) -> MessagesRequest:
    """A request as chat messages, tools and options.

    Args:
        body: Of ``POST /v1/messages`` or ``/count_tokens``.

    Raises:
        InvalidRequest: It is malformed; the message says where.

    >>> body = {"model": "m", "max_tokens": 9, "stop_sequences": ["."], "top_k": 3,
    ...         "messages": [{"role": "user", "content": [{"type": "text", "text": "Go."}]}]}
    >>> read = read_request(body)
    >>> read.messages, read.options, read.details
    ([{'role': 'user', 'content': 'Go.'}], {'max_tokens': 9, 'stop': ['.']}, {'top_k': 3})
    """
    options = {name: body[name] for name in SAME_OPTIONS if body.get(name) is not None}
    if body.get("stop_sequences"):
        options["stop"] = list(body["stop_sequences"])
    options |= _read_choice(body.get("tool_choice"))
    details = {k: v for k, v in body.items() if k not in TRANSLATED and v is not None}
    config = details.get("output_config")
    format = config.get("format") if isinstance(config, Mapping) else details.get("output_format")
    if isinstance(format, Mapping) and format.get("type") == "json_schema":
        options["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": format.get("schema"), "strict": True},
        }
    tools = body.get("tools")
    return MessagesRequest(
        str(body.get("model") or ""),
        read_messages(body.get("messages") or (), body.get("system")),
        [read_tool(tool, f"tools.{i}") for i, tool in enumerate(tools)] if tools else None,
        options,
        details,
        bool(body.get("stream")),
    )


def write_request(
    model: str, messages: Sequence[Message], tools: Sequence[Tool] | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of a Messages request for chat messages, tools and options.

    What is in ``extra_body`` of the options goes in as it is, and wins. Options of Chat Completions that Anthropic has
    nothing for (``seed``, penalties, log-probabilities) are left out.

    Raises:
        InvalidRequest: Something in it that would change what is asked cannot be said to Anthropic's models.
    """
    system, turns = write_messages(messages)
    body: dict[str, Any] = {"model": model, "messages": turns}
    body |= {name: options[name] for name in SAME_OPTIONS if options.get(name) is not None}
    limit = options.get("max_completion_tokens")
    if limit is not None:
        body["max_tokens"] = limit
    if isinstance(body.get("temperature"), (int, float)):
        body["temperature"] = min(body["temperature"], 1)
    stop = options.get("stop")
    if texts := [s for s in ([stop] if isinstance(stop, str) else stop or ()) if s.strip()]:
        body["stop_sequences"] = texts
    body |= {name: options[name] for name in PASSED if options.get(name) is not None}
    user = options.get("user") or (options.get("metadata") or {}).get("user_id")
    if isinstance(user, str):
        body["metadata"] = {"user_id": user}
    format = options.get("response_format")
    kind = format.get("type") if isinstance(format, Mapping) else None
    if kind == "json_schema":
        schema = (format or {}).get("json_schema") or {}
        config = body.get("output_config") or {}
        body["output_config"] = {**config, "format": {"type": "json_schema", "schema": schema.get("schema")}}
    elif kind == "json_object":
        system = [*system, {"type": "text", "text": JSON_ONLY}]
    if system:
        plain = len(system) == 1 and system[0].keys() == {"type", "text"}
        body["system"] = system[0]["text"] if plain else system
    body |= _written_tools(tools, options, turns)
    return body | dict(options.get("extra_body") or {})


def read_tool(tool: object, where: str) -> Tool:
    """A chat tool for one of Anthropic's; a tool of its own kinds stays as it is."""
    if not isinstance(tool, Mapping) or not isinstance(tool.get("name"), str):
        if isinstance(tool, Mapping) and isinstance(tool.get("type"), str):
            return dict(tool)
        raise InvalidRequest(f"{where}.name: a tool needs a name")
    if tool.get("type") not in (None, "custom"):
        return dict(tool)
    if not isinstance(tool.get("input_schema"), Mapping):
        raise InvalidRequest(f"{where}.input_schema: a tool needs a schema of its input, {{'type': 'object', …}}")
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    function |= {k: tool[k] for k in ("description", "strict") if tool.get(k) is not None}
    read: Tool = {"type": "function", "function": function}
    beside = {k: v for k, v in tool.items() if k not in TOOL_FIELDS}
    if tool.get("cache_control") is not None:
        read["cache_control"] = tool["cache_control"]
    return {**read, DETAILS: beside} if beside or "cache_control" in read else read


def write_tool(tool: Tool, where: str) -> dict[str, Any]:
    """Anthropic's tool for a chat tool."""
    if "function" not in tool and tool.get("type") not in (None, "function", "custom"):
        return dict(tool)
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise InvalidRequest(f"{where}: Anthropic's models know functions alone, no tool of type '{tool.get('type')}'")
    schema = function.get("parameters")
    written = {"name": function.get("name"), "input_schema": _object_schema(schema)}
    written |= {k: function[k] for k in ("description", "strict") if function.get(k) is not None}
    mark = tool.get("cache_control") or function.get("cache_control")
    if mark is not None:
        written["cache_control"] = mark
    details = tool.get(DETAILS)
    return {**written, **(details if isinstance(details, Mapping) else {})}


def _object_schema(schema: object) -> Mapping[str, Any]:
    if not isinstance(schema, Mapping):
        return EMPTY_SCHEMA
    return schema if schema.get("type") else {**schema, "type": "object"}


def _read_choice(choice: object) -> dict[str, Any]:
    if not isinstance(choice, Mapping):
        return {}
    kind = choice.get("type")
    options: dict[str, Any] = {}
    if kind == "tool":
        options["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind in CHOICES:
        options["tool_choice"] = CHOICES[kind]
    else:
        raise InvalidRequest(f"tool_choice.type is {str(kind)[:60]!r}: it is auto, any, tool or none")
    if choice.get("disable_parallel_tool_use") is not None:
        options["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    return options


def _written_tools(
    tools: Sequence[Tool] | None, options: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    if not tools:
        # a conversation with calls needs definitions of their tools, also where none may be called any more
        names = {b["name"]: None for t in turns for b in t["content"] if b.get("type") == "tool_use"}
        if not names:
            return {}
        stubs = [{"name": name, "input_schema": EMPTY_SCHEMA} for name in names]
        return {"tools": stubs, "tool_choice": {"type": "none"}}
    written: dict[str, Any] = {"tools": [write_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)]}
    asked, parallel = options.get("tool_choice"), options.get("parallel_tool_calls")
    choice = _written_choice(asked)
    if parallel is not None and (choice or {}).get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": not parallel}
    return written | ({"tool_choice": choice} if choice else {})


def _written_choice(asked: object) -> dict[str, Any] | None:
    if isinstance(asked, str):
        kind = next((theirs for theirs, ours in CHOICES.items() if ours == asked), None)
        if kind is None:
            raise InvalidRequest(f"tool_choice is {asked[:60]!r}: it is auto, required, none or a function")
        return {"type": kind}
    if isinstance(asked, Mapping):
        function = asked.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            return {"type": "tool", "name": function["name"]}
        raise InvalidRequest("tool_choice: Anthropic's models can be told one function to call, no other choice")
    return None
