"""Components by name: models, routers, embedders, retrievers, formats and banks that a configuration asks for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from agentcascade import registry
from agentcascade.actions.base import ActionFormat
from agentcascade.actions.formats import make_format
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ModelConfig, RouterConfig
from agentcascade.errors import ConfigError, MissingExtra, did_you_mean
from agentcascade.models.quirks import HOSTED_VLLM, RESPONSES_ROUTE
from agentcascade.prompts.prompts import prompts_of
from agentcascade.protocols import ChatModel, Embedder, Judge, Merger, Retriever, Router, TokenCounter
from agentcascade.types import Trajectory

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.bank.failures import FailureShelf
    from agentcascade.step.verification import SoftVerifier
    from agentcascade.storage import Database

MakeModel: TypeAlias = Callable[[ModelConfig, TokenCounter], ChatModel]

OWN_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Z]\w*")
"""`module:Class`; names of providers' models have no capital after a colon."""

MOVED = {"agentcascade.scripted": "agentcascade.models.scripted"}
"""Modules that configurations may name by where they stood once."""

OFFLINE = "offline/"
"""Prefix of stand-ins, which need no network. They are not language models, and every report says so."""
RECORDED = "recorded/"
"""Prefix of real models' runs, played again at the real models' prices"""
OWN = "client/"
"""Prefix of models that `wrap` reaches through the program's own client: ``client/gpt-4.1-mini``."""
NAMED = "(the model that a call names)"
"""Name of the teacher that `wrap` gives in place of one: each call names its own."""


def make_mergers(config: CascadeConfig, count: TokenCounter, make: MakeModel | None = None) -> tuple[Merger, ...]:
    """The mergers that a configuration names, registered ones first, then the verifier, which costs most."""
    mergers: list[Merger] = [
        registry.construct("mergers", part.name, "actions.mergers", part.options) for part in config.actions.mergers
    ]
    if config.actions.verifier is not None:
        from agentcascade.actions.equivalence import Verifier

        model = (make or make_model)(config.actions.verifier, count)
        mergers.append(Verifier(model, prompts_of(config.prompt)))
    return tuple(mergers)


def make_verifier(config: CascadeConfig, count: TokenCounter, make: MakeModel | None = None) -> SoftVerifier | None:
    """The soft verifier that a configuration asks for. Raises `ConfigError` where nothing is ever put to it."""
    settings = config.verifier
    if settings is None:
        return None
    from agentcascade.step.verification import SoftVerifier

    if set(settings.ask) == {"stakes"} and not config.tools.side_effects:
        raise ConfigError(
            "verifier.ask is stakes, and no tool is known to have any: list those whose calls cannot be taken back in "
            "tools.side_effects, or set verifier.ask to split"
        )
    model = (make or make_model)(settings, count)
    return SoftVerifier(model, settings, config.tools.side_effects, prompts_of(config.prompt))


def make_judge(config: CascadeConfig, count: TokenCounter, make: MakeModel | None = None) -> Judge | None:
    """The judge that a configuration names: a registered one, or a model that is asked."""
    settings = config.judge
    if settings.name is not None:
        return registry.construct("judges", settings.name, "judge.name", settings.options)  # type: ignore[no-any-return]
    if settings.model is None:
        return None
    from agentcascade.episodes.judge import ModelJudge

    return ModelJudge(
        (make or make_model)(settings.model, count),
        settings.question,
        prompts_of(config.prompt),
        together=settings.together,
        characters=settings.together_characters,
        wait_seconds=settings.together_seconds,
        max_tokens=settings.model.max_tokens,
    )


KEYS = ("goal", "plan", "observation")


def open_bank(
    config: CascadeConfig,
    database: Database,
    embedder: Embedder,
    redact: Callable[[Trajectory], Trajectory] | None = None,
    *,
    failures: FailureShelf | None = None,
) -> Bank:
    """The bank in `database` as `config.retrieval` wants it searched; what is added goes through `redact`."""
    from agentcascade.bank.bank import Bank
    from agentcascade.bank.success_ranking import SuccessRanking

    retrieval = config.retrieval
    weights = {key: getattr(retrieval.weights, key) for key in KEYS}
    return Bank(
        database,
        embedder,
        make_retriever(retrieval.index, len(KEYS) * embedder.dimension, database, f"{embedder.name} {weights}"),
        weights=weights,
        window_before=retrieval.window_before,
        window_after=retrieval.window_after,
        redact=redact,
        utility=SuccessRanking(database, retrieval.utility_weight) if retrieval.utility_weight else None,
        shortened=config.prompt.shortened,
        failures=failures,
    )


def make_model(config: ModelConfig, count: TokenCounter) -> ChatModel:
    """The chat model that a configuration names, at its effort. Raises `ConfigError` for one that it does not know."""
    return at_configured_effort(_make_plain_model(config, count), config)


def at_configured_effort(model: ChatModel, config: ModelConfig) -> ChatModel:
    """The model at the effort that its configuration has, and with calls in its text read where that is asked for."""
    if config.text_calls:
        from agentcascade.envs.bfcl.text_calls import TextCalls

        if not isinstance(model, TextCalls):
            model = cast("ChatModel", TextCalls(model))
    if config.effort is not None:  # outermost, where a step looks for it
        from agentcascade.config.effort import parse_effort
        from agentcascade.models.effort import at_effort

        model = at_effort(model, parse_effort(config.effort))
    return model


def _make_plain_model(config: ModelConfig, count: TokenCounter) -> ChatModel:
    """The chat model that a configuration names.

    A registered one (entry-point group ``agentcascade.models``: a function of this function's arguments, by the whole
    name or, with a slash at its end, by prefix), `module:Class` of the user's, or anything litellm knows.
    """
    from agentcascade.models.pricing import PriceTable, configured_prices, speaks_responses_only, with_price

    prices = configured_prices(config)
    point = _registered_model(config.name)
    if point is not None:
        model: ChatModel = registry.load(point, "model")(config, count)
        return with_price(model, prices.lookup(config.name) if config.price else None)
    if OWN_CLASS.fullmatch(config.name):
        own: ChatModel = registry.make(load(config.name), config.name, config.options)
        return with_price(own, prices.lookup(config.name) if config.price else None)
    if config.name.startswith(OWN):
        raise ConfigError(
            f"model '{config.name}' is reached through a wrapped client: use agentcascade.wrap(client, ...), or name "
            f"its provider, e.g. 'openai/{config.name.removeprefix(OWN)}'"
        )
    from agentcascade.models.anthropic import AnthropicModel, takes_as_messages
    from agentcascade.models.litellm import LiteLLMModel
    from agentcascade.models.openai import OpenAIModel, loopback_key, needs_no_translation

    api_base = config.api_base
    settings: dict[str, Any] = {
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "timeout": config.timeout_seconds,
        "retries": config.retries,
        "options": config.options,
    }
    if config.name.startswith(HOSTED_VLLM) and not api_base and not os.environ.get("HOSTED_VLLM_API_BASE"):
        from agentcascade.vllm.registry import Registry

        student = Registry().find(config.name)
        bases = student.api_bases
        if student.price is not None and not config.price:
            prices = PriceTable({config.name: student.price.model_dump(exclude={"long_context"}, exclude_none=True)})
        if len(bases) > 1:
            from agentcascade.vllm.replicas import ReplicatedModel

            return ReplicatedModel(config.name, bases, prices=prices, **settings)
        api_base = bases[0]
    if config.name.startswith(RESPONSES_ROUTE) or speaks_responses_only(config.name):
        from agentcascade.models.responses import ResponsesModel

        key = config.api_key.get_secret_value() if config.api_key else loopback_key(config.name, api_base)
        return ResponsesModel(config.name, prices=prices, api_base=api_base, api_key=key, **settings)
    if takes_as_messages(config.name, config.options):
        secret = config.api_key.get_secret_value() if config.api_key else None
        return AnthropicModel(config.name, prices=prices, api_base=api_base, api_key=secret, **settings)
    plain = needs_no_translation(config.name, api_base, config.options)
    key = config.api_key.get_secret_value() if config.api_key else loopback_key(config.name, api_base)
    return (OpenAIModel if plain else LiteLLMModel)(
        config.name, prices=prices, api_base=api_base, api_key=key, **settings
    )


def _registered_model(name: str) -> EntryPoint | None:
    """None where litellm is to be asked. Raises `ConfigError` for a name that only resembles registered ones."""
    points = registry.registered("models")
    prefix = f"{name.partition('/')[0]}/"
    longest = max((known for known in points if known.endswith("/") and name.startswith(known)), key=len, default="")
    point = points.get(name) or points.get(longest)
    if point is None and any(known.startswith(prefix) for known in points):
        from agentcascade.models.litellm_setup import import_litellm

        if prefix.rstrip("/") not in import_litellm().provider_list:
            raise ConfigError(f"there is no model '{name}': {did_you_mean(name, points)}")
    return point


def format_of(config: CascadeConfig) -> ActionFormat:
    """The format of actions that a configuration asks for."""
    settings = config.actions
    return make_format(settings.format, settings.pattern, fold=settings.fold, ordered=config.tools.side_effects)


def make_router(config: RouterConfig) -> Router:
    return registry.construct("routers", config.name, "router.name", config.options)  # type: ignore[no-any-return]


def make_embedder(name: str) -> Embedder:
    """`name[:argument]`; ``minilm`` runs under onnxruntime where that is installed, else sentence-transformers.

    ``minilm:float32`` and ``minilm:int8`` say the precision, which is else measured.
    """
    kind, _, argument = name.partition(":")
    if kind == "minilm" and argument:
        if argument not in ("float32", "int8"):
            raise ConfigError(f"embedder '{name}': give minilm, minilm:int8 or minilm:float32")
        return registry.construct("embedders", "onnx", "retrieval.embedder", {"precision": argument})  # type: ignore[no-any-return]
    if kind == "minilm":
        if not find_module("onnxruntime") and not find_module("sentence_transformers"):
            raise MissingExtra("onnxruntime", "onnx", "the default embedder")
        kind, argument = ("onnx" if find_module("onnxruntime") else "sentence-transformers"), "minilm"
    options: dict[str, Any] = {}
    if argument:
        options = {"dimension": int(argument)} if argument.isdigit() else {"model": argument}
    return registry.construct("embedders", kind, "retrieval.embedder", options, aliases=("minilm",))  # type: ignore[no-any-return]


def make_retriever(name: str, dimension: int, database: Database | None = None, space: str = "") -> Retriever:
    """`database` and `space` are for an index that says it is ``shared``: see `SharedRetriever`."""
    if name == "auto":
        name = "faiss" if find_module("faiss") else "exact"
    if name == "pgvector" and database is None:
        raise ConfigError("retrieval.index 'pgvector' needs a bank in PostgreSQL: set bank.url to postgresql://…")
    part = registry.load(registry.find("retrievers", name, "retrieval.index"), "retrieval.index")
    options: dict[str, Any] = {"dimension": dimension}
    if getattr(part, "shared", False):
        if database is None:
            raise ConfigError(f"retrieval.index '{name}' is shared by all who use a bank, and there is none here")
        options |= {"database": database, "space": space}
    return registry.make(part, f"retrieval.index '{name}'", options)  # type: ignore[no-any-return]


def find_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def load(path: str) -> Any:
    """The object at `module:attribute`; raises `ConfigError`."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(MOVED.get(module, module)), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"'{path}' cannot be loaded: {error}") from error
