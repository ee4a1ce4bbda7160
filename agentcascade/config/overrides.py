"""Typed keywords of `agentcascade.build` and `build_memory`: the keys of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from agentcascade.config import sections
    from agentcascade.types import Mode


class MemoryOverrides(TypedDict, total=False):
    """Keys of `CascadeConfig` that a memory on its own is made of; a section is one, or a mapping of its keys."""

    bank: sections.BankConfig | Mapping[str, Any]
    retrieval: sections.RetrievalConfig | Mapping[str, Any]
    prompt: sections.PromptConfig | Mapping[str, Any]
    budgets: sections.BudgetsConfig | Mapping[str, Any]
    memory: sections.MemoryConfig | Mapping[str, Any]
    redaction: sections.RedactionConfig | Mapping[str, Any]
    retention: sections.RetentionConfig | Mapping[str, Any]
    telemetry: sections.TelemetryConfig | Mapping[str, Any]
    seed: int


class ConfigOverrides(MemoryOverrides, total=False):
    """Keys of `CascadeConfig` but those that `build` takes as objects, too.

    >>> from agentcascade import ScriptedModel, build
    >>> models = {"teacher": ScriptedModel(["look"]), "student": ScriptedModel(["look"])}
    >>> with build(**models, bank={"url": "sqlite://"}, retrieval={"k": 0}, router={"name": "student"}) as cascade:
    ...     cascade.config.router.name
    'student'
    """

    mode: Mode
    router: sections.RouterConfig | Mapping[str, Any]
    sampling: sections.SamplingConfig | Mapping[str, Any]
    actions: sections.ActionsConfig | Mapping[str, Any]
    collect: sections.CollectConfig | Mapping[str, Any]
    tools: sections.ToolsConfig | Mapping[str, Any]
    shadow: sections.ShadowConfig | Mapping[str, Any]
    audit: sections.AuditConfig | Mapping[str, Any]
    rollout: sections.RolloutConfig | Mapping[str, Any]
    server: sections.ServerConfig | Mapping[str, Any]
    cascades: Mapping[str, Mapping[str, Any]]
    deadline_seconds: float
