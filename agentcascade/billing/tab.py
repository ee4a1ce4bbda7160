"""Bills of model calls: what a call is made for and noted on, a step's record or a tab."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from agentcascade.types import Call, Completion, Purpose, Role


class Bill(Protocol):
    """What the calls are made for: a step's record, or a `Tab`."""

    def add_call(self, role: Role, purpose: Purpose, completion: Completion | None) -> None: ...

    def add_failure(self, what: str, error: BaseException) -> None: ...

    def model_time(self) -> AbstractContextManager[None]: ...


class Tab:
    """The bill of calls that are no part of a step."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failures: list[BaseException] = []

    def add_call(self, role: Role, purpose: Purpose, completion: Completion | None) -> None:
        if completion is not None:
            self.calls.append(Call.of(role, purpose, completion))

    def add_failure(self, what: str, error: BaseException) -> None:
        self.failures.append(error)

    def model_time(self) -> AbstractContextManager[None]:
        return nullcontext()
