"""Certified coverage at risk .05: the vote alone, and with further parts, on recorded answers of real models.

    BFCL_DATA=data/bfcl INTERCODE_DATA=data/intercode python tests/benchmarks/bench_certified_parts.py
        [--splits 200] [--risk 0.05] [--only NAME]

On a random half of the questions (those with one gold query stay together) `tune` certifies a rule at 95 %; the other
half says which share of steps the student then takes, how often it is wrong there, and dollars, as a share of the
teacher's. Where nothing is certified the teacher takes every step. Means over the splits, with their 2.5 and 97.5 %
quantiles (halves overlap: no confidence intervals), the difference from the vote split by split, and in how many splits
the other half's risk is above the bound. `marginal`: of all steps; `selective`: of those that the student takes.

Logs: Qwen2.5-Coder's ten samples on BFCL's Python tasks (teacher: GPT-4-1106's recorded calls) and on InterCode-SQL
(teacher: GPT-4's recorded queries), half of them with demonstrations in the prompt; two students in turn as a ladder;
on some questions three samples of the 0.5B whose prompts are one or varied (`bench_drafts.py varied`), and five of the
1.5B with its own verdicts (`bench_verifier.py`); and gpt-3.5's and GPT-4's runs of many steps on InterCode-SQL, one
sample a step, whose steps count as wrong where the run fails. Only in these can a run be stuck: on the others `vote,
unless stuck` is the vote. What is absent is left out with a word.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from agentcascade.config.stuck import StuckConfig
from agentcascade.envs.bfcl import keys, labels, recorded
from agentcascade.envs.bfcl import prices as bfcl_prices
from agentcascade.envs.bfcl import tasks as bfcl_tasks
from agentcascade.envs.intercode_sql import prices, shipped
from agentcascade.envs.intercode_sql.tasks import data_file
from agentcascade.envs.recorded.prices import Price as RecordedPrice
from agentcascade.errors import EnvironmentFailed
from agentcascade.models.pricing import Price
from agentcascade.routers.tuning.columns import Columns, chain, columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.families import CHAIN, FAMILIES, Family
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.risks import Count, Risk, losses
from agentcascade.routers.tuning.rules import Chain, Threshold
from agentcascade.routers.tuning.tuner import Settings, search
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample, Usage
from tests.benchmarks.bench_bfcl import PYTHON
from tests.benchmarks.bench_drafts import ARMS, varied_answers
from tests.benchmarks.bench_sql_committees import given, token_price

STUDENTS = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
NONE = "none of these"
TEACHER = "gpt-4-1106-preview-FC"
VOTE, STUCK = "vote", "vote, unless stuck"
ALIKE = "one threshold for all rungs"
Log = Callable[[str], list[LoggedStep]]
"""Of a model"""


class Arm(NamedTuple):
    """A way to decide: a log, and the families of rules that `tune` tries on it."""

    log: Columns
    rules: tuple[str, ...] = ("consistency",)


def bfcl(student: str) -> list[LoggedStep]:
    known = bfcl_prices.table()
    teacher_price, price = (bfcl_prices.price(name, known) for name in (TEACHER, student))
    teacher = recorded.answers(TEACHER)
    steps = []
    for id, samples in recorded.samples(student).items():
        task = bfcl_tasks.task(id)
        if task.category not in PYTHON:
            continue
        votes = [keys.key(answer, task.tools) for answer in samples.answers]
        said = keys.key(teacher[id], task.tools)
        gold, *others = labels.right(id, votes, said, [recorded.PREFIX + TEACHER])
        tokens = samples.output_tokens // max(1, len(votes))
        steps.append(
            LoggedStep(
                id=id,
                category=task.category,
                students=(_asked(student, votes, [tokens] * len(votes), samples.prompt_tokens, _tokens(price)),),
                teacher=said,
                teacher_model=TEACHER,
                teacher_usage=Usage(input=teacher[id].input_tokens or 0, output=teacher[id].output_tokens or 0),
                teacher_price=_tokens(teacher_price),
                gold=gold,
                also_right=tuple(others),
            )
        )
    return steps


def _tokens(price: RecordedPrice | None) -> Price | None:
    return None if price is None else token_price(price)


def _asked(
    model: str, votes: Sequence[str | None], tokens: Sequence[int | None], prompt: int, price: Price | None
) -> StudentSamples:
    samples = tuple(LoggedSample(action=vote, tokens=count) for vote, count in zip(votes, tokens))
    return StudentSamples(model=model, samples=samples, n=len(samples), prompt=Usage(input=prompt), price=price)


def sql(student: str, *prompts: str, samples: int = 10) -> list[LoggedStep]:
    """`samples` of a student; of several `prompts` in turn, each of which is paid for once."""
    known = prices.table()
    steps = []
    for task, row in shipped.rows().items():
        asked = [given(name, str(task)) for name in prompts or (student,)]
        answers = [answer for turn in zip(*(answers for answers, _ in asked)) for answer in turn][:samples]
        prompt = sum(tokens for _, tokens in asked)
        (teacher, *_), read = given("gpt-4", str(task))
        right = {a.rows for a in (*answers, teacher) if a.right and a.rows is not None}
        wrong = {a.rows for a in (*answers, teacher) if not a.right}
        fine = sorted(str(rows) for rows in right - wrong)  # another order of rows is right of one and wrong of another
        steps.append(
            LoggedStep(
                id=str(task),
                episode=f"question {row.group}",
                students=(
                    _asked(
                        student,
                        [a.rows for a in answers],
                        [a.output_tokens for a in answers],
                        prompt,
                        token_price(known[student]),
                    ),
                ),
                teacher=teacher.rows,
                teacher_model="gpt-4",
                teacher_usage=Usage(input=read, output=teacher.output_tokens or 0),
                teacher_price=token_price(known["gpt-4"]),
                gold=fine[0] if fine else NONE,
                also_right=tuple(fine[1:]),
            )
        )
    return steps


def two_prompts() -> dict[str, Arm]:
    """Without demonstrations, with them, and half of each."""
    student, demos = "qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-demos"
    ways = {VOTE: (student,), "with demonstrations": (demos,), "half of each": (student, demos)}
    return {name: Arm(columns(sql(student, *prompts))) for name, prompts in ways.items()}


def verified() -> dict[str, Arm]:
    """With the scores of a verifier beside the vote, where `bench_verifier.py` has recorded some."""
    try:
        from tests.benchmarks.bench_verifier import SCORES, rows, scored

        log = scored(rows(SCORES), "direct")
    except (ImportError, OSError) as error:
        raise EnvironmentFailed(f"there are no scores of a verifier: {error}") from error
    return {VOTE: Arm(log), "vote and verifier": Arm(log, ("verified",))}


def varied() -> dict[str, Arm]:
    """Each way to vary the prompt, on the same questions."""
    known, answers = prices.table(), varied_answers()
    arms = {}
    for name, drawn in ARMS.items():
        steps = []
        for task, own in answers.items():
            (teacher, *_), read = given("gpt-4", str(task))
            samples = [own[one] for one in drawn]
            votes = [None if s["rows"] is None else f"rows {s['rows']}" for s in samples]
            fine = sorted({vote for vote, s in zip(votes, samples) if vote is not None and s["right"]})
            asked = _asked(
                STUDENTS[0], votes, [s["output_tokens"] for s in samples], samples[0]["prompt_tokens"],
                token_price(known[STUDENTS[0]]),
            )  # fmt: skip
            how = None if name.startswith("one") else name.split("s,")[0].replace("subset", "subsets")
            steps.append(
                LoggedStep(
                    id=str(task),
                    episode=f"question {shipped.rows()[task].group}",
                    students=(asked.model_copy(update={"vary": how}),),
                    teacher="right" if teacher.right else "wrong",
                    teacher_usage=Usage(input=read, output=teacher.output_tokens or 0),
                    teacher_price=token_price(known["gpt-4"]),
                    gold=fine[0] if fine else "right",
                    also_right=(*fine[1:], "right"),
                )
            )
        arms[VOTE if how is None else name] = Arm(columns(steps))
    return arms


def sql_runs(model: str) -> list[LoggedStep]:
    """Each step of a model's recorded runs, taken by itself; right where the run was."""
    path = data_file(model)
    steps = []
    for id, run in json.loads(path.read_text(encoding="utf-8")).items():
        turns = run["turn_history"]
        won = run["summary"]["max_reward"] == 1.0
        observations = [run["query"], *map(str, turns["observations"])]
        for i, action in enumerate(turns["actions"]):
            steps.append(
                LoggedStep(
                    id=f"{id}/{i}",
                    episode=f"question {shipped.rows()[int(id)].group}/{id}",
                    step=i,
                    observation=observations[i],
                    students=(_asked(model, [action], [None], 0, None),),
                    teacher=action,
                    gold=action if won else "the run failed",
                    success=won,
                )
            )
    return steps


def logs() -> Iterator[tuple[str, Callable[[], Mapping[str, Arm]]]]:
    for size in ("0.5b", "1.5b"):
        yield f"BFCL, Qwen {size}", partial(parts, bfcl, f"qwen2.5-coder-{size}")
    for size in ("0.5b", "1.5b"):
        yield f"InterCode-SQL, Qwen {size}", partial(parts, sql, f"qwen2.5-coder-{size}")
    yield "InterCode-SQL, Qwen 1.5b, verified by itself (five samples)", verified
    yield "InterCode-SQL, Qwen 1.5b, two prompts (vote: without demonstrations)", two_prompts
    yield "InterCode-SQL, Qwen 0.5b, prompts that are varied (vote: one prompt)", varied
    for name, made in (("BFCL", bfcl), ("InterCode-SQL", sql)):
        yield f"{name}, ladder of Qwen 0.5b, 1.5b (vote: {ALIKE})", partial(ladder, made)
    for model in ("gpt-3.5-turbo", "gpt-4"):
        yield f"InterCode-SQL, runs of {model}", partial(parts, sql_runs, model)


def parts(made: Log, model: str) -> dict[str, Arm]:
    log = columns(made(model))
    return {VOTE: Arm(log), STUCK: Arm(log, ("signals",))} if stuck(log) else {VOTE: Arm(log)}


def ladder(made: Log) -> dict[str, Arm]:
    """Two students in turn: all with one threshold, as a rule was tuned before, or each with its own."""
    below, above = map(made, STUDENTS)
    second = {step.id: step for step in above}
    steps = []
    for step in below:
        if step.id in second:
            fine = sorted((step.right | second[step.id].right) - {NONE}) or [NONE]
            both = {"students": (*step.students, *second[step.id].students)}
            steps.append(step.model_copy(update={**both, "gold": fine[0], "also_right": tuple(fine[1:])}))
    log = chain(steps)
    FAMILIES[ALIKE] = Family(
        lambda log, sizes, kind, seed: [
            [Chain((Threshold(n, needed),) * 2) for needed in range(n, 0, -1)] for n in sizes
        ]
    )
    return {VOTE: Arm(log, (ALIKE,)), "a threshold for each rung": Arm(log, (CHAIN,))}


def stuck(log: Columns) -> int:
    """At how many steps `router.stuck` would leave the student out."""
    assert log.runs is not None
    return int(log.runs.stuck(StuckConfig()).sum())


class Half(NamedTuple):
    """What a rule certified on one half does on the other."""

    coverage: float
    risk: float
    cost: float
    """As a share of the teacher's"""


def held_out(arm: Arm, mine: np.ndarray, settings: Settings) -> Half:
    half = arm.log.take(mine)
    tuned = search([half], settings, chained=half)
    if tuned.chosen is None:
        return Half(0.0, 0.0, 1.0)
    rest, rule = arm.log.take(~mine), tuned.chosen.rule
    row = replay(rest, rule, [Bill(tuned.sampling)])
    return Half(row.acceptance, losses(rest, rule.on(rest), settings.risk).risk, row.cost / row.teacher_cost)


def measured(arms: Mapping[str, Arm], count: Count, bound: float, splits: int) -> None:
    found: dict[str, list[Half]] = {name: [] for name in arms}
    for seed in range(splits):
        for name, arm in arms.items():
            clusters = arm.log.clusters
            chosen = np.isin(arm.log.cluster, np.random.default_rng(seed).permutation(clusters)[: clusters // 2])
            settings = Settings(max_risk=bound, risk=Risk("wrong", count), rules=arm.rules)
            found[name].append(held_out(arm, chosen, settings))
    vote = np.array(found[VOTE])
    for name, halves in found.items():
        values = np.array(halves)
        certified = values[:, 0] > 0
        gained = "" if name == VOTE else f"; coverage against the vote {spread(values[:, 0] - vote[:, 0], '+.3f')}"
        print(
            f"  {count:9} {name:24} coverage {spread(values[:, 0])}; risk {spread(values[:, 1])}, above {bound} in "
            f"{(values[:, 1] > bound).sum()}; cost {spread(values[:, 2])}; a rule in {certified.sum()} of {splits}"
            f"{gained}",
            flush=True,
        )


def spread(values: np.ndarray, form: str = ".3f") -> str:
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{values.mean():{form}} [{low:{form}}, {high:{form}}]"


def smallest(arm: Arm, count: Count) -> str:
    """The smallest risk at which anything is certified on all of a log, to .01."""
    for bound in np.arange(0.01, 1, 0.01):
        settings = Settings(max_risk=float(bound), risk=Risk("wrong", count), rules=arm.rules)
        tuned = search([arm.log], settings, chained=arm.log)
        if tuned.chosen is not None:
            return f"{bound:.2f} ({tuned.chosen.rule.name}, coverage {tuned.chosen.replayed.acceptance:.3f})"
    return "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--risk", type=float, default=0.05)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for name, made in logs():
        if options.only not in name:
            continue
        try:
            arms = made()
        except EnvironmentFailed as error:
            print(f"\n## {name}: left out, {error}")
            continue
        log = arms[VOTE].log
        print(f"\n## {name}: {len(log)} steps, {log.clusters} questions or episodes, stuck at {stuck(log)} steps")
        for count in ("marginal", "selective"):
            measured(arms, count, options.risk, options.splits)
        for arm, one in arms.items():
            print(f"  on all of it, the smallest marginal risk that is certified, {arm}: {smallest(one, 'marginal')}")


if __name__ == "__main__":
    main()
