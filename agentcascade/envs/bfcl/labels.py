"""What is right at a step of the log: an action key that has the official verdict "right", for `agentcascade tune`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from agentcascade.actions.base import ToolCallActions
from agentcascade.envs.bfcl import calls, keys, models, tasks
from agentcascade.envs.bfcl.calls import Call
from agentcascade.envs.bfcl.check import check
from agentcascade.envs.bfcl.environment import verdict
from agentcascade.envs.recorded.models import split
from agentcascade.errors import InvalidAction

NO_CALL = "answer:no call"


def right(task: str, votes: Iterable[str | None], teacher: str | None, names: Iterable[str]) -> list[str]:
    """Keys of the answers that are right, the most frequent one first: of the votes at this task and of the teacher's.

    Several can be right (an optional argument left out). Where none is, one is made of the possible answers.

    Args:
        task: id of a task.
        votes: keys of all samples; None for one that votes for nothing.
        teacher: its key.
        names: of the models that answered, whose recorded verdicts go before the check.
    """
    known = _verdicts(task, names)
    counted = Counter(vote for vote in votes if vote is not None)
    candidates = dict.fromkeys([*(key for key, _ in counted.most_common()), *([] if teacher is None else [teacher])])
    return [key for key in candidates if _is_right(key, task, known)] or [_possible(task)]


def _verdicts(task: str, names: Iterable[str]) -> dict[str, bool]:
    """Recorded verdicts by vote key."""
    found: dict[str, bool] = {}
    tools = tasks.task(task).tools
    for name in names:
        if name.startswith(models.PREFIX):
            for answer in models.LIBRARY.answers(split(name, models.LIBRARY)[0], task).answers:
                key = keys.key(answer, tools)
                if key is not None:
                    found.setdefault(key, verdict(answer))
    return found


def _is_right(key: str, task: str, known: dict[str, bool]) -> bool:
    if key in known:
        return known[key]
    return check(_calls(key), tasks.possible_answers()[task], tasks.task(task).language).right


def _calls(key: str) -> tuple[Call, ...] | None:
    """The calls of a vote key of `ToolCallActions`; None where it is a text, or not to be read."""
    if key.startswith("answer:"):
        return None
    found, place, decoder = [], 0, json.JSONDecoder()
    try:
        while place < len(key):
            name, opening, _ = key[place:].partition("(")
            arguments, place = decoder.raw_decode(key, place + len(name) + len(opening))
            if key[place : place + 1] != ")":
                return None
            place += 1 + 2 * key.startswith("; ", place + 1)
            found.append(Call(name, arguments))
    except (ValueError, RecursionError):
        return None
    return calls.read([{call.name: json.dumps(call.arguments)} for call in found], "tools", "Python")


def _possible(task: str) -> str:
    """The key of an answer with the first of all possible values."""
    made = []
    for expected in tasks.possible_answers()[task]:
        if expected.function is not None:
            arguments = {name: values[0] for name, values in expected.values.items() if values and values[0] != ""}
            made.append(Call(expected.function["name"], arguments))
    try:
        return ToolCallActions().parse(calls.message(tuple(made))).key
    except InvalidAction:
        return NO_CALL
