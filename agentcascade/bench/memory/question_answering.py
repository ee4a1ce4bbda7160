"""LoCoMo, LongMemEval and HotpotQA: every policy answers every question, then one table and one frontier.

One JSON line a question is the only state, as in `records`: a killed run goes on from there.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from agentcascade._util.files import append_to, write_atomically
from agentcascade.bench.frontier import Point, clusters, point
from agentcascade.bench.memory.live import Asked, Live, Result
from agentcascade.bench.memory.scoring import Scored, Scorer
from agentcascade.bench.records import read_manifest
from agentcascade.envs.memory_qa.types import Conversation
from agentcascade.errors import BenchError, describe
from agentcascade.memory.question import dated_line
from agentcascade.routers.tier.baselines import FixedTiers, RandomTiers
from agentcascade.types import Frozen

if TYPE_CHECKING:
    from agentcascade.memory.memory import Memory
    from agentcascade.memory.types import TierRouter

BASELINES = ("all-low", "all-mid", "all-high", "random", "top-k", "full-context")


class Row(Frozen):
    """One question under one policy."""

    policy: str
    tradeoff: float = 0.0
    history: str
    question: str
    category: str
    score: float
    metrics: dict[str, float] = Field(default_factory=dict)
    answer: str = ""
    tokens: int
    milliseconds: float
    memory_dollars: Decimal | None
    answer_dollars: Decimal | None
    left_out: int = 0

    @property
    def key(self) -> tuple[str, float, str]:
        return self.policy, self.tradeoff, self.question

    @property
    def name(self) -> str:
        return self.policy if self.policy in BASELINES else f"{self.policy} λ={self.tradeoff:g}"


@dataclass(frozen=True)
class Plan:
    """What to run. `routers` are learned ones by name, each played at every λ of `tradeoffs`."""

    suite: str
    policies: Sequence[str]
    routers: Mapping[str, TierRouter]
    tradeoffs: Sequence[float]

    def runs(self) -> list[tuple[str, float]]:
        return [(p, 0.0) for p in self.policies] + [(name, t) for name in self.routers for t in self.tradeoffs]


class Rows:
    """The folder of one run: ``run.json`` and ``rows.jsonl``. Raises `BenchError` for the folder of another run."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], *, resume: bool) -> None:
        self._path = folder / "rows.jsonl"
        settings = folder / "run.json"
        kept = {k: v for k, v in manifest.items() if k not in ("versions", "started")}
        if settings.exists():
            if not resume:
                raise BenchError(f"{folder} holds a run already: add --resume to continue it, or choose another --out")
            old = read_manifest(folder)
            differing = [k for k, v in json.loads(json.dumps(kept, default=str)).items() if old.get(k) != v]
            if differing:
                raise BenchError(f"{folder} was run with another {', '.join(differing)}: resume with the same settings")
        else:
            if self._path.exists():
                raise BenchError(f"{folder} holds rows of a run whose run.json is gone: choose another --out")
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(settings, json.dumps(dict(manifest), indent=2, default=str))
        if self._path.exists():
            with self._path.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)  # a torn last line never happened
        self._file = append_to(self._path)

    def append(self, row: Row) -> None:
        try:
            self._file.write(row.model_dump_json() + "\n")
            self._file.flush()
        except OSError as error:
            raise BenchError(
                f"{self._path} cannot be written ({error}): what was played is kept; make room, and go on with --resume"
            ) from error

    def __iter__(self) -> Iterator[Row]:
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield Row.model_validate_json(line)
                except ValueError as error:
                    raise BenchError(
                        f"{self._path} line {number} is no row ({describe(error)}): delete that line to have it played "
                        "again, or choose another --out"
                    ) from error

    def close(self) -> None:
        with suppress(OSError):  # what a full disk did not take was told when it was appended
            self._file.flush()
            os.fsync(self._file.fileno())
        with suppress(OSError):
            self._file.close()


def run(
    plan: Plan,
    memory: Memory,
    conversations: Sequence[Conversation],
    scorer: Scorer,
    rows: Rows,
    on_row: Callable[[Row, bool], None],
    *,
    concurrency: int = 4,
) -> list[Row]:
    """Play what is not played yet; returns all rows."""
    done = {row.key: row for row in rows}
    for row in done.values():
        on_row(row, True)
    live, room = Live(memory, conversations, scorer), asyncio.Semaphore(concurrency)

    def finished(row: Row) -> None:
        rows.append(row)
        done[row.key] = row
        on_row(row, False)

    async def one(name: str, t: float, asked: Asked, router: TierRouter | None) -> None:
        async with room:
            if router is None:
                finished(await _plain(live, name, asked))
            else:
                finished(_row(name, t, asked, await live.ask(asked, router, t)))

    async def play() -> None:
        waiting = [
            (name, t, asked)
            for name, t in plan.runs()
            for asked in live.asked
            if (name, t, asked.question.id) not in done
        ]
        by_run: dict[tuple[str, float], list[Asked]] = defaultdict(list)
        for name, t, asked in waiting:
            by_run[name, t].append(asked)
        routers = {name: router_of(name, plan) for name, _ in by_run}
        async for block in live.prepared({asked.history for _, _, asked in waiting}):
            for (name, t), items in by_run.items():
                own = [asked for asked in items if asked.history in block]
                await asyncio.gather(*(one(name, t, asked, routers[name]) for asked in own))

    asyncio.run(play())
    return list(done.values())


def router_of(name: str, plan: Plan) -> TierRouter | None:
    """None for the baselines that run no pipeline."""
    if name in plan.routers:
        return plan.routers[name]
    if name == "random":
        return RandomTiers()
    if name.startswith("all-"):
        return FixedTiers(name.removeprefix("all-"))  # type: ignore[arg-type]
    return None


async def _plain(live: Live, name: str, asked: Asked) -> Row:
    """Plain retrieval, or all there is."""
    work = await asyncio.to_thread(live.memory.question_context, asked.question.text, asked.history)
    whole = name == "full-context"
    lines = list(range(len(work.history.lines))) if whole else [i for c in work.retrieved for i in work.lines_of([c])]
    budget, kept, total = live.memory.config.token_budget, [], 0
    for i in lines:
        own = live.memory.count(dated_line(work.history.lines[i]) + "\n")
        if total + own > budget and not whole:
            break
        total += own
        kept.append(i)
    text = "\n".join(dated_line(work.history.lines[i]) for i in sorted(kept))
    sources = tuple(dict.fromkeys(work.history.lines[i].turn for i in kept))
    scored = await live.scorer(asked.question, text, sources)
    return _scored(name, 0.0, asked, scored, tokens=total, milliseconds=0.0, memory_dollars=Decimal(0))


def _row(name: str, tradeoff: float, asked: Asked, result: Result) -> Row:
    recall = result.recall
    return _scored(
        name,
        tradeoff,
        asked,
        result.scored,
        tokens=recall.tokens,
        milliseconds=result.milliseconds,
        memory_dollars=recall.dollars,
        left_out=len(recall.left_out),
    )


def _scored(name: str, tradeoff: float, asked: Asked, scored: Scored, **cost: Any) -> Row:
    question = asked.question
    return Row(
        policy=name,
        tradeoff=tradeoff,
        history=asked.history,
        question=question.id,
        category=question.category,
        score=scored.score,
        metrics=scored.metrics,
        answer=scored.answer,
        answer_dollars=scored.dollars,
        **cost,
    )


@dataclass(frozen=True)
class Line:
    """One row of the report's table."""

    point: Point
    questions: int
    tokens: float
    milliseconds: float
    memory_dollars: float | None
    answer_dollars: float | None
    metrics: dict[str, float]
    by_category: dict[str, tuple[float, int]]


def summarise(rows: Sequence[Row], plan: Plan, cost: str) -> list[Line]:
    """A line for each policy and λ; `cost` is milliseconds, tokens or dollars."""
    by_name: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: r.question):
        by_name[row.policy, row.tradeoff].append(row)
    fixed = [by_name[name, 0.0] for name in plan.policies if name.startswith("all-") and by_name[name, 0.0]]
    corners = None
    if fixed and len({len(own) for own in fixed}) == 1:
        corners = (
            np.array([[r.score for r in own] for own in fixed]).T,
            np.array([[cost_of(r, cost) for r in own] for own in fixed]).T,
        )
    found = []
    for key in plan.runs():
        own = by_name[key]
        if not own:
            continue
        draws = clusters([r.history for r in own])
        scores, costs = np.array([r.score for r in own]), np.array([cost_of(r, cost) for r in own])
        same = corners if corners is not None and len(corners[0]) == len(own) else None
        names = sorted({name for r in own for name in r.metrics})
        groups = sorted({r.category for r in own})
        found.append(
            Line(
                point=point(own[0].name, scores, costs, draws, same),
                questions=len(own),
                tokens=float(np.mean([r.tokens for r in own])),
                milliseconds=float(np.mean([r.milliseconds for r in own])),
                memory_dollars=_total([r.memory_dollars for r in own]),
                answer_dollars=_total([r.answer_dollars for r in own]),
                metrics={n: float(np.mean([r.metrics[n] for r in own if n in r.metrics])) for n in names},
                by_category={g: _mean([r.score for r in own if r.category == g]) for g in groups},
            )
        )
    return found


def cost_of(row: Row, cost: str) -> float:
    if cost == "dollars":
        return float((row.memory_dollars or 0) + (row.answer_dollars or 0))
    return float(row.tokens) if cost == "tokens" else row.milliseconds


def _mean(values: Sequence[float]) -> tuple[float, int]:
    return float(np.mean(values)), len(values)


def _total(dollars: Sequence[Decimal | None]) -> float | None:
    known = [d for d in dollars if d is not None]
    return float(sum(known, Decimal(0))) if len(known) == len(dollars) else None
