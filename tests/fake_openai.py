"""A local HTTP server that speaks OpenAI's chat completions and responses and Anthropic's messages, as it is told."""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.responses_provider import as_events, as_response


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256  # five, as by default, refuse some of the connections that come at once


@dataclass(frozen=True)
class Reply:
    """One answer. `texts` holds one text per choice; a single one is repeated for all `n` that were asked for."""

    texts: Sequence[str | None] = ("hello",)
    tool_calls: Sequence[tuple[str, str]] = ()
    """(function, JSON arguments) of the first choice."""
    usage: Mapping[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 2})
    finish: str = "stop"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    ignore_n: bool = False
    logprobs: Sequence[float] = ()
    """Of the tokens of every choice, told where they are asked for."""
    tokens: Sequence[Mapping[str, Any]] = ()
    """The same with their texts: items of OpenAI's ``logprobs.content``."""
    chunk_delay: float = 0.0
    """Seconds between the chunks of a stream."""
    truncate_after: int | None = None
    """Break a stream off after so many chunks."""
    body: Mapping[str, Any] | None = None
    """The whole JSON body, in place of all the above."""
    events: Sequence[Mapping[str, Any]] | None = None
    """The data of all events of a stream, in place of those made of the above."""


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


Script = Sequence[Reply] | Callable[[Request], Reply]


class FakeOpenAI:
    """Answers from `script`: replies told in turn (the last one for ever), or a function of the request.

    A context manager; `url` ends in /v1, `root` does not. `requests` keeps what arrived, in order.
    """

    def __init__(self, script: Script = (Reply(),), models: Sequence[str] = ()) -> None:
        self.script = script
        self.models = models
        """What it says that it serves; none: it has no such list"""
        self.requests: list[Request] = []
        self.disconnected = threading.Event()
        """Set when a client went away before its answer was whole."""
        self.waiting = self.most_at_once = 0
        """Requests whose replies are being delayed, now and at most."""
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            if callable(self.script):
                return self.script(request)
            return self.script[min(len(self.requests), len(self.script)) - 1]

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than the server lives."""
        with self._lock:
            self.waiting += 1
            self.most_at_once = max(self.most_at_once, self.waiting)
        self._stopped.wait(seconds)
        with self._lock:
            self.waiting -= 1


def _handler(fake: FakeOpenAI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if not fake.models or not self.path.endswith("/models"):
                self.send_error(501)
                return
            data = json.dumps({"object": "list", "data": [{"id": name} for name in fake.models]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
            request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            reply = fake.next_reply(request)
            if reply.delay:
                fake.wait(reply.delay)
            if request.body.get("stream") and reply.status == 200 and reply.body is None:
                self._stream(request, reply)
                return
            data = json.dumps(_body(request, reply)).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                self.close_connection = True

        def _stream(self, request: Request, reply: Reply) -> None:
            self.send_response(200)
            for name, value in {"content-type": "text/event-stream", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            anthropic = request.path.endswith("/messages")
            events = _anthropic_events(request, reply) if anthropic else _events(request, reply)
            if request.path.endswith("/responses"):
                events = _response_events(events)
            if reply.events is not None:
                events = (f"event: {e.get('type')}\ndata: {json.dumps(e)}\n\n".encode() for e in reply.events)
            try:
                for count, event in enumerate(events):
                    if count == reply.truncate_after:
                        return
                    if count and reply.chunk_delay:
                        fake.wait(reply.chunk_delay)
                        self._still_there()
                    self.wfile.write(event)
                    self.wfile.flush()
            except OSError:
                fake.disconnected.set()

        def _still_there(self) -> None:
            """A client that has closed its side is seen at once, not at the second write."""
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _body(request: Request, reply: Reply) -> Mapping[str, Any]:
    if reply.body is not None:
        return reply.body
    if reply.status != 200:
        return {"type": "error", "error": {"type": "fake", "message": f"the fake says {reply.status}"}}
    if request.path.endswith("/messages"):
        return _anthropic(request, reply)
    n = 1 if reply.ignore_n else int(request.body.get("n") or 1)
    texts = list(reply.texts) * n if len(reply.texts) == 1 else list(reply.texts)
    choices: list[dict[str, Any]] = [
        {"index": i, "finish_reason": reply.finish, "message": {"role": "assistant", "content": text}}
        for i, text in enumerate(texts)
    ]
    if (reply.logprobs or reply.tokens) and _asks_for_logprobs(request.body):
        told: list[Any] = [
            *({"token": "x", "logprob": value, "bytes": None, "top_logprobs": []} for value in reply.logprobs),
            *reply.tokens,
        ]
        choices = [choice | {"logprobs": {"content": told, "refusal": None}} for choice in choices]
    if reply.tool_calls:
        choices[0]["finish_reason"] = "tool_calls"
        choices[0]["message"]["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(reply.tool_calls)
        ]
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.body.get("model"),
        "choices": choices,
    }
    body = body if reply.usage is None else body | {"usage": dict(reply.usage)}
    return as_response(body) if request.path.endswith("/responses") else body


def _asks_for_logprobs(body: Mapping[str, Any]) -> bool:
    """As a chat completion does, or as a Responses request does."""
    return bool(body.get("logprobs")) or "message.output_text.logprobs" in (body.get("include") or ())


def _response_events(events: Iterator[bytes]) -> Iterator[bytes]:
    chunks = [e.removeprefix(b"data: ").strip() for e in events]
    for number, event in enumerate(as_events([json.loads(c) for c in chunks if c != b"[DONE]"], True)):
        data = json.dumps({"sequence_number": number, **event})
        yield f"event: {event['type']}\ndata: {data}\n\n".encode()


def _events(request: Request, reply: Reply) -> Iterator[bytes]:
    """The chunks of a streamed chat completion."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": request.body.get("model")}

    def chunk(delta: Mapping[str, Any], index: int = 0, finish: str | None = None) -> bytes:
        choices = [{"index": index, "delta": delta, "finish_reason": finish}]
        return b"data: " + json.dumps({**head, "choices": choices}).encode() + b"\n\n"

    n = int(request.body.get("n") or 1)
    texts = list(reply.texts) * n if len(reply.texts) == 1 else list(reply.texts)
    for index in range(len(texts)):
        yield chunk({"role": "assistant", "content": ""}, index)
    for index, text in enumerate(texts):
        for word in re.findall(r"\s*\S+", text or ""):
            yield chunk({"content": word}, index)
    for i, (name, arguments) in enumerate(reply.tool_calls):
        half = len(arguments) // 2
        start = {"index": i, "id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": ""}}
        yield chunk({"tool_calls": [start]})
        for part in (arguments[:half], arguments[half:]):
            yield chunk({"tool_calls": [{"index": i, "function": {"arguments": part}}]})
    for index in range(len(texts)):
        yield chunk({}, index, "tool_calls" if reply.tool_calls else reply.finish)
    if (request.body.get("stream_options") or {}).get("include_usage") and reply.usage is not None:
        yield b"data: " + json.dumps({**head, "choices": [], "usage": dict(reply.usage)}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _anthropic_events(request: Request, reply: Reply) -> Iterator[bytes]:
    whole = _anthropic(request, reply)
    usage = dict(reply.usage or {})

    def event(kind: str, **data: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()

    yield event("message_start", message={**whole, "content": [], "stop_reason": None, "usage": usage})
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
            for word in re.findall(r"\s*\S+", block["text"]):
                yield event("content_block_delta", index=index, delta={"type": "text_delta", "text": word})
        else:
            yield event("content_block_start", index=index, content_block={**block, "input": {}})
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    output = {"output_tokens": usage.get("output_tokens", 0)}
    yield event("message_delta", delta={"stop_reason": whole["stop_reason"], "stop_sequence": None}, usage=output)
    yield event("message_stop")


def _anthropic(request: Request, reply: Reply) -> Mapping[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": text} for text in reply.texts if text]
    content += [
        {"type": "tool_use", "id": f"toolu_{i}", "name": name, "input": json.loads(arguments)}
        for i, (name, arguments) in enumerate(reply.tool_calls)
    ]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request.body.get("model"),
        "content": content,
        "stop_reason": "tool_use" if reply.tool_calls else {"stop": "end_turn", "length": "max_tokens"}[reply.finish],
        "usage": dict(reply.usage or {}),
    }
