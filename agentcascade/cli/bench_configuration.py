"""Configuration of a benchmark's cascade, and what is checked of it before anything is played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from agentcascade.assembly import components
from agentcascade.assembly.committee import check_committee, committee_router
from agentcascade.bench.suites.protocol import PlayableSuite, Task
from agentcascade.cli.bench_models import MEMBER
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import MissingExtra
from agentcascade.models.structured_output import check_config as check_constraints

DEADLINE_SECONDS: float = CascadeConfig.model_fields["deadline_seconds"].default


def configuration(suite: PlayableSuite, models: Mapping[str, Any], options: Mapping[str, Any]) -> CascadeConfig:
    """Of policy ``cascade``; the others are changes to it."""
    timeout = options.get("timeout")
    limit = {} if timeout is None else {"timeout_seconds": timeout}
    members = options.get("members")
    seat = {"samples": options["samples"]} if members else {}
    dry_run = bool(options["dry_run"] or suite.actions.get("dry_run"))
    return CascadeConfig.model_validate(
        {
            "mode": "cascade",
            "teacher": {**models["teacher"], "temperature": 0.1},
            "student": {**models["student"], **limit, **seat},
            "students": [{**settings, **limit, **seat} for role, settings in models.items() if role.startswith(MEMBER)],
            # The teacher has its own time after the student's.
            **({} if timeout is None else {"deadline_seconds": timeout + DEADLINE_SECONDS}),
            "retrieval": {
                "k": options["k"],
                "embedder": options["embedder"],
                "sticky": options.get("sticky") or "never",
                **window_of(options),
            },
            "router": router_of(options),
            "sampling": {
                **({"across": "students"} if members else {}),
                "temperature": options["temperature"],
                "staged": STAGED[options["staged"]],
                "constrain": options.get("constrain") or "none",
                **limit,
            },
            "prompt": {"quoting": options.get("quoting") or "fenced", "template": options.get("prompts") or {}},
            "shadow": {
                "samples": options["log_samples"] or (options["samples"] if members else 10),
                "temperatures": options["log_temperatures"],
                "ks": options["log_ks"],
                "windows": [window.split("/") for window in options.get("log_windows") or ()],
                **limit,
            },
            "actions": {**suite.actions, "verifier": models.get("verifier"), "dry_run": dry_run},
            "collect": {"drop_observations": suite.dropped},
        }
    )


def window_of(options: Mapping[str, Any]) -> dict[str, int]:
    """What `--window` says of the section `retrieval`."""
    sides = ("window_before", "window_after")
    return dict(zip(sides, map(int, options["window"].split("/")))) if options.get("window") else {}


def router_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of one student: all samples must agree; of a committee: more than half of its votes, or `--needed`.

    Raises `click.UsageError` for votes that it does not have.
    """
    if not options.get("members"):
        if options.get("needed"):
            raise click.UsageError("--needed counts the votes of a committee: name further students, --member NAME")
        return {"name": "unanimity", "options": {"n": options["samples"]}}
    votes = (1 + len(options["members"])) * options["samples"]
    needed = options["needed"] or votes // 2 + 1
    if needed > votes:
        raise click.UsageError(f"--needed {needed}: the committee has {votes} votes")
    return {"name": "threshold", "options": {"needed": needed}}


def check_apart(demonstrations: Mapping[int, Sequence[Task]], tasks: Mapping[int, Sequence[Task]], split: str) -> None:
    """Raises `click.UsageError` where a task would be played whose own answer is among the demonstrations."""
    for seed, shown in demonstrations.items():
        both = {task.id for task in shown} & {task.id for task in tasks[seed]}
        if both:
            raise click.UsageError(
                f"--split {split} holds {len(both)} of the tasks that demonstrations are taken from, '{min(both)}' one "
                "of them: choose another --split, or --k 0"
            )


STAGED = {None: "auto", True: "always", False: "never"}


def check_parts(config: CascadeConfig, suite: str) -> None:
    """Make each part once, so that a wrong name or a missing extra is told before anything is played."""
    if not components.find_module("matplotlib"):
        raise MissingExtra("matplotlib", "bench", f"agentcascade bench {suite}")
    from agentcascade.bench.worker import embedder
    from agentcascade.models.tokens import token_counter

    for model in (config.teacher, config.student, *config.students):
        if model is not None:
            components.make_model(model, token_counter())
    check_committee(config)
    committee_router(config) if config.students else components.make_router(config.router)
    check_constraints(config.sampling, config.actions, [config.student.name] if config.student else [])
    if config.retrieval.k:
        components.make_retriever(config.retrieval.index, embedder(config.retrieval.embedder).dimension)


def check_recorded(config: CascadeConfig, suite: PlayableSuite) -> None:
    """Let each recorded model into a world of the suite once, so that one that cannot play there is told before.

    Raises what its `bind` raises.
    """
    from agentcascade.models.tokens import token_counter

    for settings in (config.teacher, config.student, *config.students):
        if settings is not None and settings.name.startswith("recorded/"):
            model = components.make_model(settings, token_counter())
            if hasattr(model, "bind"):
                model.bind(suite.environment(expert=False))
