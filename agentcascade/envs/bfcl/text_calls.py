"""Tool calls that a live model wrote into its text: read where its server has no parser of tool calls.

Small models write a call as JSON in a Markdown fence or in ``<tool_call>`` tags. vLLM finds the latter (its option
``--tool-call-parser``), other servers hand all on as text. Calls of tools that were offered are the answer's calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentcascade._util import bounds
from agentcascade.envs.bfcl import calls
from agentcascade.errors import InvalidAction
from agentcascade.messages import text_of
from agentcascade.protocols import ChatModel
from agentcascade.types import Completion, Delta, Message, Tool, new_id

_FENCE = re.compile(r"```\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_SPACE = re.compile(r"[\s,]*")
_WRITTEN = re.compile(r"(?:Action: {0,3})?([A-Za-z_][\w.-]{0,127})\((\{.*\})?\)")
_BETWEEN = re.compile(r"</?(?:tool_call|tools|function_call)>")


class TextCalls:
    """A chat model whose answers in text are read for tool calls; in all else it is `model` itself."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of pickling and copying, before there is a model
            raise AttributeError(name)
        return getattr(self._model, name)

    async def complete(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None = None, **options: Any
    ) -> Completion:
        """As `model` answers, with calls in place of texts that hold some."""
        completion = await self._model.complete(messages, tools=tools, **options)
        read = [with_calls(message, tools or ()) for message in completion.messages]
        reasons = completion.finish_reasons
        if len(reasons) == len(read):
            reasons = tuple(
                "tool_calls" if now is not was else why for now, was, why in zip(read, completion.messages, reasons)
            )
        return completion.model_copy(update={"messages": tuple(read), "finish_reasons": reasons})

    async def stream(
        self, messages: Sequence[Message], on_delta: Callable[[Delta], None], **options: Any
    ) -> Completion:
        """As `complete`: what is text and what a call is known at the end, so that it comes in one part."""
        completion = await self.complete(messages, **{k: v for k, v in options.items() if k != "stream_options"})
        calls_made = completion.messages[0].get("tool_calls")
        delta: dict[str, Any] = {"role": "assistant", "content": completion.messages[0].get("content")}
        if calls_made:
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls_made)]
        on_delta(delta)
        return completion


def with_calls(message: Message, tools: Sequence[Tool]) -> Message:
    """The message with the calls of `tools` that its text holds; the same object where it holds none, or others."""
    text = text_of(message)
    if message.get("tool_calls") or not text:
        return message
    try:
        made = calls.message(calls.read("\n".join(_values(text) or _written(text)) or text, "any"))
    except InvalidAction:
        return message
    called = made.get("tool_calls", ())
    functions = [tool.get("function") for tool in tools if isinstance(tool, Mapping)]
    offered = {function.get("name") for function in functions if isinstance(function, Mapping)}
    if not called or not {call["function"]["name"] for call in called} <= offered:
        return message
    try:
        for call in called:
            call["function"]["arguments"] = _arguments(call["function"]["arguments"])
            call["id"] = new_id("call")  # no other of the conversation has it
    except (ValueError, RecursionError):
        return message
    return {**message, **made}


def _arguments(written: str) -> str:
    """The JSON object of a call's arguments, also where it is written as a text. Raises `ValueError` for any other."""
    value = bounds.loads(written)
    if isinstance(value, str):
        written, value = value, bounds.loads(value)
    if not isinstance(value, dict):
        raise ValueError("no object")
    json.dumps(value, allow_nan=False)
    return written


def _written(text: str) -> list[str]:
    """Calls as demonstrations show them, ``Action: look({"at": "bed"})``, a line each; none where text is, too."""
    found: list[str] = []
    for line in filter(None, (line.strip() for line in text[: calls.LONGEST].splitlines())):
        written = _WRITTEN.fullmatch(line)
        if written is None or len(found) >= calls.MOST_CALLS:
            return []
        try:
            arguments = bounds.loads(written[2] or "{}")
        except (ValueError, RecursionError):
            return []
        found.append(json.dumps({"name": written[1], "arguments": arguments}))
    return found


def _values(text: str) -> list[str]:
    """JSON values that stand one behind the other in a fence, in tags or bare, each on a line; none where text is, too.

    Several calls are written so, over as many lines as there are fields.
    """
    fence = _FENCE.search(text[: calls.LONGEST])
    inner = _BETWEEN.sub(" ", fence.group(1) if fence else text[: calls.LONGEST]).strip()
    found: list[str] = []
    place, decoder = 0, json.JSONDecoder()
    try:
        while place < len(inner) and len(found) <= calls.MOST_CALLS:
            value, end = decoder.raw_decode(inner, place)
            found.append(json.dumps(value))
            place = end + len(_SPACE.match(inner, end)[0])  # type: ignore[index]  # it matches anywhere
    except (ValueError, RecursionError):
        return []
    return found
