"""The sections of a configuration, each with its defaults and what they mean. Data only."""

from __future__ import annotations

from agentcascade.config.section import Section as Section
from agentcascade.config.sections.bank import BankConfig as BankConfig
from agentcascade.config.sections.bank import CollectConfig as CollectConfig
from agentcascade.config.sections.bank import ContrastConfig as ContrastConfig
from agentcascade.config.sections.bank import RetrievalConfig as RetrievalConfig
from agentcascade.config.sections.bank import WeightsConfig as WeightsConfig
from agentcascade.config.sections.models import JudgeConfig as JudgeConfig
from agentcascade.config.sections.models import LinkConfig as LinkConfig
from agentcascade.config.sections.models import ModelConfig as ModelConfig
from agentcascade.config.sections.models import PartConfig as PartConfig
from agentcascade.config.sections.models import RouterConfig as RouterConfig
from agentcascade.config.sections.models import RungConfig as RungConfig
from agentcascade.config.sections.models import StudentConfig as StudentConfig
from agentcascade.config.sections.models import of_whole_run as of_whole_run
from agentcascade.config.sections.serving import BudgetsConfig as BudgetsConfig
from agentcascade.config.sections.serving import ServerConfig as ServerConfig
from agentcascade.config.sections.serving import TelemetryConfig as TelemetryConfig
from agentcascade.config.sections.steps import ActionsConfig as ActionsConfig
from agentcascade.config.sections.steps import AuditConfig as AuditConfig
from agentcascade.config.sections.steps import PromptConfig as PromptConfig
from agentcascade.config.sections.steps import RolloutConfig as RolloutConfig
from agentcascade.config.sections.steps import SamplingConfig as SamplingConfig
from agentcascade.config.sections.steps import ShadowConfig as ShadowConfig
from agentcascade.config.sections.steps import ToolsConfig as ToolsConfig
from agentcascade.config.sections.storage import MemoryConfig as MemoryConfig
from agentcascade.config.sections.storage import RedactionConfig as RedactionConfig
from agentcascade.config.sections.storage import ResponseCacheConfig as ResponseCacheConfig
from agentcascade.config.sections.storage import RetentionConfig as RetentionConfig
