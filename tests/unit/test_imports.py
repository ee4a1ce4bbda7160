"""What an import costs, and that no import points up (ARCHITECTURE.md, "Floors")."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import agentcascade
from tests.structure import FLOORS, Structure, ranks, room, set_attributes

ROOT = Path(agentcascade.__file__).parent

HEAVY = {
    *("torch", "transformers", "sentence_transformers", "onnx", "onnxruntime", "tokenizers", "safetensors", "faiss"),
    *("litellm", "openai", "tiktoken", "stamina", "sqlalchemy", "alembic", "psycopg", "numpy", "scipy", "matplotlib"),
    *("sklearn", "pyarrow", "sqlglot", "pgvector", "ray"),
    *("alfworld", "textworld", "jsonschema", "pydantic", "rich"),
    *(
        "fastapi",
        "starlette",
        "uvicorn",
        "opentelemetry",
        "prometheus_client",
        "langchain_core",
        "presidio_analyzer",
    ),
    "cryptography",
    "aiohttp",
}

OWNERS = {
    "psycopg": {"storage.engine"},
    "torch": {"retrievers.sentence_transformer"},
    "sentence_transformers": {"retrievers.sentence_transformer"},
    "onnx": {"retrievers.bert_onnx"},
    "safetensors": {"retrievers.bert_onnx", "routers.tier.checkpoints"},
    "onnxruntime": {"retrievers.onnx"},
    "tokenizers": {"retrievers.onnx"},
    "faiss": {
        "retrievers.faiss_index",
        "retrievers.inverted_file",
        "retrievers.openmp",
        "retrievers.rabitq",
        "retrievers.stores",
    },
    "litellm": {"models.litellm_setup", "integrations.litellm"},
    "stamina": {"models.retries"},
    "aiohttp": {"models.aiohttp_transport"},
    "openai": {
        *(
            "episodes.responses",
            "models.openai_client",
            "models.openai_create",
            "models.openai_events",
            "models.openai_requests",
            "models.openai",
            "models.responses_calls",
        ),
        *("integrations.openai", "integrations.openai_chat", "integrations.openai_control"),
        *("integrations.openai_bypasses", "integrations.openai_responses"),
    },
    "anthropic": {"integrations.anthropic", "integrations.anthropic_client", "integrations.openai_control"},
    "langchain_core": {"integrations.langchain"},
    "opentelemetry": {"telemetry.observer", "telemetry.prometheus"},
    "prometheus_client": {"server.workers", "telemetry.prometheus"},
    "presidio_analyzer": {"redaction.presidio"},
    "scipy": {"routers.tuning.pvalues", "envs.intercode_sql.rewards"},
    "sqlglot": {"actions.sql"},
    "re2": {"_util.bounds"},
    "regex": {"_util.bounds"},
    "sklearn": {"routers.tuning.families"},
    "pyarrow": {"steplog.parquet"},
    "pgvector": {"retrievers.pgvector"},
    "ray": {"bench.pools.ray"},
    "uvicorn": {"envs.appworld.inside.serve", "launch.proxy", "server.connections", "server.run"},
    "vllm": {"vllm.offline_engine"},
    "bm25s": {"memory.bm25"},
    "Stemmer": {"memory.tokenization"},
    "dateparser": {"memory.dates"},
    "tiktoken": {"models.tokens"},
    "cryptography": {"storage.sealing"},
    "jsonschema": {"models.structured_output", "models.json_schema"},
    "matplotlib": {"bench.plots", "reports.figures"},
    "textworld": {"envs.alfworld.engine"},
    "alfworld": {"envs.alfworld.engine", "envs.alfworld.scenes"},
    "alembic": {
        "storage.upgrade",
        "storage.migrations.env",
        "storage.migrations.versions.0001_first",
        "storage.migrations.versions.0002_serving",
        "storage.migrations.versions.0003_memory",
        "storage.migrations.versions.0004_tuning",
        "storage.migrations.versions.0005_demonstrations",
        "storage.migrations.versions.0006_estimated",
        "storage.migrations.versions.0007_cache_regret",
        "storage.migrations.versions.0008_responses",
        "storage.migrations.versions.0009_windows",
        "storage.migrations.versions.0010_drafts",
        "storage.migrations.versions.0011_outcomes",
        "storage.migrations.versions.0012_response_cache",
        "storage.migrations.versions.0013_retries",
        "storage.migrations.versions.0014_batches",
        "storage.migrations.versions.0015_rungs",
        "storage.migrations.versions.0016_history",
        "storage.migrations.versions.0017_verification",
        "storage.migrations.versions.0018_newest",
        "storage.migrations.versions.0019_sessions",
        "storage.migrations.versions.0020_shared_audits",
        "storage.migrations.versions.0021_audit_rounds",
    },
}
"""Heavy packages, and the modules that may import them."""

STORED = {"storage", "bank", "steplog", "ledger", "episodes", "cli"}
"""Where the database is asked."""
PARTS = {"retrievers", "routers", "envs"}
TOP = {"cli", "bench", "integrations", "reports", "server"}


@cache
def structure() -> Structure:
    made = Structure(ROOT)
    assert {"cascade", "retrievers.onnx", "envs.alfworld.engine", "cli.bank"} <= made.modules.keys()
    return made


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
        ("agentcascade.Bank", {"pydantic", "numpy", "sqlalchemy"}),
        ("agentcascade.Ledger", {"pydantic", "sqlalchemy"}),
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


def test_a_server_loads_what_its_models_need_before_it_serves_and_no_more() -> None:
    """Half of OpenAI's package is APIs of administration and pictures, and nothing of it is Anthropic's."""
    code = """
import asyncio, sys
import httpx
from agentcascade import CascadeConfig
from agentcascade.server.app import create_app
from tests.fake_openai import FakeOpenAI

async def served(asked, **parts):
    bank = {"bank": {"url": "sqlite:///:memory:"}, "retrieval": {"k": 0}, "mode": "teacher"}
    app = create_app(CascadeConfig.load(None, **bank, **parts))
    async with app.router.lifespan_context(app):
        before = {*sys.modules}
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
        for stream in (True, False) * asked:
            body = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
            answer = await http.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer sk-callers"})
            assert answer.status_code == 200, answer.text
        late = {name.partition(".")[0] for name in sys.modules.keys() - before}
        return late & {"openai", "aiohttp", "anthropic", "numpy"}

async def main():
    await served(False, teacher={"name": "anthropic/claude-sonnet-4-5", "api_key": "k"})
    assert "openai" not in sys.modules and "aiohttp" in sys.modules
    with FakeOpenAI() as fake:
        late = await served(True, server={"passthrough": "default", "upstreams": {"openai": fake.url}})
        assert not late, late
        assert not await served(True, teacher={"name": "openai/m", "api_base": fake.url})
    assert "openai" in sys.modules and "openai.resources" not in sys.modules

asyncio.run(main())
"""
    loaded_by(code, ROOT.parent)


def test_every_package_stands_on_a_floor_and_nothing_else_does() -> None:
    assert {room(module) for module in structure().arrows} == ranks(FLOORS).keys()


def test_no_import_climbs() -> None:
    """Those for type checkers and inside functions neither."""
    assert structure().climbs() == []


def test_there_is_no_circle() -> None:
    assert structure().circles == []


def test_nothing_of_a_cascade_is_set_after_its_construction() -> None:
    assert set_attributes(ROOT) == ([], [])


def test_worlds_routers_and_indexes_know_none_of_each_others_insides() -> None:
    def family(module: str) -> str:
        return ".".join(module.split(".")[: 2 if module.startswith("envs.") else 1])

    across = [
        (module, target)
        for module, targets in structure().arrows.items()
        for target in targets
        if room(module) in PARTS and room(target) in PARTS and family(module) != family(target)
    ]
    shared = ("envs.react", "envs.recorded")  # the loop of all worlds' agents, recorded models as chat models
    assert [found for found in across if not found[1].startswith(shared)] == []


def test_what_other_interpreters_run_stands_alone() -> None:
    """AppWorld's and vLLM's have none of our packages, and we none of theirs."""
    apart = ("envs.appworld.inside.", "vllm.offline_engine")
    for found in structure().imports:
        if f"{found.module}.".startswith(apart):
            assert not found.name.startswith("agentcascade"), found
        else:
            assert not any(found.name.startswith(f"agentcascade.{name}") for name in apart), found
            assert found.name.split(".")[0] not in {"appworld", "vllm"}, found


def test_every_heavy_package_is_imported_by_its_owner_alone() -> None:
    sites: dict[str, set[str]] = defaultdict(set)
    for module, name, _ in structure().imports:
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
    optional = {p for p, owners in OWNERS.items() if any(room(o) in PARTS | TOP for o in owners)} | {"litellm"}
    optional -= {"openai"}
    doors = ("integrations.", "server.")  # whoever imports these has asked for the package
    at_once = [(m, n) for m, n, lazily in structure().imports if n.split(".")[0] in optional and not lazily]
    assert [(m, n) for m, n in at_once if not m.startswith(doors)] == []
