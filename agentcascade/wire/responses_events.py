"""Events of OpenAI's Responses, written of the deltas of a chat stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentcascade.types import Delta, Message
from agentcascade.wire.responses_answer import THINKING, item_id, packet_of
from agentcascade.wire.responses_items import ITEMS
from agentcascade.wire.responses_tools import ToolBook, chat_name, input_of

Event = dict[str, Any]


class EventWriter:
    """Writes one answer as events, in the order and with the indexes that clients rely on.

    Args:
        head: The response in progress: see `responses_answer.head`.
        book: The tools of the request.
    """

    def __init__(self, head: Mapping[str, Any], book: ToolBook) -> None:
        self._head, self._book = head, book
        self._count = 0
        self.items: list[dict[str, Any]] = []
        """The output so far; what is open lacks the text that came since."""
        self._open: dict[str, int] = {}
        """Kind, or call, → index of an item that is not done."""
        self._texts: dict[str, list[str]] = {}
        """Likewise → what came of its text, or of its last part."""

    def begin(self) -> Iterator[Event]:
        """The response exists."""
        yield self._event("response.created", response=dict(self._head))
        yield self._event("response.in_progress", response=dict(self._head))

    def delta(self, delta: Delta, logprobs: Sequence[Any] = ()) -> Iterator[Event]:
        """What a delta of the answer adds, with the log-probabilities of its tokens."""
        for name in THINKING:
            if isinstance(delta.get(name), str) and delta[name]:
                yield from self._thought(delta[name])
                break
        if isinstance(delta.get("content"), str) and delta["content"]:
            yield from self._text("output_text", delta["content"], logprobs)
        if isinstance(delta.get("refusal"), str) and delta["refusal"]:
            yield from self._text("refusal", delta["refusal"])
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, Mapping):
                yield from self._call(call)

    def end(self, message: Message, model: str) -> Iterator[Event]:
        """Close what is open; `message` is the whole answer of `model`."""
        yield from self._close_text()
        for key in [k for k in self._open if k.startswith("call")]:
            yield from self._close_call(key)
        packet = packet_of(message, model)
        for own in self._providers_own(message):
            yield from self._whole(own)
        if packet:
            yield from self._whole({"type": "reasoning", "summary": [], "encrypted_content": packet})

    def last(self, response: Mapping[str, Any]) -> Iterator[Event]:
        """The end: `response.completed`, `response.incomplete` or `response.failed`, as its status says."""
        yield self._event(f"response.{response['status']}", response=dict(response))

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._count, **fields}
        self._count += 1
        return event

    def _add(self, key: str, item: dict[str, Any]) -> Iterator[Event]:
        index = len(self.items)
        item = {"id": item_id(self._head["id"], item["type"], index), **item}
        self.items.append(item)
        self._open[key] = index
        yield self._event("response.output_item.added", output_index=index, item={**item})

    def _at(self, key: str) -> dict[str, Any]:
        index = self._open[key]
        return {"item_id": self.items[index]["id"], "output_index": index}

    def _done(self, key: str) -> Iterator[Event]:
        index = self._open.pop(key)
        yield self._event("response.output_item.done", output_index=index, item=dict(self.items[index]))

    def _taken(self, key: str) -> str:
        return "".join(self._texts.pop(key, ()))

    def _whole(self, item: dict[str, Any]) -> Iterator[Event]:
        yield from self._add("whole", item)
        yield from self._done("whole")

    def _thought(self, text: str) -> Iterator[Event]:
        if "thought" not in self._open:
            yield from self._close_text()
            part = {"type": "summary_text", "text": ""}
            yield from self._add("thought", {"type": "reasoning", "summary": []})
            yield self._event(
                "response.reasoning_summary_part.added", **self._at("thought"), summary_index=0, part={**part}
            )
        self._texts.setdefault("thought", []).append(text)
        yield self._event(
            "response.reasoning_summary_text.delta", **self._at("thought"), summary_index=0, delta=text
        )  # fmt: skip

    def _close_thought(self) -> Iterator[Event]:
        if "thought" in self._open:
            at, part = self._at("thought"), {"type": "summary_text", "text": self._taken("thought")}
            self.items[self._open["thought"]]["summary"] = [part]
            yield self._event("response.reasoning_summary_text.done", **at, summary_index=0, text=part["text"])
            yield self._event("response.reasoning_summary_part.done", **at, summary_index=0, part=dict(part))
            yield from self._done("thought")

    def _text(self, kind: str, text: str, logprobs: Sequence[Any] = ()) -> Iterator[Event]:
        yield from self._close_thought()
        if "message" not in self._open:
            item = {"type": "message", "status": "in_progress", "role": "assistant", "content": []}
            yield from self._add("message", item)
        content = self.items[self._open["message"]]["content"]
        name = "text" if kind == "output_text" else "refusal"
        if not content or content[-1]["type"] != kind:
            yield from self._close_part()
            beside: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
            content = self.items[self._open["message"]]["content"] = [*content, {"type": kind, name: "", **beside}]
            yield self._event("response.content_part.added", **self._in_message(), part=dict(content[-1]))
        self._texts.setdefault("message", []).append(text)
        told: dict[str, Any] = {"logprobs": list(logprobs)} if kind == "output_text" else {}
        if logprobs:
            content[-1]["logprobs"].extend(logprobs)
        yield self._event(f"response.{kind}.delta", **self._in_message(), delta=text, **told)

    def _in_message(self) -> dict[str, Any]:
        return {**self._at("message"), "content_index": len(self.items[self._open["message"]]["content"]) - 1}

    def _close_part(self) -> Iterator[Event]:
        content = self.items[self._open["message"]]["content"]
        if content:
            part, name = content[-1], "text" if content[-1]["type"] == "output_text" else "refusal"
            part[name] = self._taken("message")
            beside: dict[str, Any] = {"logprobs": part["logprobs"]} if name == "text" else {}
            yield self._event(f"response.{part['type']}.done", **self._in_message(), **{name: part[name]}, **beside)
            yield self._event("response.content_part.done", **self._in_message(), part=dict(part))

    def _close_text(self) -> Iterator[Event]:
        yield from self._close_thought()
        if "message" in self._open:
            yield from self._close_part()
            self.items[self._open["message"]]["status"] = "completed"
            yield from self._done("message")

    def _call(self, part: Mapping[str, Any]) -> Iterator[Event]:
        key = f"call{part.get('index', 0)}"
        kind = "custom" if isinstance(part.get("custom"), Mapping) else "function"
        function = part.get(kind)
        function = function if isinstance(function, Mapping) else {}
        if key not in self._open:
            yield from self._close_text()
            known = self._book.responses_name(str(function.get("name") or ""))
            custom = known.custom or kind == "custom"
            item = {"type": "custom_tool_call" if custom else "function_call", "status": "in_progress",
                    "call_id": str(part.get("id") or ""), "name": known.name}  # fmt: skip
            if known.namespace:
                item["namespace"] = known.namespace
            yield from self._add(key, item | ({"input": ""} if custom else {"arguments": ""}))
        item = self.items[self._open[key]]
        text = function.get("input" if kind == "custom" else "arguments")
        if not isinstance(text, str) or not text:
            return
        self._texts.setdefault(key, []).append(text)
        if (
            item["type"] == "function_call"
        ):  # a custom tool's input stands inside of JSON, and is shown when it is whole
            yield self._event("response.function_call_arguments.delta", **self._at(key), delta=text)

    def _close_call(self, key: str) -> Iterator[Event]:
        item, at = self.items[self._open[key]], self._at(key)
        name = chat_name(item["name"], item.get("namespace"))
        item["status"] = "completed"
        if item["type"] == "custom_tool_call":
            item["input"] = input_of(self._taken(key)) if self._book.responses_name(name).custom else self._taken(key)
            yield self._event("response.custom_tool_call_input.delta", **at, delta=item["input"])
            yield self._event("response.custom_tool_call_input.done", **at, input=item["input"])
        else:
            item["arguments"] = self._taken(key)
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", **at, **done)
        yield from self._done(key)

    def _providers_own(self, message: Message) -> Iterator[dict[str, Any]]:
        """Items of what the provider did itself, such as searches."""
        said = message.get(ITEMS)
        for item in said if isinstance(said, list) else ():
            kind = item.get("type") if isinstance(item, Mapping) else None
            if kind not in (None, "message", "reasoning", "function_call", "custom_tool_call"):
                yield {k: v for k, v in item.items() if k != "id"}
