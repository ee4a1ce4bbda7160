"""When things happened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.memory.dates import MONTHS, expressions, resolve
from agentcascade.memory.modules.extraction import Extraction, picked
from agentcascade.memory.modules.filter import combined
from agentcascade.memory.question import Item, Work, shown
from agentcascade.types import ModuleName

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

NEAR = 30.0
"""Days at which a line outside the asked period counts half."""
CALENDAR = re.compile(rf"\d{{4}}|{MONTHS}", re.IGNORECASE)
"""An expression with one of these says itself when it is."""
READ = 12
"""Lines whose time expressions are read."""


class Temporal(Extraction):
    name: ModuleName = "temporal"
    description = "Finds when the events that the question asks about happened and puts dates to them."
    task = "memory_temporal"

    def rules(self, work: Work) -> list[Item]:
        """Lines with a time expression that share terms with the question; those said in the asked period first."""
        lines = work.lines(work.kept)
        said = [1.0 if expressions(work.view.lines[i].text) else 0.5 for i in lines]
        scores = work.shares(lines) * np.array(said, dtype=np.float32)
        return picked(work, lines, scores * _near(work, [work.view.lines[i].at for i in lines]))

    def models(self, work: Work) -> list[Item]:
        """The same by meaning, with 'yesterday' and the like turned into dates."""
        lines = work.lines(work.kept)
        return self._dated(work, lines, np.float32(0.5) * (work.cosines(lines) + work.shares(lines)))

    def deep(self, work: Work) -> list[Item]:
        """The same by late interaction."""
        lines = work.lines(work.kept)
        return self._dated(work, lines, combined(work, lines))

    def _dated(self, work: Work, lines: list[int], scores: Vector) -> list[Item]:
        top = [lines[o] for o in np.argsort(-scores, kind="stable")[:READ]]
        days = dict(zip(top, work.tools.once("dates", [_key(work, i) for i in top], _days, work.meter)))
        texts = {i: _with_days(work, i, found) for i, found in days.items() if found}
        timed = np.array([1.0 if days.get(i) else 0.8 for i in lines], dtype=np.float32)
        meant = [next((d for _, d in days.get(i) or ()), work.view.lines[i].at) for i in lines]
        return picked(work, lines, scores * timed * _near(work, meant), texts)


def _key(work: Work, i: int) -> str:
    """All that the meaning of a line's time expressions hangs on."""
    line = work.view.lines[i]
    return f"{line.at.isoformat() if line.at else ''}|{line.text}"


def _days(keys: Sequence[str]) -> list[list[tuple[str, datetime]]]:
    found = []
    for key in keys:
        said, _, text = key.partition("|")
        at = datetime.fromisoformat(said) if said else None
        read = [(e, resolve(e, at)) for e in expressions(text) if not CALENDAR.search(e)]
        found.append([(e, day) for e, day in read if day is not None])
    return found


def _with_days(work: Work, i: int, days: list[tuple[str, datetime]]) -> str:
    return f"{shown(work.view.lines[i])} ({'; '.join(f'{e} = {day:%d %B %Y}' for e, day in days)})"


def _near(work: Work, days: Sequence[datetime | None]) -> Vector:
    """1 inside the periods that the question names, less outside; 1 everywhere where it names none."""
    periods = work.query.periods
    if not periods:
        return np.ones(len(days), dtype=np.float32)
    found = [0.5 if d is None else max(NEAR / (NEAR + p.distance(d)) for p in periods) for d in days]
    return np.array(found, dtype=np.float32)
