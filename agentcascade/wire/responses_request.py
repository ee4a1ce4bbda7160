"""Requests of OpenAI's Responses, to and from the core's messages, tools and options."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentcascade.types import Message, Tool
from agentcascade.wire.responses_items import ItemReader, write_items
from agentcascade.wire.responses_tools import ToolBook, read_choice, read_tools, write_tools
from agentcascade.wire.unusable import UnusableField

NATIVE = "responses"
"""Option of a request that only models which speak Responses are sent: fields of the body, as they are."""
SAME = (
    *("temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "service_tier", "metadata"),
)
"""Options that both APIs have, under one name."""
CHAT_ONLY = (
    *("seed", "stop", "n", "frequency_penalty", "presence_penalty", "logit_bias", "choices", "top_k", "min_p"),
    *("repetition_penalty",),
)
"""Options of chat that servers of one's own take beside those of Responses, and OpenAI's does not have."""
TO_PROVIDERS_OWN = (
    "truncation",
    "max_tool_calls",
    "context_management",
    "prompt",
    "moderation",
    "prompt_cache_options",
)
"""Options that only a model which speaks Responses can honour."""
INCLUDED = frozenset({"reasoning.encrypted_content", "message.output_text.logprobs"})
WITHOUT_MEANING = frozenset(
    {
        *("file_search_call.results", "web_search_call.results", "web_search_call.action.sources"),
        *("message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs"),
    }
)
"""Of `include`, what says nothing of an answer without hosted tools and stored files."""
PROXYS_OWN = frozenset(
    {
        *("model", "input", "instructions", "tools", "tool_choice", "stream", "store", "previous_response_id"),
        *("include", "reasoning", "text", "max_output_tokens", "top_logprobs", "stream_options", "client_metadata"),
        *("background", "conversation"),
    }
)


@dataclass(frozen=True)
class ReadRequest:
    """A Responses request as the core takes it.

    Attributes:
        messages: The conversation.
        tools: Function definitions in chat's shape.
        options: Keywords of `Episode.complete`; `NATIVE` among them where the teacher speaks Responses.
        book: The tools under both their names.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool]
    options: Mapping[str, Any]
    book: ToolBook = field(default_factory=ToolBook)


def read_request(
    data: Mapping[str, Any],
    earlier: Sequence[Mapping[str, Any]] = (),
    *,
    models: Collection[str] = (),
    native: bool = False,
) -> ReadRequest:
    """Read a Responses request.

    Args:
        data: The body, whose fields have their types.
        earlier: Items of the responses before it, oldest first (`previous_response_id`).
        models: Names of those that may be given back what they thought.
        native: Whether the teacher speaks Responses itself, and may be sent what chat cannot express.

    Raises:
        UnusableField: A field, named, that cannot be used, or not with this teacher.
    """
    book = read_tools(data.get("tools") or ())
    if book.hosted and not native:
        kind = str(book.hosted[0].get("type"))[:60]
        raise UnusableField(
            f"tools: a hosted tool ({kind}) is run by a provider that speaks Responses, and this model's teacher does "
            "not: leave it out (Codex: -c web_search=disabled), or take a teacher that does (openai/responses/…)",
            "tools",
            "unsupported_tool",
        )
    for name in ("background", "conversation"):
        if data.get(name):
            raise UnusableField(f"{name} is not to be had here: send the input, or previous_response_id", name)
    choice, allowed = read_choice(data.get("tool_choice"), book)
    options = {name: data[name] for name in (*SAME, *CHAT_ONLY) if data.get(name) is not None}
    if choice is not None and allowed.tools:
        options["tool_choice"] = choice
    if data.get("max_output_tokens") is not None:
        options["max_completion_tokens"] = data["max_output_tokens"]
    options |= _logprobs(data) | _reasoning(data, native) | _text(data.get("text"))
    _check_others(data, native)
    if native:
        options[NATIVE] = native_fields(data, book)
    items = [*earlier, *_input_items(data.get("input"))]
    messages = ItemReader(book, models, keeps_foreign=native).read(items)
    if data.get("instructions"):
        messages = [{"role": "system", "content": data["instructions"]}, *messages]
    messages = _with_one_beginning(messages)
    return ReadRequest(messages, allowed.tools, options, book)


def _with_one_beginning(messages: list[Message]) -> list[Message]:
    """The messages, of which the system messages at the beginning are one: chat templates take no more."""
    count = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    if count < 2:
        return messages
    texts: list[str] = []
    for message in messages[:count]:
        content = message["content"]
        for part in [content] if isinstance(content, str) else content:
            if not isinstance(part, str) and part["type"] != "text":
                return messages
            texts.append(part if isinstance(part, str) else part["text"])
    return [{"role": "system", "content": "\n\n".join(texts)}, *messages[count:]]


def native_fields(data: Mapping[str, Any], book: ToolBook) -> dict[str, Any]:
    """What a model that speaks Responses is sent of the request as it is."""
    names = (*TO_PROVIDERS_OWN, "reasoning", "include", "text", "tools")
    fields = {name: data[name] for name in names if data.get(name) not in (None, [])}
    if not any(name.custom or name.namespace for name in book.names.values()) and not book.hosted:
        fields.pop("tools", None)
    return fields


def _input_items(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    if given is None:
        return []
    if not isinstance(given, list):
        raise UnusableField(f"input: a text or a list of items is wanted, not {type(given).__name__}", "input")
    return given


def _reasoning(data: Mapping[str, Any], native: bool) -> dict[str, Any]:
    reasoning = data.get("reasoning") or {}
    for name in reasoning:
        if name not in ("effort", "summary", "generate_summary") and reasoning[name] is not None and not native:
            raise UnusableField(f"reasoning.{str(name)[:60]} cannot be used with this model", "reasoning")
    effort = reasoning.get("effort")
    return {} if effort is None else {"reasoning_effort": effort}


def _logprobs(data: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "message.output_text.logprobs" in (data.get("include") or ()) or data.get("top_logprobs"):
        options["logprobs"] = True
    if data.get("top_logprobs"):
        options["top_logprobs"] = data["top_logprobs"]
    return options


def _text(text: Mapping[str, Any] | None) -> dict[str, Any]:
    text = text or {}
    options: dict[str, Any] = {}
    if text.get("verbosity") is not None:
        options["verbosity"] = text["verbosity"]
    form = text.get("format")
    if form is not None:
        kind = form.get("type") if isinstance(form, Mapping) else None
        if kind == "json_schema":
            schema = {k: form[k] for k in ("name", "schema", "strict", "description") if form.get(k) is not None}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif kind == "json_object":
            options["response_format"] = {"type": "json_object"}
        elif kind != "text":
            raise UnusableField(
                f"text.format: {str(kind)[:60]!r} is none of text, json_object, json_schema", "text.format"
            )
    for name in text:
        if name not in ("format", "verbosity"):
            raise UnusableField(f"text.{str(name)[:60]}: there is no such field", "text")
    return options


def _check_others(data: Mapping[str, Any], native: bool) -> None:
    """Raises `UnusableField` for whatever else is asked for: nothing is left out unsaid."""
    for name, value in data.items():
        if value is None or name in PROXYS_OWN or name in SAME or name in CHAT_ONLY:
            continue
        if name not in TO_PROVIDERS_OWN:
            raise UnusableField(f"{str(name)[:80]}: there is no such parameter of responses.create", str(name)[:80])
        if native or (name, value) == ("truncation", "disabled") or name == "max_tool_calls":
            continue
        raise UnusableField(f"{name}={str(value)[:60]!r} needs a teacher that speaks Responses: leave it out", name)
    for what in data.get("include") or ():
        if what not in INCLUDED and what not in WITHOUT_MEANING and not native:
            raise UnusableField(f"include: {str(what)[:80]!r} cannot be had here", "include")
    if (data.get("stream_options") or {}).get("include_obfuscation"):
        raise UnusableField("stream_options.include_obfuscation is not to be had here", "stream_options")


def write_request(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], ToolBook]:
    """Chat arguments as (the fields of a Responses request, its tools under both names).

    Args:
        arguments: Those of ``chat.completions.create``; its `NATIVE` ones go before all others.

    Raises:
        UnusableField: For what Responses cannot express.
    """
    native = dict(arguments.get(NATIVE) or {})
    tools = arguments.get("tools") or ()
    fields: dict[str, Any] = {name: arguments[name] for name in SAME if arguments.get(name) is not None}
    fields |= {"model": arguments["model"], "store": False}
    if tools or "tools" in native:
        fields["tools"] = native.pop("tools", None) or write_tools(tools)
    book = read_tools(fields.get("tools") or ())
    fields["input"] = write_items(arguments["messages"], book)
    if (choice := arguments.get("tool_choice")) is not None:
        fields["tool_choice"] = _written_choice(choice, book)
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        if arguments.get(name) is not None:
            fields["max_output_tokens"] = arguments[name]
            break
    include = list(native.pop("include", None) or ())
    for what, wanted in (
        ("reasoning.encrypted_content", True),
        ("message.output_text.logprobs", arguments.get("logprobs")),
    ):
        if wanted and what not in include:
            include.append(what)
    fields["include"] = include
    if arguments.get("top_logprobs"):
        fields["top_logprobs"] = arguments["top_logprobs"]
    reasoning = dict(native.pop("reasoning", None) or {})
    if arguments.get("reasoning_effort") is not None:
        reasoning.setdefault("effort", arguments["reasoning_effort"])
    text = dict(native.pop("text", None) or {}) or _written_text(arguments)
    fields |= {name: value for name, value in (("reasoning", reasoning), ("text", text)) if value}
    known = {*SAME, *fields, *ADAPTED, NATIVE}
    for name in arguments:
        if name not in known and arguments[name] is not None:
            raise UnusableField(f"{name}: Responses, which this model speaks, has no such parameter", name)
    return fields | native, book


ADAPTED = frozenset(
    {
        *("messages", "tools", "tool_choice", "max_completion_tokens", "max_tokens", "reasoning_effort", "verbosity"),
        *("response_format", "logprobs", "top_logprobs", "seed", "stream", "stream_options", "n"),
        *("extra_headers", "extra_query", "extra_body", "timeout", "temperature"),
    }
)
"""Arguments of chat that are written otherwise, or that an answer can do without."""


def _written_choice(choice: Any, book: ToolBook) -> Any:
    inner = choice.get(choice.get("type")) if isinstance(choice, Mapping) else None
    if not isinstance(inner, Mapping):
        return choice
    known = book.responses_name(str(inner.get("name")))
    space = {"namespace": known.namespace} if known.namespace else {}
    return {"type": "custom" if known.custom else "function", "name": known.name, **space}


def _written_text(arguments: Mapping[str, Any]) -> dict[str, Any]:
    text: dict[str, Any] = {}
    form = arguments.get("response_format")
    if isinstance(form, Mapping):
        schema = form.get("json_schema")
        text["format"] = {"type": "json_schema", **schema} if isinstance(schema, Mapping) else dict(form)
    if arguments.get("verbosity") is not None:
        text["verbosity"] = arguments["verbosity"]
    return text
