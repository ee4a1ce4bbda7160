"""Cascades built from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

from agentcascade.actions.base import Validator
from agentcascade.assembly import components
from agentcascade.assembly.audit_batches import check_batches, is_batched
from agentcascade.assembly.committee import check_committee, committee_router, seat_of
from agentcascade.assembly.components import MakeModel
from agentcascade.assembly.ladder import check_prices
from agentcascade.assembly.memory import shared_memory
from agentcascade.assembly.resources import Resources
from agentcascade.billing.door import NullObserver
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig, variants
from agentcascade.config.sections import JudgeConfig, ModelConfig
from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.models.structured_output import Choices
from agentcascade.models.structured_output import check_config as check_constraints
from agentcascade.protocols import ChatModel, Judge, Merger, Observer, Recorder, TokenCounter
from agentcascade.step.audit_rounds import NEEDS_CONFIGURED
from agentcascade.step.context import FurtherStudent, StepContext, check_models

if TYPE_CHECKING:
    from agentcascade.config.keywords import BuildKeywords, JudgeKeywords, LinkKeywords, ModelKeywords, StudentKeywords
    from agentcascade.config.sections import LinkConfig
    from agentcascade.storage import Database


SECTION = (str, Mapping, ModelConfig)
"""What names a model in place of being one."""


def build(
    config: CascadeConfig | str | Path | None = None,
    *,
    cascade: str | None = None,
    teacher: ChatModel | ModelConfig | ModelKeywords | str | None = None,
    student: ChatModel | ModelConfig | StudentKeywords | str | None = None,
    students: Sequence[ChatModel | LinkConfig | LinkKeywords | str] = (),
    validators: Sequence[Validator] = (),
    mergers: Sequence[Merger] = (),
    choices: Choices | None = None,
    recorder: Recorder | None = None,
    judge: Judge | JudgeConfig | JudgeKeywords | None = None,
    observer: Observer | None = None,
    models: MakeModel | None = None,
    **keywords: Unpack[BuildKeywords],
) -> Cascade:
    """Build a `Cascade` from a configuration, a YAML file, the environment or keywords; close it when done.

    Args:
        config: A checked configuration, or the path of a YAML file, over which environment and keywords are laid.
        cascade: Name of one of its `cascades`.
        teacher: A model's name, its section (``{"name": …, "price": …}``), or a model of your own.
        student: Likewise.
        students: Further ones, each likewise: a chain, or a committee (``sampling.across: students``).
        validators: Say which actions are impossible in a situation.
        mergers: Say which actions are the same though their keys differ: `DryRun`, `Verifier`, or your own.
        choices: Lists a situation's admissible actions, for ``sampling.constrain: choice``.
        recorder: Keeps decisions, in place of the database.
        judge: Says whether an episode succeeded where `Episode.finish` is not told; or the section of a judging model.
        observer: Watches steps and model calls.
        models: Makes the models that the configuration names, in place of `agentcascade.assembly.make_model`.
        keywords: Sections and fields of `CascadeConfig`, such as ``mode="shadow"`` or ``retrieval={"k": 4}``.

    Raises:
        ConfigError: A value is missing, unknown or impossible; the message names key and fix.
        MissingExtra: A part that is asked for is not installed.
        StorageError: The database cannot be opened. Whatever is raised, nothing is left open.

    >>> from agentcascade import ScriptedModel, build
    >>> with build(teacher="openai/gpt-4.1", student=ScriptedModel(["look"]), mode="student") as cascade:
    ...     cascade.sync_episode().complete([{"role": "user", "content": "Go."}]).choices[0].message.content
    'look'
    >>> build(teacher="openai/gpt-4.1", mode="teacher", retrieval={"kk": 4})
    Traceback (most recent call last):
    agentcascade.errors.ConfigError: the configuration: unknown key 'retrieval.kk': did you mean 'k'?...
    """
    overrides: dict[str, Any] = dict(keywords)
    for role, model in (("teacher", teacher), ("student", student)):
        if isinstance(model, SECTION):
            overrides[role] = _section(model)
    if students:
        overrides["students"] = [_section(model) for model in students]
    if isinstance(judge, (Mapping, JudgeConfig)):
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
    resources = Resources()
    try:
        built = _cascade(
            config,
            resources,
            name=cascade or "default",
            teacher=None if isinstance(teacher, SECTION) else teacher,
            student=None if isinstance(student, SECTION) else student,
            students={i: model for i, model in enumerate(students) if not isinstance(model, SECTION)},
            validators=validators,
            mergers=mergers,
            choices=choices,
            recorder=recorder,
            judge=judge,
            observer=observer,
            make_model=models or components.make_model,
        )
    except BaseException:
        resources.close()
        raise
    built.on_close(resources.close)
    return built


def _section(model: ChatModel | ModelConfig | ModelKeywords | str) -> ModelConfig | Mapping[str, Any]:
    """The section of the configuration that names a model, as it was given or for what was given."""
    if isinstance(model, (Mapping, ModelConfig)):
        return model
    return {"name": model if isinstance(model, str) else model.name}


def build_all(
    config: CascadeConfig,
    *,
    observer: Observer | None = None,
    models: MakeModel | None = None,
    teachers: Mapping[str, ChatModel] = MappingProxyType({}),
) -> tuple[dict[str, Cascade], Resources]:
    """Build every cascade of a configuration.

    Args:
        config: Names them in `cascades`; without any there is one, ``default``.
        observer: Watches the steps and model calls of all.
        models: Makes the models that the configuration names, in place of `make_model`.
        teachers: By cascade, those for which the configuration names none.

    Returns:
        The cascades by name, and the resources that they share, which close them all.

    Raises:
        ConfigError, MissingExtra, StorageError: As `build`.
    """
    resources = Resources()
    cascades: dict[str, Cascade] = {}
    make_model = models or components.make_model
    try:
        for name, variant in variants(config).items():
            cascades[name] = _cascade(
                variant,
                resources,
                name=name,
                teacher=teachers.get(name) if variant.teacher is None else None,
                observer=observer,
                make_model=make_model,
            )
    except BaseException:
        resources.close()
        raise
    return cascades, resources


def _cascade(
    config: CascadeConfig,
    resources: Resources,
    *,
    name: str,
    teacher: ChatModel | None = None,
    student: ChatModel | None = None,
    students: Mapping[int, ChatModel] = MappingProxyType({}),
    judge: Judge | None = None,
    validators: Sequence[Validator] = (),
    mergers: Sequence[Merger] = (),
    choices: Choices | None = None,
    recorder: Recorder | None = None,
    observer: Observer | None = None,
    make_model: MakeModel,
) -> Cascade:
    from agentcascade.models.pricing import with_server_price
    from agentcascade.models.tokens import token_counter

    count = token_counter()
    opened: list[ChatModel] = []

    def open_model(model: ModelConfig, count: TokenCounter) -> ChatModel:
        priced = with_server_price(model, config.server.prices)
        opened.append(components.at_configured_effort(make_model(priced, count), model))
        return opened[-1]

    named_by_calls = teacher is not None and teacher.name.endswith(components.NAMED)
    if config.ladder and ((teacher is not None and not named_by_calls) or student is not None or students):
        raise ConfigError(
            "ladder: its rungs are the models, and its last one the teacher, so no model may be given beside it: leave "
            "the ladder out and give the rungs as student, students and teacher"
        )
    by_batch = is_batched(config)
    if by_batch and (teacher is not None or config.teacher is None):
        raise ConfigError(NEEDS_CONFIGURED)
    check_committee(config)
    committee = config.sampling.across == "students"
    teacher = teacher or (open_model(config.teacher, count) if config.teacher else None)
    student = student or (open_model(config.student, count) if config.student else None)
    if by_batch and teacher is not None:
        check_batches(teacher)
    all_mergers = (*mergers, *components.make_mergers(config, count, open_model))
    check_constraints(config.sampling, config.actions, [m.name for m in (student, *config.students) if m is not None])
    for mode in {config.mode, config.rollout.otherwise if config.rollout.share < 1 else config.mode}:
        check_models(mode, teacher, student)
    verifier = components.make_verifier(config, count, open_model)
    judge = judge or components.make_judge(config, count, open_model)
    banked = config.retrieval.k or config.mode == "collect"
    embedder = resources.embedder(config.retrieval.embedder) if banked else None  # what may be missing, before any file
    seen = observer or resources.observer(config) or NullObserver()
    bank = resources.bank(config, embedder) if embedder is not None else None
    context = StepContext(
        config=config,
        router=committee_router(config) if committee else components.make_router(config.router),
        count=count,
        name=name,
        teacher=teacher,
        student=student,
        students=tuple(
            FurtherStudent(
                students.get(i) or open_model(link, count), components.make_router(link.router), seat_of(link)
            )
            for i, link in enumerate(config.students)
        ),
        database=resources.database(config),
        bank=bank,
        failures=resources.failures(config),
        collection=resources.collection(config, bank, teacher),
        memory=shared_memory(config, resources) if config.memory.enabled else None,
        historian=open_model(config.history.model, count) if config.history and config.history.model else None,
        actions=components.format_of(config),
        validators=tuple(validators),
        mergers=all_mergers,
        choices=choices,
        verifier=verifier,
        judge=judge,
        recorder=recorder or resources.recorder(config),
        response_cache=resources.response_cache(config),
        budgets=resources.budgets(config),
        switch=resources.switch(config),
        guard=resources.guard(config, name),
        batches=resources.batches(config, count, seen) if by_batch else None,
        audit_rounds=resources.audit_rounds(config) if by_batch else None,
        observer=seen,
    )
    if config.ladder:
        database, space = context.database, config.bank.namespace
        check_prices((*context.rungs, *([teacher] if teacher else [])), lambda model: _thinks(database, space, model))
    cascade = Cascade(context)
    if cascade.engine.state.rounds is not None:
        resources.life.add(cascade.engine.state.rounds.close)  # before the database is
    cascade.close_with(opened)
    return cascade


def _thinks(database: Database | None, namespace: str, model: str) -> float | None:
    from agentcascade.ledger.thinking import usual_thinking

    return None if database is None else usual_thinking(database, namespace, model)
