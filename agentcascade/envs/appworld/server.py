"""AppWorld environment server as a child process: started on demand, replaced when it dies or hangs."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from agentcascade.envs.appworld import installation
from agentcascade.errors import EnvironmentFailed

START_SECONDS = 120.0
OUTPUT_LIMIT = 100_000
"""Characters of a block's output that leave the server"""
MEMORY_MIB = 8_192
"""Address space of a server, in MiB"""


class ServerGone(EnvironmentFailed):
    """The server died, or did not answer in time. `hung`: it was killed after a time-out."""

    def __init__(self, message: str, *, hung: bool = False) -> None:
        super().__init__(message)
        self.hung = hung


class AppWorldServer:
    """AppWorld server, which has one world and ends with this process. Not thread-safe."""

    def __init__(
        self,
        root: Path,
        *,
        keep_outputs: bool = False,
        command: list[str] | None = None,
        output_limit: int = OUTPUT_LIMIT,
        memory_mib: int = MEMORY_MIB,
    ) -> None:
        """`keep_outputs`: what AppWorld writes of a task goes to `root`; else to a folder that ends with the process.

        `command` starts the server instead of AppWorld's own interpreter.
        """
        self.root = root
        self.starts = 0
        """Number of processes started"""
        self._command = command
        self._limits = [str(output_limit), str(memory_mib)]
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None
        self._log: IO[bytes] | None = None
        self._keep_outputs = keep_outputs
        self._scratch: Path | None = None

    @property
    def pid(self) -> int | None:
        """Id of the running process, if there is one."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def call(self, method: str, arguments: Mapping[str, Any], seconds: float) -> Any:
        """Call a method. Raises `ServerGone` where the server dies or times out; the next call starts another one.

        Raises `EnvironmentFailed` where it cannot be started, or says that the call is wrong.
        """
        import httpx

        if self.pid is None:
            self._start()
        try:
            answer = self._client.post(f"/{method}", json=dict(arguments), timeout=seconds)
        except httpx.TimeoutException as error:
            self.stop()
            raise ServerGone(f"AppWorld did not answer {method} within {seconds:g} s", hung=True) from error
        except httpx.HTTPError as error:
            why = self._why()
            self.stop()
            raise ServerGone(f"AppWorld's server died at {method}: {why}") from error
        if answer.status_code != 200:
            raise EnvironmentFailed(f"AppWorld refused {method} ({answer.status_code}): {self._why(answer.text)}")
        return answer.json()["output"]

    def stop(self) -> None:
        """End the process; a second call does nothing."""
        if self._client is not None:
            self._client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()
        if self._log is not None:
            self._log.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._process = self._client = self._log = self._scratch = None

    def _start(self) -> None:
        import httpx

        self.stop()
        command = self._command or [str(installation.interpreter()), str(installation.INSIDE / "serve.py")]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        folder = self.root
        if not self._keep_outputs:
            folder = self._scratch = Path(tempfile.mkdtemp(prefix="agentcascade-appworld-"))
            (folder / "data").symlink_to(self.root / "data")
        self._process = subprocess.Popen(
            [*command, *self._limits, *([str(self._scratch)] if self._scratch else [])],
            env=installation.child_variables(folder),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self.starts += 1
        port = self._port()
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)

    def _port(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        line = b""
        while not line.endswith(b"\n"):
            ready = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
            part = self._process.stdout.readline() if ready else b""
            if not part:
                why = self._why()
                self.stop()
                raise EnvironmentFailed(f"AppWorld's server did not start: {why}")
            line += part
        return int(json.loads(line)["port"])

    def _why(self, words: str = "") -> str:
        """The last that it logged, or said."""
        if self._log is not None:
            self._log.seek(0)
            logged = self._log.read()[-20_000:].decode("utf-8", "replace").strip().splitlines()
            words = logged[-1] if logged else words
        return words[:500] or "it said nothing"
