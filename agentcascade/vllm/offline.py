"""Offline sampling with vLLM: a process of its environment that samples many prompts at once, without a server."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from agentcascade._util.child_environment import ENGINE, HUB, child_environment
from agentcascade._util.files import TRUNCATED, open_private
from agentcascade.errors import ConfigError, EnvironmentFailed
from agentcascade.types import Message
from agentcascade.vllm.engine import EngineSettings, die_with_parent, end_process_group, failure_message, launch_command

SCRIPT = Path(__file__).with_name("offline_engine.py")


class SeededPrompt(TypedDict):
    """Prompt with a seed, which gives the same samples whatever else is in the batch."""

    id: str
    messages: Sequence[Message]
    seed: int


@dataclass(frozen=True)
class SamplingSettings:
    """Sampling parameters; `structured` is vLLM's structured output: `json`, `regex` or `grammar`."""

    n: int = 10
    temperature: float = 0.7
    max_tokens: int = 512
    structured: Mapping[str, Any] | None = None


def environment_python(named: str | None) -> Path:
    """The Python of vLLM's environment, which `named` names as for `launcher`. Raises `ConfigError`."""
    command = Path(launch_command(named)[0])
    python = command if command.name.startswith("python") else command.with_name("python")
    if not python.exists():
        raise ConfigError(f"{command} stands in no virtual environment: --vllm names the folder of one with vLLM")
    return python


class OfflineEngine:
    """Process with one model loaded in vLLM; `stop` ends it and its children."""

    def __init__(self, python: Path, settings: EngineSettings, log: Path, seconds: float) -> None:
        """Start it, and wait until it has answered once. Raises `EnvironmentFailed` with the reason if it does not."""
        self.settings = settings
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(open_private(log, TRUNCATED), "wb") as file:  # vLLM logs prompts where it is told to
            self.process = subprocess.Popen(
                [str(python), str(SCRIPT), "--model", settings.model, *settings.arguments(0)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                encoding="utf-8",
                env=child_environment(ENGINE, HUB) | settings.environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            assert self.process.stdout is not None
            if not select.select([self.process.stdout], [], [], seconds)[0]:
                raise EnvironmentFailed(self._failure(f"was not ready within {seconds:g} seconds (--wait)"))
            self._answer()
        except BaseException:
            self.stop()
            raise

    def sample(self, prompts: Sequence[SeededPrompt], sampling: SamplingSettings) -> list[dict[str, Any]]:
        """Sample each prompt: its `samples` (text, tokens, mean logprob), `prompt` and `cached` tokens, or an `error`.

        Raises `EnvironmentFailed` when the process dies.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"sampling": asdict(sampling), "asked": list(prompts)}) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # the answer says why
        answers: list[dict[str, Any]] = self._answer()["answers"]
        return answers

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        for _ in range(100):
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise EnvironmentFailed(self._failure(f"ended with status {self.process.poll()}"))

    def _failure(self, what: str) -> str:
        return failure_message(self.settings.name, self.log, what)

    def stop(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what it was still to be told
                pass
        end_process_group(self.process.pid, lambda: self.process.poll() is not None)
        self.process.wait()
