"""One run of a benchmark of agents, from the options of its command to its report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from agentcascade import registry
from agentcascade.assembly import components
from agentcascade.bench.early_stop import check_models_answer
from agentcascade.bench.policies import POLICIES, SHADOW, TUNED, apply_rule, check_policies
from agentcascade.bench.pools.open import check_pool
from agentcascade.bench.progress import RunProgress
from agentcascade.bench.records import EpisodeRunFolder
from agentcascade.bench.report import RunReport
from agentcascade.bench.runner import RunPlan, run_benchmark
from agentcascade.bench.step_log import logged_steps
from agentcascade.bench.suites.protocol import PlayableSuite, Source
from agentcascade.bench.worker import Setup
from agentcascade.cli.terminal import console as safe_console
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import BenchError, ConfigError, MissingExtra, describe
from agentcascade.models.pricing import PriceTable
from agentcascade.models.structured_output import check_config as check_constraints

PAPER_PRICES = {"teacher": "3/15", "student": "0.40/1.60"}
"""Dollars per million input/output tokens of the paper's models, the default for offline stand-ins."""


DEADLINE_SECONDS: float = CascadeConfig.model_fields["deadline_seconds"].default


def play(context: click.Context, point: EntryPoint, own: dict[str, Any], options: dict[str, Any]) -> None:
    """Run the suite that is registered as `point`, made with the options of its `own`."""
    resume, out = options.pop("resume"), options.pop("out")
    if resume and out is None:
        raise click.UsageError("--resume needs --out: the folder of the run to continue")
    folder = out or Path("runs") / f"{point.name}-{datetime.now():%Y%m%d-%H%M%S}"
    if resume:
        options |= remembered(context, folder)
        own |= {name: value for name, value in options.pop("suite_options", {}).items() if is_default(context, name)}
    suite: PlayableSuite = registry.make(registry.load(point, "suite"), f"suite '{point.name}'", own)
    chosen = chosen_policies(options)
    models = {role: model(role, options) for role in ("teacher", "student", "verifier") if options[role]}
    config = configuration(suite, models, options)
    rule = read_rule(options["rule"])
    tuned = apply_rule(config, rule) if rule else None
    suite.check()
    check_pool(options["ray"])
    check_parts(config, point.name)
    if tuned is not None:
        check_parts(tuned, point.name)
    student = config.student if set(chosen) != {"teacher"} else None
    check_models_answer({"teacher": config.teacher, "student": student, "verifier": config.actions.verifier})
    console, workers = safe_console(), options["workers"]
    again = "".join(f" --{name} {options[name]}" for name in ("log", "rule") if isinstance(options[name], Path))
    again += f" --ray {options['ray']}" * bool(options["ray"]) + " --bank URL" * bool(options["bank"])
    with RunProgress(console, resume_hint=f"agentcascade bench {point.name} --resume --out {folder}{again}") as bar:
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
            **({"suite_options": own} if own else {}),
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
            plan = RunPlan(setup, chosen, demonstrations, tasks, workers, options["ray"])
            records = run_benchmark(plan, store, bar.expecting(plan))
        finally:
            store.close()
    report = RunReport(manifest, records, chosen, plan.stopped)
    try:
        paths = report.write(folder)
    except OSError as error:
        raise BenchError(
            f"the report cannot be written ({error}): all episodes are kept; make room, and continue with --resume"
        ) from error
    if options["log"]:
        from agentcascade.steplog import jsonl

        table = PriceTable({m["name"]: m["price"] for m in models.values() if m["price"]})
        jsonl.write_jsonl(options["log"], logged_steps(records, table))
        paths.append(options["log"])
    console.print(report.table())
    for line in report.footnotes():
        console.print(line, style="dim")
    console.print("wrote " + ", ".join(str(p) for p in paths), soft_wrap=True)
    if report.faults:
        raise BenchError("; ".join(report.faults))


def packages_of(suite: PlayableSuite, point: EntryPoint) -> list[str]:
    """Distributions whose versions a report names."""
    return [*dict.fromkeys((*suite.packages, *((point.dist.name,) if point.dist is not None else ())))]


def configuration(suite: PlayableSuite, models: Mapping[str, Any], options: Mapping[str, Any]) -> CascadeConfig:
    """Of policy ``cascade``; the others are changes to it."""
    timeout = options.get("timeout")
    limit = {} if timeout is None else {"timeout_seconds": timeout}
    return CascadeConfig.model_validate(
        {
            "mode": "cascade",
            "teacher": {**models["teacher"], "temperature": 0.1},
            "student": {**models["student"], **limit},
            # The teacher has its own time after the student's.
            **({} if timeout is None else {"deadline_seconds": timeout + DEADLINE_SECONDS}),
            "retrieval": {
                "k": options["k"],
                "embedder": options["embedder"],
                "sticky": options.get("sticky") or "never",
            },
            "router": {"name": "unanimity", "options": {"n": options["samples"]}},
            "sampling": {
                "temperature": options["temperature"],
                "staged": STAGED[options["staged"]],
                "constrain": options.get("constrain") or "none",
                **limit,
            },
            "prompt": {"quoting": options.get("quoting") or "fenced", "template": options.get("prompts") or {}},
            "shadow": {
                "samples": options["log_samples"] or 10,
                "temperatures": options["log_temperatures"],
                "ks": options["log_ks"],
                **limit,
            },
            "actions": {**suite.actions, "verifier": models.get("verifier"), "dry_run": bool(options["dry_run"])},
            "collect": {"drop_observations": suite.dropped},
        }
    )


def kind_of(models: list[str]) -> str:
    """What the models of a run are: real, unless one of them is recorded or a stand-in."""
    for prefix, kind in (("offline/", "stand-in"), ("recorded/", "recorded")):
        if any(name.startswith(prefix) for name in models):
            return kind
    return "real"


REMEMBERED = ("episodes", "demos", "k", "samples", "temperature", "embedder")
OPTIONAL = (
    "staged",
    "log_samples",
    "log_temperatures",
    "log_ks",
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
        for role, settings in manifest["models"].items():
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


def chosen_policies(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that are named, and those that a log or a rule asks for; a log asks for nothing else by itself."""
    asked = [name for name, option in ((SHADOW, "log"), (TUNED, "rule")) if options[option]]
    named = options["policies"] or (() if options["log"] else POLICIES)
    for name, option in ((SHADOW, "log"), (TUNED, "rule")):
        if name in named and not options[option]:
            raise click.UsageError(f"--policy {name} needs --{option}")
    if options["log_ks"] and not options["k"]:
        raise click.UsageError("--log-k needs --k above 0: without it there are no demonstrations at all")
    return check_policies((*named, *asked))


def read_rule(given: Path | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The sections of a rule's file, or those that a run remembers. Raises `ConfigError`."""
    import yaml

    if not isinstance(given, Path):
        return None if given is None else dict(given)
    try:
        data = yaml.safe_load(given.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{given} cannot be read as a rule: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(section, dict) for section in data.values()):
        raise ConfigError(f"{given} holds no rule: it needs e.g. 'router: {{name: unanimity, options: {{n: 3}}}}'")
    return data


def model(role: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A role's settings, as the configuration and the manifest hold them."""
    settings = {"name": options[role], "price": price(role, options[role], options[f"{role}_price"])}
    own = {"api_base": options["api_base"], "max_tokens": options.get("max_tokens")} if role == "student" else {}
    return settings | own


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

    for model in (config.teacher, config.student):
        if model is not None:
            components.make_model(model, token_counter())
    components.make_router(config.router)
    check_constraints(config.sampling, config.actions, [config.student.name] if config.student else [])
    if config.retrieval.k:
        components.make_retriever(config.retrieval.index, embedder(config.retrieval.embedder).dimension)


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
        raise click.BadParameter(
            f"'{text}' is not IN/OUT in dollars per million tokens, e.g. 3/15", param_hint=f"--{role}-price"
        )
    return {"input": parts[0], "output": parts[1]}
