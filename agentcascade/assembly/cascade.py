"""A config becomes objects: the one place where names turn into parts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from agentcascade._util import known_secrets
from agentcascade.actions.base import ActionFormat, Validator
from agentcascade.actions.formats import make_format
from agentcascade.assembly.resources import Shared
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig, variants
from agentcascade.config.sections import ModelConfig, RouterConfig
from agentcascade.episodes.judge import Judge, ModelJudge
from agentcascade.errors import ConfigError, MissingExtra, did_you_mean, without_secrets
from agentcascade.models.structured_output import Choices
from agentcascade.models.structured_output import check as check_constraints
from agentcascade.prompts.quoting import quoting_of
from agentcascade.protocols import ChatModel, Embedder, Merger, Observer, Recorder, Retriever, Router, TokenCounter
from agentcascade.types import Trajectory

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.storage import Database

ModelSettings: TypeAlias = str | Mapping[str, Any]
MakeModel: TypeAlias = Callable[[ModelConfig, TokenCounter], ChatModel]

OWN_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Z]\w*")
"""`module:Class`; names of providers' models have no capital after a colon."""

MOVED = {"agentcascade.scripted": "agentcascade.models.scripted"}
"""Modules that configurations may name by where they stood once."""

OFFLINE = {
    "offline/copier": "agentcascade.envs.offline.copier:Copier",
    "offline/editor": "agentcascade.envs.offline.editor:Editor",
    "offline/expert": "agentcascade.envs.offline.expert:Expert",
    "offline/imitator": "agentcascade.envs.offline.imitator:Imitator",
    "offline/reader": "agentcascade.envs.offline.reader:Reader",
}
"""Stand-ins that need no network. They are not language models, and every report says so."""
RECORDED, PLAYER = "recorded/", "agentcascade.envs.intercode_sql.recorded:RecordedModel"
"""Real models' runs, played again at the real models' prices."""
OWN = "client/"
"""Prefix of models that `wrap` reaches through the program's own client: ``client/gpt-4.1-mini``."""
LOCAL = "hosted_vllm/"
"""A student of `agentcascade students serve`, where no address is given."""


def build(
    config: CascadeConfig | str | Path | None = None,
    *,
    cascade: str | None = None,
    teacher: ChatModel | ModelSettings | None = None,
    student: ChatModel | ModelSettings | None = None,
    validators: Sequence[Validator] = (),
    mergers: Sequence[Merger] = (),
    choices: Choices | None = None,
    recorder: Recorder | None = None,
    judge: Judge | Mapping[str, Any] | None = None,
    observer: Observer | None = None,
    models: MakeModel | None = None,
    **overrides: Any,
) -> Cascade:
    """A ready `Cascade` from a config, a YAML file, the environment or keyword arguments; close it when done.

    `cascade` picks one of the configuration's `cascades`. `teacher` and `student` take a model's name, its settings
    (`{"name": …, "price": …}`) or a model of your own; `recorder` replaces the database's; `validators` say which
    actions are impossible, `mergers` which are the same though their keys differ, `choices` which are admissible, for
    `sampling.constrain: choice`; `judge` is a function
    (or its section of the configuration) that says whether an episode succeeded where `finish` does not; `observer`
    watches steps and calls; `models` makes the models that the configuration names, in place of `make_model`.
    Raises `ConfigError`, `MissingExtra` and `StorageError`, each naming the fix; nothing is left open then.
    """
    for role, model in (("teacher", teacher), ("student", student)):
        if isinstance(model, (str, Mapping)):
            overrides[role] = {"name": model} if isinstance(model, str) else model
    if isinstance(judge, Mapping):
        overrides["judge"], judge = judge, None
    if not isinstance(config, CascadeConfig):
        config = CascadeConfig.load(config, **overrides)
    elif overrides:
        raise ConfigError("give either a CascadeConfig or keyword arguments, not both: use CascadeConfig.load(...)")
    if cascade is not None:
        known = variants(config)
        if cascade not in known:
            raise ConfigError(f"there is no cascade '{cascade}' in the configuration: {did_you_mean(cascade, known)}")
        config = known[cascade]
    shared = Shared()
    try:
        made = _cascade(
            config,
            shared,
            name=cascade or "default",
            teacher=None if isinstance(teacher, (str, Mapping)) else teacher,
            student=None if isinstance(student, (str, Mapping)) else student,
            validators=validators,
            mergers=mergers,
            choices=choices,
            recorder=recorder,
            judge=judge,
            observer=observer,
            make_model=models or make_model,
        )
    except BaseException:
        shared.close()
        raise
    made.on_close(shared.close)
    return made


def build_all(
    config: CascadeConfig, *, observer: Observer | None = None, models: MakeModel | None = None
) -> tuple[dict[str, Cascade], Shared]:
    """Every cascade of the configuration by name, and what they share, which closes them all."""
    shared = Shared()
    made: dict[str, Cascade] = {}
    try:
        for name, variant in variants(config).items():
            made[name] = _cascade(variant, shared, name=name, observer=observer, make_model=models or make_model)
    except BaseException:
        shared.close()
        raise
    return made, shared


def _cascade(
    config: CascadeConfig,
    shared: Shared,
    *,
    name: str,
    teacher: ChatModel | None = None,
    student: ChatModel | None = None,
    judge: Judge | None = None,
    validators: Sequence[Validator] = (),
    mergers: Sequence[Merger] = (),
    choices: Choices | None = None,
    recorder: Recorder | None = None,
    observer: Observer | None = None,
    make_model: MakeModel,
) -> Cascade:
    from agentcascade.models.tokens import token_counter

    count = token_counter()
    opened: list[ChatModel] = []

    def made(model: ModelConfig, count: TokenCounter) -> ChatModel:
        opened.append(make_model(model, count))
        return opened[-1]

    cascade = Cascade(
        config,
        router=make_router(config.router),
        count=count,
        teacher=teacher or (made(config.teacher, count) if config.teacher else None),
        student=student or (made(config.student, count) if config.student else None),
        actions=format_of(config),
        validators=validators,
        name=name,
    )
    cascade.mergers = (*mergers, *verifiers(config, count, made))
    models = [m for m in (cascade.student, *config.students) if m is not None]
    check_constraints(config.sampling, config.actions, [m.name for m in models])
    for mode in {config.mode, config.rollout.otherwise if config.rollout.share < 1 else config.mode}:
        cascade.check_mode(mode)
    cascade.judge = judge
    if judge is None and config.judge.model is not None:
        cascade.judge = ModelJudge(made(config.judge.model, count), config.judge.question, cascade.quoting)
    shared.attach(cascade, recorder)
    cascade.observer, cascade.choices = observer or cascade.observer, choices
    # the links are copies of the cascade as it is now: whatever they share must be set by here
    links = [(made(link, count), make_router(link.router)) for link in config.students]
    cascade.further = tuple(cascade.with_student(model, router) for model, router in links)
    cascade.life.models.extend(opened)
    return cascade


def verifiers(config: CascadeConfig, count: TokenCounter, make: MakeModel | None = None) -> tuple[Merger, ...]:
    """The verifier that a configuration names, if it names one."""
    from agentcascade.actions.equivalence import Verifier

    model = config.actions.verifier
    return () if model is None else (Verifier((make or make_model)(model, count), quoting_of(config.prompt.quoting)),)


KEYS = ("goal", "plan", "observation")


def open_bank(
    config: CascadeConfig,
    database: Database,
    embedder: Embedder,
    redact: Callable[[Trajectory], Trajectory] | None = None,
) -> Bank:
    """The bank in `database` as `config.retrieval` wants it searched; what is added goes through `redact`."""
    from agentcascade.bank.bank import Bank
    from agentcascade.bank.success_ranking import Utility

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
        utility=Utility(database, retrieval.utility_weight) if retrieval.utility_weight else None,
        shortened=config.prompt.shortened,
    )


def make_model(config: ModelConfig, count: TokenCounter) -> ChatModel:
    """The model that a config names: an offline stand-in, `module:Class` of the user's, or anything litellm knows."""
    from agentcascade.models.priced import priced
    from agentcascade.models.pricing import PriceTable

    prices = PriceTable({config.name: dict(config.price)} if config.price else {})
    if config.name.startswith("offline/"):
        if config.name not in OFFLINE:
            raise ConfigError(f"there is no model '{config.name}': {did_you_mean(config.name, OFFLINE)}")
        price = prices.lookup(config.name)
        model: ChatModel = load(OFFLINE[config.name])(count, lambda usage: price.dollars(usage) if price else None)
        return model
    if config.name.startswith(RECORDED):
        price = prices.lookup(config.name) or prices.lookup(config.name.removeprefix(RECORDED))
        played: ChatModel = load(PLAYER)(config.name, count, lambda usage: price.dollars(usage) if price else None)
        return played
    if OWN_CLASS.fullmatch(config.name):
        own: ChatModel = make(load(config.name), config.name, config.options)
        return priced(own, prices.lookup(config.name) if config.price else None)
    if config.name.startswith(OWN):
        raise ConfigError(
            f"model '{config.name}' is reached through a wrapped client: use agentcascade.wrap(client, ...), or name "
            f"its provider, e.g. 'openai/{config.name.removeprefix(OWN)}'"
        )
    from agentcascade.models.litellm import LiteLLMModel
    from agentcascade.models.openai import OpenAIModel, speaks_plainly, stand_in_key

    api_base = config.api_base
    settings: dict[str, Any] = {
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "timeout": config.timeout_seconds,
        "retries": config.retries,
        "options": config.options,
    }
    if config.name.startswith(LOCAL) and not api_base and not os.environ.get("HOSTED_VLLM_API_BASE"):
        from agentcascade.vllm.registry import Registry

        student = Registry().find(config.name)
        bases = student.api_bases
        if student.price is not None and not config.price:
            prices = PriceTable({config.name: student.price.model_dump(exclude={"long_context"}, exclude_none=True)})
        if len(bases) > 1:
            from agentcascade.vllm.replicas import ReplicatedModel

            return ReplicatedModel(config.name, bases, prices=prices, **settings)
        api_base = bases[0]
    plain = speaks_plainly(config.name, api_base, config.options)
    key = config.api_key.get_secret_value() if config.api_key else stand_in_key(config.name, api_base)
    return (OpenAIModel if plain else LiteLLMModel)(
        config.name, prices=prices, api_base=api_base, api_key=key, **settings
    )


def format_of(config: CascadeConfig) -> ActionFormat:
    """The format of actions that a configuration asks for."""
    settings = config.actions
    return make_format(settings.format, settings.pattern, fold=settings.fold, ordered=config.tools.side_effects)


def make_router(config: RouterConfig) -> Router:
    return construct("routers", config.name, "router.name", config.options)  # type: ignore[no-any-return]


def make_embedder(name: str) -> Embedder:
    """`name[:argument]`; ``minilm`` runs under onnxruntime where that is installed, else sentence-transformers."""
    kind, _, argument = name.partition(":")
    if kind == "minilm":
        if not find_module("onnxruntime") and not find_module("sentence_transformers"):
            raise MissingExtra("onnxruntime", "onnx", "the default embedder")
        kind, argument = ("onnx" if find_module("onnxruntime") else "sentence-transformers"), "minilm"
    options: dict[str, Any] = {}
    if argument:
        options = {"dimension": int(argument)} if argument.isdigit() else {"model": argument}
    return construct("embedders", kind, "retrieval.embedder", options)  # type: ignore[no-any-return]


def make_retriever(name: str, dimension: int, database: Database | None = None, space: str = "") -> Retriever:
    """`database` and `space` are for an index that lives in the bank's database: see `SharedRetriever`."""
    if name == "auto":
        name = "faiss" if find_module("faiss") else "exact"
    options: dict[str, Any] = {"dimension": dimension}
    if name == "pgvector":
        if database is None:
            raise ConfigError("retrieval.index 'pgvector' needs a bank in PostgreSQL: set bank.url to postgresql://…")
        options |= {"database": database, "space": space}
    return construct("retrievers", name, "retrieval.index", options)  # type: ignore[no-any-return]


def construct(group: str, name: str, key: str, options: Mapping[str, Any]) -> Any:
    """The part registered as `name` in the entry-point group ``agentcascade.<group>``."""
    found = entry_points(group=f"agentcascade.{group}")
    if name not in found.names:
        if not found.names:
            raise ConfigError(f"no {group} are registered: install agentcascade with pip, so that entry points exist")
        known = {*found.names, *(("minilm",) if group == "embedders" else ())}  # an alias of `make_embedder`
        raise ConfigError(f"{key} '{name}' is unknown: {did_you_mean(name, known)}")
    return make(found[name].load(), f"{key} '{name}'", options)


def make(part: Callable[..., Any], what: str, options: Mapping[str, Any]) -> Any:
    """`part(**options)`; raises `ConfigError` for options that it does not take."""
    try:
        return part(**options)
    except TypeError as error:
        known_secrets.register_fields(options)  # a model of one's own may be given its key so
        raise ConfigError(without_secrets(f"{what} does not take {dict(options)}: {error}")) from error


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
