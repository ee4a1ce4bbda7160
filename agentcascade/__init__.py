"""agentcascade: make existing LLM agents several times cheaper without retraining anything.

The public names are loaded on first use, so that ``import agentcascade`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentcascade._version import __version__ as __version__

__all__ = [
    "Action",
    "ActionFormat",
    "AgentCascadeError",
    "Ask",
    "Bank",
    "BankError",
    "BatchFailed",
    "BenchError",
    "BrokenStream",
    "BudgetExceeded",
    "Budgets",
    "Cascade",
    "CascadeClosed",
    "CascadeConfig",
    "ChatModel",
    "Completion",
    "ConfigError",
    "CorruptDatabase",
    "Decision",
    "Demonstration",
    "DryRun",
    "Embedder",
    "EmbeddingError",
    "EmbeddingModelChanged",
    "EmptyCompletion",
    "Environment",
    "EnvironmentFailed",
    "Episode",
    "EpisodeClosed",
    "Guard",
    "InvalidAction",
    "InvalidKey",
    "InvalidRequest",
    "Judge",
    "LearningRouter",
    "Ledger",
    "LiteLLMModel",
    "Memory",
    "Merger",
    "Message",
    "MissingExtra",
    "NewerDatabase",
    "NoBatches",
    "Observer",
    "Price",
    "PriceTable",
    "ProviderError",
    "RateLimited",
    "Recall",
    "Recorder",
    "Retriever",
    "Router",
    "ScriptedModel",
    "Situation",
    "Step",
    "StorageError",
    "StreamingModel",
    "SyncEpisode",
    "Tally",
    "TokenCounter",
    "Tool",
    "Trajectory",
    "Turn",
    "UnknownEpisode",
    "UnknownPrice",
    "UnknownTrajectory",
    "Usage",
    "Validator",
    "Verdict",
    "Verifier",
    "build",
    "build_memory",
    "wrap",
]

_HOME = {
    "Action": "types",
    "ActionFormat": "actions.base",
    "AgentCascadeError": "errors",
    "Ask": "protocols",
    "Bank": "bank.bank",
    "BankError": "errors",
    "BatchFailed": "errors",
    "BenchError": "errors",
    "BrokenStream": "errors",
    "BudgetExceeded": "errors",
    "Budgets": "protocols",
    "Cascade": "cascade",
    "CascadeClosed": "errors",
    "CascadeConfig": "config.load",
    "ChatModel": "protocols",
    "Completion": "types",
    "ConfigError": "errors",
    "CorruptDatabase": "errors",
    "Decision": "types",
    "Demonstration": "types",
    "DryRun": "actions.equivalence",
    "Embedder": "protocols",
    "EmbeddingError": "errors",
    "EmbeddingModelChanged": "errors",
    "EmptyCompletion": "errors",
    "Environment": "protocols",
    "EnvironmentFailed": "errors",
    "Episode": "episodes.episode",
    "EpisodeClosed": "errors",
    "Guard": "protocols",
    "InvalidAction": "errors",
    "InvalidKey": "errors",
    "InvalidRequest": "errors",
    "Judge": "protocols",
    "LearningRouter": "protocols",
    "Ledger": "ledger.ledger",
    "LiteLLMModel": "models.litellm",
    "Memory": "memory.memory",
    "Merger": "protocols",
    "Message": "types",
    "MissingExtra": "errors",
    "NewerDatabase": "errors",
    "NoBatches": "errors",
    "Observer": "protocols",
    "Price": "models.pricing",
    "PriceTable": "models.pricing",
    "ProviderError": "errors",
    "RateLimited": "errors",
    "Recall": "types",
    "Recorder": "protocols",
    "Retriever": "protocols",
    "Router": "protocols",
    "ScriptedModel": "models.scripted",
    "Situation": "types",
    "Step": "types",
    "StorageError": "errors",
    "StreamingModel": "protocols",
    "SyncEpisode": "episodes.sync",
    "Tally": "types",
    "TokenCounter": "protocols",
    "Tool": "types",
    "Trajectory": "types",
    "Turn": "types",
    "UnknownEpisode": "errors",
    "UnknownPrice": "errors",
    "UnknownTrajectory": "errors",
    "Usage": "types",
    "Validator": "actions.base",
    "Verdict": "protocols",
    "Verifier": "actions.equivalence",
    "build": "assembly.cascade",
    "build_memory": "assembly.memory",
    "wrap": "integrations.openai",
}

if TYPE_CHECKING:
    from agentcascade.actions.base import ActionFormat as ActionFormat
    from agentcascade.actions.base import Validator as Validator
    from agentcascade.actions.equivalence import DryRun as DryRun
    from agentcascade.actions.equivalence import Verifier as Verifier
    from agentcascade.assembly.cascade import build as build
    from agentcascade.assembly.memory import build_memory as build_memory
    from agentcascade.bank.bank import Bank as Bank
    from agentcascade.cascade import Cascade as Cascade
    from agentcascade.config.load import CascadeConfig as CascadeConfig
    from agentcascade.episodes.episode import Episode as Episode
    from agentcascade.episodes.sync import SyncEpisode as SyncEpisode
    from agentcascade.errors import AgentCascadeError as AgentCascadeError
    from agentcascade.errors import BankError as BankError
    from agentcascade.errors import BatchFailed as BatchFailed
    from agentcascade.errors import BenchError as BenchError
    from agentcascade.errors import BrokenStream as BrokenStream
    from agentcascade.errors import BudgetExceeded as BudgetExceeded
    from agentcascade.errors import CascadeClosed as CascadeClosed
    from agentcascade.errors import ConfigError as ConfigError
    from agentcascade.errors import CorruptDatabase as CorruptDatabase
    from agentcascade.errors import EmbeddingError as EmbeddingError
    from agentcascade.errors import EmbeddingModelChanged as EmbeddingModelChanged
    from agentcascade.errors import EmptyCompletion as EmptyCompletion
    from agentcascade.errors import EnvironmentFailed as EnvironmentFailed
    from agentcascade.errors import EpisodeClosed as EpisodeClosed
    from agentcascade.errors import InvalidAction as InvalidAction
    from agentcascade.errors import InvalidKey as InvalidKey
    from agentcascade.errors import InvalidRequest as InvalidRequest
    from agentcascade.errors import MissingExtra as MissingExtra
    from agentcascade.errors import NewerDatabase as NewerDatabase
    from agentcascade.errors import NoBatches as NoBatches
    from agentcascade.errors import ProviderError as ProviderError
    from agentcascade.errors import RateLimited as RateLimited
    from agentcascade.errors import StorageError as StorageError
    from agentcascade.errors import UnknownEpisode as UnknownEpisode
    from agentcascade.errors import UnknownPrice as UnknownPrice
    from agentcascade.errors import UnknownTrajectory as UnknownTrajectory
    from agentcascade.integrations.openai import wrap as wrap
    from agentcascade.ledger.ledger import Ledger as Ledger
    from agentcascade.memory.memory import Memory as Memory
    from agentcascade.models.litellm import LiteLLMModel as LiteLLMModel
    from agentcascade.models.pricing import Price as Price
    from agentcascade.models.pricing import PriceTable as PriceTable
    from agentcascade.models.scripted import ScriptedModel as ScriptedModel
    from agentcascade.protocols import Ask as Ask
    from agentcascade.protocols import Budgets as Budgets
    from agentcascade.protocols import ChatModel as ChatModel
    from agentcascade.protocols import Embedder as Embedder
    from agentcascade.protocols import Environment as Environment
    from agentcascade.protocols import Guard as Guard
    from agentcascade.protocols import Judge as Judge
    from agentcascade.protocols import LearningRouter as LearningRouter
    from agentcascade.protocols import Merger as Merger
    from agentcascade.protocols import Observer as Observer
    from agentcascade.protocols import Recorder as Recorder
    from agentcascade.protocols import Retriever as Retriever
    from agentcascade.protocols import Router as Router
    from agentcascade.protocols import StreamingModel as StreamingModel
    from agentcascade.protocols import TokenCounter as TokenCounter
    from agentcascade.protocols import Verdict as Verdict
    from agentcascade.types import Action as Action
    from agentcascade.types import Completion as Completion
    from agentcascade.types import Decision as Decision
    from agentcascade.types import Demonstration as Demonstration
    from agentcascade.types import Message as Message
    from agentcascade.types import Recall as Recall
    from agentcascade.types import Situation as Situation
    from agentcascade.types import Step as Step
    from agentcascade.types import Tally as Tally
    from agentcascade.types import Tool as Tool
    from agentcascade.types import Trajectory as Trajectory
    from agentcascade.types import Turn as Turn
    from agentcascade.types import Usage as Usage

if not TYPE_CHECKING:  # to a type checker it would stand for every name

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(f"agentcascade.{_HOME[name]}"), name)
        raise AttributeError(f"module 'agentcascade' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
