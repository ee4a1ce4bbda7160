"""One run of a benchmark of agents, from the options of its command to its report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade import registry
from agentcascade.bench.early_stop import check_models_answer
from agentcascade.bench.economics import EarlyOutlook
from agentcascade.bench.oracle import oracle_records
from agentcascade.bench.policies import ORACLE, apply_rule, members_of
from agentcascade.bench.pools.open import check_pool
from agentcascade.bench.progress import RunProgress
from agentcascade.bench.records import EpisodeRecord, EpisodeRunFolder
from agentcascade.bench.report import RunReport
from agentcascade.bench.runner import OnRecord, RunPlan, needs_bank, run_benchmark
from agentcascade.bench.step_log import logged_steps
from agentcascade.bench.suites.protocol import PlayableSuite, Source
from agentcascade.bench.worker import Setup
from agentcascade.cli.bench_configuration import check_apart, check_parts, check_recorded, configuration
from agentcascade.cli.bench_models import kind_of, models_of
from agentcascade.cli.bench_options import (
    OPTIONAL,
    REMEMBERED,
    chosen_policies,
    defaults_of,
    is_default,
    read_rule,
    remembered,
    suite_options,
)
from agentcascade.cli.economics import say_outlook
from agentcascade.cli.terminal import console as safe_console
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import BenchError
from agentcascade.models.pricing import PriceTable

if TYPE_CHECKING:
    from rich.console import Console


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


def packages_of(suite: PlayableSuite, point: EntryPoint) -> list[str]:
    """Distributions whose versions a report names."""
    return [*dict.fromkeys((*suite.packages, *((point.dist.name,) if point.dist is not None else ())))]


def constrained(suite: PlayableSuite, options: Mapping[str, Any]) -> list[str]:
    """What must be said of a student that is told what it may do."""
    if not options.get("constrain"):
        return []
    return [f"the student was held to the commands that {suite.name} admits at a step, which the teacher is not told"]
