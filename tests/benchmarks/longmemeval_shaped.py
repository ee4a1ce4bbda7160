"""Writes a file of LongMemEval's shape and size: each question has a haystack of sessions of its own.

usage: longmemeval_shaped.py FILE [questions [sessions]]     then: agentcascade bench longmemeval --data FILE
50 sessions are about 115,000 tokens, as in the published `s` file. That one is about something; this one shows that as
many histories as it has are all remembered. Hardly a turn is said twice, so each of them has to be embedded.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

TOPICS = (
    *("garden", "kitchen", "bicycle", "violin", "aquarium", "passport", "mortgage", "telescope", "recipe", "balcony"),
    *("camera", "marathon", "museum", "orchard", "pension", "railway", "sourdough", "terrace", "visa", "workshop"),
    *("accordion", "bonsai", "cathedral", "dentist", "engine", "ferry", "greenhouse", "harbour", "insurance", "jigsaw"),
)
THINGS = ("dog", "cat", "canary", "tortoise", "boat", "tractor", "piano", "cottage", "guitar")
NAMES = ("Rex", "Luna", "Milo", "Nala", "Otto", "Pippa", "Quincy", "Rosie", "Simba")
PEOPLE = ("Anna", "Ben", "Chiara", "Dmitri", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kofi", "Lena")
FILLERS = (
    "I have been busy with my {0} all week, and the {1} that {3} asked for {2} times is still waiting.",
    "Could you explain how a {0} of {2} years differs from a {1}? {3} and I never understood that.",
    "Last weekend {3} talked about the {0} for {2} minutes, and nobody agreed about the {1}.",
    "{3} sold a {0} for {2} euros and bought a {1} instead, which surprised everyone.",
    "If the {0} costs more than {2}, {3} would rather keep the {1} that we have.",
    "Here are {2} ideas: begin with the {0}, then ask {3} whether the {1} can wait until spring.",
)
SAID = {"user": (2, 5), "assistant": (12, 22)}
"""Sentences of a turn: assistants talk more"""


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
    for place in range(2 * rng.randint(4, 6)):
        role = "assistant" if place % 2 else "user"
        said = (
            rng.choice(FILLERS).format(*rng.sample(TOPICS, 2), rng.randint(2, 999), rng.choice(PEOPLE))
            for _ in range(rng.randint(*SAID[role]))
        )
        turns.append({"role": role, "content": " ".join(said)})
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
