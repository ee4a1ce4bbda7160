"""Import paths that programs may rely on: they stay, wherever the code stands."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

import pytest

from agentcascade.deprecation import AgentCascadeDeprecationWarning

PATHS = """
agentcascade: build build_memory wrap Cascade Episode SyncEpisode Bank Ledger LiteLLMModel ScriptedModel Price
agentcascade: PriceTable Memory Recall Turn CascadeConfig Decision Demonstration Situation Step Trajectory Usage
agentcascade: __version__
agentcascade.cascade: Cascade
agentcascade.types: Message Completion Decision Usage Turn Recall ModuleRun Tier ModuleName TIERS MODULES
agentcascade.errors: AgentCascadeError ConfigError InvalidRequest BudgetExceeded EpisodeClosed bill_of
agentcascade.protocols: ChatModel StreamingModel Router Retriever Embedder Merger Recorder Observer Budgets Verdict
agentcascade.conversation: check read split
agentcascade.integrations.openai: wrap
agentcascade.integrations.litellm: register handler
agentcascade.integrations.langchain: ChatAgentCascade
agentcascade.storage: open_database Database
agentcascade.storage.histories: score_recall
agentcascade.steplog.database: export
agentcascade.telemetry.observer: Telemetry
agentcascade.memory.memory: Memory
agentcascade.server.app: create_app
agentcascade.config: CascadeConfig ModelConfig RouterConfig variants
agentcascade.models: LiteLLMModel OpenAIModel ScriptedModel Price PriceTable
agentcascade.actions: ActionFormat TextActions RegexActions JsonActions ToolCallActions AutoActions Validator
agentcascade.actions: one_of make_format parse_as DryRun Verifier
agentcascade.bank: Bank
agentcascade.redaction: Redactor RedactingRecorder presidio_hook
agentcascade.ledger: Ledger DatabaseRecorder MemoryRecorder
agentcascade.prompts: build with_text
agentcascade.assembly: build build_all make_model config_path build_memory
agentcascade.routers.tuning: tune Settings Risk certificate fragment
agentcascade.deprecation: AgentCascadeDeprecationWarning
"""

REGISTERED = {
    "embedders": {"hashing", "onnx", "sentence-transformers"},
    "retrievers": {"exact", "faiss", "pgvector"},
    "routers": {
        *("teacher", "student", "random", "unanimity", "threshold", "scored", "grouped", "linucb", "thompson"),
    },
    "tier_routers": {"fixed", "random", "threshold", "linucb", "thompson", "policy", "values"},
    "suites": {"alfworld", "appworld", "intercode-sql", "locomo", "longmemeval", "hotpotqa"},
}


@pytest.mark.parametrize("line", PATHS.split("\n")[1:-1])
def test_a_public_path_leads_to_what_it_names(line: str) -> None:
    module, _, names = line.partition(": ")
    loaded = import_module(module)
    for name in names.split():
        assert getattr(loaded, name) is not None


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    for module in ("agentcascade", "agentcascade.models", "agentcascade.actions"):
        with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nothing'"):
            _ = import_module(module).nothing


@pytest.mark.parametrize("group", REGISTERED)
def test_what_is_registered_can_be_loaded(group: str) -> None:
    points = {point.name: point for point in entry_points(group=f"agentcascade.{group}")}
    assert points.keys() >= REGISTERED[group]
    for point in points.values():
        if point.value.startswith("agentcascade."):
            assert point.load() is not None


def test_modules_of_routers_are_found_without_their_family() -> None:
    with pytest.warns(AgentCascadeDeprecationWarning):
        from agentcascade.routers import consistency, ppo

    assert (ppo.__name__, consistency.__name__) == (
        "agentcascade.routers.tier.ppo",
        "agentcascade.routers.step.consistency",
    )
    with pytest.raises(ImportError, match="nothing"):
        from agentcascade.routers import nothing  # noqa: F401
