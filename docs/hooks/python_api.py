"""The pages of the public Python names: what stands in an ``__all__``, each with a directive that mkdocstrings reads its docstring by."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from cells import code

import agentcascade

HEAD = """\
# Python

What is here can be imported from `agentcascade` itself. A few [modules](python-modules.md) have public names beside these. Everything else is internal:
[what is kept, and for how long](../project/contributing.md#what-is-public-and-how-it-changes).
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
MODULES = {
    "agentcascade.actions": "Formats of actions, and what to check and join them by.",
    "agentcascade.assembly": "A configuration becomes a cascade, several, or a memory.",
    "agentcascade.bank": "Demonstrations, added and retrieved.",
    "agentcascade.bench.suites.protocol": "What a benchmark of your own implements.",
    "agentcascade.cascade": "The cascade.",
    "agentcascade.config": "Sections of the configuration as objects; [Configuration](configuration.md) says what each key means.",
    "agentcascade.config.keywords": "The same sections as typed dictionaries, for what `build` and its like take by keyword.",
    "agentcascade.conversation": "The situation of a step, read off messages.",
    "agentcascade.deprecation": "The warning of what is going.",
    "agentcascade.episodes": "One run of an agent, asynchronous and blocking.",
    "agentcascade.episodes.responses": "What a step returns.",
    "agentcascade.errors": "[Errors](errors.md), with what to do about each.",
    "agentcascade.integrations.langchain": "A LangChain chat model.",
    "agentcascade.integrations.litellm": "A provider of litellm.",
    "agentcascade.integrations.openai": "Wrapped clients of the OpenAI and Anthropic SDKs, and their controls.",
    "agentcascade.ledger": "Questions about money, and where decisions go.",
    "agentcascade.memory.memory": "The memory.",
    "agentcascade.memory.types": "What a tier router of your own is given and gives.",
    "agentcascade.models": "Adapters of models, and prices.",
    "agentcascade.models.tokens": "Counts of tokens.",
    "agentcascade.prompts": "Demonstrations in a prompt, and templates.",
    "agentcascade.protocols": "What parts of your own must do.",
    "agentcascade.redaction": "Redaction before storage.",
    "agentcascade.routers.step.consistency": "Step routers to use or to subclass.",
    "agentcascade.routers.tuning": "Rules chosen and certified on a log.",
    "agentcascade.server.app": "The proxy as an ASGI application.",
    "agentcascade.step.context": "What a step is handed: `Cascade.context`, and the parts of `Cascade.twin`.",
    "agentcascade.steplog.database": "Logged steps, out of the database.",
    "agentcascade.steplog.jsonl": "Logged steps, a line each.",
    "agentcascade.storage": "The database.",
    "agentcascade.storage.histories": "Scores of a memory's recalls.",
    "agentcascade.telemetry.observer": "Traces and metrics.",
    "agentcascade.types": "Frozen data that the others take and give.",
}
"""Public modules: those with an ``__all__``, and no others."""
TOLD_ELSEWHERE = {"agentcascade.config": "configuration.md", "agentcascade.config.keywords": "configuration.md"}
"""Modules whose names are listed with their first lines, because another page says the rest."""


@cache
def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    return ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8"))


@cache
def _imports(module: str) -> dict[str, tuple[str, str]]:
    """Name → what it is called, and where, of all that `module` takes from our modules."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("agentcascade"):
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, (str(node.module), alias.name))
    return found


def home(module: str, name: str) -> tuple[str, str]:
    """Where the public `name` of `module` is defined: followed through its imports, those for type checkers among them."""
    taken_from = _imports(module).get(name)
    return home(*taken_from) if taken_from else (module, name)


def public_names(module: str) -> list[str]:
    """Its `__all__`, read off its text: some modules load a provider's package, which takes seconds."""
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{module} has no __all__")


def docstring(module: str, name: str) -> str | None:
    """Of a class or function its own, of other data the text below the assignment; None where there is none."""
    where, own = home(module, name)
    body = _tree(where).body
    for node, below in pairwise([*body, ast.Pass()]):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == own:
            return ast.get_docstring(node)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        stored = [n for target in targets if target for n in ast.walk(target) if isinstance(n, ast.Name)]
        is_it = any(name.id == own for name in stored)
        if is_it and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            return str(below.value.value)
    return None


def page() -> str:
    """The page of the package, in Markdown. Raises `ValueError` for a public name that is in no group."""
    told = {name for names in GROUPS.values() for name in names}
    errors = {name for name in agentcascade.__all__ if _is_error(name)}
    if missing := set(agentcascade.__all__) - told - errors:
        raise ValueError(f"public names in no group of the page: {sorted(missing)}")
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [_directive("agentcascade", name) for name in names]
    parts.append("\n## Errors\n\nAll of them stand on [a page of their own](errors.md).\n")
    return "\n".join(parts)


def modules_page() -> str:
    """The page of the public modules: each name once, where it is also on the page of the package by a link."""
    told = {home("agentcascade", name): "python.md" for names in GROUPS.values() for name in names}
    told |= {home("agentcascade", name): "errors.md" for name in agentcascade.__all__ if _is_error(name)}
    parts = [
        "# Python: modules\n\nPublic modules beside `agentcascade` itself. A name that starts with `_`, and a module that is not here, is internal.\n"
    ]
    for module, about in MODULES.items():
        names = public_names(module)
        parts.append(f"\n## {code(module)} {{ #{module.replace('.', '-')} }}\n\n{about}\n")
        if module in TOLD_ELSEWHERE:
            told |= {home(module, name): TOLD_ELSEWHERE[module] for name in names if home(module, name) not in told}
            rows = [f"| {code(name)} | {(docstring(module, name) or '').partition(chr(10))[0]} |" for name in names]
            parts.append("\n".join(["| name | |", "| --- | --- |", *rows]) + "\n")
            continue
        linked = [f"[{code(name)}]({told[where]})" for name in names if (where := home(module, name)) in told]
        parts += [f"Told elsewhere: {', '.join(linked)}.\n"] if linked else []
        for name in names:
            if (where := home(module, name)) not in told:
                told[where] = f"#{where[0]}.{where[1]}"
                parts.append(_directive(module, name))
    return "\n".join(parts)


def _directive(module: str, name: str) -> str:
    return f"::: {'.'.join(home(module, name))}\n"


def _is_error(name: str) -> bool:
    found = getattr(agentcascade, name)
    return isinstance(found, type) and issubclass(found, Exception)
