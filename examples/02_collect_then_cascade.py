"""Collect a few demonstrations from the teacher, then let the student act where it agrees with itself.

    python examples/02_collect_then_cascade.py
    python examples/02_collect_then_cascade.py anthropic/claude-sonnet-4-5 openai/gpt-4.1-mini

Without names the teacher is a rule and the student is offline/imitator, a program that copies by analogy from its
prompt: they show how the parts work together, not how good real models are.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from warehouse import SYSTEM, Warehouse, expert

import agentcascade
from agentcascade import Ledger, Price
from agentcascade.storage import open_database

RULE = agentcascade.ScriptedModel(expert, name="scripted-expert", price=Price(input=3, output=15))
IMITATOR = {"name": "offline/imitator", "price": {"input": "0.40", "output": "1.60"}}


async def run(cascade: agentcascade.Cascade, mode: str, seeds: range) -> None:
    """Play one episode per seed, four at a time."""

    async def play(seed: int) -> bool:
        world = Warehouse(seed)
        episode = cascade.episode(goal=world.goal, mode=mode, id=f"{mode}-{seed}")
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": world.start()}]
        while not world.done:
            async with at_once:
                answer = (await episode.complete(messages)).choices[0].message.content
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": world.act(answer)}]
        await episode.finish(success=world.success)
        return world.success

    at_once = asyncio.Semaphore(4)
    won = await asyncio.gather(*map(play, seeds))
    print(f"{mode}: {sum(won)} of {len(won)} solved")


async def main(teacher: object, student: object) -> None:
    url = f"sqlite:///{Path(tempfile.mkdtemp())}/agentcascade.db"
    async with agentcascade.build(
        teacher=teacher, student=student, bank={"url": url}, actions={"format": "react"}
    ) as cascade:
        await run(cascade, "collect", range(20))
        await run(cascade, "cascade", range(100, 120))
    database = open_database(url)
    for line in Ledger(database).summary("mode"):
        print(
            f"{line.group}: {line.steps} steps, the teacher took {line.deferral_share:.0%}, cost ${line.dollars:.4f}, "
            f"with the teacher alone ${line.teacher_dollars:.4f}"
        )
    database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]) if len(sys.argv) == 3 else main(RULE, IMITATOR))
