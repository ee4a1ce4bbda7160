"""Collect, shadow, tune, act: which rule is safe enough is read off the log, not guessed, and then watched.

    python examples/06_tune_with_a_guarantee.py

The teacher is a rule and the student is offline/imitator, a program that copies by analogy from its prompt: they show
how the parts work together, not how good real models are.
"""

import asyncio
import tempfile
from pathlib import Path

from warehouse import SYSTEM, Warehouse, expert

import agentcascade
from agentcascade import Price
from agentcascade.routers.tuning import Risk, Settings, certificate, fragment, tune
from agentcascade.steplog.database import export
from agentcascade.storage import open_database

TEACHER = agentcascade.ScriptedModel(expert, name="scripted-expert", price=Price(input=3, output=15))
STUDENT = {"name": "offline/imitator", "price": {"input": "0.40", "output": "1.60"}}
MAX_RISK = 0.1


async def play(cascade: agentcascade.Cascade, mode: str, seeds: range) -> None:
    solved = taught = steps = 0
    for seed in seeds:
        world = Warehouse(seed)
        episode = cascade.episode(goal=world.goal, mode=mode, id=f"{mode}-{seed}")
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": world.start()}]
        while not world.done:
            answer = await episode.complete(messages)
            steps, taught = steps + 1, taught + (answer.agentcascade.answered_by == "teacher")
            text = answer.choices[0].message.content
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": world.act(text)}]
        await episode.finish(success=world.success)
        solved += world.success
    print(f"{mode}: {solved} of {len(seeds)} solved, the teacher took {taught / steps:.0%} of {steps} steps")


async def main() -> None:
    url = f"sqlite:///{Path(tempfile.mkdtemp())}/agentcascade.db"
    common = {"teacher": TEACHER, "student": STUDENT, "bank": {"url": url}, "actions": {"format": "react"}}
    shadow = {"samples": 5, "max_pending": 500}
    async with agentcascade.build(**common, shadow=shadow) as cascade:
        await play(cascade, "collect", range(20))
        await play(cascade, "shadow", range(100, 240))

    database = open_database(url)  # what `agentcascade tune` reads; it also writes a report
    tuned = tune(list(export(database)), Settings(MAX_RISK, risk=Risk("teacher-disagreement")))
    database.close()
    print(certificate(tuned)["statement"])
    if tuned.chosen is None:
        return

    rule = fragment(tuned.chosen.rule, tuned.chosen.replayed.arm, tuned.sampling)
    print(f"chosen: {tuned.chosen.rule.name}")
    audit = {"rate": 0.2, "risk": MAX_RISK}  # of the steps, a fifth is checked by the teacher, behind the answer
    async with agentcascade.build(**common, **rule, audit=audit) as cascade:
        await play(cascade, "cascade", range(200, 220))
        await cascade.settle()
        assert cascade.context.guard is not None
        watch = cascade.context.guard.watch
        print(f"audits: {watch.audits}, of which {watch.losses:g} differ; alarm: {watch.alarmed}")


if __name__ == "__main__":
    asyncio.run(main())
