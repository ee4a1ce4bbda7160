"""`POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's Messages protocol, as JSON or as events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from agentcascade.billing.worst_case import PlannedCall
from agentcascade.episodes import identity
from agentcascade.messages import text_of
from agentcascade.server import wire
from agentcascade.server.errors import invalid
from agentcascade.server.messages_body import MessagesRequest, TokensRequest
from agentcascade.server.problem import Problem, anthropic_body
from agentcascade.server.wire_protocol import Caller, StepRequest
from agentcascade.types import Message, new_id
from agentcascade.wire.anthropic_answer import write_answer
from agentcascade.wire.anthropic_blocks import DETAILS
from agentcascade.wire.anthropic_events import EventWriter, server_sent
from agentcascade.wire.anthropic_request import MessagesRequest as Read
from agentcascade.wire.anthropic_request import read_request

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.episodes.stream import Answer, StepStream
    from agentcascade.protocols import ChatModel
    from agentcascade.server.passthrough import Api
    from agentcascade.types import Completion

PASSED_HEADERS = ("anthropic-version", "anthropic-beta")
HINTS = frozenset(
    {
        *("thinking", "context_management", "metadata", "cache_control", "diagnostics", "output_config"),
        *("output_format", "top_k", "betas"),
    }
)
"""Fields that a teacher behind another API can do without: they ask for the same answer, made or billed otherwise."""
FOREIGN_BLOCKS = re.compile(r"(container_upload|server_tool_use|.*_tool_result|tool_reference)$")
REMINDER = re.compile(r"\s*<system-reminder>.*</system-reminder>\s*", re.DOTALL)
"""What Claude Code says of its surroundings in the user's name."""
SESSION_HEADER = "x-claude-code-session-id"


class MessagesProtocol:
    """Messages, as the proxy speaks it."""

    api: Api = "messages"
    keepalive = b'event: ping\ndata: {"type": "ping"}\n\n'

    async def read(self, body: bytes, caller: Caller) -> tuple[str, dict[str, Any]]:
        data = wire.parse_body(body, MessagesRequest)
        return data["model"], data

    async def request(self, data: dict[str, Any], cascade: Cascade, caller: Caller) -> StepRequest:
        if data.get("thread") is not None:
            raise invalid(
                "thread: a step is decided on the whole conversation, so send all of its messages, without a thread",
                code="thread_unsupported_request",
            )  # fmt: skip
        read = read_request(data)
        options, ignored = options_for(cascade.context.teacher, read, caller.headers)
        metadata = dict(data.get("metadata") or {})
        if (session := session_of(read, caller.headers)) and identity.EPISODE not in metadata:
            metadata[identity.EPISODE] = session
        if identity.GOAL not in metadata and (goal := goal_of(read.messages)):
            metadata[identity.GOAL] = goal
        stops = data.get("stop_sequences") or ()
        return StepRequest(read.messages, read.tools, options, metadata, read.stream, ignored, wire=frozenset(stops))

    async def answer(self, request: StepRequest, answer: Answer) -> dict[str, Any]:
        completion = answer.completion
        written = write_answer(
            answer.messages[0],
            id=new_id("msg"),
            model=str(completion.fields.get("model") or completion.model),
            finish=_finish(completion),
            usage=completion.usage,
            details=completion.fields.get(DETAILS),
            stop=_stop(completion, request),
        )
        return {**written, "agentcascade": wire.decision_fields(answer.decision)}

    async def events(self, request: StepRequest, stream: StepStream) -> AsyncIterator[bytes]:
        writer, begun = EventWriter(new_id("msg"), ""), False
        async for chunk in stream:
            if not begun:
                begun = True
                for event in writer.start(chunk):
                    yield server_sent(event, to_json(event))
            for event in writer.read(chunk):
                yield server_sent(event, to_json(event))
        assert stream.answer is not None
        completion = stream.answer.completion
        fields = {"agentcascade": wire.decision_fields(stream.answer.decision)}
        details = completion.fields.get(DETAILS)
        last = writer.end(_finish(completion), completion.usage, details, _stop(completion, request), **fields)
        for event in last:
            yield server_sent(event, to_json(event))

    def error(self, problem: Problem) -> dict[str, Any]:
        return anthropic_body(problem)

    def error_event(self, problem: Problem) -> bytes:
        event = anthropic_body(problem)
        return server_sent(event, to_json(event))

    async def count_tokens(self, data: dict[str, Any], cascade: Cascade, caller: Caller) -> int:
        """Tokens of a prompt: as the teacher's provider counts them where it does, else the most that they can be."""
        read = read_request(data)
        teacher = cascade.context.teacher
        options, _ = options_for(teacher, read, caller.headers)
        count = getattr(teacher, "count_tokens", None)
        if count is not None:
            counted: int = await count(read.messages, read.tools, options)
            return counted
        model = teacher or cascade.context.student
        assert model is not None
        return PlannedCall(model, read.messages, {"tools": read.tools}, 1, cascade.context.count).prompt_tokens


def parse_count(body: bytes) -> dict[str, Any]:
    """A request to count tokens. Raises `Refused`."""
    return wire.parse_body(body, TokensRequest)


def options_for(
    teacher: ChatModel | None, read: Read, sent_headers: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """(options of the step, names of fields that the teacher is not sent). Raises `Refused` for what it cannot do."""
    options, details = dict(read.options), dict(read.details)
    metadata = details.get("metadata")
    if isinstance(metadata, Mapping):
        details["metadata"] = identity.provider_metadata(metadata)
    details = {k: v for k, v in details.items() if v is not None}
    if getattr(teacher, "speaks_messages", False):
        headers = {name: sent_headers[name] for name in PASSED_HEADERS if sent_headers.get(name)}
        return options | {"extra_headers": headers, "extra_body": details}, []
    name = teacher.name if teacher is not None else "the student"
    _refuse_foreign(read, name)
    for field in sorted(details.keys() - HINTS):
        if not (field == "service_tier" and details[field] in ("auto", "standard_only")) and not (
            field == "speed" and details[field] == "standard"
        ):
            raise _unsupported(field[:80], name)
    if details.get("top_k") is not None:
        options["top_k"] = details.pop("top_k")
    config, format = details.get("output_config"), details.get("output_format")
    asked = config.get("format") if isinstance(config, Mapping) else format
    if asked is not None and "response_format" not in options:
        raise _unsupported("output_config.format", name)
    if isinstance(config, Mapping) and config.keys() == {"format"}:
        details.pop("output_config")
    details.pop("output_format", None)
    return options, sorted(details)


def _refuse_foreign(read: Read, name: str) -> None:
    for i, tool in enumerate(read.tools or ()):
        if "function" not in tool:
            raise _unsupported(f"tools.{i}.type '{str(tool.get('type'))[:60]}'", name)
    for message in read.messages:
        content = message.get("content")
        details = message.get(DETAILS) or {}
        parts = [*(content if isinstance(content, list) else ()), *(details.get("blocks") or ())]
        for part in parts:
            source = part.get("source")
            kind = str(part.get("type"))
            if FOREIGN_BLOCKS.match(kind) and kind != "tool_result":
                raise _unsupported(f"a block of type '{kind[:60]}'", name)
            if isinstance(source, Mapping) and source.get("type") == "file":
                raise _unsupported(f"a block of type '{kind[:60]}' whose source is a file by its id", name)
            if kind == "document" and isinstance(source, Mapping) and source.get("type") == "url":
                raise _unsupported("a document whose source is an address", name)


def _unsupported(what: str, name: str) -> Exception:
    return invalid(
        f"{what}: the model behind this cascade, {name}, is asked by Chat Completions, which has nothing for it",
        code="unsupported",
    )


def session_of(read: Read, headers: Mapping[str, str]) -> str:
    """The episode's id where the caller names its session, "" where it does not.

    One session may hold several conversations, such as Claude Code's agents: what each starts with tells them apart.
    """
    session = headers.get(SESSION_HEADER, "")
    if not session:
        return ""
    digest = blake2b(session.encode(errors="replace")[:1000], digest_size=10)
    first = next((m for m in read.messages if m["role"] == "user"), None)
    digest.update(text_of(first).encode(errors="replace") if first else b"")
    return f"claude-code:{digest.hexdigest()}"


def goal_of(messages: Sequence[Message]) -> str:
    """The task, where the first thing said in the user's name begins with reminders of its surroundings; else ""."""
    first = next((m for m in messages if m["role"] == "user"), None)
    content = first.get("content") if first else None
    if not isinstance(content, list):
        return ""
    texts = [str(p.get("text") or "") for p in content if p.get("type") == "text"]
    said = [t for t in texts if not REMINDER.fullmatch(t[:100_000])]
    return "\n".join(said)[: identity.GOAL_CHARACTERS] if len(said) < len(texts) else ""


def _finish(completion: Completion) -> str:
    return completion.finish_reasons[0] if completion.finish_reasons else "stop"


def _stop(completion: Completion, request: StepRequest) -> str | None:
    """The stop sequence that ended an answer, where its provider names it: vLLM does."""
    fields = completion.choice_fields[0] if completion.choice_fields else {}
    reason = fields.get("stop_reason")
    return reason if isinstance(reason, str) and reason in request.wire else None
