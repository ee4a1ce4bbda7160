"""Committees of recorded models on InterCode-SQL: what agreement of different models is worth, without any download.

    python tests/benchmarks/bench_sql_committees.py [policies] [likeness] [auroc] [certify]
        [--teacher gpt-4] [--members …] [--every-rule] [--price NAME=IN,OUT …]

policies: teacher and members alone, committees of two to four, random mixes at equal teacher share, oracles; rules
chosen on one half of the questions and counted on the other. likeness: of the errors of members against those of one
model's samples. auroc: agreement within a model, across models, and both, as a sign that an answer is right. certify:
committees that `agentcascade tune` certifies on one half, counted with the verdicts on the other half, over 200 splits;
questions with one gold query stay on one side.

Votes are the rows that queries return. Verdicts, tokens and prices are those of `agentcascade bench intercode-sql
--schema`. A member of our own gives its first sample.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from agentcascade.envs.intercode_sql import answers, prices, shipped
from agentcascade.envs.intercode_sql.answers import Answer
from agentcascade.envs.recorded.models import shuffled
from agentcascade.envs.recorded.policies import Column, Table, against
from agentcascade.envs.recorded.prices import Price
from agentcascade.errors import AgentCascadeError, ConfigError
from agentcascade.models.pricing import Price as TokenPrice
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample, Usage
from tests.benchmarks.committees import (
    Limit,
    Rule,
    Voter,
    named,
    print_auroc,
    print_certified,
    print_likeness,
    print_policies,
    row,
)

MEMBERS = ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "text-bison", "chat-bison", "gpt-3.5-turbo"]
SHORT = {
    "qwen2.5-coder-0.5b": "Qwen 0.5B",
    "qwen2.5-coder-1.5b": "Qwen 1.5B",
    "qwen2.5-coder-1.5b-demos": "Qwen 1.5B demos",
    "gpt-3.5-turbo": "gpt-3.5",
    "gpt-3.5-turbo-retry": "gpt-3.5 again",
    "gpt-4": "GPT-4",
}
NAMED: list[Rule] = [
    (("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"), 2),
    (("qwen2.5-coder-1.5b", "gpt-3.5-turbo"), 2),
    (("text-bison", "gpt-3.5-turbo"), 2),
    (("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "gpt-3.5-turbo"), 2),
    (("qwen2.5-coder-1.5b", "text-bison", "gpt-3.5-turbo"), 2),
    (("qwen2.5-coder-1.5b", "text-bison", "gpt-3.5-turbo"), 3),
    (("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "text-bison", "gpt-3.5-turbo"), 2),
    (("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "text-bison", "chat-bison", "gpt-3.5-turbo"), 3),
    (("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "text-bison", "chat-bison", "gpt-3.5-turbo"), 5),
]
CERTIFIED: list[Limit] = [("marginal", 0.05), ("marginal", 0.10), ("marginal", 0.15)]
"""Of all questions, those that the committee takes and gets wrong. Not `total`: GPT-4 alone is at .263."""


def short(name: str) -> str:
    return SHORT.get(name, name)


def given(model: str, id: str) -> tuple[list[Answer], int]:
    """A model's answers in the order in which the benchmark draws them, and the tokens of its prompt."""
    found = answers.answers(model, int(id))
    return shuffled(found.answers, model, id), found.input_tokens or 0


def column(model: str, ids: Sequence[str], known: dict[str, Price]) -> Column:
    cost = known.get(model.removesuffix("-demos")) or known[model]
    asked = [given(model, id) for id in ids]
    first = [(answers_[0], prompt) for answers_, prompt in asked]
    return Column(
        right=np.array([float(answer.right) for answer, _ in first]),
        dollars=np.array([float(cost.dollars(prompt, answer.output_tokens or 0)) for answer, prompt in first]),
        seconds=np.full(len(ids), np.nan),
        votes=tuple(answer.rows for answer, _ in first),
    )


def voter(answers_: dict[str, Answer]) -> Voter:
    return Voter(
        {id: float(answer.right) for id, answer in answers_.items()},
        {id: answer.rows for id, answer in answers_.items()},
    )


def logged(ids: Sequence[str], members: Sequence[str], teacher: str, known: dict[str, Price]) -> list[LoggedStep]:
    """Steps as `agentcascade bench intercode-sql --schema --log` writes them, made without playing."""
    steps = []
    for id in ids:
        asked = {name: given(name, id) for name in (*members, teacher)}
        first = {name: answers_[0] for name, (answers_, _) in asked.items()}
        votes = [first[name].rows for name in members]
        right = {answer.rows for answer in first.values() if answer.right} - {
            answer.rows for answer in first.values() if not answer.right
        }
        gold = max((v for v in votes if v in right), key=votes.count, default=first[teacher].rows)
        steps.append(
            LoggedStep(
                id=id,
                episode=f"question {shipped.rows()[int(id)].group}",
                students=tuple(
                    StudentSamples(
                        model=name,
                        samples=(LoggedSample(action=first[name].rows, tokens=first[name].output_tokens),),
                        n=1,
                        prompt=Usage(input=asked[name][1]),
                        price=token_price(known[name]),
                    )
                    for name in members
                ),
                teacher=first[teacher].rows,
                teacher_model=teacher,
                teacher_usage=Usage(input=asked[teacher][1], output=first[teacher].output_tokens or 0),
                teacher_price=token_price(known[teacher]),
                gold=gold if gold in right else "none of these",
            )
        )
    return steps


def token_price(price: Price) -> TokenPrice:
    return TokenPrice(input=price.input, output=price.output)


def print_larger(table: Table, teacher: str) -> None:
    """The named committees of more than three members, which `rules` do not hold."""
    base = table.alone(teacher, teacher=True)
    for rule in NAMED:
        if len(rule[0]) > 3 and set(rule[0]) <= set(table.models):
            played = table.committee(*rule, teacher)
            row(named(rule, short), against(played, base))
            took = 1 - played.teacher
            print(f"    takes {took.mean():.3f}, right of those {(played.right * took).sum() / took.sum():.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["policies", "likeness", "auroc", "certify", []], default=[])
    parser.add_argument("--teacher", default=answers.TEACHER)
    parser.add_argument("--members", nargs="+", default=MEMBERS)
    parser.add_argument("--every-rule", action="store_true", help="print all pairs and triples of members")
    parser.add_argument(
        "--price", action="append", default=[], metavar="NAME=IN,OUT", help="dollars per million tokens"
    )
    asked = parser.parse_args()
    parts = asked.parts or ["policies", "likeness", "auroc", "certify"]
    ids = [str(task) for task in shipped.rows()]
    try:
        known = prices.table(asked.price)
        names = list(dict.fromkeys([asked.teacher, *asked.members]))
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(f"{unknown[0]} has no price: --price {unknown[0]}=IN,OUT")
        table = Table(ids, {name: column(name, ids, known) for name in names})
        for name in names:
            print(f"{name}: ${known[name].input} in, ${known[name].output} out, {known[name].source}")
        if "policies" in parts:
            print_policies(table, [asked.teacher], asked.members, NAMED, short, asked.every_rule)
            print("committees of more than three, against the teacher:")
            print_larger(table, asked.teacher)
        if {"likeness", "auroc"} & set(parts):
            members = {name: voter({id: given(name, id)[0][0] for id in ids}) for name in asked.members}
            samples = {name: drawn(name, ids) for name in answers.SAMPLED}
            samples["gpt-3.5-turbo asked twice"] = [
                voter({id: given(name, id)[0][0] for id in ids}) for name in ("gpt-3.5-turbo", "gpt-3.5-turbo-retry")
            ]
            large = {name: found for name, found in members.items() if name not in answers.SAMPLED}
            if "likeness" in parts:
                print_likeness(members, samples, ids, short)
            if "auroc" in parts:
                print_auroc(large, {name: samples[name] for name in answers.SAMPLED}, ids, short)
        if "certify" in parts:
            cheap_first = sorted(asked.members, key=lambda m: float(table[m].dollars.mean()))
            steps = logged(ids, cheap_first, asked.teacher, known)
            print(
                f"\ncertificates, teacher {short(asked.teacher)} (wrong {1 - table[asked.teacher].right.mean():.3f}),"
                f" members {', '.join(map(short, cheap_first))}, in halves of whole questions"
            )
            groups = [str(shipped.rows()[int(id)].group) for id in ids]
            print_certified(table, steps, asked.teacher, CERTIFIED, short, groups)
    except AgentCascadeError as error:
        parser.exit(1, f"{error}\n")


def drawn(model: str, ids: Sequence[str]) -> list[Voter]:
    """All samples of a model, as voters of their own."""
    every = {id: given(model, id)[0] for id in ids}
    return [voter({id: every[id][i] for id in ids}) for i in range(shipped.SAMPLES)]


if __name__ == "__main__":
    main()
