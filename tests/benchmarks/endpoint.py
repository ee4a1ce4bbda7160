"""An OpenAI-compatible endpoint that answers at once, always the same, in a process of its own.

It is not to be the bottleneck: a bare asyncio protocol.

Run by itself: python tests/benchmarks/endpoint.py [PORT]
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import cast

ANSWER = "Thought: It has to be washed, so the sink is next.\nAction: go to sink 1"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
CHOICES = re.compile(rb'"n": ?(\d+)')
STREAM = re.compile(rb'"stream": ?true')


@cache
def response(n: int) -> bytes:
    choice = {"message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop", "logprobs": None}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "gpt-4.1-mini",
            "choices": [{"index": i, **choice} for i in range(n)],
            "usage": {"prompt_tokens": 2000, "completion_tokens": 20 * n, "total_tokens": 2000 + 20 * n},
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@cache
def stream() -> bytes:
    """The answer as events, word by word, with usage at the end."""
    own = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "gpt-4.1-mini"}
    words = [{"role": "assistant", "content": ""}, *({"content": word} for word in re.findall(r"\s*\S+", ANSWER))]
    chunks = [{**own, "choices": [{"index": 0, "delta": word, "finish_reason": None}]} for word in words]
    chunks.append({**own, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 2000, "completion_tokens": 20, "total_tokens": 2020}
    chunks.append({**own, "choices": [], "usage": usage})
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return f"{head}{len(events):x}\r\n{events}\r\n0\r\n\r\n".encode()


class Endpoint(asyncio.Protocol):
    """One connection. Requests are told apart by their content length alone; `n` is read off the body's text."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._waiting = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._waiting, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._waiting) < whole:
                return
            request, self._waiting = self._waiting[:whole], self._waiting[whole:]
            n = CHOICES.search(request, end)
            self._transport.write(stream() if STREAM.search(request, end) else response(int(n[1]) if n else 1))


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


@contextmanager
def running() -> Iterator[str]:
    """The address of an endpoint in a process of its own."""
    with subprocess.Popen([sys.executable, str(Path(__file__))], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
