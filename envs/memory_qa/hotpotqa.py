"""HotpotQA, distractor setting: questions that need two of ten paragraphs (Yang et al. 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentcascade.envs.memory_qa.files import field, load_list
from agentcascade.envs.memory_qa.types import Conversation, Question
from agentcascade.errors import InvalidRequest
from agentcascade.memory.types import Turn

WHAT = "HotpotQA is published as hotpot_dev_distractor_v1.json and hotpot_train_v1.1.json"


def load(path: str | Path) -> list[Conversation]:
    """One conversation a question: a paragraph is a session, a sentence a turn ``title:index``.

    Raises `InvalidRequest` naming entry and field.
    """
    return [_conversation(entry, f"{path} entry {i}") for i, entry in enumerate(load_list(path, WHAT))]


def _conversation(entry: Any, where: str) -> Conversation:
    name, problems = str(field(entry, "_id", where)), list[str]()
    turns, sessions = list[Turn](), dict[str, str]()
    seen: dict[str, int] = {}
    for place, paragraph in enumerate(field(entry, "context", where)):
        if not isinstance(paragraph, (list, tuple)) or len(paragraph) != 2:
            raise InvalidRequest(f"{where} ({name}): paragraph {place} is not [title, sentences]")
        title, sentences = str(paragraph[0]), paragraph[1]
        seen[title] = seen.get(title, 0) + 1
        session = title if seen[title] == 1 else f"{title}#{seen[title]}"
        sessions.setdefault(title, session)
        for i, sentence in enumerate(sentences):
            turns.append(Turn(id=f"{session}:{i}", text=str(sentence), speaker=title, session=session))
    known, evidence = {turn.id for turn in turns}, dict[str, None]()
    for fact in entry.get("supporting_facts") or ():
        spot = f"{sessions.get(str(fact[0]), str(fact[0]))}:{fact[1]}"
        if spot in known:
            evidence[spot] = None
        else:
            problems.append(f"{name}: the supporting fact {fact!r} names no sentence: dropped")
    question = Question(
        id=name,
        text=str(field(entry, "question", where)),
        answers=(str(field(entry, "answer", where)),),
        category=str(entry.get("type", "")),
        evidence=tuple(evidence),
    )
    return Conversation(id=name, turns=tuple(turns), questions=(question,), problems=tuple(problems))
