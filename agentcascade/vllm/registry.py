"""Registry of the students that run on this machine: a file with their addresses and token prices."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from agentcascade._util.files import cache_folder
from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.models.pricing import Price
from agentcascade.models.quirks import HOSTED_VLLM
from agentcascade.types import Frozen


class Replica(Frozen):
    """Process of one engine."""

    api_base: str
    pid: int
    log: str = ""
    started: int | None = Field(default=None, description="when, as the system counts: another process has another")

    @property
    def alive(self) -> bool:
        if sys.platform == "win32":  # no engine runs there, and signal 0 is Ctrl-C
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return not _has_ended(self.pid) and self.started in (None, start_ticks(self.pid))


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _has_ended(pid: int) -> bool:
    """Whether a process is a zombie, which stays until its parent waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:  # it went meanwhile, or this system has no /proc
        return Path("/proc/self/stat").exists()


class Student(Frozen):
    """Student model that is served here, by one or more replicas."""

    name: str
    model: str
    replicas: tuple[Replica, ...]
    hour_dollars: Decimal | None = Field(default=None, description="of all its replicas together")
    price: Price | None = Field(default=None, description="of a token, from the hour's price and measured throughput")

    @property
    def alive(self) -> bool:
        return bool(self.api_bases)

    @property
    def api_bases(self) -> list[str]:
        """Addresses of the replicas that run."""
        return [replica.api_base for replica in self.replicas if replica.alive]


_STUDENTS = TypeAdapter(dict[str, Student])


class Registry:
    """Registry file, read at every call; a lock file keeps concurrent writers apart."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder("students") / "running.json"

    def all(self) -> dict[str, Student]:
        """All students by name, dead ones included. Raises `ConfigError` for a broken file."""
        try:
            return _STUDENTS.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{self.path} is not a list of students ({error}): delete it") from error

    def find(self, name: str) -> Student:
        """The running student of that name. Raises `ConfigError` where there is none."""
        known = self.all()
        student = known.get(name.removeprefix(HOSTED_VLLM))
        if student is None:
            near = f" ({did_you_mean(name.removeprefix(HOSTED_VLLM), known)})" if known else ""
            raise ConfigError(
                f"no student '{name}' is running here{near}: start it with `agentcascade students serve`, or set "
                "student.api_base"
            )
        if not student.alive:
            raise ConfigError(f"student '{student.name}' has died: see {student.replicas[0].log}, and start it again")
        return student

    def put(self, student: Student) -> None:
        self._change(lambda known: {**known, student.name: student})

    def drop(self, name: str) -> None:
        self._change(lambda known: {k: v for k, v in known.items() if k != name})

    def _change(self, make: Callable[[dict[str, Student]], dict[str, Student]]) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            data = {name: s.model_dump(mode="json") for name, s in make(self.all()).items()}
            temporary = self.path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(data, indent=2), encoding="utf-8")
            temporary.chmod(0o600)
            temporary.replace(self.path)
