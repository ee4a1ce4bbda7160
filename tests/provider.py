"""A provider on a local port whose every byte a test decides: bodies, events, endless ones, broken ones."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests import anthropic_shaped
from tests.responses_provider import as_events, as_response

USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
BLOCK = b"x" * 65536


class Out:
    """The answer to one request, as it is written."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler

    def json(self, data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.raw(json.dumps(data).encode(), status, {"content-type": "application/json", **(headers or {})})

    def raw(self, data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._head(status, {**(headers or {}), "content-length": str(len(data))})
        self._handler.wfile.write(data)

    def events(self, chunks: Iterable[Any], done: bool = True) -> None:
        """Server-sent events, and an end of the connection."""
        self._head(200, {"content-type": "text/event-stream", "connection": "close"})
        self._handler.close_connection = True
        for chunk in chunks:
            self._handler.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            self._handler.wfile.flush()
        if done:
            self._handler.wfile.write(b"data: [DONE]\n\n")

    def endless(self, block: bytes, kind: str, stopped: threading.Event) -> None:
        """`block` again and again, until the client goes."""
        self._head(200, {"content-type": kind, "connection": "close"})
        self._handler.close_connection = True
        while not stopped.is_set():
            self._handler.wfile.write(block)

    def bomb(self, kind: str) -> None:
        """Some 16 kB that swell to 16 MiB."""
        data = gzip.compress(b'{"id": "' + b"A" * 16 * 2**20)
        self.raw(data, 200, {"content-type": kind, "content-encoding": "gzip"})

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()


class _ResponsesOut(Out):
    """Says what it is told to say in the shape of OpenAI's Responses."""

    def json(self, data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().json(as_response(data), status, headers)

    def events(self, chunks: Iterable[Any], done: bool = True) -> None:
        super().events(as_events(chunks, done), False)


class _MessagesOut(Out):
    """Likewise, in the shape of Anthropic's Messages."""

    def json(self, data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().json(anthropic_shaped.answer(data) if isinstance(data, dict) else data, status, headers)

    def events(self, chunks: Iterable[Any], done: bool = True) -> None:
        super().events(anthropic_shaped.events(chunks, done), False)


SHAPES = {"responses": _ResponsesOut, "messages": _MessagesOut}
"""By the last word of a request's path; Chat Completions where there is none."""

Answer = Callable[[dict[str, Any], Out], None]


class Provider:
    """Answers by `answer(body, out)`; a context manager. `bodies` and `headers` keep what arrived."""

    def __init__(self, answer: Answer, host: str = "127.0.0.1") -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.stopped = threading.Event()
        self.reached, self.all_reached = threading.Event(), threading.Event()
        """Set by the first and by the third request."""
        self._server = ThreadingHTTPServer((host, 0), _handler(self))
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients go when they please
        self._server.daemon_threads, self._server.block_on_close = True, False
        self._host = host
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def root(self) -> str:
        return f"http://{self._host}:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
            provider.bodies.append(body)
            provider.headers.append({k.lower(): v for k, v in self.headers.items()})
            provider.reached.set()
            if len(provider.bodies) == 3:
                provider.all_reached.set()
            try:
                route = self.path.partition("?")[0].rpartition("/")[2]
                provider.answer(body, SHAPES.get(route, Out)(self))
            except OSError:
                self.close_connection = True

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def whole(message: Mapping[str, Any], finish: str | None = "stop", n: int = 1, **more: Any) -> dict[str, Any]:
    """A chat completion."""
    choice = {"finish_reason": finish, "message": {"role": "assistant", **message}}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m-2026"}
    return {**head, "choices": [{"index": i, **choice} for i in range(n)], "usage": USAGE, **more}


def part(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-2026", "choices": [choice]}


def last(usage: Any = USAGE) -> dict[str, Any]:
    """The chunk with the usage."""
    return {**part({}), "choices": [], "usage": usage}
