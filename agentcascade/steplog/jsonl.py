"""The log as JSON lines: our own, and the plain form that anybody can write.

A plain line is ``{"id": 7, "gold": "18", "student": ["18", "18", "17"], "teacher": "18"}``. `student` is the list of
one student's answers in the order in which they were drawn (null: an answer that could not be used; those that lack
against the longest line could not be used either), or an object that
maps students' names to such lists, cheapest first; an answer may be an object with `action`, `logprob` and `tokens`.
Optional are `episode`, `step`, `goal` (or `question`), `category`, `observation`, `success`, `namespace`, `propensity`.
Answers count as the same when their texts are, but for surrounding white space.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.steplog.types import Drawn, LoggedStep
from agentcascade.types import LoggedSample

PLAIN = (
    *("id", "gold", "student", "teacher", "episode", "step", "goal", "question", "category", "observation"),
    *("success", "namespace", "propensity"),
)
COPIED = ("step", "category", "observation", "success", "namespace", "propensity")


def read(path: Path) -> list[LoggedStep]:
    """All steps of a JSONL file, plain or our own lines, in their order.

    Raises `InvalidRequest` that names line and field, for a file without steps and for an id that occurs twice.
    """
    seen: dict[tuple[str, str], int] = {}
    steps = []
    for number, line in _lines(path):
        try:
            step = parse(json.loads(line))
        except RecursionError:
            raise InvalidRequest(f"{path} line {number}: nests too deep to be read") from None
        except ValueError as error:
            raise InvalidRequest(f"{path} line {number}: {_said(error)}") from None
        key = step.namespace, step.id
        if key in seen:
            raise InvalidRequest(
                f"{path} line {number}: id '{step.id}' is in line {seen[key]} already: every step has an id of its own"
            )
        seen[key] = number
        steps.append(step)
    if not steps:
        raise InvalidRequest(f"{path} holds no steps: one JSON object a line with id, gold, student, teacher")
    return steps


def write(path: Path, steps: Iterable[LoggedStep]) -> int:
    """One line for each; the file appears whole or not at all. Returns how many."""
    from agentcascade._util.files import write_atomically

    lines = [step.model_dump_json(exclude_defaults=True) + "\n" for step in steps]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(lines))
    return len(lines)


def parse(line: Any) -> LoggedStep:
    """One line. Raises `InvalidRequest` or pydantic's `ValidationError`."""
    if not isinstance(line, Mapping):
        raise InvalidRequest(f"a step is an object such as {{'id': 1, 'student': [...]}}, not {type(line).__name__}")
    return LoggedStep.model_validate(line) if "students" in line else _plain(line)


def _plain(line: Mapping[str, Any]) -> LoggedStep:
    for name in line:
        if name not in PLAIN:
            raise InvalidRequest(f"unknown field '{name}': {did_you_mean(name, PLAIN)}")
    if "id" not in line or "student" not in line:
        missing = "id" if "id" not in line else "student"
        raise InvalidRequest(f"field '{missing}' is missing: a step has id, student, and teacher or gold")
    if line.get("teacher") is None and line.get("gold") is None and line.get("success") is None:
        raise InvalidRequest("neither teacher nor gold is given: there is nothing to hold the student against")
    given = line["student"]
    named = given if isinstance(given, Mapping) else {"": given}
    return LoggedStep(
        id=str(line["id"]),
        episode=str(line.get("episode") or ""),
        goal=str(line.get("goal") or line.get("question") or ""),
        students=tuple(Drawn(model=str(name), samples=_samples(name, answers)) for name, answers in named.items()),
        teacher=_answer(line.get("teacher"), "teacher"),
        gold=_answer(line.get("gold"), "gold"),
        **{name: line[name] for name in COPIED if line.get(name) is not None},
    )


def _samples(name: str, answers: Any) -> tuple[LoggedSample, ...]:
    where = f"student.{name}" if name else "student"
    if not isinstance(answers, list):
        raise InvalidRequest(f"{where} is a list of answers, not {type(answers).__name__}")
    return tuple(_sample(a, f"{where}.{i}") for i, a in enumerate(answers))


def _sample(answer: Any, where: str) -> LoggedSample:
    if isinstance(answer, Mapping):
        return LoggedSample.model_validate({**answer, "action": _answer(answer.get("action"), f"{where}.action")})
    return LoggedSample(action=_answer(answer, where))


def _answer(value: Any, where: str) -> str | None:
    """An answer's key; numbers and truth values stand for how JSON writes them."""
    if value is None:
        return None
    if isinstance(value, (dict, list)):
        raise InvalidRequest(f"{where} is a {type(value).__name__}: an answer is a text, a number or null")
    return (value if isinstance(value, str) else json.dumps(value)).strip() or None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read as a log: {error}") from error


def _said(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"
    return f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
