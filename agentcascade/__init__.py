"""agentcascade: make existing LLM agents several times cheaper without retraining anything.

The public names are loaded on first use, so that ``import agentcascade`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentcascade._version import __version__ as __version__

_HOME = {
    "Bank": "bank.bank",
    "Cascade": "cascade",
    "CascadeConfig": "config.load",
    "Demonstration": "types",
    "Decision": "types",
    "Episode": "episodes.episode",
    "Ledger": "ledger.ledger",
    "LiteLLMModel": "models.litellm",
    "Price": "models.pricing",
    "Memory": "memory.memory",
    "PriceTable": "models.pricing",
    "Recall": "types",
    "ScriptedModel": "models.scripted",
    "Situation": "types",
    "Step": "types",
    "SyncEpisode": "episodes.sync",
    "Trajectory": "types",
    "Usage": "types",
    "Turn": "types",
    "build": "assembly.cascade",
    "build_memory": "assembly.memory",
    "wrap": "integrations.openai",
}

if TYPE_CHECKING:
    from agentcascade.assembly.cascade import build as build
    from agentcascade.assembly.memory import build_memory as build_memory
    from agentcascade.bank.bank import Bank as Bank
    from agentcascade.cascade import Cascade as Cascade
    from agentcascade.config.load import CascadeConfig as CascadeConfig
    from agentcascade.episodes.episode import Episode as Episode
    from agentcascade.episodes.sync import SyncEpisode as SyncEpisode
    from agentcascade.integrations.openai import wrap as wrap
    from agentcascade.ledger.ledger import Ledger as Ledger
    from agentcascade.memory.memory import Memory as Memory
    from agentcascade.models.litellm import LiteLLMModel as LiteLLMModel
    from agentcascade.models.pricing import Price as Price
    from agentcascade.models.pricing import PriceTable as PriceTable
    from agentcascade.models.scripted import ScriptedModel as ScriptedModel
    from agentcascade.types import Decision as Decision
    from agentcascade.types import Demonstration as Demonstration
    from agentcascade.types import Recall as Recall
    from agentcascade.types import Situation as Situation
    from agentcascade.types import Step as Step
    from agentcascade.types import Trajectory as Trajectory
    from agentcascade.types import Turn as Turn
    from agentcascade.types import Usage as Usage

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"agentcascade.{_HOME[name]}"), name)
    raise AttributeError(f"module 'agentcascade' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
