"""Keywords of a step: samples, prompts, actions, tools, histories, and what is asked behind the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from agentcascade.config.keywords.models import ModelKeywords, PartKeywords
from agentcascade.config.sections import ModelConfig, PartConfig
from agentcascade.types import Mode


class SamplingKeywords(TypedDict, total=False):
    """Fields of `SamplingConfig`."""

    across: Literal["samples", "students"]
    temperature: float | None
    staged: Literal["auto", "always", "never"]
    cached_from_tokens: int | None
    second_dollars: float
    timeout_seconds: float
    vary: Literal["none", "order", "subsets"]
    feed_back: Literal["never", "auto", "always"]
    logprobs: bool
    constrain: Literal["none", "choice", "schema", "regex", "grammar"]
    constraint: str | Mapping[str, Any] | None


class PromptKeywords(TypedDict, total=False):
    """Fields of `PromptConfig`."""

    token_budget: int
    min_demonstrations: int
    teacher_sees_demonstrations: bool
    teacher_sees_drafts: bool
    draft_tokens: int
    place: Literal["auto", "first", "last"]
    quoting: Literal["fenced", "plain"]
    shortened: bool
    template: str | Mapping[str, str | Mapping[str, str]]


class ActionsKeywords(TypedDict, total=False):
    """Fields of `ActionsConfig`."""

    format: str
    pattern: str | None
    fold: bool
    verifier: ModelConfig | ModelKeywords | str | None
    mergers: Sequence[PartConfig | PartKeywords | str]
    dry_run: bool


class ToolsKeywords(TypedDict, total=False):
    """Fields of `ToolsConfig`."""

    keep_model: bool
    side_effects: Sequence[str]
    side_effects_agreement: float
    side_effects_samples: int


class ShadowKeywords(TypedDict, total=False):
    """Fields of `ShadowConfig`."""

    rate: float
    samples: int | None
    temperatures: Sequence[float]
    ks: Sequence[int]
    windows: Sequence[tuple[int, int]]
    timeout_seconds: float
    max_pending: int


class AuditKeywords(TypedDict, total=False):
    """Fields of `AuditConfig`."""

    rate: float
    risk: float | None
    count: Literal["marginal", "selective"]
    delta: float
    promise: Literal["ever", "rate"]
    when_alarmed: Literal["warn", "tighten", "teacher"]
    timeout_seconds: float
    max_pending: int
    batch: bool
    batch_size: int
    batch_seconds: float
    batch_pending: int
    together: int
    together_characters: int
    together_seconds: float


class RolloutKeywords(TypedDict, total=False):
    """Fields of `RolloutConfig`."""

    share: float
    otherwise: Mode


class HistoryKeywords(TypedDict, total=False):
    """Fields of `HistoryConfig`."""

    keep: int
    carry: int
    every: int
    tier: Literal["low", "mid", "high"]
    model: ModelConfig | ModelKeywords | str | None
    timeout_seconds: float
    teacher: bool
