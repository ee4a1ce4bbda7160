"""Shadows that are written together, each with fields that others lack."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from agentcascade.steplog.database import export
from agentcascade.storage import open_database
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Decision, Shadow

FIELDS: list[dict[str, Any]] = [{}, {"asked_together": 3, "window": "1/1"}, {"vary": "order", "history": "1/2/3/low"}]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_what_one_says_stays_whichever_comes_first(order: tuple[int, ...]) -> None:
    """A row whose field is None says so: a statement has the columns of its first row."""
    shadows = [Shadow(decision=f"de_{i}", kind="audit", episode="e", step=i, **FIELDS[i]) for i in order]
    decisions = [
        Decision(id=f"de_{i}", episode="e", step=i, mode="cascade", answered_by="student", reason="") for i in order
    ]
    database = open_database("sqlite://")
    with database.begin(write=True) as connection:
        write_records(connection, [*decisions, *shadows])
    found = {step.step: step for step in export(database, kinds=("audit",))}
    told = [(s.asked_together, s.student.window, s.student.vary, s.student.history) for _, s in sorted(found.items())]
    assert told == [(None, None, None, None), (3, "1/1", None, None), (None, None, "order", "1/2/3/low")]
    database.close()
