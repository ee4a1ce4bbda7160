"""Recorded answers of real models to BFCL's tool calls: is the official verdict reproduced, what is agreement worth?

    BFCL_DATA=data/bfcl python tests/benchmarks/bench_bfcl.py [check] [policies] [likeness] [auroc] [certify]
        [--teacher gpt-4-1106-preview-FC …] [--members …] [--all] [--declined-alike] [--every-rule] [--price …]

check: on how many answers our check gives the official verdict, by model and category, and what the rest is. policies:
teachers and members alone, committees of two and three, random mixes at equal teacher share, oracles; rules chosen on
one half of the tasks and counted on the other. likeness: of the errors of members against those of one model's samples.
auroc: agreement within a model, across models, and both together, as a sign that an answer is right.
certify: committees that `agentcascade tune` certifies on one half of the tasks, judged by the official verdicts on the
other half, over 200 splits. Dollars are of August 2024 (`agentcascade.envs.bfcl.prices`). Python tasks alone unless
--all.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from agentcascade.envs.bfcl import keys, labels, prices, recorded, tasks
from agentcascade.envs.bfcl.check import check
from agentcascade.envs.bfcl.models import PREFIX
from agentcascade.envs.bfcl.policies import Table
from agentcascade.envs.bfcl.recorded import Answer
from agentcascade.envs.recorded.prices import Price
from agentcascade.errors import AgentCascadeError, EnvironmentFailed
from agentcascade.models.pricing import Price as TokenPrice
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample, Usage
from tests.benchmarks.committees import Limit, Rule, Voter, print_auroc, print_certified, print_likeness, print_policies

PYTHON = ("simple_python", "multiple", "parallel", "parallel_multiple")
TEACHERS = ["gpt-4-1106-preview-FC", "mistral-large-2407-FC-Auto"]
MEMBERS = [
    *("gpt-4o-mini-2024-07-18-FC", "open-mistral-nemo-2407-FC-Auto", "claude-3-haiku-20240307"),
    *("gpt-4o-mini-2024-07-18", "gemini-1.5-flash-preview-0514", "gpt-3.5-turbo-0125-FC"),
]
SHORT = {
    "gpt-4o-mini-2024-07-18-FC": "mini-FC",
    "gpt-4o-mini-2024-07-18": "mini",
    "open-mistral-nemo-2407-FC-Auto": "nemo",
    "claude-3-haiku-20240307": "haiku",
    "claude-3-haiku-20240307-FC": "haiku-FC",
    "gemini-1.5-flash-preview-0514": "flash",
    "gpt-3.5-turbo-0125-FC": "gpt-3.5",
    "gpt-4-1106-preview-FC": "GPT-4-1106",
    "gpt-4-0125-preview-FC": "GPT-4-0125",
    "gpt-4-turbo-2024-04-09-FC": "GPT-4-turbo",
    "mistral-large-2407-FC-Auto": "mistral-large",
    "mistral-small-2402-FC-Auto": "mistral-small",
    "gpt-4o-2024-05-13-FC": "gpt-4o-05",
    "gpt-4o-2024-08-06-FC": "gpt-4o-08",
    "claude-3-5-sonnet-20240620-FC": "sonnet-3.5",
}
NAMED: list[Rule] = [
    (("gpt-4o-mini-2024-07-18-FC", "open-mistral-nemo-2407-FC-Auto"), 2),
    (("gpt-4o-mini-2024-07-18", "open-mistral-nemo-2407-FC-Auto"), 2),
    (("gpt-4o-mini-2024-07-18-FC", "open-mistral-nemo-2407-FC-Auto", "claude-3-haiku-20240307"), 2),
    (("gpt-4o-mini-2024-07-18", "open-mistral-nemo-2407-FC-Auto", "claude-3-haiku-20240307"), 2),
]


def short(name: str) -> str:
    return SHORT.get(name, name)


def checked(models: Sequence[str]) -> None:
    """Our verdict against the official one."""
    try:
        known = tasks.possible_answers()
    except EnvironmentFailed as error:
        print(f"no check: {error}")
        return
    total = same = 0
    other: Counter[str] = Counter()
    print(f"{'model':46}" + "".join(f"{category:>18}" for category in tasks.CATEGORIES))
    for model in models:
        hits: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for id, answer in recorded.answers(model).items():
            category = tasks.task(id).category
            verdict = check(answer.calls, known[id], tasks.task(id).language, dots=answer.dots)
            counts[category] += 1
            if verdict.right == answer.right:
                hits[category] += 1
            else:
                other[f"{category}: official {answer.right}, ours {verdict.right} {verdict.kind}".strip()] += 1
        total, same = total + counts.total(), same + hits.total()
        cells = (f"{hits[c]}/{counts[c]}" for c in tasks.CATEGORIES)
        print(f"{model[:45]:46}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    print(f"our check gives the official verdict on {same:,} of {total:,} answers ({same / total:.4%})")
    for kind, count in other.most_common(20):
        print(f"  {count:6}  {kind}")


def unjudged(models: Sequence[str]) -> None:
    count = sum(answer.contradicted for model in models for answer in recorded.answers(model).values())
    if count:
        print(
            f"note: this file calls all answers right where no function fits, {count:,} of them that call one, which"
            " the official score files call wrong: taken as wrong here"
        )


def _right(answer: Answer) -> bool:
    if answer.right is not None:
        return answer.right
    task = tasks.task(answer.task)
    return check(answer.calls, tasks.possible_answers()[task.id], task.language).right


CERTIFIED: list[Limit] = [("marginal", 0.03), ("marginal", 0.05)]
"""What may go wrong at most: of all tasks, those that the committee takes and gets wrong. Not `total`: a log has one
gold key, and a teacher whose right answer is another one would count as wrong."""


def logged(ids: Sequence[str], members: Sequence[str], teacher: str, known: dict[str, Price]) -> list[LoggedStep]:
    """Steps as `agentcascade bench bfcl --log` writes them, made without playing."""
    steps = []
    for id in ids:
        tools = tasks.task(id).tools
        given = {name: recorded.answer(name, id) for name in (*members, teacher)}
        votes = {name: keys.key(answer, tools) for name, answer in given.items()}
        students = tuple(
            StudentSamples(
                model=name,
                samples=(LoggedSample(action=votes[name], tokens=given[name].output_tokens),),
                n=1,
                prompt=Usage(input=given[name].input_tokens or 0),
                price=_price(name, known),
            )
            for name in members
        )
        names = [PREFIX + name for name in given]
        gold, *others = labels.right(id, [votes[name] for name in members], votes[teacher], names)
        steps.append(
            LoggedStep(
                id=id,
                category=tasks.task(id).category,
                students=students,
                teacher=votes[teacher],
                teacher_model=teacher,
                teacher_usage=Usage(input=given[teacher].input_tokens or 0, output=given[teacher].output_tokens or 0),
                teacher_price=_price(teacher, known),
                gold=gold,
                also_right=tuple(others),
            )
        )
    return steps


def _price(name: str, known: dict[str, Price]) -> TokenPrice | None:
    found = prices.price(name, known)
    return None if found is None else TokenPrice(input=found.input, output=found.output)


def certified(table: Table, members: Sequence[str], teacher: str, known: dict[str, Price]) -> None:
    """Rules of `tune` at 95 %, found on one half and counted with the official verdicts on the other."""
    cheap_first = sorted(members, key=lambda m: float(table[m].dollars.mean()))
    steps = logged(table.ids, cheap_first, teacher, known)
    several = sum(bool(step.also_right) for step in steps)
    print(
        f"\ncertificates, teacher {short(teacher)} (wrong {1 - table[teacher].right.mean():.3f}), members"
        f" {', '.join(map(short, cheap_first))}; on {several} of {len(steps)} tasks several answers are right"
    )
    print_certified(table, steps, teacher, CERTIFIED, short)


def voter(answers: dict[str, Answer], ids: Sequence[str]) -> Voter:
    return Voter(
        {id: float(_right(answers[id])) for id in ids if id in answers},
        {id: keys.key(answers[id], tasks.task(id).tools) for id in ids if id in answers},
    )


def sampled(model: str, ids: Sequence[str]) -> list[Voter]:
    wanted = {*ids}
    given = {id: samples.answers for id, samples in recorded.samples(model, lenient=True).items() if id in wanted}
    count = min((len(answers) for answers in given.values()), default=0)
    return [voter({id: answers[i] for id, answers in given.items()}, ids) for i in range(count)]


def readable(models: Sequence[str]) -> None:
    """How a member's answers without a call and votes that count for nothing are spread."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for model in models:
        for id, answer in recorded.answers(model).items():
            vote = keys.key(answer, tasks.task(id).tools)
            found[model]["no call" if not answer.calls else "votes" if vote else "fits no tool"] += 1
    print("\nanswers by vote: " + "; ".join(f"{short(m)} {dict(c)}" for m, c in found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", choices=["check", "policies", "likeness", "auroc", "certify", []], default=[]
    )
    parser.add_argument("--teacher", nargs="+", default=TEACHERS)
    parser.add_argument("--members", nargs="+", default=MEMBERS)
    parser.add_argument("--models", nargs="+", help="of the check; else all that have answers")
    parser.add_argument("--every-rule", action="store_true", help="print all pairs and triples of members")
    parser.add_argument("--all", action="store_true", help="all 1,390 tasks, not the 1,000 of Python functions")
    parser.add_argument("--declined-alike", action="store_true", help="answers without a call agree whatever they say")
    parser.add_argument(
        "--price", action="append", default=[], metavar="NAME=IN,OUT", help="dollars per million tokens"
    )
    given = parser.parse_args()
    parts = given.parts or ["check", "policies", "likeness", "auroc", "certify"]
    try:
        ids = [id for id, task in tasks.tasks().items() if given.all or task.category in PYTHON]
        known = prices.table(given.price)
        models = given.models or recorded.models()
        unjudged(models)
        if "check" in parts:
            checked(models)
            readable(models)
        if "policies" in parts:
            for name in [*given.teacher, *given.members]:
                cost = prices.price(name, known)
                print(f"{name}: {f'${cost.input} in, ${cost.output} out, {cost.source}' if cost else 'no price'}")
            names = list(dict.fromkeys([*given.teacher, *given.members]))
            table = Table(names, ids, known, declined_alike=given.declined_alike)
            print_policies(table, given.teacher, given.members, NAMED, short, given.every_rule)
        if "certify" in parts:
            for teacher in given.teacher:
                names = list(dict.fromkeys([teacher, *given.members]))
                table = Table(names, ids, known, declined_alike=given.declined_alike)
                certified(table, given.members, teacher, known)
        if {"likeness", "auroc"} & set(parts):
            members = {name: voter(recorded.answers(name), ids) for name in given.members}
            samples = {}
            try:
                tasks.possible_answers()
                samples = {name: sampled(name, ids) for name in recorded.sampled()}
            except EnvironmentFailed as error:
                print(f"no verdicts for our own samples: {error}")
            if "likeness" in parts:
                print_likeness(members, samples, ids, short)
            if "auroc" in parts:
                print_auroc(members, samples, ids, short)
    except AgentCascadeError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
