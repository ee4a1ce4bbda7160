"""Settings of `history`: how much of a long run's history a prompt holds, and what carries the rest."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from agentcascade.config.section import Section
from agentcascade.config.sections import ModelConfig


class HistoryConfig(Section):
    """Bounded history: the last steps stand in a student's prompt as they are, older ones as a carried state.

    A step is an answer of the agent with what came back. Goal and system messages always stay.
    """

    keep: int = Field(default=8, ge=1, le=10_000, description="steps, the last, that stand as they are, at least")
    carry: int = Field(
        default=400, ge=0, le=100_000, description="tokens of the carried state, at most; 0: older steps are left out"
    )
    every: int = Field(
        default=8,
        ge=1,
        le=10_000,
        description="older steps are carried so many at a time, so that the prompt keeps its prefix for as many steps "
        "and the provider's prompt cache hits: up to keep + every - 1 steps stand as they are",
    )
    tier: Literal["low", "mid", "high"] = Field(
        default="low",
        description="what makes the carried state; low: extracted, without a model; mid: `model` summarises what was "
        "extracted; high: it does so in drafts that it refines (four calls). Exact values always stand beside it",
    )
    model: ModelConfig | None = Field(default=None, description="of the tiers mid and high: a cheap one")
    timeout_seconds: float = Field(
        default=10.0, gt=0, description="for the model; then the carried state is the extracted one"
    )
    teacher: bool = Field(
        default=False,
        description="the teacher's prompts are bounded, too; else it reads the caller's own messages, whole",
    )

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if self.tier != "low" and self.model is None:
            raise ValueError(f"tier {self.tier} asks a model: set history.model, e.g. {{name: openai/gpt-4.1-mini}}")
        return self

    @property
    def setting(self) -> str:
        """In a log: 'KEEP/EVERY/CARRY/TIER', and the model's name behind it."""
        name = f":{self.model.name}" if self.tier != "low" and self.model is not None else ""
        return f"{self.keep}/{self.every}/{self.carry}/{self.tier}{name}"
