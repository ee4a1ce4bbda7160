"""LoCoMo: ten very long conversations of two friends, with questions (Maharana et al. 2024)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentcascade.envs.memory_qa.types import Conversation, Question
from agentcascade.errors import InvalidRequest
from agentcascade.memory.dates import parse_timestamp
from agentcascade.types import Turn

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
EVIDENCE = re.compile(r"D:?(\d+):(\d+)")


def load_conversations(path: str | Path) -> list[Conversation]:
    """Load the conversations of ``locomo10.json``; raises `InvalidRequest` naming entry and field."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidRequest(f"there is no file {path}: LoCoMo is published as locomo10.json") from None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} is not JSON: {error}") from error
    if not isinstance(data, list):
        raise InvalidRequest(f"{path} must hold a list of conversations, not {type(data).__name__}")
    return [_conversation(entry, f"{path} entry {i}") for i, entry in enumerate(data)]


def _conversation(entry: Any, where: str) -> Conversation:
    try:
        spoken, entries = entry["conversation"], entry["qa"]
        name = str(entry.get("sample_id") or where)
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"{where} lacks {error}: LoCoMo's entries have 'conversation' and 'qa'") from None
    if not isinstance(spoken, Mapping) or not isinstance(entries, list):
        raise InvalidRequest(f"{where}: 'conversation' must be an object and 'qa' a list")
    problems: list[str] = []
    turns = tuple(_turns(spoken, where, problems))
    known = {turn.id for turn in turns}
    questions = tuple(_question(q, f"{name}:{i}", known, where, problems) for i, q in enumerate(entries))
    return Conversation(id=name, turns=turns, questions=questions, problems=tuple(problems))


def _turns(spoken: Mapping[str, Any], where: str, problems: list[str]) -> list[Turn]:
    sessions = sorted(int(m[1]) for key in spoken if (m := re.fullmatch(r"session_(\d+)", key)))
    turns = []
    for number in sessions:
        name = f"session_{number}"
        stamp = str(spoken.get(f"{name}_date_time", ""))
        at = parse_timestamp(stamp)
        if at is None:
            problems.append(f"{name}: the time {stamp!r} does not parse: left open")
        for turn in spoken[name]:
            try:
                text = str(turn["text"])
                if turn.get("blip_caption"):
                    text += f" [shares {turn['blip_caption']}]"
                turns.append(Turn(id=turn["dia_id"], text=text, speaker=turn["speaker"], session=name, at=at))
            except (KeyError, TypeError) as error:
                raise InvalidRequest(f"{where} {name}: a turn lacks {error}") from None
    return turns


def _question(entry: Mapping[str, Any], name: str, known: set[str], where: str, problems: list[str]) -> Question:
    try:
        category = CATEGORIES[int(entry["category"])]
        answer = entry.get("answer", entry.get("adversarial_answer", ""))
        written: Sequence[Any] = entry.get("evidence") or ()
        text = str(entry["question"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{where} question {name}: {error} is missing or wrong") from None
    evidence: dict[str, None] = {}
    for mark in written:
        ids = [f"D{int(a)}:{int(b)}" for a, b in EVIDENCE.findall(str(mark))]
        if ids != [mark]:
            problems.append(f"{name}: evidence {mark!r} read as {', '.join(ids) or 'nothing'}")
        for one in ids:
            if one in known:
                evidence[one] = None
            else:
                problems.append(f"{name}: evidence {one} names no turn: dropped")
    return Question(
        id=name,
        text=text,
        answers=(str(answer),),
        category=category,
        evidence=tuple(evidence),
        answerable=category != "adversarial",
    )
