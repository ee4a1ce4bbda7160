"""Streams of OpenAI's Responses, read into the chunks of a chat stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentcascade.types import Delta
from agentcascade.wire.responses_answer import answer_fields, failure, finish_reason, read_output
from agentcascade.wire.responses_items import ITEMS
from agentcascade.wire.responses_tools import ToolBook, arguments_of, as_text, chat_name

MOST_OUTPUT_ITEMS = 2_000
THOUGHT_PARTS = {
    "response.reasoning_summary_text.delta": "summary_index",
    "response.reasoning_text.delta": "content_index",
}
"""Events of thoughts → the field that says of which part."""


class EventReader:
    """Reads the events of one response as chat's chunks, as plain data.

    Tolerates what servers leave out: deltas before their item is announced, items that come whole, a last event
    without the output.

    Args:
        book: The tools of the request.
    """

    def __init__(self, book: ToolBook) -> None:
        self._book = book
        self._items: dict[int, Mapping[str, Any]] = {}
        self._shown: dict[int, set[str]] = {}
        """Output index → of what deltas came."""
        self._calls: dict[int, int] = {}
        """Output index of a call → its index among the calls."""
        self._places: dict[str, object] = {}
        """Field of a message → where its latest text stood: texts from elsewhere are set apart, as in whole answers."""

    def read(self, event: Any) -> Iterator[Any]:
        """The chunks that an event stands for, which may be none; what is no event is handed on as it is."""
        if not isinstance(event, Mapping) or not isinstance(event.get("type"), str):
            if event is not None:
                yield event
            return
        kind = event["type"]
        index = event.get("output_index")
        index = index if isinstance(index, int) and 0 <= index < MOST_OUTPUT_ITEMS else 0
        if kind in ("response.output_item.added", "response.output_item.done"):
            yield from self._item(kind.endswith("done"), index, event.get("item"))
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            name = "content" if "output_text" in kind else "refusal"
            yield from self._delta(index, name, event.get("delta"), event.get("logprobs"))
        elif kind in THOUGHT_PARTS:
            yield from self._thought(index, THOUGHT_PARTS[kind], event)
        elif kind == "response.function_call_arguments.delta":
            yield from self._arguments(index, event.get("delta"))
        elif kind == "response.function_call_arguments.done":
            if "arguments" not in self._shown.get(index, ()):
                yield from self._arguments(index, event.get("arguments"))
        elif kind in ("response.completed", "response.incomplete"):
            yield from self._end(event.get("response"), kind.rpartition(".")[2])
        elif kind == "response.failed":
            response = event.get("response")
            failed = failure(response if isinstance(response, Mapping) else event)
            if "usage" in failed:  # was paid all the same
                yield {"choices": [], "usage": failed.pop("usage")}
            yield failed
        elif kind == "error":
            yield failure(event)

    def _show(self, index: int, name: str) -> None:
        self._shown.setdefault(index, set()).add(name)

    def _thought(self, index: int, part: str, event: Mapping[str, Any]) -> Iterator[Any]:
        """A part of a thought: of its summary, or of the thought itself where there is none."""
        last = self._places.get("reasoning_content")
        if isinstance(last, tuple) and last[0] == index and last[1] != part:
            return
        place = (index, part, event.get(part))
        yield from self._delta(index, "reasoning_content", event.get("delta"), place=place)

    def _delta(
        self, index: int, name: str, text: object, logprobs: object = None, place: object = None
    ) -> Iterator[Any]:
        if isinstance(text, str) and text:
            place = index if place is None else place
            if name != "refusal" and self._places.setdefault(name, place) != place:
                text = f"\n\n{text}"
            self._places[name] = place
            self._show(index, name)
            told = {"content": logprobs} if isinstance(logprobs, list) and logprobs else None
            yield _chunk({name: text}, logprobs=told)

    def _item(self, done: bool, index: int, item: object) -> Iterator[Any]:
        if not isinstance(item, Mapping):
            return
        kind = item.get("type")
        if kind in ("function_call", "custom_tool_call") and index not in self._calls:
            yield self._begun(index, item)
        if not done:
            return
        self._items[index] = item
        shown = self._shown.get(index, ())
        if kind == "function_call" and "arguments" not in shown:
            yield from self._arguments(index, as_text(item.get("arguments")))
        elif kind == "custom_tool_call":
            text = as_text(item.get("input"))
            if self._is_book_custom(item):
                yield from self._arguments(index, arguments_of(text))
            else:
                yield _chunk({"tool_calls": [{"index": self._calls[index], "custom": {"input": text}}]})
        elif kind == "message":
            whole, _ = read_output([item], self._book)
            for name in ("content", "refusal"):
                if name not in shown:
                    yield from self._delta(index, name, whole.get(name))

    def _is_book_custom(self, item: Mapping[str, Any]) -> bool:
        return self._book.responses_name(_name(item)).custom

    def _begun(self, index: int, item: Mapping[str, Any]) -> Any:
        position = self._calls[index] = len(self._calls)
        id = item.get("call_id")
        part: dict[str, Any] = {"index": position, "id": id if isinstance(id, str) else ""}
        if item["type"] == "custom_tool_call" and not self._is_book_custom(item):
            return _chunk({"tool_calls": [{**part, "type": "custom", "custom": {"name": _name(item), "input": ""}}]})
        function = {"name": _name(item), "arguments": ""}
        return _chunk({"tool_calls": [{**part, "type": "function", "function": function}]})

    def _arguments(self, index: int, text: object) -> Iterator[Any]:
        if isinstance(text, str) and text and index in self._calls:
            self._show(index, "arguments")
            yield _chunk({"tool_calls": [{"index": self._calls[index], "function": {"arguments": text}}]})

    def _end(self, response: object, status: str) -> Iterator[Any]:
        whole = response if isinstance(response, Mapping) else {}
        output = whole.get("output")
        items = output if isinstance(output, list) and output else [self._items[i] for i in sorted(self._items)]
        for index, item in enumerate(items):  # of a server that sends nothing but the end
            if index not in self._items and not self._shown.get(index):
                yield from self._item(True, index, item)
        message, _ = read_output(items, self._book)
        kept = {name: message[name] for name in (ITEMS, "annotations") if name in message}
        if "reasoning_content" in message and "reasoning_content" not in self._places:
            kept = {"reasoning_content": message["reasoning_content"], **kept}
        fields = {"usage": whole.get("usage"), **answer_fields(whole)}
        reason = finish_reason({"status": status, **whole}, message)
        yield {**_chunk(kept, reason), **fields}


def _name(item: Mapping[str, Any]) -> str:
    space = item.get("namespace")
    return chat_name(str(item.get("name") or ""), space if isinstance(space, str) else None)


def _chunk(delta: Delta, finish: str | None = None, logprobs: object = None) -> dict[str, Any]:
    beside = {"logprobs": logprobs} if logprobs else {}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **beside}]}
