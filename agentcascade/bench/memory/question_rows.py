"""Rows of a memory benchmark: one question under one policy each, the run folder that keeps them, and what to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from agentcascade.bench.run_folder import RunFolder
from agentcascade.types import Frozen

if TYPE_CHECKING:
    from agentcascade.memory.types import TierRouter

BASELINES = ("all-low", "all-mid", "all-high", "random", "top-k", "full-context")


class QuestionRow(Frozen):
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
class EvaluationPlan:
    """Plan of a run; `routers` are learned ones by name, each played at every λ of `tradeoffs`."""

    suite: str
    policies: Sequence[str]
    routers: Mapping[str, TierRouter]
    tradeoffs: Sequence[float]

    def runs(self) -> list[tuple[str, float]]:
        return [(p, 0.0) for p in self.policies] + [(name, t) for name in self.routers for t in self.tradeoffs]


class QuestionRunFolder(RunFolder[QuestionRow]):
    """Run folder of questions: ``run.json`` (settings) and ``rows.jsonl``, which is on the disk when it is closed."""

    file_name = "rows.jsonl"
    noun = "row"
    durable = False

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        super().__init__(QuestionRow, folder, settings, resume=resume)

    def _difference(self, keys: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
        return f"another {', '.join(keys)}: resume with the same settings"
