"""Keywords of a configuration: typed dictionaries that editors complete and type checkers check.

Each holds the fields of the section of its name, with what pydantic accepts for them: a section may be its object or a
mapping, dollars a number or a text. `tests/unit/config/test_keywords.py` compares them with the models. Settings of
unknown shape, such as parsed JSON, go in as ``RetrievalConfig(**settings)`` or, all together, ``build(**settings)``.
"""

from __future__ import annotations

from agentcascade.config.keywords.bank import BankKeywords as BankKeywords
from agentcascade.config.keywords.bank import CollectKeywords as CollectKeywords
from agentcascade.config.keywords.bank import ContrastKeywords as ContrastKeywords
from agentcascade.config.keywords.bank import RetrievalKeywords as RetrievalKeywords
from agentcascade.config.keywords.bank import WeightsKeywords as WeightsKeywords
from agentcascade.config.keywords.models import JudgeKeywords as JudgeKeywords
from agentcascade.config.keywords.models import LinkKeywords as LinkKeywords
from agentcascade.config.keywords.models import ModelKeywords as ModelKeywords
from agentcascade.config.keywords.models import PartKeywords as PartKeywords
from agentcascade.config.keywords.models import RouterKeywords as RouterKeywords
from agentcascade.config.keywords.models import RungKeywords as RungKeywords
from agentcascade.config.keywords.models import StuckKeywords as StuckKeywords
from agentcascade.config.keywords.models import StudentKeywords as StudentKeywords
from agentcascade.config.keywords.models import VerifierKeywords as VerifierKeywords
from agentcascade.config.keywords.serving import BudgetsKeywords as BudgetsKeywords
from agentcascade.config.keywords.serving import ServerKeywords as ServerKeywords
from agentcascade.config.keywords.serving import TelemetryKeywords as TelemetryKeywords
from agentcascade.config.keywords.steps import ActionsKeywords as ActionsKeywords
from agentcascade.config.keywords.steps import AuditKeywords as AuditKeywords
from agentcascade.config.keywords.steps import HistoryKeywords as HistoryKeywords
from agentcascade.config.keywords.steps import PromptKeywords as PromptKeywords
from agentcascade.config.keywords.steps import RolloutKeywords as RolloutKeywords
from agentcascade.config.keywords.steps import SamplingKeywords as SamplingKeywords
from agentcascade.config.keywords.steps import ShadowKeywords as ShadowKeywords
from agentcascade.config.keywords.steps import ToolsKeywords as ToolsKeywords
from agentcascade.config.keywords.storage import MemoryKeywords as MemoryKeywords
from agentcascade.config.keywords.storage import RedactionKeywords as RedactionKeywords
from agentcascade.config.keywords.storage import ResponseCacheKeywords as ResponseCacheKeywords
from agentcascade.config.keywords.storage import RetentionKeywords as RetentionKeywords
from agentcascade.config.keywords.whole import BuildKeywords as BuildKeywords
from agentcascade.config.keywords.whole import BuildMemoryKeywords as BuildMemoryKeywords
from agentcascade.config.keywords.whole import ConfigKeywords as ConfigKeywords
from agentcascade.config.keywords.whole import SharedKeywords as SharedKeywords

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
