"""What an import costs, and that no import points up (ARCHITECTURE.md, "Floors")."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import agentcascade

ROOT = Path(agentcascade.__file__).parent

HEAVY = {
    *("torch", "transformers", "sentence_transformers", "onnx", "onnxruntime", "tokenizers", "safetensors", "faiss"),
    *("litellm", "openai", "tiktoken", "stamina", "sqlalchemy", "alembic", "psycopg", "numpy", "scipy", "matplotlib"),
    *("sklearn", "pyarrow", "sqlglot", "pgvector", "ray"),
    *("alfworld", "textworld", "jsonschema", "pydantic", "rich"),
    *("fastapi", "starlette", "uvicorn", "opentelemetry", "prometheus_client", "langchain_core", "presidio_analyzer"),
}

OWNERS = {
    "psycopg": {"storage.database"},
    "torch": {"retrievers.sentence_transformer"},
    "sentence_transformers": {"retrievers.sentence_transformer"},
    "onnx": {"retrievers.bert_onnx"},
    "safetensors": {"retrievers.bert_onnx", "routers.checkpoints"},
    "onnxruntime": {"retrievers.onnx"},
    "tokenizers": {"retrievers.onnx"},
    "faiss": {"retrievers.faiss_index", "retrievers.stores"},
    "litellm": {"models", "litellm_guard", "integrations.litellm"},
    "stamina": {"models"},
    "openai": {"response", "client_model", "openai_model", "integrations.openai"},
    "langchain_core": {"integrations.langchain"},
    "opentelemetry": {"telemetry.observer"},
    "prometheus_client": {"server.workers", "telemetry.observer"},
    "presidio_analyzer": {"redaction"},
    "scipy": {"routers.tuning.pvalues", "envs.intercode_sql.rewards"},
    "sqlglot": {"sql_keys"},
    "re2": {"bounds"},
    "regex": {"bounds"},
    "sklearn": {"routers.tuning.families"},
    "pyarrow": {"steplog.parquet"},
    "pgvector": {"retrievers.pgvector"},
    "ray": {"bench.ray_pool"},
    "uvicorn": {"envs.appworld.inside.serve", "server.connections", "server.run"},
    "vllm": {"students.offline_engine"},
    "bm25s": {"memory.lexical"},
    "Stemmer": {"memory.words"},
    "dateparser": {"memory.dates"},
    "tiktoken": {"tokens"},
    "jsonschema": {"constraints", "schemas"},
    "matplotlib": {"bench.plots", "reports.figures"},
    "textworld": {"envs.alfworld.engine"},
    "alfworld": {"envs.alfworld.engine", "envs.alfworld.scenes"},
    "alembic": {
        "storage.database",
        "storage.migrations.env",
        "storage.migrations.versions.0001_first",
        "storage.migrations.versions.0002_serving",
        "storage.migrations.versions.0003_memory",
        "storage.migrations.versions.0004_tuning",
        "storage.migrations.versions.0005_demonstrations",
        "storage.migrations.versions.0006_estimated",
    },
}
"""Heavy packages, and the modules that may import them."""

STORED = {
    *("storage", "bank", "catalog", "shortening", "steplog"),
    *("drafts", "insights", "figures", "latest", "ledger", "cli"),
}
"""Where the database is asked."""

DOORS = {"__init__", "__main__"}
"""Of the package itself: they hand out names of every floor, on first use."""
GROUND = {"types", "errors", "protocols", "config", "sections", "known_keys", "patterns", "visible", "forking"}
PARTS = {"retrievers", "routers", "envs"}
TOP = {"cli", "bench", "integrations", "reports", "server"}


class Imported(NamedTuple):
    module: str
    """The importing module, without ``agentcascade.``."""
    name: str
    """What is imported, in full."""
    lazily: bool
    """Inside a function or for type checkers alone, so not when the module is loaded."""


@cache
def imports() -> list[Imported]:
    """Every import statement of the package, the linked folders included."""
    found: list[Imported] = []
    for folder, _, files in os.walk(ROOT, followlinks=True):
        for path in (Path(folder) / name for name in files if name.endswith(".py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [Imported(module, *found) for found in statements(tree, module, lazily=False)]
    assert {"cascade", "retrievers.onnx", "envs.alfworld.engine", "cli.bank"} <= {i.module for i in found}
    return found


def statements(node: ast.AST, module: str, *, lazily: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, lazily) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = ("agentcascade." + module).split(".")[: -child.level] if child.level else []
            base = ".".join([*above, *([child.module] if child.module else [])])
            yield from ((f"{base}.{alias.name}", lazily) for alias in child.names)
        else:
            later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            )
            yield from statements(child, module, lazily=lazily or later)


def floor(module: str) -> str:
    """``ground``, ``core``, ``parts``, ``assembly``, ``top`` or ``door``; a dotted name without ``agentcascade.``."""
    first = module.split(".")[0]
    if f"{module}.".startswith("memory.types."):
        return "ground"
    if first in DOORS or not first:
        return "door"
    if first in PARTS:
        return "parts"
    if first in TOP:
        return "top"
    return "assembly" if first in {"assembly", "wiring", "memory_assembly"} else "ground" if first in GROUND else "core"


def own(name: str) -> str | None:
    """The part of an imported name after ``agentcascade.``, public names at home; None for other packages."""
    if not f"{name}.".startswith("agentcascade."):
        return None
    rest = name.removeprefix("agentcascade").removeprefix(".")
    return agentcascade._HOME.get(rest, rest)


def loaded_by(code: str, folder: Path) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys\nprint('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_the_package_itself_and_its_help_load_nothing_heavy(tmp_path: Path) -> None:
    run = """
import runpy, sys
sys.argv = ["agentcascade", "{}"]
try: runpy.run_module("agentcascade", run_name="__main__")
except SystemExit as done: assert not done.code
"""
    parts = "import agentcascade, agentcascade.retrievers, agentcascade.routers, agentcascade.envs, agentcascade.cli"
    for code in (parts, run.format("--help"), run.format("--version")):
        loaded = loaded_by(code, tmp_path)
        assert "agentcascade" in loaded
        assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("agentcascade.build; agentcascade.Cascade; agentcascade.Episode; agentcascade.SyncEpisode", {"pydantic"}),
        ("agentcascade.ScriptedModel(['hi']); agentcascade.PriceTable; agentcascade.LiteLLMModel", {"pydantic"}),
        ("agentcascade.Bank; agentcascade.Ledger", {"pydantic", "numpy", "sqlalchemy"}),
        (
            "from agentcascade.retrievers import faiss_index, onnx, sentence_transformer, bert_onnx, numpy_index",
            {"numpy"},
        ),
    ],
)
def test_a_name_loads_no_more_than_it_needs(code: str, allowed: set[str], tmp_path: Path) -> None:
    assert loaded_by(f"import agentcascade\n{code}", tmp_path) & HEAVY <= allowed


def test_a_cascade_of_ones_own_models_loads_only_what_it_uses(tmp_path: Path) -> None:
    code = """
from agentcascade import ScriptedModel, build
teacher, student = ScriptedModel(["look"]), ScriptedModel(["look"])
with build(teacher=teacher, student=student, retrieval={"embedder": "hashing", "index": "exact"}) as cascade:
    for mode in ("collect", "cascade"):
        episode = cascade.sync_episode(mode=mode)
        episode.complete([{"role": "user", "content": "put a mug on the desk"}])
        episode.finish(success=True)
"""
    heavier = HEAVY - {"pydantic", "numpy", "sqlalchemy", "alembic", "openai", "tiktoken", "rich"}
    assert loaded_by(code, tmp_path) & heavier == set()


def test_the_core_imports_nothing_from_the_floors_above() -> None:
    above = {"ground": {"core", "parts", "assembly", "top"}, "core": {"parts", "assembly", "top"}}
    up = [
        (module, name)
        for module, name, _ in imports()
        if (target := own(name)) is not None and floor(target) in above.get(floor(module), ())
    ]
    assert up == []


def test_parts_know_the_core_and_none_of_each_others_insides() -> None:
    def family(module: str) -> str:
        return ".".join(module.split(".")[: 2 if module.startswith("envs.") else 1])

    across = [
        (module, name)
        for module, name, _ in imports()
        if floor(module) == "parts"
        and not name.startswith("agentcascade.envs.react")  # the loop that all worlds' agents share
        and (target := own(name)) is not None
        and (floor(target) in ("assembly", "top") or (floor(target) == "parts" and family(target) != family(module)))
    ]
    assert across == []
    assert not [i for i in imports() if i.module.startswith("bench.") and (own(i.name) or "").startswith("cli")]
    assert not [i for i in imports() if i.module == "assembly" and floor(own(i.name) or "") in ("parts", "top")]


def test_what_other_interpreters_run_stands_alone() -> None:
    """AppWorld's and vLLM's have none of our packages, and we none of theirs."""
    apart = ("envs.appworld.inside.", "students.offline_engine")
    for found in imports():
        if f"{found.module}.".startswith(apart):
            assert not found.name.startswith("agentcascade"), found
        else:
            assert not any(found.name.startswith(f"agentcascade.{name}") for name in apart), found
            assert found.name.split(".")[0] not in {"appworld", "vllm"}, found


def test_every_heavy_package_is_imported_by_its_owner_alone() -> None:
    sites: dict[str, set[str]] = defaultdict(set)
    for module, name, _ in imports():
        sites[name.split(".")[0]].add(module)
    assert {package: sites[package] for package in OWNERS} == OWNERS
    unowned = (sites.keys() & HEAVY) - OWNERS.keys()
    shared = {"numpy", "sqlalchemy", "pydantic", "rich", "fastapi", "starlette"}
    assert unowned == shared, "several modules may compute, store, print and serve"
    own = {"envs.appworld.inside.serve"}  # AppWorld's FastAPI, not ours
    assert all(m.startswith("server.") for package in ("fastapi", "starlette") for m in sites[package] - own)
    assert all(
        m.split(".")[0] in STORED for m in sites["sqlalchemy"] - {"retrievers.pgvector", "retrievers.pgvector_table"}
    )
    assert all(m.split(".")[0] in {"cli", "bench"} for m in sites["rich"])


def test_optional_packages_are_imported_only_when_they_are_used() -> None:
    optional = {p for p, owners in OWNERS.items() if any(floor(o) in ("parts", "top") for o in owners)} | {"litellm"}
    optional -= {"openai"}
    doors = ("integrations.", "server.")  # whoever imports these has asked for the package
    at_once = [(m, n) for m, n, lazily in imports() if n.split(".")[0] in optional and not lazily]
    assert [(m, n) for m, n in at_once if not m.startswith(doors)] == []
