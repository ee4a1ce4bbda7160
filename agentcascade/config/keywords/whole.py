"""Keywords of a whole configuration: what `build`, `build_memory` and `CascadeConfig.load` take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from agentcascade.config.history import HistoryConfig
from agentcascade.config.keywords.bank import BankKeywords, CollectKeywords, ContrastKeywords, RetrievalKeywords
from agentcascade.config.keywords.models import (
    JudgeKeywords,
    LinkKeywords,
    ModelKeywords,
    RouterKeywords,
    RungKeywords,
    StudentKeywords,
    VerifierKeywords,
)
from agentcascade.config.keywords.serving import BudgetsKeywords, ServerKeywords, TelemetryKeywords
from agentcascade.config.keywords.steps import (
    ActionsKeywords,
    AuditKeywords,
    HistoryKeywords,
    PromptKeywords,
    RolloutKeywords,
    SamplingKeywords,
    ShadowKeywords,
    ToolsKeywords,
)
from agentcascade.config.keywords.storage import (
    MemoryKeywords,
    RedactionKeywords,
    ResponseCacheKeywords,
    RetentionKeywords,
)
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
)
from agentcascade.config.verifier import VerifierConfig
from agentcascade.types import Mode


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
