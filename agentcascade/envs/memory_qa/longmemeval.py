"""LongMemEval: questions on what a user told an assistant over many sessions (Wu et al. 2025); oracle, s and m files.

One conversation a question, as each has its own haystack of sessions. The evidence is the turns that are marked
`has_answer`; where a question has no marked turn, all turns of its answer sessions, since one of them holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentcascade.envs.memory_qa.files import field, iterate_list
from agentcascade.envs.memory_qa.types import Conversation, Question
from agentcascade.errors import InvalidRequest
from agentcascade.memory.dates import parse_timestamp
from agentcascade.types import Turn

WHAT = "LongMemEval is published as longmemeval_oracle.json, longmemeval_s.json and longmemeval_m.json"


def load_conversations(path: str | Path) -> list[Conversation]:
    """Load all of a file; for the m file, of gigabytes, take `iterate_conversations`."""
    return list(iterate_conversations(path))


def iterate_conversations(path: str | Path) -> Iterator[Conversation]:
    """Iterate over the conversations, one in memory at a time. Raises `InvalidRequest` naming the field."""
    for number, entry in enumerate(iterate_list(path, WHAT)):
        yield _conversation(entry, f"{path} entry {number}")


def _conversation(entry: Any, where: str) -> Conversation:
    name, problems = str(field(entry, "question_id", where)), list[str]()
    ids, sessions = field(entry, "haystack_session_ids", where), field(entry, "haystack_sessions", where)
    dates = entry.get("haystack_dates") or [""] * len(ids)
    if not len(ids) == len(sessions) == len(dates):
        raise InvalidRequest(f"{where} ({name}): haystack ids, sessions and dates differ in number")
    turns, marked, by_session, seen = list[Turn](), list[str](), dict[str, list[str]](), dict[str, int]()
    for session, session_turns, date in zip(map(str, ids), sessions, dates):
        seen[session] = seen.get(session, 0) + 1
        session_name = session if seen[session] == 1 else f"{session}#{seen[session]}"
        at = _parse_date(str(date), f"{name} {session_name}", problems)
        for place, turn in enumerate(session_turns):
            spot = f"{where} ({name}), session {session_name}, turn {place}"
            turn_made = Turn(
                id=f"{session_name}:{place}",
                text=str(field(turn, "content", spot)),
                speaker=str(field(turn, "role", spot)),
                session=session_name,
                at=at,
            )
            turns.append(turn_made)
            by_session.setdefault(session, []).append(turn_made.id)
            if turn.get("has_answer"):
                marked.append(turn_made.id)
    answerable = not name.endswith("_abs")
    if answerable and not marked:
        marked = [i for session in entry.get("answer_session_ids") or () for i in by_session.get(str(session), ())]
        problems.append(f"{name}: no turn is marked, so all of the answer sessions are evidence")
    asked_at = _parse_date(str(entry.get("question_date", "")), f"{name} question", problems)
    question = Question(
        id=name,
        text=str(field(entry, "question", where)),
        answers=(str(field(entry, "answer", where)),),
        category=str(entry.get("question_type", "")),
        evidence=tuple(marked) if answerable else (),
        asked_at=asked_at,
        answerable=answerable,
    )
    return Conversation(id=name, turns=tuple(turns), questions=(question,), problems=tuple(problems))


def _parse_date(text: str, what: str, problems: list[str]) -> Any:
    """Parse a date such as ``2023/05/20 (Sat) 02:21``."""
    plain = " ".join(part for part in text.replace("(", " (").split() if not part.startswith("("))
    at = parse_timestamp(plain.replace("/", "-")) if plain else None
    if at is None:
        problems.append(f"{what}: the time {text!r} does not parse: left open")
    return at
