"""Steps that failed: counted apart from those that were answered, by their errors, in SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentcascade import build
from agentcascade.launch.summary import summarize
from agentcascade.ledger.failed_steps import failed_steps
from agentcascade.models.pricing import PriceTable
from agentcascade.storage import open_database
from agentcascade.types import Completion, now

ASK: list[Any] = [{"role": "user", "content": "Where is the mug?"}]


class Refused(Exception):
    status_code = 401


class OverLoaded(Exception):
    status_code = 529


class Teacher:
    """Answers after what it raises first."""

    name, supports_n = "dear", True

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def dollars(self, usage: object) -> None:
        return None

    async def complete(self, messages: object, **options: Any) -> Completion:
        if self.errors:
            raise self.errors.pop(0)
        return Completion(model="dear", messages=({"role": "assistant", "content": "On the desk."},))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_failed_steps_are_counted_apart_with_their_errors(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/c.db" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    began = now()
    errors = [Refused('no such key\x1b[2J "mine"'), OverLoaded("busy"), Refused("x" * 5000 + "\n2 steps")]
    teacher = Teacher(*errors)
    parts: Any = {"teacher": teacher, "mode": "teacher", "retrieval": {"k": 0}, "bank": {"url": url}}
    async with build(None, **parts) as cascade:
        for _ in errors:
            with pytest.raises(Exception, match=r"no such key|busy|xxx"):
                await cascade.episode().complete(ASK)
        await cascade.episode().complete(ASK)
    database = open_database(url)
    try:
        assert [(k.name, k.steps) for k in failed_steps(database)] == [("Refused", 2), ("OverLoaded", 1)]
        assert failed_steps(database, since=now() + timedelta(hours=1)) == []
        assert failed_steps(database, namespace="another") == []
        lines = summarize(database, began, "default", PriceTable()).lines()
    finally:
        database.close()
    assert lines[0] == "1 step, and 3 that failed in 4 conversations"
    assert lines[1].startswith('2 failed with Refused: "xxx')
    assert len(lines[1]) < 200
    assert lines[2] == '1 failed with OverLoaded: "busy"'
    assert not any("\n" in line or "\x1b" in line for line in lines)


def test_kinds_of_errors_are_bounded() -> None:
    from agentcascade.launch.summary import RunSummary
    from agentcascade.ledger.failed_steps import ErrorKind
    from agentcascade.ledger.ledger import Summary
    from agentcascade.types import Usage

    steps = Summary(group="collect", steps=40, deferred=40, usage=Usage(), dollars=None, known_dollars=0,
                    unpriced_calls=0, teacher_dollars=None, saved_dollars=None)  # fmt: skip
    kinds = [ErrorKind(f"Error{n}" + "\n" * 200, 2, "") for n in range(20)]
    lines = RunSummary([steps], [], 3, failed=kinds).lines()
    assert lines[0] == "0 steps, and 40 that failed in 3 conversations"
    assert len(lines) == 7
    assert lines[-1] == "30 failed with other errors: see the records"
    assert all(len(line) < 200 and "\n" not in line for line in lines)
