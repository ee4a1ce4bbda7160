"""AppWorld's environment server, on this machine alone and within limits: `python serve.py OUTPUT_LIMIT MEMORY_MIB`.

It tells its port on standard output, and ends with its standard input. What it adds to AppWorld's own application is a
bound on what a block of code may print and take, and `/dry_run`: the block in a forked world that is thrown away.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
import threading
from typing import Any

FIELDS = ("output", "wrote")


def main(output_limit: int, memory_mib: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what AppWorld prints is no answer
    threading.Thread(target=end_with_parent, daemon=True).start()
    import uvicorn
    from appworld.environment import AppWorld
    from appworld.serve import environment

    limit(AppWorld, output_limit)
    add_dry_run(environment)
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), file=said, flush=True)
    uvicorn.Server(uvicorn.Config(environment.app, log_level="warning")).run(sockets=[listener])


def end_with_parent() -> None:
    leave = os._exit  # AppWorld takes it away while code runs
    while sys.stdin.buffer.read(1):
        pass
    leave(0)


def limit(world: Any, most: int) -> None:
    """Cut what a block printed, before it is logged again at every later step."""
    execute = world.execute

    def limited(self: Any, code: str) -> str:
        output = str(execute(self, code))
        if len(output) > most:
            output = f"{output[:most]}\n[{len(output) - most:,} more characters are left out]"
            self.environment_io[-1]["output"] = output
        return output

    world.execute = limited


def add_dry_run(module: Any) -> None:
    from fastapi import Body

    @module.app.post("/dry_run")  # type: ignore[untyped-decorator]
    async def dry_run(task_id: str = Body(...), code: str = Body(...), seconds: int = Body(...)) -> dict[str, Any]:
        module.maybe_raise_exception(task_id)
        return {"output": forked(module.world, code, seconds)}


def forked(world: Any, code: str, seconds: int) -> dict[str, Any] | None:
    """What a block would print and whether it would change anything; None where it takes too long or ends the fork."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        leave, write, close = os._exit, os.write, os.close
        try:
            close(reader)
            world.requester.client.portal = None  # its thread stayed behind: every request gets one of its own
            world._save_state = world.save_logs = lambda *args, **kwargs: None
            world.timeout_seconds = seconds
            before = changes(world)
            output = world.execute(code)
            answer = json.dumps(dict(zip(FIELDS, (output, changes(world) != before)))).encode()
            while answer:
                answer = answer[write(writer, answer) :]
        finally:
            leave(0)
    os.close(writer)
    try:
        said: dict[str, Any] | None = json.loads(read(reader, seconds + 5) or b"null")
        return said
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def changes(world: Any) -> list[int]:
    """How often each app's database was written to."""
    return [len(app.SQLModel.db.tracker.changes) for app in world.models.values()]


def read(reader: int, seconds: float) -> bytes:
    """All that comes before the other end is closed; nothing where nothing comes for so long."""
    parts: list[bytes] = []
    while select.select([reader], [], [], seconds)[0]:
        part = os.read(reader, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return b""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
