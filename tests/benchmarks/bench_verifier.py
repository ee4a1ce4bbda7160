"""The soft verifier on recorded answers: does its probability of yes tell right candidates from wrong beside the vote?

    python tests/benchmarks/bench_verifier.py [scores] [certified] [--splits 100]
    INTERCODE_DATA=data/intercode python tests/benchmarks/bench_verifier.py record --api-base http://localhost:8000/v1
        --model openai/NAME --price 0.09/0.39 --out rows.jsonl [--direct] [--tasks 240]

Questions of InterCode-SQL, drawn at random and in the order of their databases; the candidate is the majority of five
recorded samples of Qwen2.5-Coder-1.5B (T = 0.8), classes by the rows that a query returns, right by InterCode's
verdict. The verifier is the same 1.5B (Q4_K_M, llama.cpp on a CPU, temperature 0), asked with the product's prompt:
`direct` for one word, `think` for a sentence or two and a verdict (split votes alone). Its scores are in
verifier.jsonl.xz: one line a question, no texts of others. scores: AUROC of agreement, of the score, and of both
together (logistic regression, cross-fitted by questions), with 95 % bootstrap intervals over questions. certified: what
`tune` certifies on a random half of the questions, and what it does on the other half, with and without the score, and
with the scores of other questions: a score that knows nothing makes rules between two numbers of votes, too.
`record` asks a live model with the product's own verifier and writes lines of the same form (--direct: no thought).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import lzma
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from agentcascade.envs.intercode_sql import answers, prices, schema, shipped
from agentcascade.routers.tuning.columns import Columns, columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.risks import Risk, losses
from agentcascade.routers.tuning.tuner import Settings, search
from agentcascade.steplog.types import LoggedStep
from tests.benchmarks.bench_certified_parts import sql

SCORES = Path(__file__).parent / "verifier.jsonl.xz"
STUDENT, SAMPLES = "qwen2.5-coder-1.5b", 5
ROUNDS, FOLDS = 2_000, 5
FORMS = ("direct", "think")


class Row(NamedTuple):
    """One question: its candidate's share of the votes, the verifier's scores, and whether the candidate is right."""

    task: int
    group: int
    agreement: float
    scores: dict[str, float | None]
    tokens: dict[str, tuple[int, int]]
    right: bool


def rows(path: Path) -> list[Row]:
    data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    found = []
    for line in map(json.loads, data.splitlines()):
        known = shipped.rows()[line["task"]]
        votes = voted(line["task"])
        assert votes is not None
        share, right = votes[1], votes[2]
        scores = {form: line[form]["score"] for form in FORMS if form in line}
        tokens = {form: (line[form]["prompt"], line[form]["output"]) for form in FORMS if form in line}
        found.append(Row(line["task"], known.group, share, scores, tokens, right))
    return found


def voted(task: int) -> tuple[str, float, bool] | None:
    """The majority of a question's samples: its class, its share, whether it is right; None where none is valid."""
    results = [result for result, _ in shipped.rows()[task].models[STUDENT].results[:SAMPLES]]
    counts: dict[str, int] = {}
    for result in results:
        if result.rows is not None:
            counts[result.rows] = counts.get(result.rows, 0) + 1
    if not counts:
        return None
    top = max(counts, key=lambda key: counts[key])
    return top, counts[top] / SAMPLES, next(r.right for r in results if r.rows == top)


def auroc(scores: np.ndarray, right: np.ndarray) -> float:
    _, place, number = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(number) - (number - 1) / 2)[place]
    yes, no = right.sum(), (~right).sum()
    return float((ranks[right].sum() - yes * (yes + 1) / 2) / (yes * no)) if yes and no else float("nan")


def interval(groups: np.ndarray, score: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """Of a figure of the chosen rows, drawn by questions."""
    rng, names = np.random.default_rng(0), np.unique(groups)
    of = {name: np.flatnonzero(groups == name) for name in names}
    drawn = [score(np.concatenate([of[name] for name in rng.choice(names, len(names))])) for _ in range(ROUNDS)]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def both(agreement: np.ndarray, score: np.ndarray, right: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Cross-fitted probability that a candidate is right, by a logistic regression on agreement and score."""
    from sklearn.linear_model import LogisticRegression

    share = np.clip(score, 1e-4, 1 - 1e-4)
    inputs = np.column_stack([agreement, np.log(share / (1 - share))])
    inputs = (inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-9)
    fold_of = dict(zip(np.unique(groups), np.random.default_rng(0).permutation(len(np.unique(groups))) % FOLDS))
    folds = np.array([fold_of[group] for group in groups])
    found = np.zeros(len(right))
    for fold in range(FOLDS):
        mine = folds == fold
        fitted = LogisticRegression(max_iter=1000).fit(inputs[~mine], right[~mine])
        found[mine] = fitted.predict_proba(inputs[mine])[:, 1]
    return found


def scores(recorded: Sequence[Row]) -> None:
    for form in FORMS:
        for name, chosen in (
            ("all votes", [r for r in recorded if form in r.scores]),
            ("split votes", [r for r in recorded if form in r.scores and r.agreement < 1]),
        ):
            known = [r for r in chosen if r.scores[form] is not None]
            if len(known) < 20 or (form == "think" and name == "all votes"):
                continue
            measure(f"{form}, {name}", known, len(chosen), form)


def measure(title: str, known: Sequence[Row], asked: int, form: str) -> None:
    """AUROC of agreement, of a form's score, and of both, over questions."""
    agreement = np.array([row.agreement for row in known])
    score = np.array([float(row.scores[form] or 0) for row in known])
    right, groups = np.array([row.right for row in known]), np.array([row.group for row in known])
    table = prices.table()[STUDENT]
    prompt, output = (float(np.mean([row.tokens[form][i] for row in known])) for i in (0, 1))
    dollars = (float(table.input) * prompt + float(table.output) * output) / 1e6
    print(
        f"{title}: {len(known)} candidates of {asked} ({len(np.unique(groups))} questions), right {right.mean():.3f}; "
        f"{prompt:.0f} + {output:.0f} tokens, ${dollars:.6f} each"
    )
    joint = both(agreement, score, right, groups)
    for arm, values in (("agreement", agreement), ("score", score), ("both", joint)):
        low, high = interval(groups, lambda i, v=values: auroc(v[i], right[i]))  # type: ignore[misc]
        print(f"  AUROC of {arm:9} {auroc(values, right):.3f} [{low:.3f}, {high:.3f}]")
    gain = auroc(joint, right) - auroc(agreement, right)
    low, high = interval(groups, lambda i: auroc(joint[i], right[i]) - auroc(agreement[i], right[i]))
    print(f"  both against agreement {gain:+.3f} [{low:+.3f}, {high:+.3f}]")


def scored(recorded: Sequence[Row], form: str) -> Columns:
    """The log of these questions with the verifier's scores at the majority's samples."""
    by_task = {str(row.task): row for row in recorded if row.scores.get(form) is not None}
    table = prices.table()["qwen2.5-coder-1.5b"]
    steps: list[LoggedStep] = []
    for step in sql(STUDENT, samples=SAMPLES):
        row = by_task.get(step.id)
        if row is None:
            continue
        votes = voted(row.task)
        assert votes is not None
        results = [result.rows for result, _ in shipped.rows()[row.task].models[STUDENT].results]
        samples = tuple(  # by their places: with InterCode's data the classes have other names
            one.model_copy(update={"score": row.scores[form]}) if rows == votes[0] else one
            for one, rows in zip(step.student.samples, results)
        )
        prompt, output = row.tokens[form]
        dollars = (table.input * prompt + table.output * output) / 10**6
        own = {"samples": samples, "verifier": STUDENT, "verifier_dollars": dollars}
        steps.append(step.model_copy(update={"students": (step.student.model_copy(update=own),)}))
    return columns(steps)


def certified(recorded: Sequence[Row], splits: int) -> None:
    log = scored(recorded, "direct")
    told = [row for row in recorded if row.scores.get("direct") is not None]
    order = np.random.default_rng(1).permutation(len(told))
    blind = scored([row._replace(scores=told[i].scores) for row, i in zip(told, order)], "direct")
    print(f"{len(log)} questions' wordings, {log.clusters} questions, n = {SAMPLES}, score `direct`")
    arms = {
        "vote": (log, ("consistency",)),
        "vote and score": (log, ("verified",)),
        "vote and others' scores": (blind, ("verified",)),
    }
    for bound in (0.05, 0.1, 0.15, 0.2):
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in arms}
        for seed in range(splits):
            mine = np.isin(log.cluster, np.random.default_rng(seed).permutation(log.clusters)[: log.clusters // 2])
            for name, (own, rules) in arms.items():
                found[name].append(half(own, mine, Settings(bound, risk=Risk("wrong"), rules=rules, sizes=(SAMPLES,))))
        base = np.array(found["vote"])[:, 0]
        for name, halves in found.items():
            cover, risk, cost = np.array(halves).T
            low, high = np.quantile(cover, (0.025, 0.975))
            gain = "" if name == "vote" else f"; against the vote {np.mean(cover - base):+.3f}"
            print(
                f"  risk {bound}: {name:23} coverage {cover.mean():.3f} [{low:.3f}, {high:.3f}]; risk on the other "
                f"half {risk.mean():.3f}; cost {cost.mean():.3f}; a rule in {(cover > 0).sum()} of {splits}{gain}"
            )
    for name, (own, rules) in arms.items():
        least = "none up to .5"
        for bound in np.arange(0.01, 0.51, 0.01):
            tuned = search([own], Settings(float(bound), risk=Risk("wrong"), rules=rules, sizes=(SAMPLES,)))
            if tuned.chosen is not None:
                least = f"{bound:.2f} ({tuned.chosen.rule.name}, coverage {tuned.chosen.replayed.acceptance:.3f})"
                break
        print(f"  on all of it, the smallest marginal risk that is certified, {name}: {least}")


def half(log: Columns, mine: np.ndarray, settings: Settings) -> tuple[float, float, float]:
    """Coverage, risk and cost, as a share of the teacher's, on the other half; 0, 0, 1 where nothing is certified."""
    tuned = search([log.take(mine)], settings)
    if tuned.chosen is None:
        return 0.0, 0.0, 1.0
    rest, rule = log.take(~mine), tuned.chosen.rule
    row = replay(rest, rule, [Bill(tuned.sampling)])
    return row.acceptance, losses(rest, rule.on(rest), settings.risk).risk, row.cost / row.teacher_cost


async def record(options: argparse.Namespace) -> None:
    """Ask a live model about the candidates, with the product's verifier."""
    from agentcascade.assembly.components import make_model
    from agentcascade.config.verifier import VerifierConfig
    from agentcascade.models.tokens import token_counter
    from agentcascade.step.verification import SoftVerifier
    from agentcascade.types import Action, Completion, Sample

    fee = dict(zip(("input", "output"), options.price.split("/")))
    config = VerifierConfig.model_validate(
        {"name": options.model, "api_base": options.api_base, "api_key": "none", "price": fee, "think": False}
        | ({} if options.direct else {"think": True, "max_tokens": 200})
    )
    verifier = SoftVerifier(make_model(config, token_counter()), config)
    form = "direct" if options.direct else "think"
    drawn = np.random.default_rng(17).permutation(len(shipped.rows()))[: options.tasks]
    told: list[Completion] = []

    async def ask(model: Any, messages: Any, asked: Any, seconds: float) -> Completion:
        told.append(await model.complete(messages, **asked))
        return told[-1]

    with options.out.open("a", encoding="utf-8") as out:
        for task in sorted(map(int, drawn), key=lambda t: (shipped.rows()[t].database, t)):
            votes = voted(task)
            if votes is None:
                continue
            results = [result.rows for result, _ in shipped.rows()[task].models[STUDENT].results[:SAMPLES]]
            text = answers.statement(answers.answers(STUDENT, task).answers[results.index(votes[0])].text)
            sample = Sample(message={"role": "assistant", "content": text}, action=Action(key=text, text=text))
            said, notes = await verifier.score("always", sample, schema.messages(task), None, ask)
            usage = told[-1].usage
            line = {"score": said.score, "prompt": usage.prompt, "output": usage.completion}
            out.write(json.dumps({"task": task, form: line}) + "\n")
            out.flush()
            if notes:
                print(task, *notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="scores, certified, or record")
    parser.add_argument("--rows", type=Path, default=SCORES)
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--api-base", default="http://localhost:8000/v1")
    parser.add_argument("--model", default="openai/qwen2.5-coder-1.5b")
    parser.add_argument("--price", default="0.09/0.39")
    parser.add_argument("--tasks", type=int, default=240)
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("verifier_rows.jsonl"))
    options = parser.parse_args()
    if options.parts == ["record"]:
        asyncio.run(record(options))
        return
    recorded = rows(options.rows)
    for part in options.parts or ("scores", "certified"):
        print(f"# {part}")
        if part == "scores":
            scores(recorded)
        else:
            certified(recorded, options.splits)


if __name__ == "__main__":
    main()
