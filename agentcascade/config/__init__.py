"""Configuration: YAML, environment and keywords, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = [
    "ActionsConfig",
    "AuditConfig",
    "BankConfig",
    "BudgetsConfig",
    "CascadeConfig",
    "CollectConfig",
    "ContrastConfig",
    "JudgeConfig",
    "LinkConfig",
    "MemoryConfig",
    "ModelConfig",
    "PromptConfig",
    "RedactionConfig",
    "RetentionConfig",
    "RetrievalConfig",
    "RolloutConfig",
    "RouterConfig",
    "SamplingConfig",
    "ServerConfig",
    "ShadowConfig",
    "StudentConfig",
    "TelemetryConfig",
    "ToolsConfig",
    "config_path",
    "variants",
]

if TYPE_CHECKING:
    from agentcascade.config.load import CascadeConfig as CascadeConfig
    from agentcascade.config.load import config_path as config_path
    from agentcascade.config.load import variants as variants
    from agentcascade.config.sections import ActionsConfig as ActionsConfig
    from agentcascade.config.sections import AuditConfig as AuditConfig
    from agentcascade.config.sections import BankConfig as BankConfig
    from agentcascade.config.sections import BudgetsConfig as BudgetsConfig
    from agentcascade.config.sections import CollectConfig as CollectConfig
    from agentcascade.config.sections import ContrastConfig as ContrastConfig
    from agentcascade.config.sections import JudgeConfig as JudgeConfig
    from agentcascade.config.sections import LinkConfig as LinkConfig
    from agentcascade.config.sections import MemoryConfig as MemoryConfig
    from agentcascade.config.sections import ModelConfig as ModelConfig
    from agentcascade.config.sections import PromptConfig as PromptConfig
    from agentcascade.config.sections import RedactionConfig as RedactionConfig
    from agentcascade.config.sections import RetentionConfig as RetentionConfig
    from agentcascade.config.sections import RetrievalConfig as RetrievalConfig
    from agentcascade.config.sections import RolloutConfig as RolloutConfig
    from agentcascade.config.sections import RouterConfig as RouterConfig
    from agentcascade.config.sections import SamplingConfig as SamplingConfig
    from agentcascade.config.sections import ServerConfig as ServerConfig
    from agentcascade.config.sections import ShadowConfig as ShadowConfig
    from agentcascade.config.sections import StudentConfig as StudentConfig
    from agentcascade.config.sections import TelemetryConfig as TelemetryConfig
    from agentcascade.config.sections import ToolsConfig as ToolsConfig
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "ActionsConfig": "sections",
            "AuditConfig": "sections",
            "BankConfig": "sections",
            "BudgetsConfig": "sections",
            "CascadeConfig": "load",
            "CollectConfig": "sections",
            "ContrastConfig": "sections",
            "JudgeConfig": "sections",
            "LinkConfig": "sections",
            "MemoryConfig": "sections",
            "ModelConfig": "sections",
            "PromptConfig": "sections",
            "RedactionConfig": "sections",
            "RetentionConfig": "sections",
            "RetrievalConfig": "sections",
            "RolloutConfig": "sections",
            "RouterConfig": "sections",
            "SamplingConfig": "sections",
            "ServerConfig": "sections",
            "ShadowConfig": "sections",
            "StudentConfig": "sections",
            "TelemetryConfig": "sections",
            "ToolsConfig": "sections",
            "config_path": "load",
            "variants": "load",
        },
    )
