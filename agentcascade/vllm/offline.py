"""vLLM without a server: a process of its environment that samples many prompts at once."""

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
from agentcascade.vllm.engine import Settings, die_with_parent, end_group, launcher, why

SCRIPT = Path(__file__).with_name("offline_engine.py")


class Asked(TypedDict):
    """One prompt; the same seed gives the same samples, whatever else is asked at once."""

    id: str
    messages: Sequence[Message]
    seed: int


@dataclass(frozen=True)
class Sampling:
    """How each prompt is sampled. `structured` is a form as vLLM takes it: `json`, `regex` or `grammar`."""

    n: int = 10
    temperature: float = 0.7
    max_tokens: int = 512
    structured: Mapping[str, Any] | None = None


def python_of(given: str | None) -> Path:
    """The Python of vLLM's environment, which `given` names as for `launcher`. Raises `ConfigError`."""
    command = Path(launcher(given)[0])
    python = command if command.name.startswith("python") else command.with_name("python")
    if not python.exists():
        raise ConfigError(f"{command} stands in no virtual environment: --vllm names the folder of one with vLLM")
    return python


class OfflineEngine:
    """One process with one model; `stop` ends it and all that it started."""

    def __init__(self, python: Path, settings: Settings, log: Path, seconds: float) -> None:
        """Returns when it has answered once. Raises `EnvironmentFailed` that says why it does not."""
        self.settings, self.log = settings, log
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
                raise EnvironmentFailed(self._why(f"was not ready within {seconds:g} seconds (--wait)"))
            self._answer()
        except BaseException:
            self.stop()
            raise

    def sample(self, asked: Sequence[Asked], sampling: Sampling) -> list[dict[str, Any]]:
        """An answer to each: its `samples` (text, tokens, mean logprob), `prompt` and `cached` tokens, or an `error`.

        Raises `EnvironmentFailed` when the process dies.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"sampling": asdict(sampling), "asked": list(asked)}) + "\n")
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
        raise EnvironmentFailed(self._why(f"ended with status {self.process.poll()}"))

    def _why(self, what: str) -> str:
        return why(self.settings.name, self.log, what)

    def stop(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what it was still to be told
                pass
        end_group(self.process.pid, lambda: self.process.poll() is not None)
        self.process.wait()
