"""Run the memory benchmarks (LoCoMo, LongMemEval, HotpotQA): every policy answers every question.

One JSON line a question is the only state (see `run_folder`): a killed run resumes from there.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agentcascade.bench.memory.live import AnsweredQuestion, HistoryQuestion, LiveMemory
from agentcascade.bench.memory.question_rows import EvaluationPlan, QuestionRow, QuestionRunFolder
from agentcascade.bench.memory.scoring import MemoryScore, MemoryScorer
from agentcascade.envs.memory_qa.types import Conversation
from agentcascade.memory.question import dated_line
from agentcascade.routers.tier.baselines import FixedTiers, RandomTiers

if TYPE_CHECKING:
    from agentcascade.memory.memory import Memory
    from agentcascade.memory.types import TierRouter


def run_questions(
    plan: EvaluationPlan,
    memory: Memory,
    conversations: Sequence[Conversation],
    scorer: MemoryScorer,
    rows: QuestionRunFolder,
    on_row: Callable[[QuestionRow, bool], None],
    *,
    concurrency: int = 4,
) -> list[QuestionRow]:
    """Play the questions that are not played yet; returns all rows."""
    done = {row.key: row for row in rows}
    for row in done.values():
        on_row(row, True)
    live, room = LiveMemory(memory, conversations, scorer), asyncio.Semaphore(concurrency)

    def finished(row: QuestionRow) -> None:
        rows.append(row)
        done[row.key] = row
        on_row(row, False)

    async def one(name: str, tradeoff: float, item: HistoryQuestion, router: TierRouter | None) -> None:
        async with room:
            if router is None:
                finished(await _play_without_pipeline(live, name, item))
            else:
                finished(_pipeline_row(name, tradeoff, item, await live.ask(item, router, tradeoff)))

    async def play() -> None:
        waiting = [
            (name, tradeoff, item)
            for name, tradeoff in plan.runs()
            for item in live.questions
            if (name, tradeoff, item.question.id) not in done
        ]
        by_run: dict[tuple[str, float], list[HistoryQuestion]] = defaultdict(list)
        for name, tradeoff, item in waiting:
            by_run[name, tradeoff].append(item)
        routers = {name: router_for_policy(name, plan) for name, _ in by_run}
        async for block in live.prepared({item.history for _, _, item in waiting}):
            for (name, tradeoff), waiting_items in by_run.items():
                in_block = [item for item in waiting_items if item.history in block]
                await asyncio.gather(*(one(name, tradeoff, item, routers[name]) for item in in_block))

    asyncio.run(play())
    return list(done.values())


def router_for_policy(name: str, plan: EvaluationPlan) -> TierRouter | None:
    """Tier router of a policy; None for the baselines that run no pipeline."""
    if name in plan.routers:
        return plan.routers[name]
    if name == "random":
        return RandomTiers()
    if name.startswith("all-"):
        return FixedTiers(name.removeprefix("all-"))  # type: ignore[arg-type]
    return None


async def _play_without_pipeline(live: LiveMemory, name: str, item: HistoryQuestion) -> QuestionRow:
    """Play a baseline without a pipeline: plain retrieval, or the full context."""
    work = await asyncio.to_thread(live.memory.question_context, item.question.text, item.history)
    full_context = name == "full-context"
    lines = (
        list(range(len(work.history.lines)))
        if full_context
        else [i for c in work.retrieved for i in work.lines_of([c])]
    )
    budget, fitting, total = live.memory.config.token_budget, [], 0
    for i in lines:
        tokens = live.memory.count(dated_line(work.history.lines[i]) + "\n")
        if total + tokens > budget and not full_context:
            break
        total += tokens
        fitting.append(i)
    text = "\n".join(dated_line(work.history.lines[i]) for i in sorted(fitting))
    sources = tuple(dict.fromkeys(work.history.lines[i].turn for i in fitting))
    scored = await live.scorer(item.question, text, sources)
    return _scored_row(name, 0.0, item, scored, tokens=total, milliseconds=0.0, memory_dollars=Decimal(0))


def _pipeline_row(name: str, tradeoff: float, item: HistoryQuestion, result: AnsweredQuestion) -> QuestionRow:
    recall = result.recall
    return _scored_row(
        name,
        tradeoff,
        item,
        result.scored,
        tokens=recall.tokens,
        milliseconds=result.milliseconds,
        memory_dollars=recall.dollars,
        left_out=len(recall.left_out),
    )


def _scored_row(name: str, tradeoff: float, item: HistoryQuestion, scored: MemoryScore, **cost: Any) -> QuestionRow:
    question = item.question
    return QuestionRow(
        policy=name,
        tradeoff=tradeoff,
        history=item.history,
        question=question.id,
        category=question.category,
        score=scored.score,
        metrics=scored.metrics,
        answer=scored.answer,
        answer_dollars=scored.dollars,
        **cost,
    )
