"""One run of a benchmark of agents, from the options of its command to its report."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from agentcascade import registry
from agentcascade.assembly import components
from agentcascade.assembly.committee import check_committee, committee_router
from agentcascade.bench.early_stop import check_models_answer
from agentcascade.bench.economics import EarlyOutlook
from agentcascade.bench.oracle import oracle_records
from agentcascade.bench.policies import (
    ALONE,
    ORACLE,
    POLICIES,
    SHADOW,
    TUNED,
    apply_rule,
    check_policies,
    committees_of,
    members_of,
    short_name,
)
from agentcascade.bench.pools.open import check_pool
from agentcascade.bench.progress import RunProgress
from agentcascade.bench.records import EpisodeRecord, EpisodeRunFolder
from agentcascade.bench.report import RunReport
from agentcascade.bench.runner import OnRecord, RunPlan, needs_bank, run_benchmark
from agentcascade.bench.step_log import logged_steps
from agentcascade.bench.suites.protocol import PlayableSuite, Source, Task
from agentcascade.bench.worker import Setup
from agentcascade.cli.economics import say_outlook
from agentcascade.cli.terminal import console as safe_console
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import BenchError, ConfigError, MissingExtra, describe, did_you_mean
from agentcascade.models.pricing import PriceTable
from agentcascade.models.structured_output import check_config as check_constraints

if TYPE_CHECKING:
    from rich.console import Console

PAPER_PRICES = {"teacher": "3/15", "student": "0.40/1.60"}
"""Dollars per million input/output tokens of the paper's models, the default for offline stand-ins."""


DEADLINE_SECONDS: float = CascadeConfig.model_fields["deadline_seconds"].default


def play(context: click.Context, point: EntryPoint, own: dict[str, Any], options: dict[str, Any]) -> None:
    """Run the suite that is registered as `point`, made with the options of its `own`."""
    resume, out = options.pop("resume"), options.pop("out")
    if resume and out is None:
        raise click.UsageError("--resume needs --out: the folder of the run to continue")
    folder = out or Path("runs") / f"{point.name}-{datetime.now():%Y%m%d-%H%M%S}"
    was: Mapping[str, Any] | None = None
    if resume:
        options |= remembered(context, folder)
        was = options.pop("suite_options", {})
        own |= {name: value for name, value in (was or {}).items() if is_default(context, name)}
    suite: PlayableSuite = registry.make(registry.load(point, "suite"), f"suite '{point.name}'", own)
    if not resume:
        options |= defaults_of(suite, context)
    rule = read_rule(options["rule"])
    if rule and not resume and all(is_default(context, name) for name in ("student", "members")):
        first, *others = members_of(rule) or (options["student"],)
        options |= {"student": first, "members": tuple(others)}
    if options["members"] and is_default(context, "samples") and not resume:
        options["samples"] = 1  # of each member
    chosen = chosen_policies(options, suite.defaults.policies)
    models = models_of(suite, options)
    config = configuration(suite, models, options)
    tuned = apply_rule(config, rule) if rule else None
    suite.check()
    check_pool(options["ray"])
    check_parts(config, point.name)
    check_recorded(config, suite)
    if tuned is not None:
        check_parts(tuned, point.name)
    students: dict[str, ModelConfig | None] = {}
    if set(chosen) != {"teacher"}:
        students = {"student": config.student, **{f"member {i}": link for i, link in enumerate(config.students, 2)}}
    check_models_answer({"teacher": config.teacher, **students, "verifier": config.actions.verifier})
    console, workers = safe_console(), options["workers"]
    again = "".join(f" --{name} {options[name]}" for name in ("log", "rule") if isinstance(options[name], Path))
    again += f" --ray {options['ray']}" * bool(options["ray"]) + " --bank URL" * bool(options["bank"])
    go_on = f"agentcascade bench {point.name} --resume --out {folder}{again}"
    with RunProgress(console, resume_hint=go_on) as bar:
        demonstrations, tasks = {}, {}
        source: Source = "official"
        for seed in dict.fromkeys(options["seeds"]):
            with bar.phase("tasks") as shown:
                demonstrations[seed], _ = suite.tasks(
                    suite.defaults.training, options["demos"], seed, workers=workers, on_progress=shown
                )
                tasks[seed], source = suite.tasks(
                    options["split"], options["episodes"], seed, workers=workers, on_progress=shown
                )
        manifest = {
            "suite": suite.name,
            "split": options["split"],
            "models": models,
            "models_are": kind_of([m["name"] for m in models.values()]),
            "tasks": source,
            "group": suite.group,
            "seeds": list(tasks),
            **({"suite_options": stored} if (stored := suite_options(own, suite, was)) else {}),
            **{k: options[k] for k in REMEMBERED},
            **{k: v for k, v in {**options, "rule": rule}.items() if k in OPTIONAL and v is not None and v != ()},
            "versions": {p: version(p) for p in ("agentcascade", "litellm", *packages_of(suite, point))}
            | {"python": sys.version.split()[0]},
            "notes": [*suite.notes(source, [m["name"] for m in models.values()]), *constrained(suite, options)],
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        store = EpisodeRunFolder(folder, manifest, resume=resume)
        try:
            banks = {s: store.bank_url(s, options["bank"]) for s in tasks}
            setup = Setup(point.value, config, banks, tuned, own)
            plan = RunPlan(setup, [p for p in chosen if p != ORACLE], demonstrations, tasks, workers, options["ray"])
            if any(needs_bank(policy, plan) for policy in plan.policies):
                check_apart(demonstrations, tasks, options["split"])
            records = run_benchmark(plan, store, with_outlook(bar.expecting(plan), plan, console))
        finally:
            store.close()
    report = RunReport(
        manifest, [*records, *(oracle_records(records) if ORACLE in chosen else ())], chosen, plan.stopped
    )
    try:
        paths = report.write(folder)
    except OSError as error:
        raise BenchError(
            f"the report cannot be written ({error}): all episodes are kept; make room, and continue with --resume"
        ) from error
    if options["log"]:
        from agentcascade.steplog import jsonl

        table = PriceTable({m["name"]: m["price"] for m in models.values() if m["price"]})
        jsonl.write_jsonl(options["log"], logged_steps(records, table, getattr(suite, "label", None)))
        paths.append(options["log"])
    console.print(report.table())
    for line in report.footnotes():
        console.print(line, style="dim")
    console.print("wrote " + ", ".join(str(p) for p in paths), soft_wrap=True)
    if report.faults:
        broken = report.stopped or any(report.failures.values())
        raise BenchError("; ".join(report.faults) + f": when it answers again: {go_on}" * bool(broken))


def with_outlook(on_record: OnRecord, plan: RunPlan, console: Console) -> OnRecord:
    """`on_record`, beside which the economics of the run's cascade are told as soon as they are known."""
    if "cascade" not in plan.policies:
        return on_record
    banked = any(needs_bank(policy, plan) for policy in plan.policies)
    early = EarlyOutlook(plan.setup.config, banked, lambda outlook: say_outlook(console, outlook))

    def added(record: EpisodeRecord, resumed: bool) -> None:
        on_record(record, resumed)
        early.add(record)

    return added


def defaults_of(suite: PlayableSuite, context: click.Context) -> dict[str, Any]:
    """What a suite, as it was made, would have for the options that the command line does not give.

    Members are those of its default student alone.
    """
    own = suite.defaults
    values: dict[str, Any] = {
        **{name: getattr(own, name) for name in ("teacher", "student", "episodes", "k", "samples")},
        "split": own.splits[0],
        "demos": own.demonstrations,
        "members": own.members if is_default(context, "student") else (),
    }
    return {name: value for name, value in values.items() if is_default(context, name)}


def suite_options(own: Mapping[str, Any], suite: Any, was: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The suite's own options as a run keeps them; `was`: those of one that is resumed, which may be fewer."""
    default = {field.name: field.default for field in dataclasses.fields(suite)} if own else {}
    return was if was is not None and default | dict(was) == own else own


def packages_of(suite: PlayableSuite, point: EntryPoint) -> list[str]:
    """Distributions whose versions a report names."""
    return [*dict.fromkeys((*suite.packages, *((point.dist.name,) if point.dist is not None else ())))]


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


def kind_of(models: list[str]) -> str:
    """What the models of a run are: real, unless one of them is recorded or a stand-in."""
    for prefix, kind in (("offline/", "stand-in"), ("recorded/", "recorded")):
        if any(name.startswith(prefix) for name in models):
            return kind
    return "real"


MEMBER = "member "
"""Role of the further students of a committee, numbered from 2"""
REMEMBERED = ("episodes", "demos", "k", "samples", "temperature", "embedder")
OPTIONAL = (
    "needed",
    "window",
    "staged",
    "log_samples",
    "log_temperatures",
    "log_ks",
    "log_windows",
    "rule",
    "dry_run",
    "constrain",
    "sticky",
    "timeout",
    "quoting",
    "prompts",
)
"""Likewise, where they were given; runs of earlier versions have none."""
STAGED = {None: "auto", True: "always", False: "never"}


def remembered(context: click.Context, folder: Path) -> dict[str, Any]:
    """The options that the run in `folder` was started with, where this call does not give its own."""
    try:
        manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        was: dict[str, Any] = {k: manifest[k] for k in (*REMEMBERED, "split")} | {"seeds": tuple(manifest["seeds"])}
        was |= {k: manifest[k] for k in (*OPTIONAL, "suite_options") if k in manifest}
        members = [settings for role, settings in manifest["models"].items() if role.startswith(MEMBER)]
        was |= {
            "members": tuple(settings["name"] for settings in members),
            "prices": tuple(
                f"{settings['name']}={settings['price']['input']}/{settings['price']['output']}"
                for settings in members
                if settings["price"]
            ),
        }
        for role, settings in manifest["models"].items():
            if role.startswith(MEMBER):
                continue
            was[role] = settings["name"]
            if settings["price"]:
                was[f"{role}_price"] = f"{settings['price']['input']}/{settings['price']['output']}"
        was |= {k: manifest["models"]["student"].get(k) for k in ("api_base", "max_tokens")}
    except (OSError, ValueError, KeyError) as error:
        raise click.UsageError(
            f"{folder} holds no run that can be resumed ({describe(error)}): leave out --resume to start one"
        ) from None
    return {k: v for k, v in was.items() if is_default(context, k)}


def is_default(context: click.Context, option: str) -> bool:
    """Whether the command line says nothing of an option."""
    return context.get_parameter_source(option) in (None, ParameterSource.DEFAULT)


def chosen_policies(options: Mapping[str, Any], default: Sequence[str] = ()) -> tuple[str, ...]:
    """Those that are named, and those that a log or a rule asks for; a log asks for nothing else by itself.

    `default` are those of the suite where none is named, else `POLICIES`.
    """
    asked = [name for name, option in ((SHADOW, "log"), (TUNED, "rule")) if options[option]]
    named = options["policies"] or (() if options["log"] else default or POLICIES)
    for name, option in ((SHADOW, "log"), (TUNED, "rule")):
        if name in named and not options[option]:
            raise click.UsageError(f"--policy {name} needs --{option}")
    for flag, option in (("--log-k", "log_ks"), ("--log-window", "log_windows")):
        if options.get(option) and not options["k"]:
            raise click.UsageError(f"{flag} needs --k above 0: without it there are no demonstrations at all")
    members = (options["student"], *options["members"]) if options.get("members") else ()
    if members and not options["policies"] and not options["log"]:
        alone = [f"{ALONE}{short_name(member)}" for member in members[1:]]
        own = f"{options['needed'] or len(members) // 2 + 1} of {len(members)}"  # the cascade's
        named = (*named, *alone, *(name for name in committees_of(min(3, len(members))) if name != own))
    return check_policies((*named, *asked), members, options["samples"] if members else 1)


def read_rule(given: Path | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The sections of a rule's file, or those that a run remembers. Raises `ConfigError`."""
    from agentcascade._util.bounds import load_yaml

    if not isinstance(given, Path):
        return None if given is None else dict(given)
    try:
        data = load_yaml(given.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{given} cannot be read as a rule: {error}") from error
    rule: dict[str, Any] = data if isinstance(data, dict) else {"router": None}
    sections = [section for name, section in rule.items() if name != "students"]
    if not all(isinstance(section, dict) for section in sections) or not isinstance(rule.get("students", []), list):
        raise ConfigError(f"{given} holds no rule: it needs e.g. 'router: {{name: unanimity, options: {{n: 3}}}}'")
    return rule


def models_of(suite: PlayableSuite, options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of all models by role, as the configuration and the manifest hold them.

    Raises `click.BadParameter` for a price that is none, or of no model of the run, and for a student twice.
    """
    roles = {role: options[role] for role in ("teacher", "student", "verifier") if options[role]}
    roles |= {f"{MEMBER}{i}": name for i, name in enumerate(options["members"], 2)}
    seated = [options["student"], *options["members"]]
    if twice := [name for i, name in enumerate(seated) if short_name(name) in map(short_name, seated[:i])]:
        raise click.BadParameter(
            f"'{twice[0]}' is a student already, and its further votes would be its own: name another model, or more "
            "--samples",
            param_hint="--member",
        )
    given = dict(text.rpartition("=")[::2] for text in options["prices"])
    if unknown := [name for name in given if name not in roles.values()]:
        raise click.BadParameter(
            f"'{unknown[0]}' is no model of this run: {did_you_mean(unknown[0], sorted(set(roles.values())))}",
            param_hint="--price",
        )
    listed = getattr(suite, "price", lambda name: None)
    found = {}
    for role, name in roles.items():
        known = options.get(f"{role}_price") or given.get(name)
        settings = {"name": name, "price": (None if known else listed(name)) or price(role, name, known)}
        if role == "student":
            settings |= {"api_base": options["api_base"], "max_tokens": options.get("max_tokens")}
        elif role.startswith(MEMBER):
            settings |= {"max_tokens": options.get("max_tokens")}
        found[role] = settings
    return found


def constrained(suite: PlayableSuite, options: Mapping[str, Any]) -> list[str]:
    """What must be said of a student that is told what it may do."""
    if not options.get("constrain"):
        return []
    return [f"the student was held to the commands that {suite.name} admits at a step, which the teacher is not told"]


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


def price(role: str, name: str, given: str | None) -> dict[str, str] | None:
    """``IN/OUT`` as a price; stand-ins get the paper's, other models the price list's."""
    text = given or (PAPER_PRICES.get(role, PAPER_PRICES["student"]) if name.startswith("offline/") else None)
    if text is None:
        return None
    try:
        parts = [str(Decimal(part)) for part in text.split("/")]
    except InvalidOperation:
        parts = []
    if len(parts) != 2:
        option = f"--{role}-price" if role in ("teacher", "student", "verifier") else "--price"
        raise click.BadParameter(f"'{text}' is not IN/OUT in dollars per million tokens, e.g. 3/15", param_hint=option)
    return {"input": parts[0], "output": parts[1]}
