"""Keywords of a configuration: typed dictionaries that editors complete and type checkers check.

Each holds the fields of the section of its name, with what pydantic accepts for them: a section may be its object or a
mapping, dollars a number or a text. `tests/unit/config/test_keywords.py` compares them with the models. Settings of
unknown shape, such as parsed JSON, go in as ``RetrievalConfig(**settings)`` or, all together, ``build(**settings)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import SecretStr

from agentcascade.config.history import HistoryConfig
from agentcascade.config.sections import (
    ActionsConfig,
    AuditConfig,
    BankConfig,
    BudgetsConfig,
    CollectConfig,
    ContrastConfig,
    JudgeConfig,
    LinkConfig,
    MemoryConfig,
    ModelConfig,
    PartConfig,
    PromptConfig,
    RedactionConfig,
    ResponseCacheConfig,
    RetentionConfig,
    RetrievalConfig,
    RolloutConfig,
    RouterConfig,
    RungConfig,
    SamplingConfig,
    ServerConfig,
    ShadowConfig,
    TelemetryConfig,
    ToolsConfig,
    WeightsConfig,
)
from agentcascade.config.stuck import StuckConfig
from agentcascade.config.verifier import VerifierConfig
from agentcascade.types import Mode

__all__ = [
    "ActionsKeywords",
    "AuditKeywords",
    "BankKeywords",
    "BudgetsKeywords",
    "BuildKeywords",
    "BuildMemoryKeywords",
    "CollectKeywords",
    "ConfigKeywords",
    "ContrastKeywords",
    "HistoryKeywords",
    "JudgeKeywords",
    "LinkKeywords",
    "MemoryKeywords",
    "ModelKeywords",
    "PartKeywords",
    "PromptKeywords",
    "RedactionKeywords",
    "ResponseCacheKeywords",
    "RetentionKeywords",
    "RetrievalKeywords",
    "RolloutKeywords",
    "RouterKeywords",
    "RungKeywords",
    "SamplingKeywords",
    "ServerKeywords",
    "ShadowKeywords",
    "SharedKeywords",
    "StuckKeywords",
    "StudentKeywords",
    "TelemetryKeywords",
    "ToolsKeywords",
    "VerifierKeywords",
    "WeightsKeywords",
]


class ModelKeywords(TypedDict, total=False):
    """Fields of `ModelConfig`. The model is its `name`, or under `model`."""

    model: str
    name: str
    temperature: float | None
    max_tokens: int | None
    timeout_seconds: float
    retries: int
    api_base: str | None
    api_key: SecretStr | str | None
    price: Mapping[str, Decimal | float | str] | None
    options: Mapping[str, Any]
    effort: str | int | None
    text_calls: bool


class StudentKeywords(ModelKeywords, total=False):
    """Fields of `StudentConfig`."""

    samples: int
    weight: int


class BankKeywords(TypedDict, total=False):
    """Fields of `BankConfig`."""

    url: str
    namespace: str
    journal: Path | str | None
    migrate: bool


class WeightsKeywords(TypedDict, total=False):
    """Fields of `WeightsConfig`."""

    goal: float
    plan: float
    observation: float


class RetrievalKeywords(TypedDict, total=False):
    """Fields of `RetrievalConfig`."""

    embedder: str
    index: str
    k: int
    window_before: int
    window_after: int
    weights: WeightsConfig | WeightsKeywords
    sticky: Literal["never", "always", "auto"]
    sticky_sensitivity: float
    utility_weight: float


class PartKeywords(TypedDict, total=False):
    """Fields of `PartConfig`."""

    name: str
    options: Mapping[str, Any]


class StuckKeywords(TypedDict, total=False):
    """Fields of `StuckConfig`."""

    repeated: int | None
    errors: int | None
    nothing_new: int | None
    over_plan: float | None
    false_done: int | None
    silence: int | None
    hold: int
    most: int
    error_phrases: Sequence[str]
    done_phrases: Sequence[str]
    done_actions: Sequence[str]
    empty: Sequence[str]


class VerifierKeywords(ModelKeywords, total=False):
    """Fields of `VerifierConfig`."""

    ask: Literal["split", "stakes", "always"] | Sequence[Literal["split", "stakes", "always"]]
    agreement: Sequence[float]
    accept: float
    reject: float
    think: bool
    read: Literal["auto", "scale"]
    context_tokens: int
    worth: Literal["auto", "always"]


class RouterKeywords(PartKeywords, total=False):
    """Fields of `RouterConfig`."""

    latch: Literal["never", "auto"]
    stuck: StuckConfig | StuckKeywords | None


class LinkKeywords(StudentKeywords, total=False):
    """Fields of `LinkConfig`."""

    router: RouterConfig | RouterKeywords | str


class RungKeywords(StudentKeywords, total=False):
    """Fields of `RungConfig`."""

    router: RouterConfig | RouterKeywords | str | None


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


class CollectKeywords(TypedDict, total=False):
    """Fields of `CollectConfig`."""

    plan: bool
    first_thought: bool
    drop_observations: Sequence[str]
    active: bool
    budget: Decimal | float | str | None
    horizon: int
    cold_start: int


class ContrastKeywords(TypedDict, total=False):
    """Fields of `ContrastConfig`."""

    failed: Sequence[str]
    strike: bool
    show: bool
    times: int
    same: Sequence[Literal["goal", "category", "observation", "before"]]
    keep: int


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


class BudgetsKeywords(TypedDict, total=False):
    """Fields of `BudgetsConfig`."""

    per_episode: Decimal | float | str | None
    per_namespace: Decimal | float | str | None
    period: Literal["total", "day", "month"]
    when_exceeded: Literal["error", "student"]
    when_unavailable: Literal["allow", "refuse"]
    output_tokens: int | None


class JudgeKeywords(TypedDict, total=False):
    """Fields of `JudgeConfig`."""

    model: ModelConfig | ModelKeywords | str | None
    question: str
    name: str | None
    options: Mapping[str, Any]
    together: int
    together_characters: int
    together_seconds: float


class RedactionKeywords(TypedDict, total=False):
    """Fields of `RedactionConfig`."""

    keys: bool
    emails: bool
    phones: bool
    patterns: Mapping[str, str]
    presidio: bool


class RetentionKeywords(TypedDict, total=False):
    """Fields of `RetentionConfig`."""

    decisions: int | None
    episodes: int | None
    drafts: int | None
    recalls: int | None
    responses: int | None
    max_decisions: int | None


class ResponseCacheKeywords(TypedDict, total=False):
    """Fields of `ResponseCacheConfig`."""

    enabled: bool
    ttl_seconds: float
    max_entries: int
    max_bytes: int
    max_entry_bytes: int
    memory_bytes: int


class TelemetryKeywords(TypedDict, total=False):
    """Fields of `TelemetryConfig`."""

    opentelemetry: bool
    contents: bool


class MemoryKeywords(TypedDict, total=False):
    """Fields of `MemoryConfig`."""

    enabled: bool
    teacher_sees_memory: bool
    remember: bool
    history: str
    axis: str
    tiers: Mapping[str, Mapping[str, str]]
    models: Mapping[Literal["small", "medium", "large"], ModelConfig | ModelKeywords | str]
    router: RouterConfig | RouterKeywords | str
    tradeoff: float
    explore: float
    embedder: str
    retrieval: Literal["hybrid", "dense", "lexical"]
    chunk_tokens: int
    k: int
    top_k: int
    token_budget: int
    deadline_seconds: float
    max_dollars: Decimal | float | str | None
    max_history_tokens: int
    max_histories: int
    max_held_bytes: int


class HistoryKeywords(TypedDict, total=False):
    """Fields of `HistoryConfig`."""

    keep: int
    carry: int
    every: int
    tier: Literal["low", "mid", "high"]
    model: ModelConfig | ModelKeywords | str | None
    timeout_seconds: float
    teacher: bool


class ServerKeywords(TypedDict, total=False):
    """Fields of `ServerConfig`."""

    host: str
    port: int
    open: bool
    hosts: Sequence[str]
    origins: Sequence[str]
    max_body_bytes: int
    max_incoming_bytes: int
    max_requests: int
    header_seconds: float
    body_seconds: float
    feedback_seconds: float
    store_responses: bool
    shutdown_seconds: float
    passthrough: str
    upstreams: Mapping[Literal["openai", "anthropic"], str]
    prices: Mapping[str, Mapping[str, Decimal | float | str]]


class SharedKeywords(TypedDict, total=False):
    """Fields of `CascadeConfig` that every call takes by these names and types."""

    ladder: Sequence[RungConfig | RungKeywords | str]
    mode: Mode
    bank: BankConfig | BankKeywords
    retrieval: RetrievalConfig | RetrievalKeywords
    verifier: VerifierConfig | VerifierKeywords | str | None
    sampling: SamplingConfig | SamplingKeywords
    prompt: PromptConfig | PromptKeywords
    actions: ActionsConfig | ActionsKeywords
    collect: CollectConfig | CollectKeywords
    contrast: ContrastConfig | ContrastKeywords
    tools: ToolsConfig | ToolsKeywords
    shadow: ShadowConfig | ShadowKeywords
    audit: AuditConfig | AuditKeywords
    rollout: RolloutConfig | RolloutKeywords
    budgets: BudgetsConfig | BudgetsKeywords
    memory: MemoryConfig | MemoryKeywords
    history: HistoryConfig | HistoryKeywords | None
    redaction: RedactionConfig | RedactionKeywords
    retention: RetentionConfig | RetentionKeywords
    response_cache: ResponseCacheConfig | ResponseCacheKeywords
    telemetry: TelemetryConfig | TelemetryKeywords
    server: ServerConfig | ServerKeywords
    caching: bool
    cascades: Mapping[str, Mapping[str, Any]]
    deadline_seconds: float
    seed: int


class BuildKeywords(SharedKeywords, total=False):
    """Configuration keywords of `build` and `wrap`, whose models and judge may also be objects."""

    router: RouterConfig | RouterKeywords | str


class BuildMemoryKeywords(SharedKeywords, total=False):
    """Configuration keywords of `build_memory`, whose `router` chooses tiers."""

    teacher: ModelConfig | ModelKeywords | str | None
    student: ModelConfig | StudentKeywords | str | None
    students: Sequence[LinkConfig | LinkKeywords | str]
    judge: JudgeConfig | JudgeKeywords


class ConfigKeywords(BuildKeywords, BuildMemoryKeywords, total=False):
    """Fields of `CascadeConfig`, with what each may be given as."""
