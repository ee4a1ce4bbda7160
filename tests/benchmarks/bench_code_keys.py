"""Blocks of code that mean the same: which layer joins them, rightly or wrongly, and what that is worth.

    agentcascade env install appworld; python tests/benchmarks/bench_code_keys.py [--tasks 24] [--samples 10]

Truth is found by running: two blocks do the same if, in forks of one AppWorld world, they print the same and write
the same, or, where they do neither, leave the same values. Layers, each on top of the one before: the text itself, the
key of the syntax tree, a dry run of blocks that only read. What they miss is what a verifier model could add, at best.
Constructed pairs are ours; sampled blocks are those of offline/copier, a program that writes in various ways, at the
situations of generated tasks: figures of the layers, not of any model.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from agentcascade.actions.python import PythonActions
from agentcascade.envs.appworld import agent, installation
from agentcascade.envs.appworld.environment import (
    FAILED,
    SILENT,
    AppWorldEnvironment,
    agent_answer,
    code_key,
    dry_run_answer,
)
from agentcascade.envs.offline.copier import Copier, kinship
from agentcascade.models.tokens import token_counter
from agentcascade.prompts import demonstrations as prompts
from agentcascade.prompts.prompts import DEFAULT
from agentcascade.types import Demonstration, Message, Step

LAYERS = ("text", "syntax tree", "dry run")
VERIFIER_PRICE = 0.10, 0.40
"""Dollars per million tokens of a small model, to say what a verifier would cost"""
BEFORE = """\
xs = [4, 8, 15, 16, 23, 42]
songs = [{'title': 'A', 'plays': 3}, {'title': 'B', 'plays': 9}, {'title': 'C', 'plays': 5}]
"""
ALIKE = (
    ("print(max(xs))", "print( max( xs ) )  # the largest"),
    ("top = max(xs)\nprint(top)", "best = max(xs)\nprint(best)"),
    ("print(sorted(xs, reverse=True, key=int))", "print(sorted(xs, key=int, reverse=True))"),
    ("print([x for x in xs if not x in (4, 8)])", "print([y for y in xs if y not in (4, 8)])"),
    (
        "print(sum(x for x in xs if x > 10))",
        "total = 0\nfor x in xs:\n    if x > 10:\n        total += x\nprint(total)",
    ),
    (
        "print(sorted(songs, key=lambda s: s['plays'])[-1]['title'])",
        "print(max(songs, key=lambda s: s['plays'])['title'])",
    ),
    ("print(apis.supervisor.show_profile()['email'])", "me = apis.supervisor.show_profile()\nprint(me['email'])"),
    ('print(f"{len(xs)} numbers")', "print(str(len(xs)) + ' numbers')"),
    ("n = sum(xs)", "total = sum(xs)"),
    ("m = {s['title']: s['plays'] for s in songs}", "d = dict((s['title'], s['plays']) for s in songs)"),
    ("apis.supervisor.complete_task(answer=len(xs))", "apis.supervisor.complete_task(answer=6)"),
    ("apis.supervisor.complete_task(answer='B')", 'apis.supervisor.complete_task(status="success", answer="B")'),
)
UNLIKE = (
    ("print(max(xs))", "print(min(xs))"),
    ("print(xs[0])", "print(xs[1])"),
    ("print(sorted(xs))", "print(sorted(xs, reverse=True))"),
    ("print([x for x in xs if x > 15])", "print([x for x in xs if x >= 15])"),
    ("print(max(songs, key=lambda s: s['plays'])['title'])", "print(max(songs, key=lambda s: s['plays'])['plays'])"),
    ("n = sum(xs)", "n = len(xs)"),
    ("xs = xs + [1]", "ys = xs + [2]"),
    ("apis.supervisor.complete_task(answer='B')", "apis.supervisor.complete_task(answer='C')"),
    ("apis.supervisor.complete_task()", "apis.supervisor.complete_task(status='fail')"),
    ("print(apis.supervisor.show_profile()['email'])", "print(apis.supervisor.show_profile()['first_name'])"),
)


class Pair(NamedTuple):
    """Two blocks in one situation: whether they do the same, and whether each layer says so."""

    same: bool
    joined: tuple[bool, bool, bool]


Trial = dict[str, str] | None


def judged(one: str, other: str, tried: Mapping[str, Trial]) -> Pair | None:
    """None where a block fails: what it means is not known."""
    a, b = tried[one], tried[other]
    if a is None or b is None or FAILED in (a["output"][: len(FAILED)], b["output"][: len(FAILED)]):
        return None
    silent = a["output"].strip() == SILENT
    same = a["output"] == b["output"] and a["wrote"] == b["wrote"] and (not silent or a["left"] == b["left"])
    text, tree = one == other, code_key(one) == code_key(other)
    return Pair(same, (text, tree, tree or (dry_run_answer(a) is not None and dry_run_answer(a) == dry_run_answer(b))))


def told(name: str, pairs: Sequence[Pair]) -> None:
    alike = sum(p.same for p in pairs)
    print(f"{name}: {len(pairs)} pairs, {alike} do the same")
    for i, layer in enumerate(LAYERS):
        right = sum(p.joined[i] and p.same for p in pairs)
        wrong = sum(p.joined[i] and not p.same for p in pairs)
        print(f"  {layer:<12} joined right {right}, wrong {wrong}, missed {alike - right}")


def trajectories(world: AppWorldEnvironment, tasks: Sequence[str]) -> Iterator[tuple[str, list[Step]]]:
    """Goals and steps of known solutions."""
    for task in tasks:
        seen, steps = world.reset(task), list[Step]()
        goal = seen.partition("Your task is to: ")[2]
        for thought, code in world.expert_steps():
            steps.append(Step(observation=seen if steps else "", reasoning=thought, action=code))
            seen, _ = world.step(code)
        yield goal, steps


def demonstrations(bank: Sequence[tuple[str, list[Step]]], goal: str, at: int) -> list[Demonstration]:
    """Windows of the three tasks that are worded most alike."""
    near = sorted(bank, key=lambda known: -kinship(known[0], goal))[:3]
    made = []
    for i, (theirs, steps) in enumerate(near):
        start = max(0, min(at, len(steps) - 1) - 2)
        window = tuple(steps[start : start + 5])
        made.append(
            Demonstration(
                trajectory=str(i), goal=theirs, start=start, match=start, length=len(steps), steps=window, score=1.0
            )
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--temperature", type=float, default=0.3)
    given = parser.parse_args()
    world = AppWorldEnvironment(expert=True)
    root = world.server.root
    world.reset(installation.task_ids(root, "train")[0])
    world.step(BEFORE)
    for name, pairs in (("constructed to do the same", ALIKE), ("constructed to differ", UNLIKE)):
        tried = {code: world.trial(code) for pair in pairs for code in pair}
        told(name, [pair for one, other in pairs if (pair := judged(one, other, tried))])
    bank = list(trajectories(world, installation.task_ids(root, "train")[:36]))
    count = token_counter()
    student = Copier(count, lambda usage: None)
    formats = PythonActions()
    found: list[Pair] = []
    agreed: Counter[str] = Counter()
    steps = tokens = 0
    for task in installation.task_ids(root, "test_normal")[: given.tasks]:
        first = world.reset(task)
        goal = first.partition("Your task is to: ")[2]
        messages: list[Message] = [{"role": "system", "content": agent.SYSTEM}, {"role": "user", "content": first}]
        for at, (thought, code) in enumerate(world.expert_steps()):
            prompt = prompts.build(messages, demonstrations(bank, goal, at), budget=20_000, count=count).messages
            said = asyncio.run(student.complete(prompt, n=given.samples, temperature=given.temperature, seed=at))
            texts = [formats.parse(m).text for m in said.messages]
            tried = {text: world.trial(text) for text in set(texts)}
            compared = {(a, b): judged(a, b, tried) for a, b in combinations(sorted(tried), 2)}
            found += [pair for pair in compared.values() if pair is not None]
            steps += 1
            for i, layer in enumerate(LAYERS):
                agreed[layer] += unanimous(texts, [p for p, v in compared.items() if v is not None and v.joined[i]])
            agreed["truth"] += unanimous(texts, [p for p, v in compared.items() if v is not None and v.same])
            left = len({code_key(t) for t in texts})
            if left > 1:
                candidates = "\n".join(dict.fromkeys(texts))
                tokens += count(DEFAULT.render("verifier", goal=goal, observation="", candidates=candidates, note=""))
            observation, _ = world.step(code)
            messages.append({"role": "assistant", "content": agent_answer(thought, code)})
            messages.append({"role": "user", "content": observation})
    told(f"sampled at {steps} steps, {given.samples} a step, temperature {given.temperature:g}", found)
    for layer in (*LAYERS, "truth"):
        print(f"  {layer:<12} unanimous at {agreed[layer] / steps:.1%} of the steps")
    dollars = tokens / 1e6 * VERIFIER_PRICE[0] + steps * 30 / 1e6 * VERIFIER_PRICE[1]
    print(f"  a verifier asked wherever keys differ reads {tokens:,} tokens: ${dollars:.5f} at $0.10/$0.40 a million")
    world.close()


def unanimous(texts: Sequence[str], joined: Sequence[tuple[str, str]]) -> bool:
    """Whether all texts become one when the joined pairs do."""
    group = {text: text for text in texts}
    for a, b in joined:
        old, new = group[b], group[a]
        group = {text: new if own == old else own for text, own in group.items()}
    return len(set(group.values())) == 1


if __name__ == "__main__":
    main()
