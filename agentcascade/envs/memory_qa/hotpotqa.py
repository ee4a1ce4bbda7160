"""HotpotQA, distractor setting: questions that need two of ten paragraphs (Yang et al. 2018)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from agentcascade.envs.memory_qa.files import field, load_list
from agentcascade.envs.memory_qa.types import Conversation, Question
from agentcascade.errors import InvalidRequest
from agentcascade.types import Turn

WHAT = "HotpotQA is published as hotpot_dev_distractor_v1.json and hotpot_train_v1.1.json"


def load_conversations(path: str | Path) -> list[Conversation]:
    """Load one conversation a question: a paragraph is a session, a sentence a turn ``title:index``.

    Reads both layouts that are published: pairs (the authors' files), and columns, where paragraphs are ``{"title":
    […], "sentences": […]}`` and facts ``{"title": […], "sent_id": […]}`` (Hugging Face's), often without an id. Raises
    `InvalidRequest` naming entry and field.
    """
    return [_conversation(entry, f"{path} entry {i}") for i, entry in enumerate(load_list(path, WHAT))]


def _pairs(value: Any, first: str, second: str, where: str) -> list[Any]:
    """Pairs, published as such or as two columns."""
    if not isinstance(value, Mapping):
        if not isinstance(value, (list, tuple)):
            raise InvalidRequest(f"{where} is neither a list of pairs nor columns '{first}' and '{second}'")
        return list(value)
    columns = field(value, first, where), field(value, second, where)
    if not all(isinstance(c, list) for c in columns) or len(columns[0]) != len(columns[1]):
        raise InvalidRequest(f"{where}: '{first}' and '{second}' are not two lists of one length")
    return list(zip(*columns))


def _entry_id(entry: Any, where: str) -> str:
    """Id of an entry; a digest of its question and context where none is published."""
    content = json.dumps([field(entry, "question", where), field(entry, "context", where)])
    name = entry.get("_id") or entry.get("id")
    return str(name) if name else blake2b(content.encode(), digest_size=8).hexdigest()


def _conversation(entry: Any, where: str) -> Conversation:
    name, problems = _entry_id(entry, where), list[str]()
    turns, sessions = list[Turn](), dict[str, str]()
    seen: dict[str, int] = {}
    context = _pairs(field(entry, "context", where), "title", "sentences", f"{where} ({name}): context")
    for place, paragraph in enumerate(context):
        if not (isinstance(paragraph, (list, tuple)) and len(paragraph) == 2 and isinstance(paragraph[1], list)):
            raise InvalidRequest(f"{where} ({name}): paragraph {place} is not [title, sentences]")
        title, sentences = str(paragraph[0]), paragraph[1]
        seen[title] = seen.get(title, 0) + 1
        session = title if seen[title] == 1 else f"{title}#{seen[title]}"
        sessions.setdefault(title, session)
        for i, sentence in enumerate(sentences):
            turns.append(Turn(id=f"{session}:{i}", text=str(sentence), speaker=title, session=session))
    known, evidence = {turn.id for turn in turns}, dict[str, None]()
    facts = _pairs(entry.get("supporting_facts") or [], "title", "sent_id", f"{where} ({name}): supporting_facts")
    for fact in facts:
        if not isinstance(fact, (list, tuple)) or len(fact) != 2:
            raise InvalidRequest(f"{where} ({name}): the supporting fact {fact!r} is not [title, sentence]")
        spot = f"{sessions.get(str(fact[0]), str(fact[0]))}:{fact[1]}"
        if spot in known:
            evidence[spot] = None
        else:
            problems.append(f"{name}: the supporting fact {list(fact)!r} names no sentence: dropped")
    question = Question(
        id=name,
        text=str(field(entry, "question", where)),
        answers=(str(field(entry, "answer", where)),),
        category=str(entry.get("type", "")),
        evidence=tuple(evidence),
    )
    return Conversation(id=name, turns=tuple(turns), questions=(question,), problems=tuple(problems))
