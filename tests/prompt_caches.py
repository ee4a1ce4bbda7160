"""Providers that keep a prompt cache and account it by bytes, behind HTTP (`FakeOpenAI`): Anthropic's and OpenAI's.

Anthropic: the prefix is tools, system, then content blocks; a request writes one entry for each breakpoint; a read
looks for an entry in the `LOOKBACK` blocks that end at a breakpoint; entries live for five minutes after their last
use; more than four breakpoints, or one on an empty text, are refused. OpenAI: any prefix of an earlier request, in
blocks of 128 tokens, from 1,024 on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from os.path import commonprefix
from typing import Any

from agentcascade.messages import text_of
from agentcascade.models.pricing import Price
from agentcascade.models.prompt_cache import cache_terms, shared_messages
from agentcascade.models.quirks import model_quirks
from agentcascade.models.tokens import TOKENS_PER_MESSAGE, count_messages
from agentcascade.protocols import TokenCounter
from agentcascade.types import Completion, Usage
from tests.fake_openai import Reply, Request

BYTES_PER_TOKEN = 4
LOOKBACK = 20


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def tokens_of(data: bytes) -> int:
    return len(data) // BYTES_PER_TOKEN


class CachingProvider:
    """A script for `FakeOpenAI` that bills prompts as the provider at the request's path does.

    `say` gives the answer to a request. `usages` keeps what was billed, in order.
    """

    def __init__(
        self, say: Callable[[Request], str] = lambda _: "hello", *, minimum: int = 1024, clock: Clock | None = None
    ) -> None:
        self.say, self.minimum, self.clock = say, minimum, clock or Clock()
        self.usages: list[dict[str, Any]] = []
        self._entries: dict[bytes, float] = {}
        self._sent: list[tuple[bytes, float]] = []

    def __call__(self, request: Request) -> Reply:
        if request.path.endswith("/messages"):
            return self._anthropic(request)
        return self._openai(request)

    def _anthropic(self, request: Request) -> Reply:
        blocks, marks = anthropic_blocks(request.body)
        if len(marks) > 4:
            return refused(f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}.")
        if any(json.loads(blocks[i]).get("text") == "" for i in marks):
            return refused("messages: cache_control cannot be set for empty text blocks")
        ends = [b"\n".join(blocks[: i + 1]) for i in range(len(blocks))]
        sizes = [tokens_of(end) for end in ends]
        live = {key for key, at in self._entries.items() if self.clock() - at <= 300}
        looked = {i for mark in marks for i in range(max(0, mark - LOOKBACK + 1), mark + 1)}
        hit = max((i for i in looked if ends[i] in live), default=None)
        read = sizes[hit] if hit is not None else 0
        cached = [mark for mark in marks if sizes[mark] >= self.minimum]
        for i in {*cached, *([hit] if hit is not None else [])}:
            self._entries[ends[i]] = self.clock()
        written = max(0, max((sizes[mark] for mark in cached), default=0) - read)
        total = sizes[-1] if sizes else 0
        usage = {
            "input_tokens": total - read - written,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "output_tokens": 20,
        }
        self.usages.append(usage)
        return Reply(texts=(self.say(request),), usage=usage)

    def _openai(self, request: Request) -> Reply:
        sent = openai_bytes(request.body)
        whole = tokens_of(sent)
        live = [data for data, at in self._sent if self.clock() - at <= 600]
        shared = tokens_of(max((commonprefix([sent, data]) or b"" for data in live), key=len, default=b""))  # noqa: RUF071
        read = shared // 128 * 128 if shared >= self.minimum else 0
        self._sent.append((sent, self.clock()))
        n = int(request.body.get("n") or 1)
        usage = {"prompt_tokens": whole, "completion_tokens": 20 * n, "prompt_tokens_details": {"cached_tokens": read}}
        self.usages.append(usage)
        return Reply(texts=(self.say(request),), usage=usage)


def refused(message: str) -> Reply:
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    return Reply(status=400, body=body)


def anthropic_blocks(body: Mapping[str, Any]) -> tuple[list[bytes], list[int]]:
    """The blocks of a prompt in their order, without marks, and the indices of those that are marked."""
    system = body.get("system") or []
    blocks: list[dict[str, Any]] = [*(body.get("tools") or [])]
    blocks += [{"type": "text", "text": system}] if isinstance(system, str) else system
    for message in body["messages"]:
        content = message["content"]
        parts: Sequence[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks += [{"role": message["role"], **part} for part in parts]
    marks = [i for i, block in enumerate(blocks) if "cache_control" in block]
    return [json.dumps(unmarked(block)).encode() for block in blocks], marks


def unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: unmarked(v) for k, v in value.items() if k != "cache_control"}
    return [unmarked(v) for v in value] if isinstance(value, list) else value


def openai_bytes(body: Mapping[str, Any]) -> bytes:
    parts = [body.get("tools") or [], *body["messages"]]
    return b"\n".join(json.dumps(part).encode() for part in parts)


class CachedModel:
    """A model of a provider that caches prompts by the message, on `terms`, and bills them at `price`; for any loop."""

    def __init__(
        self,
        say: Callable[[Sequence[Any]], str],
        price: Price,
        clock: Clock,
        *,
        name: str = "acme/one",
        count: TokenCounter = lambda text: len(text.split()),
        supports_n: bool = True,
    ) -> None:
        self.say, self.price, self.clock, self.name, self.count = say, price, clock, name, count
        self.supports_n = supports_n
        self.terms = cache_terms(self)
        self.usages: list[Usage] = []
        self._sent: list[tuple[list[str], float]] = []

    def dollars(self, usage: Usage) -> Decimal:
        return self.price.dollars(usage)

    async def complete(self, messages: Sequence[Any], *, n: int = 1, **_: Any) -> Completion:
        sent = [json.dumps([m["role"], text_of(m), m.get("tool_calls")]) for m in messages]
        sizes = [count_messages([m], self.count) - TOKENS_PER_MESSAGE for m in messages]
        live = [earlier for earlier, at in self._sent if self.clock() - at <= self.terms.seconds]
        alike = max((shared_messages(list(map(hash, sent)), list(map(hash, e))) for e in live), default=0)
        self._sent.append((sent, self.clock()))
        text = self.say(messages)
        output = (self.count(text) + 2 * TOKENS_PER_MESSAGE) * n
        prompt = sum(sizes) + TOKENS_PER_MESSAGE
        usage = self.terms.usage(prompt, sum(sizes[:alike]), output=output)
        self.usages.append(usage)
        said = ({"role": "assistant", "content": text},) * n
        return Completion(model=self.name, messages=said, usage=usage, dollars=self.dollars(usage))


class MeteredModel:
    """A model whose provider keeps a prompt cache by its rules, on `clock`: OpenAI's, or Anthropic's by name.

    The prompt is cut into content blocks, and these into pieces of `PIECE` characters: a prefix may end inside a
    text; tokens are those of `count`. Requests for one wave of samples run side by side: none finds what another wrote.
    """

    PIECE = 400

    def __init__(
        self,
        say: Callable[[int], Mapping[str, Any]],
        name: str,
        price: Price | None,
        clock: Clock,
        count: Callable[[str], int],
        *,
        supports_n: bool = True,
    ) -> None:
        assert price is not None, name
        self.say, self.name, self.price, self.clock, self.count = say, name, price, clock, count
        self.supports_n, self._quirks = supports_n, model_quirks(name)
        self._held: dict[int, float] = {}
        """Hash of a prefix → when it was used last."""

    def dollars(self, usage: Usage) -> Decimal:
        return self.price.dollars(usage)

    async def complete(self, messages: Sequence[Any], *, n: int = 1, tools: Any = None, **_: Any) -> Completion:
        said = [dict(self.say(i)) for i in range(n)]
        prompt = (self._marked if self._quirks.prompt_cache == "marked" else self._automatic)(messages, tools)
        requests = 1 if self.supports_n else n
        prompt = Usage(**{name: value * requests for name, value in prompt.model_dump().items()})
        output = sum(self.count(text_of(m) + json.dumps(m.get("tool_calls") or "")) for m in said)
        one = Usage(**{name: value // requests for name, value in prompt.model_dump().items()})
        dollars = self.dollars(one) * requests + self.dollars(Usage(output=output))
        usage = prompt + Usage(output=output)
        return Completion(model=self.name, messages=tuple(said), usage=usage, dollars=dollars, calls=requests)

    def _pieces(self, messages: Sequence[Any], tools: Any) -> tuple[list[tuple[int, int]], list[tuple[int, bool]]]:
        """(hash of the prefix, tokens of the prefix) of each piece; (last piece, marked) of each block."""
        pieces: list[tuple[int, int]] = []
        blocks: list[tuple[int, bool]] = []
        chain = tokens = 0
        for role, text, marked in prompt_blocks(messages, tools):
            for start in range(0, max(1, len(text)), self.PIECE):
                piece = text[start : start + self.PIECE]
                chain = hash((chain, role, piece))
                tokens += self.count(piece)
                pieces.append((chain, tokens))
            blocks.append((len(pieces) - 1, marked))
        return pieces, blocks

    def _is_held(self, prefix: int) -> bool:
        at = self._held.get(prefix)
        return at is not None and self.clock() - at <= self._quirks.cache_seconds

    def _automatic(self, messages: Sequence[Any], tools: Any) -> Usage:
        pieces, _ = self._pieces(messages, tools)
        shared = 0
        for prefix, tokens in pieces:
            if not self._is_held(prefix):
                break
            shared = tokens
        read = (
            shared // self._quirks.cache_block * self._quirks.cache_block if shared >= self._quirks.cache_minimum else 0
        )
        for prefix, _ in pieces:
            self._held[prefix] = self.clock()
        return Usage(input=pieces[-1][1] - read, cached_input=read)

    def _marked(self, messages: Sequence[Any], tools: Any) -> Usage:
        pieces, blocks = self._pieces(messages, tools)
        total = pieces[-1][1]
        marks = [i for i, (_, marked) in enumerate(blocks) if marked]
        assert len(marks) <= 4, len(marks)
        looked = {i for mark in marks for i in range(max(0, mark - LOOKBACK + 1), mark + 1)}
        ends = {i: pieces[blocks[i][0]] for i in looked}
        hit = max((i for i in looked if self._is_held(ends[i][0])), default=None)
        read = ends[hit][1] if hit is not None else 0
        written = [mark for mark in marks if ends[mark][1] >= self._quirks.cache_minimum]
        for i in {*written, *([hit] if hit is not None else [])}:
            self._held[ends[i][0]] = self.clock()
        write = max(0, max((ends[mark][1] for mark in written), default=0) - read)
        return Usage(input=total - read - write, cached_input=read, cache_write=write)


def prompt_blocks(messages: Sequence[Any], tools: Any = None) -> Iterator[tuple[str, str, bool]]:
    """(role, text, whether marked) of the blocks that messages in OpenAI's shape become at Anthropic's endpoint."""
    for tool in tools or ():
        yield "tools", json.dumps(unmarked(tool)), "cache_control" in tool
    for message in messages:
        content, role = message.get("content"), message["role"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
        for i, part in enumerate(parts):
            whole = role == "tool" and i == len(parts) - 1 and "cache_control" in message
            text = part["text"] if part.get("type") == "text" else json.dumps(unmarked(part))
            yield role, text, "cache_control" in part or whole
        for call in message.get("tool_calls") or ():
            yield role, json.dumps(call["function"]), False
