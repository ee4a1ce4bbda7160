"""Memories built from a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from agentcascade import registry
from agentcascade.assembly import components
from agentcascade.assembly.resources import Resources, fingerprint
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import RouterConfig
from agentcascade.errors import ConfigError
from agentcascade.protocols import Embedder, Recorder

if TYPE_CHECKING:
    from agentcascade.config.keywords import BuildMemoryKeywords
    from agentcascade.memory.memory import Memory
    from agentcascade.memory.types import TierRouter


def build_memory(
    config: CascadeConfig | str | Path | None = None,
    *,
    router: TierRouter | None = None,
    recorder: Recorder | None = None,
    stored: bool = True,
    **keywords: Unpack[BuildMemoryKeywords],
) -> Memory:
    """Build a `Memory` from a configuration, a YAML file, the environment or keywords; close it when done.

    Args:
        config: A checked configuration, or the path of a YAML file, over which environment and keywords are laid.
        router: Chooses tiers, in place of `memory.router`.
        recorder: Keeps what was recalled, in place of the database.
        stored: Keep histories, and what was recalled of them, in the database; else in this process.
        keywords: Sections and fields of `CascadeConfig`, such as ``memory={"token_budget": 500}``.

    Raises:
        ConfigError: A value is missing, unknown or impossible; the message names key and fix.
        MissingExtra: A part that is asked for is not installed.
        StorageError: The database cannot be opened. Whatever is raised, nothing is left open.

    >>> from agentcascade import build_memory
    >>> with build_memory(retrieval={"embedder": "hashing"}, bank={"url": "sqlite:///memory.db"}) as memory:
    ...     memory.append_sync("ann", ["I work in Rome.", "My dog is called Rex."])
    ...     memory.recall_sync("Where do I work?", "ann").text
    '- I work in Rome.'
    """
    if not isinstance(config, CascadeConfig):
        config = CascadeConfig.load(config, **keywords)
    elif keywords:
        raise ConfigError("give either a CascadeConfig or keyword arguments, not both: use CascadeConfig.load(...)")
    resources = Resources()
    try:
        memory = make_memory(config, resources, router=router, recorder=recorder, stored=stored)
    except BaseException:
        resources.close()
        raise
    memory.on_close_last(resources.close)
    return memory


def build_bench_memory(config: CascadeConfig) -> Memory:
    """A memory for benchmarks: in this process, and every question costs what it would from a cold cache."""
    from agentcascade.routers.tier.baselines import FixedTiers

    resources = Resources()
    try:
        memory = make_memory(config, resources, router=FixedTiers("low"), stored=False, charging=True, cached=12_000)
    except BaseException:
        resources.close()
        raise
    memory.on_close_last(resources.close)
    return memory


def shared_memory(config: CascadeConfig, resources: Resources) -> Memory:
    """The memory that cascades of this configuration share."""
    said = config.prompt.quoting, config.prompt.template
    parts = config.memory, said, config.redaction, config.retrieval.embedder, config.bank.url, config.seed
    key = ("memory", fingerprint(parts))
    return resources.once(key, lambda: resources.closing(make_memory(config, resources)))


def make_memory(
    config: CascadeConfig,
    resources: Resources,
    *,
    router: TierRouter | None = None,
    recorder: Recorder | None = None,
    stored: bool = True,
    charging: bool = False,
    cached: int = 4000,
) -> Memory:
    """A memory on what `resources` opens. `charging` and `cached` are for benchmarks (see `ColdCacheMeter`)."""
    from agentcascade.memory.memory import Memory
    from agentcascade.memory.pipeline import Pipeline
    from agentcascade.memory.question import SmallModels, token_vectors_of
    from agentcascade.memory.tiers import make_modules, needs_chat_models
    from agentcascade.models.embeddings import TextVectors
    from agentcascade.models.tokens import token_counter
    from agentcascade.prompts.prompts import prompts_of

    settings, count = config.memory, token_counter()
    modules = make_modules(settings.axis, settings.tiers)
    if needs_chat_models(modules) and not settings.models:
        raise ConfigError(
            f"memory.axis '{settings.axis}' asks chat models: set memory.models, e.g. "
            "{large: {name: openai/gpt-4.1-mini}}, or use axis 'local'"
        )
    embedder = resources.embedder(settings.embedder or config.retrieval.embedder)
    tier_router = router or make_tier_router(settings.router, embedder)
    vectors = TextVectors(embedder)
    prompts = prompts_of(config.prompt)
    redactor = resources.redactor(config)
    return Memory(
        settings,
        pipeline=Pipeline(modules, tier_router, explore=settings.explore),
        small_models=SmallModels(vectors, token_vectors_of(embedder), count, cached, prompts),
        vectors=vectors,
        encoder=embedder.name,
        dimension=embedder.dimension,
        count=count,
        models={size: components.make_model(model, count) for size, model in settings.models.items()},
        histories=resources.histories(config) if stored else None,
        results=resources.computed(config) if stored else None,
        recorder=recorder or (resources.recorder(config) if stored else None),
        redact=redactor.text if stored else None,
        namespace=config.bank.namespace,
        seed=config.seed,
        charging=charging,
        door=resources.door(config) if stored else None,
        accounts=config.budgets.of_namespace,
    )


def make_tier_router(config: RouterConfig, embedder: Embedder) -> TierRouter:
    """The tier router that a config names; one that was trained must fit the embedder."""
    router: TierRouter = registry.construct("tier_routers", config.name, "memory.router.name", config.options)
    check = getattr(router, "check", None)
    if check is not None:
        check(embedder.name, embedder.dimension)
    return router
