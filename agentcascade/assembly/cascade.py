"""Cascades built from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, Unpack

from agentcascade.actions.base import Validator
from agentcascade.assembly import components
from agentcascade.assembly.committee import check_committee, make_committee_router, seat_of
from agentcascade.assembly.components import MakeModel
from agentcascade.assembly.memory import shared_memory
from agentcascade.assembly.resources import Resources
from agentcascade.billing.door import NullObserver
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig, variants
from agentcascade.config.overrides import ConfigOverrides
from agentcascade.config.sections import LinkConfig, ModelConfig
from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.models.structured_output import Choices
from agentcascade.models.structured_output import check_config as check_constraints
from agentcascade.protocols import ChatModel, Judge, Merger, Observer, Recorder, TokenCounter
from agentcascade.step.context import FurtherStudent, StepContext, check_models

ModelSettings: TypeAlias = str | Mapping[str, Any]
SETTINGS = (str, Mapping, LinkConfig)


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
    students: Sequence[ChatModel | ModelSettings | LinkConfig] = (),
    **overrides: Unpack[ConfigOverrides],
) -> Cascade:
    """A ready `Cascade` from a config, a YAML file, the environment or keyword arguments; close it when done.

    Args:
        config: a configuration, or the path of a YAML file; with a `CascadeConfig`, no keys of it are taken beside it.
        cascade: one of the configuration's `cascades`.
        teacher, student: a model's name, its settings (``{"name": …, "price": …}``), or a model of your own.
        students: further ones, each likewise.
        validators: say which actions are impossible.
        mergers: say which actions are the same though their keys differ, before those of the configuration.
        choices: which actions are admissible, for ``sampling.constrain: choice``.
        recorder: replaces the database's.
        judge: says whether an episode succeeded where `finish` does not: a function, or the section `judge`.
        observer: watches steps and calls.
        models: makes the models that the configuration names, in place of `make_model`.
        overrides: further keys of the configuration, before those of the file and of the environment.

    Raises:
        ConfigError, MissingExtra, StorageError: each names the fix; nothing is left open then.
    """
    settings: dict[str, Any] = dict(overrides)
    for role, model in (("teacher", teacher), ("student", student)):
        if isinstance(model, (str, Mapping)):
            settings[role] = {"name": model} if isinstance(model, str) else model
    if students:
        settings["students"] = [_settings(model) for model in students]
    if isinstance(judge, Mapping):
        settings["judge"], judge = judge, None
    if not isinstance(config, CascadeConfig):
        config = CascadeConfig.load(config, **settings)
    elif settings:
        raise ConfigError("give either a CascadeConfig or keyword arguments, not both: use CascadeConfig.load(...)")
    if cascade is not None:
        known = variants(config)
        if cascade not in known:
            raise ConfigError(f"there is no cascade '{cascade}' in the configuration: {did_you_mean(cascade, known)}")
        config = known[cascade]
    resources = Resources()
    try:
        made = _cascade(
            config,
            resources,
            name=cascade or "default",
            teacher=None if isinstance(teacher, (str, Mapping)) else teacher,
            student=None if isinstance(student, (str, Mapping)) else student,
            students={i: model for i, model in enumerate(students) if not isinstance(model, SETTINGS)},
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
    made.on_close(resources.close)
    return made


def _settings(model: ChatModel | ModelSettings | LinkConfig) -> LinkConfig | Mapping[str, Any]:
    if isinstance(model, (Mapping, LinkConfig)):
        return model
    return {"name": model if isinstance(model, str) else model.name}


def build_all(
    config: CascadeConfig, *, observer: Observer | None = None, models: MakeModel | None = None
) -> tuple[dict[str, Cascade], Resources]:
    """Every cascade of the configuration by name, and what they share, which closes them all."""
    resources = Resources()
    cascades: dict[str, Cascade] = {}
    make_model = models or components.make_model
    try:
        for name, variant in variants(config).items():
            cascades[name] = _cascade(variant, resources, name=name, observer=observer, make_model=make_model)
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
    from agentcascade.models.tokens import token_counter

    count = token_counter()
    opened: list[ChatModel] = []

    def made(model: ModelConfig, count: TokenCounter) -> ChatModel:
        opened.append(make_model(model, count))
        return opened[-1]

    check_committee(config)
    committee = config.sampling.across == "students"
    teacher = teacher or (made(config.teacher, count) if config.teacher else None)
    student = student or (made(config.student, count) if config.student else None)
    all_mergers = (*mergers, *components.make_mergers(config, count, made))
    check_constraints(config.sampling, config.actions, [m.name for m in (student, *config.students) if m is not None])
    for mode in {config.mode, config.rollout.otherwise if config.rollout.share < 1 else config.mode}:
        check_models(mode, teacher, student)
    judge = judge or components.make_judge(config, count, made)
    banked = config.retrieval.k or config.mode == "collect"
    embedder = resources.embedder(config.retrieval.embedder) if banked else None  # what may be missing, before any file
    context = StepContext(
        config=config,
        router=make_committee_router(config) if committee else components.make_router(config.router),
        count=count,
        name=name,
        teacher=teacher,
        student=student,
        students=tuple(
            FurtherStudent(students.get(i) or made(link, count), components.make_router(link.router), seat_of(link))
            for i, link in enumerate(config.students)
        ),
        database=resources.database(config),
        bank=resources.bank(config, embedder) if embedder is not None else None,
        memory=shared_memory(config, resources) if config.memory.enabled else None,
        actions=components.format_of(config),
        validators=tuple(validators),
        mergers=all_mergers,
        choices=choices,
        judge=judge,
        recorder=recorder or resources.recorder(config),
        budgets=resources.budgets(config),
        switch=resources.switch(config),
        guard=resources.guard(config, name),
        observer=observer or resources.observer(config) or NullObserver(),
    )
    cascade = Cascade(context)
    cascade.close_with(opened)
    return cascade
