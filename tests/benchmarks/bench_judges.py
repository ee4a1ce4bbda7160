"""Judges asked about several episodes in one call: tokens of a question, and what the verdicts are worth.

    INTERCODE_DATA=data/intercode_sql TAU_BENCH_DATA=data/tau_bench python tests/benchmarks/bench_judges.py tokens
    ALFWORLD_LOGS=data/alfworld_llm_logs python tests/benchmarks/bench_judges.py audits
    INTERCODE_DATA=data/intercode_sql python tests/benchmarks/bench_judges.py sample URL MODEL ROWS.jsonl
    python tests/benchmarks/bench_judges.py report [ROWS.jsonl.xz]

tokens: prompts of real recorded episodes (gpt-3.5 ReAct on InterCode-SQL, gpt-4o on tau-bench airline), alone and 2, 4
and 8 together, counted as cl100k_base; no model is asked. audits: the same of audits of random steps of Llama-2-13B on
ALFWorld behind our agent's system message. Both say what that costs where an output token costs as much as four of
input. sample: a model behind an OpenAI-compatible endpoint judges InterCode's episodes of gpt-3.5 with one query, half
of them failures, each alone and 8 together, in one order for both; rows are written as they come. report: what such
rows say, accuracy with exact intervals, agreement with the verdicts alone, tokens. In judges.jsonl.xz are rows of
Qwen2.5-Coder-0.5B-Instruct (Q4_K_M, llama.cpp on a CPU, temperature 0): eight episodes, asked when the shared prompt
still ended with a first line that could be copied ("1-711fb5: yes or no"), which is what the model did.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentcascade.assembly.components import make_model
from agentcascade.billing.door import Door, Tab
from agentcascade.config.sections import JudgeConfig, ModelConfig
from agentcascade.envs.alfworld.agent import SYSTEM
from agentcascade.episodes.judge import ModelJudge
from agentcascade.judging.check import measure
from agentcascade.messages import text_of
from agentcascade.models.scripted import ScriptedModel
from agentcascade.models.tokens import token_counter
from agentcascade.prompts.together import read_verdicts, share_situations
from agentcascade.prompts.yes_no import verdict
from agentcascade.types import Message, Step, Trajectory

ROWS = Path(__file__).parent / "judges.jsonl.xz"
SIZES = 1, 2, 4, 8
SAMPLED = 1, 8
BLOCK = max(SIZES)
LONGEST, OBSERVATION = 700, 160
"""Characters of a question that a small model on a CPU is asked, and of each observation in it."""
QUESTION = JudgeConfig().question


REACT, ONE_QUERY = "ic_sql_react_10_turns.json", "ic_sql_multiturn_gpt-3.5-1_turns_handicap.json"


def intercode(name: str = REACT, cut: int = 100_000) -> list[Trajectory]:
    """gpt-3.5 on InterCode-SQL: question, thoughts, queries, rows; success is the full reward."""
    file = Path(os.environ["INTERCODE_DATA"]) / name
    episodes = []
    for number, run in json.loads(file.read_text()).items():
        turns, observation, steps = run["turn_history"], "", []
        actions = turns["actions"] if name == REACT else [*turns["actions"], "submit"]
        for i, action in enumerate(actions):
            thought = turns["thoughts"][i] if name == REACT else ""
            steps.append(Step(observation=observation[:cut], reasoning=thought, action=action))
            observation = str(turns["observations"][i]) if i < len(turns["observations"]) else ""
        success = run["summary"]["max_reward"] == 1.0
        episodes.append(Trajectory(id=f"ic-{number}", goal=run["query"], steps=tuple(steps), success=success))
    return episodes


def tau_bench() -> list[Trajectory]:
    """gpt-4o on tau-bench airline: what the user and the tools said, and what the agent answered."""
    file = Path(os.environ["TAU_BENCH_DATA"]) / "gpt-4o-airline.json"
    episodes = []
    for run in json.loads(file.read_text()):
        goal, heard, steps = "", "", []
        for message in run["traj"]:
            content = message.get("content") or ""
            if message["role"] == "assistant":
                calls = [call["function"] for call in message.get("tool_calls") or ()]
                text = "; ".join(f"{call['name']}({call['arguments']})" for call in calls) or content
                steps.append(Step(observation=heard, action=text))
                heard = ""
            elif message["role"] != "system":
                goal, heard = goal or content, f"{heard}\n{content}".strip()
        name = f"tau-{run['task_id']}-{run['trial']}"
        episodes.append(Trajectory(id=name, goal=goal, steps=tuple(steps), success=run["reward"] == 1.0))
    return episodes


def tokens() -> None:
    """Prompt and completion tokens of a question, by how many share a call."""
    count = token_counter()
    judge = ModelJudge(ScriptedModel(["yes"]), QUESTION)
    for name, episodes in (("InterCode-SQL, gpt-3.5 ReAct", intercode()), ("tau-bench airline, gpt-4o", tau_bench())):
        random.Random(0).shuffle(episodes)
        episodes = episodes[: len(episodes) // BLOCK * BLOCK]
        print(f"{name}: {len(episodes):,} episodes, success {sum(e.success for e in episodes) / len(episodes):.3f}")
        costs = []
        for size in SIZES:
            asked = answered = 0
            for start in range(0, len(episodes), size):
                group = episodes[start : start + size]
                if size == 1:
                    messages, answer = judge.messages(group[0]), "yes"
                else:
                    shared = judge.share(group)
                    messages = [{"role": "user", "content": shared.text}]
                    answer = "\n".join(f"{code}: yes" for code in shared.codes)
                asked += count(text_of(messages[0]))
                answered += count(answer)
            costs.append((size, asked / len(episodes), answered / len(episodes)))
        show(costs)


OUTPUT_PRICE = 4.0
"""Of an output token, in input tokens."""


def show(costs: Sequence[tuple[int, float, float]]) -> None:
    """Tokens of a question by how many share a call, and what they cost beside a question alone."""
    _, asked_alone, answered_alone = costs[0]
    alone = asked_alone + OUTPUT_PRICE * answered_alone
    for size, asked, answered in costs:
        cost = (asked + OUTPUT_PRICE * answered) / alone - 1
        print(f"  {size} a call: prompt {asked:,.1f} tokens a question ({asked / asked_alone - 1:+.1%}), answer "
              f"{answered:.1f}, cost {cost:+.1%}")  # fmt: skip


def audits() -> None:
    """Prompt and completion tokens of an audit, by how many share a call."""
    count, random_steps = token_counter(), []
    for line in (Path(os.environ["ALFWORLD_LOGS"]) / "KnowAgentALFWorld_llama-2-13b_D1.jsonl").open():
        room, *turns = json.loads(line)["traj"].split("\n> ")
        conversation: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": room}]
        for turn in turns:
            action, _, seen = turn.partition("\n")
            if seen:
                random_steps.append((list(conversation), action))
                conversation += [{"role": "assistant", "content": action}, {"role": "user", "content": seen}]
    random.Random(0).shuffle(random_steps)
    steps = random_steps[:800]
    print(f"ALFWorld, Llama-2-13B: {len(steps):,} of {len(random_steps):,} steps; the system message has "
          f"{count(SYSTEM)} tokens")  # fmt: skip
    costs = []
    for size in SIZES:
        asked = answered = 0
        for start in range(0, len(steps), size):
            group = steps[start : start + size]
            if size == 1:
                asked += sum(count(text_of(message)) for message in group[0][0])
                answered += count(group[0][1])
                continue
            shared = share_situations([conversation[1:] for conversation, _ in group])
            asked += count(SYSTEM) + count(shared.text)
            parts = [f"<{code}>\n{action}\n</{code}>" for code, (_, action) in zip(shared.codes, group)]
            answered += count("\n".join(parts))
        costs.append((size, asked / len(steps), answered / len(steps)))
    show(costs)


def drawn() -> list[Trajectory]:
    """Short episodes, as many failures as successes, in a random order."""
    judge = ModelJudge(ScriptedModel(["yes"]), QUESTION)
    short = [e for e in intercode(ONE_QUERY, OBSERVATION) if len(text_of(judge.messages(e)[0])) <= LONGEST]
    random.Random(0).shuffle(short)
    won, lost = ([e for e in short if e.success is value] for value in (True, False))
    number = min(len(won), len(lost))
    both = [*won[:number], *lost[:number]]
    random.Random(1).shuffle(both)
    return both


def read_rows(rows: Path) -> list[dict[str, Any]]:
    """Blocks of episodes that were judged."""
    if not rows.exists():
        return []
    text = lzma.decompress(rows.read_bytes()).decode() if rows.suffix == ".xz" else rows.read_text()
    return [json.loads(line) for line in text.splitlines()]


async def sample(url: str, model: str, rows: Path) -> None:
    """Ask, block by block, so that a part of the rows is a figure."""
    config = ModelConfig(name=f"openai/{model}", api_base=url, api_key="none", timeout_seconds=1800, max_tokens=16)
    judge = ModelJudge(make_model(config, token_counter()), QUESTION)
    done = {block["block"] for block in read_rows(rows)}
    episodes = drawn()
    for block in range(len(episodes) // BLOCK):
        if block in done:
            continue
        asked: list[dict[str, Any]] = []
        for size in SAMPLED:
            for start in range(block * BLOCK, (block + 1) * BLOCK, size):
                group = episodes[start : start + size]
                shared = judge.share(group) if size > 1 else None
                messages = [{"role": "user", "content": shared.text}] if shared else judge.messages(group[0])
                options = {"temperature": 0.0, "max_tokens": 16 * (size + 1)}
                answer = await Door().call(
                    judge.model, messages, options, role="teacher", purpose="judge", bill=Tab(), seconds=1800
                )
                text = text_of(answer.messages[0])
                asked.append({
                    "size": size,
                    "episodes": [e.id for e in group],
                    "right": [e.success for e in group],
                    "text": text,
                    "codes": shared.codes if shared else (),
                    "prompt_tokens": answer.usage.prompt,
                    "output_tokens": answer.usage.completion,
                    "seconds": round(answer.seconds, 1),
                })  # fmt: skip
        with rows.open("a") as file:
            file.write(json.dumps({"block": block, "model": model, "calls": asked}) + "\n")
        print(block, flush=True)


def report(file: Path) -> None:
    """What the rows say of each number of episodes that shared a call."""
    calls = [call for block in read_rows(file) for call in block["calls"]]
    truth = {name: right for call in calls for name, right in zip(call["episodes"], call["right"])}
    said: dict[int, dict[str, bool | None]] = {size: {} for size in SAMPLED}
    for call in calls:
        verdicts = read_verdicts(call["text"], call["codes"]) if call["codes"] else [verdict(call["text"])]
        said[call["size"]].update(zip(call["episodes"], verdicts))
    for size, verdicts_of in said.items():
        names = list(verdicts_of)
        measured = measure([verdicts_of[n] for n in names], [truth[n] for n in names])
        of_size = [call for call in calls if call["size"] == size]
        tokens = [sum(call[kind] for call in of_size) / len(names) for kind in ("prompt_tokens", "output_tokens")]
        unreadable = sum(value is None for value in verdicts_of.values())
        print(f"{size} a call: {len(names)} episodes, unreadable {unreadable}, said yes to "
              f"{sum(value is True for value in verdicts_of.values())}")  # fmt: skip
        print(f"  accuracy {measured.accuracy}; sensitivity {measured.sensitivity}; specificity {measured.specificity}")
        print(f"  tokens a question: prompt {tokens[0]:.1f}, answer {tokens[1]:.1f}")
        if size > 1:
            alone = said[1]
            print(
                f"  agrees with alone: {measure([verdicts_of[n] for n in names], [alone[n] for n in names]).accuracy}"
            )
            final = [alone[n] if verdicts_of[n] is None else verdicts_of[n] for n in names]
            whole = measure(final, [truth[n] for n in names])
            print(f"  with the unreadable asked again alone: accuracy {whole.accuracy}")


def main(arguments: Sequence[str]) -> None:
    match list(arguments):
        case ["tokens"]:
            tokens()
        case ["sample", url, model, rows]:
            asyncio.run(sample(url, model, Path(rows)))
        case ["audits"]:
            audits()
        case ["report", *rows]:
            report(Path(rows[0]) if rows else ROWS)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
