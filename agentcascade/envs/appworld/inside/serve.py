"""AppWorld's environment server, on this machine alone and within limits.

`python serve.py OUTPUT_LIMIT MEMORY_MIB [SCRATCH]` tells its port on standard output, and ends with its standard input;
then it removes the folder SCRATCH. What it adds to AppWorld's own application is a bound on what a block of code may
print and take, and forks of the world that are thrown away.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any


def main(output_limit: int, memory_mib: int, scratch: str = "") -> None:
    if sys.platform == "win32":
        raise SystemExit("AppWorld's server needs what Linux has")
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what AppWorld prints is no answer
    threading.Thread(target=end_with_parent, args=(scratch,), daemon=True).start()
    import uvicorn
    from appworld.environment import AppWorld
    from appworld.serve import environment

    limit(AppWorld, output_limit)
    add_forks(environment)
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), file=said, flush=True)
    uvicorn.Server(uvicorn.Config(environment.app, log_level="warning")).run(sockets=[listener])


def end_with_parent(scratch: str) -> None:
    leave, remove = os._exit, shutil.rmtree  # AppWorld takes them away while code runs
    while sys.stdin.buffer.read(1):
        pass
    if scratch:
        remove(scratch, ignore_errors=True)
    leave(0)


def limit(world: Any, most: int) -> None:
    """Cut what a block printed, before it is logged again at every later step, and make it text that can be sent."""
    execute, save_logs = world.execute, world.save_logs

    def limited(self: Any, code: str) -> str:
        output = plain(str(execute(self, code)))
        if len(output) > most:
            output = f"{output[:most]}\n[{len(output) - most:,} more characters are left out]"
            self.environment_io[-1]["output"] = output
        return output

    def logged(self: Any) -> None:
        self.environment_io[-1:] = [{k: plain(v) for k, v in entry.items()} for entry in self.environment_io[-1:]]
        save_logs(self)

    world.execute, world.save_logs = limited, logged


def plain(text: str) -> str:
    """Half a character, which Python can print and UTF-8 cannot say, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def add_forks(module: Any) -> None:
    """`/dry_run`: what a block would print, and whether it would change anything. `/verdict`: AppWorld's evaluation.

    Both in a fork: AppWorld's evaluation, too, leaves its world with databases mixed up.
    """
    from fastapi import Body

    @module.app.post("/dry_run")  # type: ignore[untyped-decorator]
    async def dry_run(task_id: str = Body(...), code: str = Body(...), seconds: int = Body(...)) -> dict[str, Any]:
        module.maybe_raise_exception(task_id)
        return {"output": forked(lambda: tried(module.world, code, seconds), seconds + 5)}

    @module.app.post("/verdict")  # type: ignore[untyped-decorator]
    async def verdict(task_id: str = Body(...), seconds: int = Body(...)) -> dict[str, Any]:
        module.maybe_raise_exception(task_id)
        return {"output": forked(lambda: module.world.evaluate(suppress_errors=True).to_dict(), seconds)}


def tried(world: Any, code: str, seconds: int) -> dict[str, str]:
    """What a block prints, and digests of what it writes and of the values that it leaves in variables, by whatever
    names; empty where there are none.
    """
    world.requester.client.portal = None  # its thread stayed behind: every request gets one of its own
    world._save_state = world.save_logs = lambda *args, **kwargs: None
    world.timeout_seconds = seconds
    written, known = changes(world), variables(world)
    output = world.execute(code)
    wrote = [made[len(before) :] for made, before in zip(changes(world), written)]
    left = sorted(value for name, value in variables(world).items() if known.get(name) != value)
    return {"output": output, "wrote": digest(wrote) if any(wrote) else "", "left": digest(left) if left else ""}


def forked(work: Callable[[], Any], seconds: float) -> Any:
    """What the work gives in a fork of this process; None where it takes too long, or ends the fork."""
    if sys.platform == "win32":
        return None
    reader, writer = os.pipe()
    luck = random.getstate()
    child = os.fork()
    if child == 0:
        leave, write, close = os._exit, os.write, os.close
        try:
            random.setstate(luck)  # Python gives a fork another: tokens, drawn from it, would differ
            close(reader)
            answer = json.dumps(work()).encode()
            while answer:
                answer = answer[write(writer, answer) :]
        finally:
            leave(0)
    os.close(writer)
    try:
        return json.loads(read(reader, seconds) or b"null")
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def changes(world: Any) -> list[list[Any]]:
    """What was written to each app's database."""
    return [list(app.SQLModel.db.tracker.changes) for app in world.models.values()]


def variables(world: Any) -> dict[str, str]:
    """The data that the code so far has left behind."""
    data = (str, int, float, bool, type(None), list, tuple, dict, set)
    own = world.shell.user_ns.items()
    return {name: repr(value) for name, value in own if isinstance(value, data) and not name.startswith("_")}


def digest(what: Any) -> str:
    return hashlib.sha256(repr(what).encode("utf-8", "replace")).hexdigest()[:16]


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
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
