"""A local HTTP server that speaks Anthropic's Messages API, and refuses what Anthropic refuses.

The rules are those of its documentation and error messages: which fields there are, tool results that come first and
answer the calls before them, signatures that it gave itself, at most four cache breakpoints, no empty texts. Events
come in the order in which Anthropic sends them, with a ping.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-ant-api03-" + "k" * 40
FIELDS = {
    *("model", "messages", "max_tokens", "system", "tools", "tool_choice", "temperature", "top_p", "top_k", "stream"),
    *("stop_sequences", "metadata", "thinking", "output_config", "service_tier", "container", "mcp_servers", "betas"),
    *("context_management", "cache_control", "inference_geo", "speed", "diagnostics", "output_format"),
}
BLOCKS = {
    "text": {"text", "citations"}, "image": {"source"}, "document": {"source", "title", "context", "citations"},
    "tool_use": {"id", "name", "input", "caller"}, "tool_result": {"tool_use_id", "content", "is_error"},
    "thinking": {"thinking", "signature"}, "redacted_thinking": {"data"}, "search_result": None,
    "server_tool_use": None, "web_search_tool_result": None, "tool_reference": None,
}  # fmt: skip
USAGE = {"input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 2}


class Refusal(Exception):
    """What Anthropic would refuse with status 400."""


@dataclass(frozen=True)
class Reply:
    """One answer: its content blocks, as a whole answer has them."""

    content: Sequence[Mapping[str, Any]] = ({"type": "text", "text": "hello"},)
    stop_reason: str = ""
    """Default: ``tool_use`` with a call in it, else ``end_turn``."""
    stop_sequence: str | None = None
    usage: Mapping[str, Any] = field(default_factory=lambda: dict(USAGE))
    status: int = 200
    error: tuple[str, str] = ("api_error", "the fake fails")
    """(type, message) of an error: with another status, or in the middle of a stream (`error_after`)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    error_after: int | None = None
    """So many events before an error event."""
    truncate_after: int | None = None
    """Break a stream off after so many events."""

    def body(self, model: str) -> dict[str, Any]:
        """The whole answer."""
        calls = any(block["type"] == "tool_use" for block in self.content)
        return {
            "id": "msg_01Fake", "type": "message", "role": "assistant", "model": model, "content": list(self.content),
            "stop_reason": self.stop_reason or ("tool_use" if calls else "end_turn"),
            "stop_sequence": self.stop_sequence, "usage": dict(self.usage),
        }  # fmt: skip


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


Script = Sequence[Reply] | Callable[[Request], Reply]


def text(words: str, **more: Any) -> Reply:
    return Reply([{"type": "text", "text": words}], **more)


def call(name: str, input: Mapping[str, Any], id: str = "toolu_01A", said: str = "", **more: Any) -> Reply:
    before = [{"type": "text", "text": said}] if said else []
    return Reply([*before, {"type": "tool_use", "id": id, "name": name, "input": dict(input)}], **more)


def thinking(words: str, signature: str = "") -> dict[str, Any]:
    """A block that the fake takes back: its signature is made of its words."""
    return {"type": "thinking", "thinking": words, "signature": signature or sign(words)}


def sign(words: str) -> str:
    return f"sig{len(words)}{words[:8].replace(' ', '')}=="


class FakeAnthropic:
    """Answers from `script`: replies told in turn (the last one for ever), or a function of the request.

    A context manager; `root` is what Anthropic's clients call ``base_url``. `requests` keeps those of ``/v1/messages``,
    `others` all else, `refused` what was refused and why.
    """

    def __init__(self, script: Script = (Reply(),)) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.others: list[Request] = []
        self.refused: list[str] = []
        self.disconnected = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads, self._server.block_on_close = True, False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeAnthropic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
        if callable(self.script):
            return self.script(request)
        return self.script[min(number, len(self.script)) - 1]


def check(request: Request) -> None:
    """Raises `Refusal` as Anthropic would."""
    body = request.body
    for name in ("model", "messages", "max_tokens"):
        if body.get(name) is None:
            raise Refusal(f"{name}: Field required")
    if extra := sorted(body.keys() - FIELDS):
        raise Refusal(f"{extra[0]}: Extra inputs are not permitted")
    if not 0 <= (body.get("temperature") or 0) <= 1:
        raise Refusal("temperature: range: 0..1")
    system = body.get("system") or []
    breakpoints = _count_breakpoints([system, body.get("tools") or [], body["messages"]])
    if breakpoints > 4:
        raise Refusal(f"A maximum of 4 blocks with cache_control may be provided. Found {breakpoints}.")
    for i, block in enumerate(system if isinstance(system, list) else ()):
        if not block.get("text"):
            raise Refusal(f"system.{i}: text content blocks must be non-empty")
    for i, tool in enumerate(body.get("tools") or ()):
        if tool.get("type", "custom") == "custom" and tool.get("input_schema", {}).get("type") != "object":
            raise Refusal(f"tools.{i}.custom.input_schema.type: Field required")
    if set(body.get("metadata") or {}) - {"user_id"}:
        raise Refusal("metadata: Extra inputs are not permitted")
    thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    if thinks and (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise Refusal("Thinking may not be enabled when tool_choice forces tool use.")
    _check_messages(body["messages"], thinks and (body.get("thinking") or {}).get("type") == "enabled")


def _count_breakpoints(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_count_breakpoints, value))
    if not isinstance(value, Mapping):
        return 0
    return bool(value.get("cache_control")) + _count_breakpoints(value.get("content"))


def _check_messages(messages: Sequence[Mapping[str, Any]], thinks: bool) -> None:
    if not messages or messages[0]["role"] == "assistant":
        raise Refusal("messages: first message must use the user role")
    turns: list[tuple[str, list[Mapping[str, Any]]]] = []
    for i, message in enumerate(messages):
        if message["role"] == "system" and turns and message.keys() == {"role", "content"}:
            continue  # in mid-conversation
        if message["role"] not in ("user", "assistant") or message.keys() - {"role", "content"}:
            raise Refusal(f"messages.{i}: Extra inputs are not permitted")
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        if not blocks:
            raise Refusal(f"messages.{i}: all messages must have non-empty content")
        for j, block in enumerate(blocks):
            _check_block(f"messages.{i}.content.{j}", block, message["role"])
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(blocks)
        else:
            turns.append((message["role"], blocks))
    waiting: list[str] = []
    for role, blocks in turns:
        if role == "assistant":
            waiting = [b["id"] for b in blocks if b["type"] == "tool_use"]
            continue
        results = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
        if waiting and set(waiting) - set(results):
            raise Refusal("`tool_use` ids were found without `tool_result` blocks immediately after")
        if set(results) - set(waiting) or len(set(results)) < len(results):
            raise Refusal("unexpected `tool_use_id` found in `tool_result` blocks")
        if waiting and any(b["type"] != "tool_result" for b in blocks[: len(results)]):
            raise Refusal("tool_result blocks must come first")
        waiting = []
    if waiting:
        raise Refusal("`tool_use` ids were found without `tool_result` blocks immediately after")
    role, blocks = turns[-1]
    if role == "assistant" and str(blocks[-1].get("text", "")).endswith((" ", "\n")):
        raise Refusal("messages: final assistant content cannot end with trailing whitespace")
    last: Sequence[Mapping[str, Any]] = next((blocks for role, blocks in reversed(turns) if role == "assistant"), [])
    open_exchange = turns[-1][0] == "user" and any(b["type"] == "tool_result" for b in turns[-1][1])
    if thinks and open_exchange and last and last[0]["type"] not in ("thinking", "redacted_thinking"):
        raise Refusal("Expected `thinking` or `redacted_thinking`, but found `tool_use`")


def _check_block(where: str, block: Mapping[str, Any], role: str) -> None:
    kind = block.get("type")
    if kind not in BLOCKS:
        raise Refusal(f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
    known = BLOCKS[kind]
    if known is not None and (extra := sorted(block.keys() - known - {"type", "cache_control"})):
        raise Refusal(f"{where}.{extra[0]}: Extra inputs are not permitted")
    if kind == "text" and not block["text"].strip():
        raise Refusal(f"{where}: text content blocks must contain non-whitespace text")
    if kind in ("tool_use", "thinking", "redacted_thinking") and role != "assistant":
        raise Refusal(f"{where}: `{kind}` blocks can only be in assistant messages")
    if kind == "tool_result" and role != "user":
        raise Refusal(f"{where}: `tool_result` blocks can only be in user messages")
    if kind == "thinking" and block["signature"] != sign(block["thinking"]):
        raise Refusal(f"{where}: Invalid `signature` in `thinking` block")
    if kind == "tool_use" and (
        not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]) or not isinstance(block["input"], dict)
    ):
        raise Refusal(f"{where}.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if kind == "tool_result" and isinstance(block.get("content"), list):
        for i, part in enumerate(block["content"]):
            _check_block(f"{where}.content.{i}", part, "user")


def events_of(reply: Reply, model: str) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer."""
    whole = reply.body(model)
    usage = {**whole["usage"], "output_tokens": 1}
    start = {**whole, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(whole["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _begun(block)}
        if index == 0:
            yield {"type": "ping"}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": whole["stop_sequence"]}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": whole["usage"]["output_tokens"]}}
    yield {"type": "message_stop"}


def _begun(block: Mapping[str, Any]) -> dict[str, Any]:
    empty: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    begun = {**block, **empty.get(block["type"], {})}
    return {**begun, "citations": []} if "citations" in begun else begun


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        for word in re.findall(r"\s*\S+\s*|\s+", block["text"]):
            yield {"type": "text_delta", "text": word}
        for citation in block.get("citations") or ():
            yield {"type": "citations_delta", "citation": citation}
    elif block["type"] == "thinking":
        for word in re.findall(r"\s*\S+\s*|\s+", block["thinking"]):
            yield {"type": "thinking_delta", "thinking": word}
        if block["signature"]:
            yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] in ("tool_use", "server_tool_use"):
        data = json.dumps(block["input"])
        half = len(data) // 2
        for part in ("", data[:half], data[half:]) if block["input"] else ("",):
            yield {"type": "input_json_delta", "partial_json": part}


def _handler(fake: FakeAnthropic) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(data or b"{}"))
            path = self.path.partition("?")[0]
            try:
                if path == "/v1/messages":
                    self._messages(request)
                elif path == "/v1/messages/count_tokens":
                    fake.others.append(request)
                    self._json({"input_tokens": 42})
                else:
                    fake.others.append(request)
                    self._error(404, "not_found_error", f"no route {path}")
            except OSError:
                self.close_connection = True
                fake.disconnected.set()

        do_GET = do_HEAD = do_POST

        def _messages(self, request: Request) -> None:
            sent = request.headers.get("x-api-key") or request.headers.get("authorization")
            if not sent:
                self._error(401, "authentication_error", "x-api-key header is required")
                return
            if not request.headers.get("anthropic-version"):
                self._error(400, "invalid_request_error", "anthropic-version: header is required")
                return
            try:
                check(request)
            except Refusal as refusal:
                fake.refused.append(str(refusal))
                self._error(400, "invalid_request_error", str(refusal))
                return
            reply = fake.reply(request)
            if reply.status != 200:
                self._error(reply.status, *reply.error, headers=reply.headers)
            elif request.body.get("stream"):
                self._stream(reply, str(request.body["model"]))
            else:
                self._json(reply.body(str(request.body["model"])), headers=reply.headers)

        def _stream(self, reply: Reply, model: str) -> None:
            self._head(200, {"content-type": "text/event-stream", "connection": "close", **reply.headers})
            self.close_connection = True
            for count, event in enumerate(events_of(reply, model)):
                if count == reply.truncate_after:
                    return
                if count == reply.error_after:
                    kind, message = reply.error
                    self._event({"type": "error", "error": {"type": kind, "message": message}})
                    return
                self._event(event)

        def _event(self, event: Mapping[str, Any]) -> None:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()

        def _error(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
            body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}
            self._json(body, status, headers)

        def _json(self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
            data = json.dumps(body).encode()
            length = {"content-type": "application/json", "content-length": str(len(data)), "request-id": "req_fake"}
            self._head(status, {**length, **(headers or {})})
            if self.command != "HEAD":
                self.wfile.write(data)

        def _head(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
