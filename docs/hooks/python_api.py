"""The page of the public Python names: for each a directive that mkdocstrings reads its docstring by."""

from __future__ import annotations

import agentcascade

HEAD = """\
# Python

What is here can be imported from `agentcascade` itself. Everything else is internal, but for the modules that these pages name.
"""
GROUPS = {
    "Build and wrap": ("build", "wrap", "build_memory"),
    "Steps": ("Cascade", "Episode", "SyncEpisode", "Situation", "Decision", "Tally", "Verdict"),
    "Demonstrations": ("Bank", "Trajectory", "Step", "Demonstration"),
    "Memory": ("Memory", "Turn", "Recall"),
    "Money": ("Ledger", "Price", "PriceTable", "Usage"),
    "Configuration": ("CascadeConfig",),
    "Models and messages": ("LiteLLMModel", "ScriptedModel", "Completion", "Message", "Tool"),
    "Actions": ("Action", "ActionFormat", "Validator", "DryRun", "Verifier"),
    "Protocols, for parts of your own": (
        *("ChatModel", "StreamingModel", "Router", "LearningRouter", "Embedder", "Retriever", "Merger", "Judge"),
        *("Environment", "Ask", "Budgets", "Guard", "Observer", "Recorder", "TokenCounter"),
    ),
}


def page() -> str:
    """The page, in Markdown. Raises `ValueError` for a public name that is in no group."""
    told = {name for names in GROUPS.values() for name in names}
    errors = {name for name in agentcascade.__all__ if _is_error(name)}
    if missing := set(agentcascade.__all__) - told - errors:
        raise ValueError(f"public names in no group of the page: {sorted(missing)}")
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [f"::: agentcascade.{agentcascade._HOME[name]}.{name}\n" for name in names]
    parts.append("\n## Errors\n\nAll of them stand on [a page of their own](errors.md).\n")
    return "\n".join(parts)


def _is_error(name: str) -> bool:
    found = getattr(agentcascade, name)
    return isinstance(found, type) and issubclass(found, Exception)
