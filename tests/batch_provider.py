"""A local HTTP server that plays OpenAI's Batch API and Anthropic's Message Batches as they are documented.

Batches make a step at each question about them. What it bills, it says itself: by `usage` of what it answered.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


@dataclass
class Held:
    """A batch at the provider."""

    id: str
    requests: list[Json]
    metadata: Json
    created: float
    status: str = "validating"
    errors: list[Json] = field(default_factory=list)
    output: list[bytes] = field(default_factory=list)
    failed: list[bytes] = field(default_factory=list)
    succeeded: int = 0
    usages: list[Mapping[str, Any]] = field(default_factory=list)
    polls: int = 0
    input_file: str = ""
    speaks_messages: bool = False


def say(text: str = "look", **usage: int) -> Callable[[Json], tuple[int, Any]]:
    """An `answer` that says the same to all, in OpenAI's shape."""
    return lambda body: (200, completion(body, [text] * int(body.get("n") or 1), usage or None))


def completion(body: Json, texts: list[str], usage: Mapping[str, int] | None = None) -> Json:
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        for i, text in enumerate(texts)
    ]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": f"{body.get('model')}-2026-01-01"}
    return {**head, "choices": choices, "usage": dict(usage or USAGE)}


class BatchProvider:
    """Answers each request of a batch with `answer(body)`: (HTTP status, body).

    Args:
        answer: As above; for Anthropic's the body is a message, or an error.
        polls: Questions about a batch before it ends.
        limit: Enqueued tokens, counted as one for each request; more make a batch fail.
    """

    def __init__(
        self, answer: Callable[[Json], tuple[int, Any]] | None = None, *, polls: int = 1, limit: int = 10**9
    ) -> None:
        self.answer, self.polls, self.limit = answer or say(), polls, limit
        self.batches: dict[str, Held] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.hooks: list[Callable[[str, str], str | tuple[int, Json] | None]] = []
        """Asked before each request is answered, as (method, path): ``drop`` does what is asked and says nothing,
        ``refuse`` closes at once, (status, body) answers instead."""
        self.lines: Callable[[Held, list[bytes]], list[bytes]] = lambda batch, lines: lines
        """Changes the result lines of a batch that ends."""
        self.expires_after: int | None = None
        """Requests of a batch that are run before it expires."""
        self.lock = threading.RLock()
        self.changed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads, self._server.block_on_close = True, False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def __enter__(self) -> BatchProvider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on_creation(self, *orders: str | tuple[int, Json]) -> None:
        """The next creations of batches go so; see `hooks`."""
        left = iter(orders)
        paths = ("/v1/batches", "/v1/messages/batches")
        self.hooks.append(lambda method, path: next(left, None) if method == "POST" and path in paths else None)

    def dollars(self, input: float, output: float) -> float:
        """The provider's bill, at dollars per million tokens."""
        names = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
        sums = [sum(int(u.get(a, u.get(b, 0))) for h in self.batches.values() for u in h.usages) for a, b in names]
        return (sums[0] * input + sums[1] * output) / 1e6

    def count(self, method: str, pattern: str) -> int:
        return sum(m == method and re.fullmatch(pattern, p) is not None for m, p in self.asked)

    def sent(self) -> list[Json]:
        """All requests of all batches that were run."""
        return [r for held in self.batches.values() if held.status != "failed" for r in held.requests]

    def step(self, held: Held) -> None:
        """A batch goes on by one step."""
        if held.status in ("completed", "failed", "expired", "cancelled", "ended"):
            return
        if held.status == "cancelling":
            self.end(held, "cancelled", len(held.requests) // 2)
        elif held.status == "validating":
            held.status = "failed" if held.errors else "in_progress"
        elif held.polls < self.polls:
            held.polls += 1
        elif held.status == "in_progress":
            held.status = "finalizing"
        else:
            self.end(held, "completed" if self.expires_after is None else "expired", self.expires_after)

    def end_messages(self, held: Held, status: str, run: int) -> None:
        kinds = {"expired": "expired", "cancelled": "canceled"}
        for number, request in enumerate(held.requests):
            code, body = self.answer(request["body"]) if number < run else (0, {})
            result: Json = {"type": kinds.get(status)}
            if code == 200:
                result = {"type": "succeeded", "message": body}
                held.usages.append(body["usage"])
            elif code:
                result = {"type": "errored", "error": {"type": "error", "request_id": None, "error": body["error"]}}
            held.output.append(json.dumps({"custom_id": request["custom_id"], "result": result}).encode())
        held.output = self.lines(held, held.output[::-1])

    def end(self, held: Held, status: str, most: int | None = None) -> None:
        held.status = status
        if held.speaks_messages:
            self.end_messages(held, status, len(held.requests) if most is None else most)
            return
        run = len(held.requests) if most is None else most
        for number, request in enumerate(held.requests):
            custom_id = request["custom_id"]
            head = {"id": f"batch_req_{number}", "custom_id": custom_id}
            if number >= run:
                if status == "expired":
                    error = {"code": "batch_expired", "message": "This request could not be executed before the window"}
                    held.failed.append(json.dumps({**head, "response": None, "error": error}).encode())
                continue
            code, body = self.answer(request["body"])
            response = {"status_code": code, "request_id": f"req_{number}", "body": body}
            (held.output if code == 200 else held.failed).append(
                json.dumps({**head, "response": response, "error": None}, ensure_ascii=False).encode()
            )
            if code == 200:
                held.succeeded += 1
                held.usages.append(body.get("usage") or {})
        held.output = self.lines(held, held.output[::-1])  # in no order of anybody's
        held.failed = self.lines(held, held.failed)

    def openai(self, held: Held) -> Json:
        """The batch object."""
        ended = held.status in ("completed", "expired", "cancelled")
        files = {}
        for name, lines in (("output", held.output), ("error", held.failed)):
            file = f"file-{name}-{held.id}" if ended and lines else None
            if file:
                self.files[file] = b"\n".join(lines) + b"\n"
            files[f"{name}_file_id"] = file
        total = len(held.requests) if held.status not in ("validating", "failed") else 0
        counts = {"total": total, "completed": held.succeeded, "failed": len(held.failed)}
        errors = {"object": "list", "data": held.errors} if held.status == "failed" else None
        head = {"id": held.id, "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        times = {"created_at": int(held.created), "expires_at": int(held.created) + 86400}
        return {
            **head, **times, **files, "status": held.status, "errors": errors, "request_counts": counts,
            "metadata": held.metadata, "input_file_id": held.input_file,
        }  # fmt: skip

    def anthropic(self, held: Held) -> Json:
        """The batch object of Message Batches."""
        ended = held.status in ("completed", "expired", "cancelled")
        told = Counter(json.loads(line)["result"]["type"] for line in held.output) if ended else Counter[str]()
        counts = {name: told[name] for name in ("succeeded", "errored", "canceled", "expired")}
        canceling = "canceling" if held.status == "cancelling" else "in_progress"
        head = {"id": held.id, "type": "message_batch", "processing_status": "ended" if ended else canceling}
        counts = {"processing": 0 if ended else len(held.requests), **counts}
        times = {"created_at": rfc3339(held.created), "expires_at": rfc3339(held.created + 86400)}
        end = {"ended_at": rfc3339(held.created + 60) if ended else None}
        url = f"{self.url}/messages/batches/{held.id}/results" if ended else None
        nothing = {"archived_at": None, "cancel_initiated_at": None}
        return {**head, **times, **end, **nothing, "request_counts": counts, "results_url": url}

    def create_messages(self, body: Json) -> tuple[int, Json]:
        requests = [{"custom_id": r["custom_id"], "body": r["params"]} for r in body["requests"]]
        ids = [r["custom_id"] for r in requests]
        if len(set(ids)) < len(ids) or not all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", id) for id in ids):
            return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "custom_id"}}
        held = Held(f"msgbatch_{len(self.batches)}", requests, {}, time.time(), speaks_messages=True)
        self.batches[held.id] = held
        return 200, self.anthropic(held)

    def create(self, body: Json) -> tuple[int, Json]:
        text = self.files.get(str(body.get("input_file_id")))
        if text is None or body.get("completion_window") != "24h" or body.get("endpoint") != "/v1/chat/completions":
            return 400, {"error": {"message": "invalid batch", "type": "invalid_request_error", "code": None}}
        requests = [json.loads(line) for line in text.splitlines()]
        held = Held(f"batch_{len(self.batches)}", requests, body.get("metadata") or {}, time.time())
        held.input_file = body["input_file_id"]
        ids = [r["custom_id"] for r in requests]
        if len(set(ids)) < len(ids) or len(ids) > 50_000 or len(text) > 200 * 10**6:
            held.errors = [{"code": "duplicate_custom_id", "message": "bad input", "line": 1, "param": None}]
        queued = sum(len(h.requests) for h in self.batches.values() if h.status in ("validating", "in_progress"))
        if queued + len(requests) > self.limit:
            message = f"Enqueued token limit reached for m in organization o. Limit: {self.limit} enqueued tokens."
            held.errors = [{"code": "token_limit_exceeded", "message": message, "line": None, "param": None}]
        self.batches[held.id] = held
        return 200, self.openai(held)


def _handler(provider: BatchProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answered("GET")

        def do_POST(self) -> None:
            self._answered("POST")

        def _answered(self, method: str) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            parts = urlsplit(self.path)
            with provider.lock:
                provider.asked.append((method, parts.path))
                orders = [order for hook in provider.hooks if (order := hook(method, parts.path)) is not None]
                order = orders[0] if orders else None
                if order == "refuse":
                    self._hang_up()
                    return
                if isinstance(order, tuple):
                    status, body = order
                else:
                    status, body = self._route(method, parts.path, parse_qs(parts.query), data)
                if order == "drop":
                    self._hang_up()
                    return
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.close()

        def _route(self, method: str, path: str, query: Mapping[str, list[str]], data: bytes) -> tuple[int, Any]:
            name = path.removeprefix("/v1")
            if (method, name) == ("POST", "/files"):
                id = f"file-{len(provider.files)}"
                provider.files[id] = _uploaded(self.headers["content-type"], data)
                size = len(provider.files[id])
                head = {"id": id, "object": "file", "bytes": size, "created_at": 1, "filename": "batch.jsonl"}
                return 200, {**head, "purpose": "batch", "status": "processed"}
            if found := re.fullmatch(r"/files/(.+)/content", name):
                held = provider.files.get(found[1])
                return (200, held) if held is not None else (404, {"error": {"message": "No such File object"}})
            if (method, name) == ("POST", "/batches"):
                return provider.create(json.loads(data))
            if (method, name) == ("GET", "/batches"):
                return self._listed(query)
            if name.startswith("/messages/batches"):
                return self._messages(method, name.removeprefix("/messages/batches"), query, data)
            if found := re.fullmatch(r"/batches/([^/]+)(/cancel)?", name):
                held_batch = provider.batches.get(found[1])
                if held_batch is None:
                    return 404, {"error": {"message": f"No batch found with id '{found[1]}'"}}
                if found[2]:
                    held_batch.status = "cancelling"
                else:
                    provider.step(held_batch)
                return 200, provider.openai(held_batch)
            return 404, {"error": {"message": f"there is no {method} {path}"}}

        def _messages(self, method: str, name: str, query: Mapping[str, list[str]], data: bytes) -> tuple[int, Any]:
            key = self.headers["x-api-key"] or self.headers["authorization"]
            if not key or self.headers["anthropic-version"] not in ("2023-06-01", "2026-10-21"):
                return 401, {"type": "error", "error": {"type": "authentication_error", "message": "no key"}}
            if (method, name) == ("POST", ""):
                return provider.create_messages(json.loads(data))
            if (method, name) == ("GET", ""):
                page = [provider.anthropic(held) for held in list(provider.batches.values())[::-1]]
                return 200, {"data": page, "has_more": False, "first_id": None, "last_id": None}
            id, _, what = name.removeprefix("/").partition("/")
            held = provider.batches.get(id)
            if held is None:
                return 404, {"type": "error", "error": {"type": "not_found_error", "message": f"no {id}"}}
            if what == "results":
                return 200, b"\n".join(held.output) + b"\n"
            if what == "cancel":
                held.status = "cancelling"
            else:
                provider.step(held)
            return 200, provider.anthropic(held)

        def _listed(self, query: Mapping[str, list[str]]) -> tuple[int, Any]:
            newest = list(provider.batches.values())[::-1]
            after = query.get("after", [""])[0]
            ids = [held.id for held in newest]
            newest = newest[ids.index(after) + 1 :] if after in ids else newest
            limit = int(query.get("limit", ["20"])[0])
            page = [provider.openai(held) for held in newest[:limit]]
            ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
            return 200, {"object": "list", "data": page, "has_more": len(newest) > limit, **ends}

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _uploaded(kind: str, data: bytes) -> bytes:
    """The file of a multipart form, whose purpose has to be ``batch``."""
    boundary = re.search(r'boundary="?([^";]+)', kind)
    assert boundary is not None, kind
    fields: dict[str, bytes] = {}
    for part in data.split(b"--" + boundary[1].encode()):
        head, _, body = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="(\w+)"', head)
        if name:
            fields[name[1].decode()] = body.removesuffix(b"\r\n")
    assert fields.get("purpose") == b"batch", fields.keys()
    return fields["file"]


def rfc3339(seconds: float) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
