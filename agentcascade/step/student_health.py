"""Health of students: a student that fails is said in the log once, and once more when it works again."""

from __future__ import annotations

import logging

from agentcascade._util import forking
from agentcascade.errors import describe

log = logging.getLogger("agentcascade.student")

PATIENCE = 3
"""Failures in a row of a student that has worked before; of one that never has, the first is said."""


class StudentHealth:
    """Each student's failures in a row. Thread-safe; shared by a cascade's twins."""

    def __init__(self) -> None:
        self._lock = forking.lock()
        self._failures: dict[str, int] = {}
        self._worked: set[str] = set()
        self._said: set[str] = set()

    def add_failure(self, student: str, error: BaseException) -> None:
        """The student's side of a step broke."""
        with self._lock:
            self._failures[student] = count = self._failures.get(student, 0) + 1
            new = student not in self._worked
            if student in self._said or not (new or count >= PATIENCE):
                return
            self._said.add(student)
        since = "has not worked yet" if new else f"failed {count} times in a row"
        log.warning(
            "student %s %s, and steps are taken without it: %s. Check its name, address and key (`agentcascade doctor "
            "--call` tries those of a configuration); this is said once, each decision records its failures",
            student,
            since,
            describe(error).rstrip("."),
        )

    def add_success(self, student: str) -> None:
        if not self._failures.get(student) and student in self._worked:  # the usual case takes no lock
            return
        with self._lock:
            failures, self._failures[student] = self._failures.get(student, 0), 0
            self._worked.add(student)
            again = student in self._said
            self._said.discard(student)
        if again:
            log.info("student %s works again, after %d failures", student, failures)
