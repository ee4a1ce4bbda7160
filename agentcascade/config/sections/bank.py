"""Sections of demonstrations: the bank, retrieval, what is collected, the shelf of failures."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from agentcascade.config.section import Section


class BankConfig(Section):
    """The database: demonstrations, records, budgets."""

    url: str = Field(default="sqlite:///agentcascade.db", description="SQLAlchemy URL; postgresql://… to share it")
    namespace: str = "default"
    journal: Path | None = Field(
        default=None,
        description="folder for what is not in the database yet; default: beside an SQLite file, else under "
        "$XDG_STATE_HOME/agentcascade (~/.local/state)",
    )
    migrate: bool = Field(
        default=True,
        description="bring the tables up to date when the database is opened; off: refuse tables that are not, for "
        "`agentcascade db upgrade` has to do it, as a job and with a role of its own",
    )


class WeightsConfig(Section):
    """Weights of the keys in a step's score; only their ratios matter."""

    goal: float = Field(default=1.0, ge=0, description="how alike the goals are")
    plan: float = Field(default=1.0, ge=0, description="how alike the plans are")
    observation: float = Field(default=1.0, ge=0, description="how alike what was just seen is")


class RetrievalConfig(Section):
    """Which demonstrations a step is shown."""

    embedder: str = Field(
        default="minilm",
        description="minilm (minilm:int8 and minilm:float32 fix its precision, which is else measured), hashing, "
        "sentence-transformers:NAME, onnx:FOLDER, or a plug-in's name",
    )
    index: str = Field(
        default="auto",
        description="auto (faiss where installed), exact, faiss, pgvector (bank in PostgreSQL), or a plug-in's name",
    )
    k: int = Field(default=6, ge=0, description="demonstrations per step; 0 turns retrieval off")
    window_before: int = Field(default=2, ge=0, description="steps shown before the one that matched")
    window_after: int = Field(default=2, ge=0, description="steps shown after the one that matched")
    weights: WeightsConfig = WeightsConfig()
    sticky: Literal["never", "always", "auto"] = Field(
        default="never",
        description="keep the demonstrations of the episode's earlier step, so that the provider's prompt cache hits; "
        "auto: where that is expected to save more than it loses",
    )
    sticky_sensitivity: float = Field(
        default=5.0, ge=0, description="deferrals that a demonstration score lower by 1 is expected to cause"
    )
    utility_weight: float = Field(
        default=0.0,
        ge=0,
        description="added to a demonstration's score per unit by which the success rate of episodes that used it is "
        "above the namespace's",
    )


class CollectConfig(Section):
    """Demonstrations: what is asked of the teacher, what is banked, and where it is sent (`active`)."""

    plan: bool = Field(default=False, description="ask the teacher for a plan before the first step (Traj-Bootstrap)")
    first_thought: bool = Field(default=False, description="open the first turn with a thought made without tools")
    drop_observations: tuple[str, ...] = Field(
        default=(), description="steps that led to an observation containing one of these are left out of the bank"
    )
    active: bool = Field(
        default=False,
        description="collect where a demonstration is expected to save more than it costs, and stop where none does",
    )
    budget: Decimal | None = Field(
        default=None, gt=0, description="dollars of active collection in a namespace, in all; default: no limit"
    )
    horizon: int = Field(default=1000, ge=1, description="future episodes over which a demonstration must pay")
    cold_start: int = Field(
        default=10, ge=0, description="demonstrations by diversity alone while no step was voted on yet"
    )


class ContrastConfig(Section):
    """Known failures: what failed in a situation is kept, denied votes there, and may be shown beside what worked."""

    failed: tuple[str, ...] = Field(
        default=(), description="an action failed if the next observation contains one of these; none: nothing is kept"
    )
    strike: bool = Field(default=True, description="a sample that repeats a known failure votes for nothing")
    show: bool = Field(default=False, description="demonstrations say what was tried in vain in their situations")
    times: int = Field(
        default=2,
        ge=1,
        description="that an action must have failed in a situation, and never have worked, to be known",
    )
    same: tuple[Literal["goal", "category", "observation", "before"], ...] = Field(
        default=("category", "observation", "before"),
        description="what makes two situations the same; before: the action before",
    )
    keep: int = Field(default=20_000, ge=1, description="outcomes of a namespace, the newest")

    @field_validator("failed")
    @classmethod
    def _are_marks(cls, marks: tuple[str, ...]) -> tuple[str, ...]:
        if any(not mark.strip() for mark in marks):
            raise ValueError("an empty text is in every observation: every action would have failed")
        return marks

    @field_validator("same")
    @classmethod
    def _are_situations(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if "observation" not in parts:
            raise ValueError("situations with different observations are not the same: add observation")
        return parts
