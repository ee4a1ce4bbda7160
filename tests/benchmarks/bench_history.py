"""Bounded history: which share of the arguments of later actions still stands in the prompt, and what it costs.

    python tests/benchmarks/bench_history.py [--data ../shared/data] [--appworld FOLDER] [--episodes N]

Recorded runs are cut as `history` cuts them, at every step, and of the arguments that the run really used next, those
that stood anywhere in the whole conversation are looked for in the bounded prompt, as exact texts: with the carried
state of the low tier, and with the older steps left out alone (`carry: 0`). Runs: tau-bench airline (gpt-4o, 50 tasks,
4 trials; arguments of tool calls), ALFWorld (Llama-2-13B; objects and places of actions), AppWorld (`--appworld` names
a folder of generated worlds, made by `agentcascade env install appworld`; the solution written with each task is
played; keywords, constants and variables of its code). Recorded runs are short: for costs of long ones tau-bench's are
joined, five to one, which nobody played so. Costs are those of prompts alone, without tools, one sample a
step, at listed prices, with the simulated prompt cache of models/prompt_cache. Intervals: bootstrap of whole episodes.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentcascade.config.history import HistoryConfig
from agentcascade.memory.carried import carried_lines
from agentcascade.models.pricing import Price, PriceTable
from agentcascade.models.prompt_cache import NO_CACHE, CacheTerms, cache_terms, prompt_parts, shared_messages
from agentcascade.models.scripted import ScriptedModel
from agentcascade.models.tokens import token_counter
from agentcascade.prompts import bounded as windows

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
KEEPS, CARRIES = (2, 4, 8, 16), (0, 200, 400, 800)
EVERY = HistoryConfig().every
MODELS = ("openai/gpt-4.1-mini", "anthropic/claude-haiku-4-5", "anthropic/claude-sonnet-4-5")
UNCACHED = "without a prompt cache"
ROUNDS = 2_000
COUNT = token_counter()


@dataclass(frozen=True)
class Run:
    """A recorded run: its messages, and the arguments of each of its answers by the answer's index."""

    messages: list[dict[str, Any]]
    wanted: dict[int, list[str]]
    won: bool
    blocks: dict[tuple[Any, ...], str] = field(default_factory=dict)


def tau(folder: Path) -> Iterator[Run]:
    for run in json.loads((folder / "tau_bench" / "gpt-4o-airline.json").read_text(encoding="utf-8")):
        wanted: dict[int, list[str]] = {}
        for index, message in enumerate(run["traj"]):
            for call in message.get("tool_calls") or ():
                wanted.setdefault(index, []).extend(leaves(json.loads(call["function"]["arguments"])))
        yield Run(run["traj"], wanted, run["reward"] == 1.0)


def joined(folder: Path) -> Iterator[Run]:
    """Five runs of tau-bench as one, one task after the other."""
    runs = list(tau(folder))
    for first in range(0, len(runs) - 4, 5):
        messages: list[dict[str, Any]] = []
        wanted: dict[int, list[str]] = {}
        for run in runs[first : first + 5]:
            start = len(messages) - (1 if messages else 0)
            wanted |= {index + start: arguments for index, arguments in run.wanted.items()}
            messages += run.messages[1 if messages else 0 :]
        yield Run(messages, wanted, False)


def leaves(value: object) -> Iterator[str]:
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    elif not isinstance(value, bool) and value not in (None, ""):
        yield str(value)


def alfworld(folder: Path) -> Iterator[Run]:
    """Each line "> …" is an answer, thoughts among them."""
    path = folder / "alfworld_llm_logs" / "KnowAgentALFWorld_llama-2-13b_D1.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        messages: list[dict[str, Any]] = []
        observed: list[str] = []
        wanted: dict[int, list[str]] = {}
        for text in run["traj"].split("\n"):
            if not text.startswith("> "):
                observed.append(text)
                continue
            messages.append({"role": "user", "content": "\n".join(observed).strip() or "OK."})
            observed = []
            wanted[len(messages)] = re.findall(r"[a-z]+ \d+", text)
            messages.append({"role": "assistant", "content": text})
        yield Run(messages, wanted, bool(run["result"]))


def appworld(root: Path) -> Iterator[Run]:
    from agentcascade.envs.appworld import installation
    from agentcascade.envs.appworld.environment import AppWorldEnvironment
    from agentcascade.envs.appworld.server import AppWorldServer

    world = AppWorldEnvironment(server=AppWorldServer(root), expert=True)
    try:
        for task in [task for split in installation.SCENARIOS for task in installation.task_ids(root, split)]:
            messages = [{"role": "user", "content": world.reset(task)}]
            wanted: dict[int, list[str]] = {}
            for thought, code in world.expert_steps():
                wanted[len(messages)] = sorted(used(code))
                observation, done = world.step(code)
                answer = f"Thought: {thought}\nAction:\n```python\n{code}\n```"
                messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": observation}]
                if done:
                    break
            yield Run(messages, wanted, world.success)
    finally:
        world.close()


def used(code: str) -> set[str]:
    """Keywords and constants of calls, and variables that other code has set."""
    tree = ast.parse(code)
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    own = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    found = names - own - {"apis", "print", *dir(__builtins__)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        found |= {keyword.arg for keyword in call.keywords if keyword.arg}
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        found |= {str(a.value) for a in given if isinstance(a, ast.Constant) and a.value not in (None, "")}
    return found


def bounded(run: Run, index: int, keep: int, every: int, carry: int) -> list[dict[str, Any]] | None:
    """The prompt of an answer; None where all of it stays."""
    messages = run.messages[:index]
    window = windows.window_of(messages, keep, every)
    if window is None:
        return None
    key = (*window, carry)
    block = run.blocks.get(key)
    if block is None:
        room = carry - windows.frame_tokens(window.steps, COUNT) - 4
        shown = [*messages[: window.head], *messages[window.cut : window.settled]]
        shown += [] if window.asked is None else [messages[window.asked]]
        lines = carried_lines(messages[window.head : window.cut], shown, budget=room, count=COUNT) if room > 0 else []
        goal = windows.goal_of(messages)
        block = windows.carried_block(lines, window.steps, key=goal, budget=carry, count=COUNT)[0] if lines else ""
        if COUNT(block) >= sum(COUNT(windows.said(m)) for m in messages[window.head : window.cut]):
            block = "whole"
        run.blocks[key] = block
    return None if block == "whole" else windows.bounded(messages, window, block, {}).messages


def text_of(messages: Sequence[dict[str, Any]]) -> str:
    return "\n".join(windows.said(message) for message in messages)


def share(rows: Sequence[tuple[float, float]]) -> str:
    """Ratio of two sums over episodes, with a bootstrap interval of 95 %."""
    data, rng = np.array([row for row in rows if row[1]], float), np.random.default_rng(0)
    if not len(data):
        return "–"
    draws = data[rng.integers(0, len(data), (ROUNDS, len(data)))].sum(axis=1)
    low, high = np.quantile(draws[:, 0] / draws[:, 1], (0.025, 0.975))
    return f"{data[:, 0].sum() / data[:, 1].sum():.3f} [{low:.3f}, {high:.3f}]"


def print_arguments(runs: Sequence[Run]) -> None:
    print("  keep | arguments at bounded steps | share present: " + " | ".join(f"carry {c}" for c in CARRIES))
    for keep in KEEPS:
        rows: dict[int, list[tuple[float, float]]] = {carry: [] for carry in CARRIES}
        for run in runs:
            sums = dict.fromkeys(CARRIES, (0, 0))
            for index, arguments in run.wanted.items():
                if windows.window_of(run.messages[:index], keep, min(keep, EVERY)) is None:
                    continue
                whole = text_of(run.messages[:index])
                known = [argument for argument in arguments if argument in whole]
                for carry in CARRIES:
                    prompt = bounded(run, index, keep, min(keep, EVERY), carry)
                    text = whole if prompt is None else text_of(prompt)
                    found, of = sums[carry]
                    sums[carry] = found + sum(argument in text for argument in known), of + len(known)
            for carry in CARRIES:
                rows[carry].append(sums[carry])
        total, episodes = sum(of for _, of in rows[0]), sum(of > 0 for _, of in rows[0])
        print(f"  {keep:4} | {total} in {episodes} of {len(runs)} episodes | {' | '.join(map(share, rows.values()))}")


class Costs:
    """Prompts of runs at one model's prices, with its prompt cache."""

    def __init__(self, name: str) -> None:
        price = PriceTable().lookup(name)
        price = price or Price(input=1, output=1)
        self.model = ScriptedModel(["x"], name=name, price=price)
        self.terms: CacheTerms = cache_terms(self.model) if name != UNCACHED else NO_CACHE

    def of(self, prompts: Sequence[Sequence[dict[str, Any]]]) -> float:
        before = prompt_parts([m for m in prompts[0][:1] if m["role"] == "system"], COUNT) if prompts else None
        spent = 0.0
        for prompt in prompts:
            parts = prompt_parts(prompt, COUNT)
            shared = parts.ends[shared_messages(parts.prints, before.prints)] if before is not None else 0
            spent += float(self.model.dollars(self.terms.usage(parts.ends[-1], shared)) or 0)
            before = parts
        return spent


def print_costs(runs: Sequence[Run]) -> None:
    ways = {
        "whole": None,
        **{f"every {e}": (8, e, 400) for e in (1, 2, 4, 8, 16)},
        "keep 4, every 4": (4, 4, 400),
        "keep 16, every 16": (16, 16, 400),
    }
    tokens: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    dollars: dict[tuple[str, str], list[tuple[float, float]]] = {}
    costs = {name: Costs(name) for name in (*MODELS, UNCACHED)}
    for run in runs:
        whole: dict[str, float] = {}
        for way, settings in ways.items():
            prompts = []
            for index in (i for i, m in enumerate(run.messages) if m["role"] == "assistant" and i):
                prompt = None if settings is None else bounded(run, index, *settings)
                prompts.append(run.messages[:index] if prompt is None else prompt)
            size = sum(prompt_parts(prompt, COUNT).ends[-1] for prompt in prompts)
            tokens[way].append((size, len(prompts)))
            for name, cost in costs.items():
                spent = cost.of(prompts)
                whole.setdefault(name, spent)
                dollars.setdefault((way, name), []).append((spent, whole[name]))
    print(f"  keep 8, carry 400; tokens of prompt a step | dollars of whole histories: {' | '.join(costs)}")
    for way in ways:
        mean = sum(a for a, _ in tokens[way]) / sum(b for _, b in tokens[way])
        print(f"  {way:18} {mean:7.0f} | {' | '.join(share(dollars[way, name]) for name in costs)}")
    for name in MODELS:
        price = PriceTable().lookup(name)
        asked = 4 * 400 * float(price.input) / 1e6 + 200 * float(price.output) / 1e6 if price else 0.0
        spent = sum(a for a, _ in dollars["whole", name]) / sum(b for _, b in tokens["whole"])
        print(f"  tier mid by {name}: ${asked / EVERY:.6f} a bounded step beside ${spent:.6f} for a whole prompt")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--appworld", type=Path)
    parser.add_argument("--episodes", type=int)
    options = parser.parse_args()
    sets: dict[str, tuple[Callable[[Path], Iterator[Run]], Path]] = {
        "tau-bench airline, gpt-4o": (tau, options.data),
        "tau-bench, five runs joined (made here)": (joined, options.data),
        "ALFWorld, Llama-2-13B": (alfworld, options.data),
    }
    if options.appworld is not None:
        sets["AppWorld, generated worlds, their solutions"] = (appworld, options.appworld)
    for name, (load, folder) in sets.items():
        try:
            runs = list(load(folder))[: options.episodes]
        except FileNotFoundError as error:
            print(f"\n{name}: left out, there is no {error.filename}")
            continue
        for which, chosen in (("won", [run for run in runs if run.won]), ("all", runs)):
            if not chosen:
                continue
            lengths = [sum(m["role"] == "assistant" for m in run.messages) for run in chosen]
            print(f"\n{name}, {which}: {len(chosen)} episodes of {np.median(lengths):.0f} steps (median)")
            print_arguments(chosen)
            if which == "all":
                print_costs(chosen)


if __name__ == "__main__":
    main()
