"""An assistant that has talked with its user for months, and is given of all that only what a question needs.

    python examples/05_memory_of_months.py
    python examples/05_memory_of_months.py anthropic/claude-sonnet-4-5      # the same with a real model

Without an argument the model is a stand-in that answers with the line of its memory that fits best: no key is needed.
"""

import asyncio
import random
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import agentcascade
from agentcascade import Ledger, Price, Turn
from agentcascade.models.tokens import token_counter
from agentcascade.storage import open_database

PRICE = Price(input=3, output=15)  # dollars for a million tokens
FACTS = {  # what is worth knowing, by the day on which it was said
    12: "I started to learn the violin, my teacher is called Marta.",
    38: "The doctor says that I am allergic to penicillin.",
    61: "I sold the blue bicycle to my neighbour Tom for 120 euros.",
    97: "My sister Clara moved to Lisbon last week.",
    140: "We booked the cabin at the lake for the second week of August.",
}
QUESTIONS = [
    "Which medicine am I allergic to?",
    "Who bought my blue bicycle?",
    "Where does my sister live now?",
]
SMALL_TALK = [
    "The {} was late again, I waited for twenty minutes.",
    "I made {} for dinner, it was all right.",
    "It rained most of the day, so I stayed in with {}.",
    "Remind me to look at {} tomorrow, would you?",
    "I slept badly and drank too much {}.",
]
THINGS = ["the bus", "soup", "a novel", "the tax form", "coffee", "pasta", "the radio", "a crossword", "tea"]


def months(days: int = 180) -> list[Turn]:
    """What the user and the assistant said to each other, two or three lines a day."""
    rng = random.Random(1)
    turns = []
    for day in range(days):
        at = datetime(2025, 1, 6, 18, tzinfo=UTC) + timedelta(days=day)
        said = [rng.choice(SMALL_TALK).format(rng.choice(THINGS))] + ([FACTS[day]] if day in FACTS else [])
        for i, text in enumerate(said):
            turns.append(Turn(id=f"{day}:{i}", speaker="Ann", text=text, session=f"day {day}", at=at))
        turns.append(Turn(id=f"{day}:answer", speaker="Assistant", text="Noted.", session=f"day {day}", at=at))
    return turns


def stand_in(messages: list, _: int) -> str:
    """The line of the memory that shares most words with the question; a model would say it in its own words."""
    question, _, block = messages[-1]["content"].partition("# Memory")
    lines = [line.removeprefix("- ") for line in block.splitlines() if line.startswith("- ")]
    asked = set(question.lower().strip(" ?\n").split())
    return max(lines, key=lambda line: len(asked & set(line.lower().strip(".").split())), default="I do not know.")


async def main(model: object) -> None:
    url = f"sqlite:///{Path(tempfile.mkdtemp())}/agentcascade.db"  # your own would stay where it is
    turns, count = months(), token_counter()
    whole = sum(count(f"[{turn.at:%d %b %Y}] {turn.speaker}: {turn.text}\n") for turn in turns)
    print(f"{len(turns)} turns from {turns[0].at:%d %B} to {turns[-1].at:%d %B %Y}: {whole:,} tokens")

    # On its own: what the history holds for a question, within a budget.
    async with agentcascade.build_memory(bank={"url": url}) as memory:
        await memory.append("ann", turns)  # <- once; later every step adds itself
        recall = await memory.recall(QUESTIONS[0], "ann", token_budget=60)
        print(f"\n{QUESTIONS[0]}\n{recall.text}\n({recall.tokens} tokens, ${recall.dollars})\n")

    # In an agent's step: the block comes behind the last user message, whatever the agent is.
    async with agentcascade.build(
        teacher=model,
        mode="collect",
        bank={"url": url},
        memory={"enabled": True, "history": "ann", "token_budget": 100},
    ) as cascade:
        for question in QUESTIONS:
            episode = cascade.episode(goal=question)
            completion = await episode.complete([{"role": "user", "content": question}])
            print(f"{question}\n  {completion.choices[0].message.content}")
            await episode.finish(success=True)

    database = open_database(url)
    (bill,) = Ledger(database).summary()
    database.close()
    print(f"\ncost: ${bill.dollars:.5f} with memory, ", end="")
    print(f"${len(QUESTIONS) * PRICE.input * whole / 1_000_000:.5f} for the input alone with the whole history")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else agentcascade.ScriptedModel(stand_in, price=PRICE)))
