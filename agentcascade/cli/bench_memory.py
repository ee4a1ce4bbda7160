"""``agentcascade bench`` for suites of memory (LoCoMo, LongMemEval, HotpotQA): their commands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.settings import answer_options, load_config
from agentcascade.cli.terminal import console, say

if TYPE_CHECKING:
    from agentcascade.bench.memory.question_rows import EvaluationPlan, QuestionRow
    from agentcascade.bench.memory.summaries import PolicySummary
    from agentcascade.bench.suites.memory import MemorySuite

BASELINES = ("all-low", "all-mid", "all-high", "random", "top-k", "full-context")

STAND_IN = "offline/reader is no language model: its answers say how much of the memory can be read off, nothing more"
NO_MODEL = "no answer model: memories are scored by the labelled evidence in them, without any language model"


def command_of(name: str, suite: MemorySuite) -> click.Command:
    """The command of a registered suite of memory."""

    @click.command(name, help=suite.help)
    @click.option(
        "--data",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        required=True,
        help="The published file.",
    )
    @click.option("--answer-model", help="Any litellm model, or offline/reader. Default: none, evidence is scored.")
    @click.option(
        "--answer-price",
        metavar="IN/OUT",
        help="Dollars per million tokens. Default: the price list; the stand-in .40/1.60.",
    )
    @answer_options
    @click.option("--judge-model", help="For --reward judge. Default: the answer model.")
    @click.option("--reward", type=click.Choice(["evidence", "f1", "em", "judge"]), help="Default: evidence, or f1.")
    @click.option(
        "--policy",
        "policies",
        multiple=True,
        type=click.Choice(BASELINES),
        help="Repeat it for several.  [default: all]",
    )
    @click.option(
        "--router",
        "routers",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="A trained one (.safetensors).",
    )
    @click.option(
        "--tradeoff",
        "tradeoffs",
        multiple=True,
        type=FiniteRange(0, 1),
        default=(0.0, 0.02, 0.05, 0.1, 0.3, 0.9),
        show_default=True,
        help="λ, the weight of cost, at which a router is played; may be repeated.",
    )
    @click.option("--conversations", metavar="ID,ID", help="Only these, e.g. those that a router was not trained on.")
    @click.option("--questions", type=click.IntRange(1), help="No more than so many of each conversation.")
    @click.option("--all-questions", is_flag=True, help="Those too that have no answer or no evidence.")
    @click.option("--cost", type=click.Choice(["milliseconds", "tokens", "dollars"]), help="What the frontier is over.")
    @click.option("--concurrency", type=click.IntRange(1), default=4, show_default=True)
    @click.option("--config", type=click.Path(path_type=Path), help="For memory.axis, models, budgets.")
    @click.option("--resume", is_flag=True, help="Continue the run in --out.")
    @click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=f"Default: runs/{name}-<time>.")
    def run_suite(config: Path | None, out: Path | None, resume: bool, **options: Any) -> None:
        _run(name, config, out, resume, options)

    return run_suite


def _run(name: str, config: Path | None, out: Path | None, resume: bool, options: Mapping[str, Any]) -> None:
    from agentcascade._util.files import write_atomically
    from agentcascade.assembly.memory import build_bench_memory
    from agentcascade.bench.memory.inputs import load_suite, open_router
    from agentcascade.bench.memory.plots import plot_frontier
    from agentcascade.bench.memory.question_answering import run_questions
    from agentcascade.bench.memory.question_rows import EvaluationPlan, QuestionRunFolder
    from agentcascade.bench.memory.scoring import check_models, make_scorer, scoring_models
    from agentcascade.bench.memory.summaries import summarise_rows
    from agentcascade.bench.memory.sweep import SweepPlan
    from agentcascade.errors import AgentCascadeError, BenchError

    if resume and out is None:
        raise click.UsageError("--resume needs --out: the folder of the run to continue")
    folder = out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    reward: Any = options["reward"] or ("f1" if options["answer_model"] else "evidence")
    if reward != "evidence" and not options["answer_model"]:
        raise click.UsageError(f"--reward {reward} needs answers: give --answer-model, e.g. offline/reader")
    settings = load_config(config, None)
    conversations = _chosen(load_suite(name, options["data"]), options, reward)
    routers = {
        path.stem if len(options["routers"]) == 1 else str(path): open_router(path, None) for path in options["routers"]
    }
    asked = {
        "answerer": options["answer_model"],
        "judge": options["judge_model"],
        "price": _price(options),
        "api_base": options["api_base"],
        "timeout": options["timeout"],
    }
    check_models(settings, scoring_models(**asked))
    plan = EvaluationPlan(name, options["policies"] or BASELINES, routers, options["tradeoffs"])
    with build_bench_memory(settings) as memory:
        for router in routers.values():
            if hasattr(router, "check"):
                router.check(memory.encoder, memory.dimension)
        cost = options["cost"] or ("dollars" if memory.models else "milliseconds")
        unsaid: Any = {"models": True, "max_held_bytes": True, "router": {"latch", "stuck"}}
        manifest = {
            "suite": name,
            "data": options["data"].name,
            "data_digest": SweepPlan(settings, conversations).digest,
            "conversations": [c.id for c in conversations],
            "questions": sum(len(c.questions) for c in conversations),
            "problems": [f"{c.id}: {p}" for c in conversations for p in c.problems],
            "policies": list(plan.policies),
            "routers": {name: getattr(router, "card", {}).get("sha") for name, router in sorted(routers.items())},
            "tradeoffs": list(plan.tradeoffs),
            "reward": reward,
            "cost": cost,
            "answer_model": options["answer_model"],
            "answer_price": _price(options),
            "judge_model": options["judge_model"],
            "memory": settings.memory.model_dump(mode="json", exclude=unsaid),
            **({"prompts": dict(settings.prompt.template)} if settings.prompt.template else {}),
            "encoder": memory.encoder,
            "seed": settings.seed,
            "versions": {"agentcascade": version("agentcascade")},
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        rows = QuestionRunFolder(folder, manifest, resume=resume)
        scorer = make_scorer(name, reward, prompt=settings.prompt, **asked)
        bars = Progress(TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        try:
            with bars:
                total = manifest["questions"]
                tasks = {run: bars.add_task(_name(*run), total=total) for run in plan.runs()}
                found = run_questions(
                    plan,
                    memory,
                    conversations,
                    scorer,
                    rows,
                    lambda row, _: (
                        bars.advance(tasks[row.policy, row.tradeoff]) if (row.policy, row.tradeoff) in tasks else None
                    ),
                    concurrency=options["concurrency"],
                )
        except (KeyboardInterrupt, AgentCascadeError):
            say(f"stopped; what was played is kept. Continue with: --resume --out {folder}", err=True)
            raise
        finally:
            rows.close()
    lines = summarise_rows(found, plan, cost)
    to = console(width=150)
    to.print(table(lines, reward))
    for note in [*notes(plan, options, manifest), *_cut_short(found)]:
        to.print(note, style="dim")
    results = {**manifest, "lines": [asdict(line) for line in lines]}
    write_atomically(folder / "results.json", json.dumps(results, indent=2, default=str))
    picture = plot_frontier([line.point for line in lines], folder / "frontier.png", cost=cost, score=reward)
    to.print(f"wrote {folder / 'results.json'}, {folder / 'rows.jsonl'}, {picture}", soft_wrap=True)
    if not any(row.score for row in found):
        raise BenchError(
            f"every policy scores 0 on all {manifest['questions']:,} questions, which is a fault and no result: see "
            f"the answers in {folder / 'rows.jsonl'}, and whether the evidence in the file names turns of its own"
        )


def _price(options: Mapping[str, Any]) -> dict[str, str] | None:
    from agentcascade.cli.bench_models import price

    return price("student", options["answer_model"], options["answer_price"]) if options["answer_model"] else None


def _chosen(conversations: Sequence[Any], options: Mapping[str, Any], reward: str) -> list[Any]:
    """Those asked for, with the questions that the reward can score."""
    from agentcascade.errors import did_you_mean

    if not conversations:
        raise click.UsageError("the file has no conversations")
    names = {c.id for c in conversations}
    wanted = {n.strip() for n in options["conversations"].split(",")} if options["conversations"] else None
    for name in sorted((wanted or set()) - names):
        raise click.UsageError(f"there is no conversation '{name}' in the file: {did_you_mean(name, names)}")
    found = []
    for conversation in conversations:
        if wanted is not None and conversation.id not in wanted:
            continue
        questions = [
            q
            for q in conversation.questions
            if (options["all_questions"] and reward != "evidence") or (q.answerable and q.evidence)
        ]
        if questions:
            found.append(conversation.model_copy(update={"questions": tuple(questions[: options["questions"]])}))
    if not found:
        hint = "" if options["all_questions"] else ": --all-questions with --answer-model asks those without evidence"
        raise click.UsageError(f"no question is left to ask{hint}")
    return found


def table(lines: Sequence[PolicySummary], reward: str) -> Table:
    """Dollars stand in it where any were spent, precision and recall of the evidence where no answer is scored."""
    spent = any(d != 0 for line in lines for d in (line.memory_dollars, line.answer_dollars))
    hidden = {reward, "evidence"} | (set() if reward == "evidence" else {"precision", "recall"})
    extra = sorted({n for line in lines for n in line.metrics} - hidden)
    found = Table(box=None, padding=(0, 1, 0, 0))
    for place, name in enumerate(("policy", reward, "95 %", "tokens", "ms")):
        found.add_column(name, no_wrap=place in (0, 2))
    for name in (*(("memory $", "answer $") if spent else ()), *extra, "above fixed"):
        found.add_column(name)
    for line in lines:
        p = line.point
        dollars = ("unknown" if d is None else f"{d:.4f}" for d in (line.memory_dollars, line.answer_dollars))
        found.add_row(
            p.name,
            f"{p.score:.4f}",
            f"{p.score_ci[0]:.3f}-{p.score_ci[1]:.3f}",
            f"{line.tokens:.0f}",
            f"{line.milliseconds:.1f}",
            *(dollars if spent else ()),
            *(f"{line.metrics[name]:.3f}" if name in line.metrics else "" for name in extra),
            "" if p.above_hull is None else f"{p.above_hull:+.4f}",
        )
    return found


def notes(plan: EvaluationPlan, options: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    model = options["answer_model"]
    size = len(manifest["conversations"])
    found = [f"{manifest['questions']:,} questions of {size} conversations, seed {manifest['seed']}"]
    if model is None:
        found.append(NO_MODEL)
    elif model.startswith("offline/"):
        found.append(STAND_IN)
    if sum(name.startswith("all-") for name in plan.policies) > 1:
        found.append(
            f"above fixed: score beyond what mixtures of the all-... policies reach at equal {manifest['cost']}"
        )
    found.append("milliseconds are of one core from a cold cache; embedding the history beforehand is not in them")
    if manifest["problems"]:
        found.append(f"{len(manifest['problems'])} oddities in the file were mended, see run.json")
    return found


def _cut_short(rows: Sequence[QuestionRow]) -> list[str]:
    """What must be said of memories that a limit cut."""
    count = sum(row.left_out > 0 for row in rows)
    if not count:
        return []
    limits = "memory.deadline_seconds, max_dollars, token_budget or max_history_tokens"
    return [f"from the memory of {count:,} of {len(rows):,} answers something was left out: {limits}"]


def _name(policy: str, tradeoff: float) -> str:
    return policy if policy in BASELINES else f"{policy} λ={tradeoff:g}"
