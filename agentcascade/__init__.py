"""agentcascade: make existing LLM agents several times cheaper without retraining anything.

The public names are loaded on first use, so that ``import agentcascade`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Bank": "bank",
    "Cascade": "cascade",
    "CascadeConfig": "config",
    "Demonstration": "types",
    "Decision": "types",
    "Episode": "episode",
    "Ledger": "ledger",
    "LiteLLMModel": "models",
    "Price": "prices",
    "Memory": "memory.memory",
    "PriceTable": "prices",
    "Recall": "memory.types",
    "ScriptedModel": "scripted",
    "Situation": "types",
    "Step": "types",
    "SyncEpisode": "sync",
    "Trajectory": "types",
    "Usage": "types",
    "Turn": "memory.types",
    "build": "assembly",
    "build_memory": "memory_assembly",
    "wrap": "integrations.openai",
}

if TYPE_CHECKING:
    from agentcascade.assembly import build as build
    from agentcascade.bank import Bank as Bank
    from agentcascade.cascade import Cascade as Cascade
    from agentcascade.config import CascadeConfig as CascadeConfig
    from agentcascade.episode import Episode as Episode
    from agentcascade.integrations.openai import wrap as wrap
    from agentcascade.ledger import Ledger as Ledger
    from agentcascade.memory.memory import Memory as Memory
    from agentcascade.memory.types import Recall as Recall
    from agentcascade.memory.types import Turn as Turn
    from agentcascade.memory_assembly import build_memory as build_memory
    from agentcascade.models import LiteLLMModel as LiteLLMModel
    from agentcascade.prices import Price as Price
    from agentcascade.prices import PriceTable as PriceTable
    from agentcascade.scripted import ScriptedModel as ScriptedModel
    from agentcascade.sync import SyncEpisode as SyncEpisode
    from agentcascade.types import Decision as Decision
    from agentcascade.types import Demonstration as Demonstration
    from agentcascade.types import Situation as Situation
    from agentcascade.types import Step as Step
    from agentcascade.types import Trajectory as Trajectory
    from agentcascade.types import Usage as Usage

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"agentcascade.{_HOME[name]}"), name)
    raise AttributeError(f"module 'agentcascade' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
