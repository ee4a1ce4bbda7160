"""Writes a file of LongMemEval's shape and size: each question has a haystack of sessions of its own.

usage: longmemeval_shaped.py FILE [questions [sessions]]     then: agentcascade bench longmemeval --data FILE
The published file is larger and about something; this one shows that as many histories as it has are all remembered.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

TOPICS = ("garden", "kitchen", "bicycle", "violin", "aquarium", "passport", "mortgage", "telescope", "recipe")
THINGS = ("dog", "cat", "canary", "tortoise", "boat", "tractor", "piano", "cottage", "guitar")
NAMES = ("Rex", "Luna", "Milo", "Nala", "Otto", "Pippa", "Quincy", "Rosie", "Simba")
FILLERS = (
    "I have been busy with my {0} all week, and the {1} is still waiting.",
    "Could you explain how a {0} differs from a {1}? I never understood that.",
    "Last weekend we talked about the {0}, and nobody agreed about the {1}.",
    "My neighbour sold a {0} and bought a {1} instead, which surprised everyone.",
)


def entries(questions: int, sessions: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """One question after the other, each with its sessions; the same for the same seed."""
    rng = random.Random(seed)
    for number in range(questions):
        thing, name, at = rng.choice(THINGS), f"{rng.choice(NAMES)}-{number}", rng.randrange(sessions)
        said = [_session(rng) for _ in range(sessions)]
        said[at].insert(2, {"role": "user", "content": f"By the way, my {thing} is called {name}.", "has_answer": True})
        days = [datetime(2023, 1, 1, 9, 30) + timedelta(days=d) for d in range(sessions)]
        yield {
            "question_id": f"q{number}",
            "question_type": "single-session-user",
            "question": f"What is my {thing} called?",
            "answer": name,
            "question_date": f"{days[-1] + timedelta(days=1):%Y/%m/%d (%a) %H:%M}",
            "haystack_session_ids": [f"s{i}" for i in range(sessions)],
            "haystack_dates": [f"{day:%Y/%m/%d (%a) %H:%M}" for day in days],
            "answer_session_ids": [f"s{at}"],
            "haystack_sessions": said,
        }


def _session(rng: random.Random) -> list[dict[str, Any]]:
    turns = []
    for place in range(2 * rng.randint(3, 6)):
        text = " ".join(rng.choice(FILLERS).format(*rng.sample(TOPICS, 2)) for _ in range(3))
        turns.append({"role": "assistant" if place % 2 else "user", "content": text})
    return turns


def write(path: Path, questions: int, sessions: int) -> None:
    """Entry by entry: the whole does not have to fit into memory."""
    with path.open("w", encoding="utf-8") as file:
        for number, entry in enumerate(entries(questions, sessions)):
            file.write(("[\n" if number == 0 else ",\n") + json.dumps(entry))
        file.write("\n]\n")


if __name__ == "__main__":
    asked = [*map(int, sys.argv[2:]), 500, 50]
    write(Path(sys.argv[1]), asked[0], asked[1] if len(sys.argv) > 3 else 50)
