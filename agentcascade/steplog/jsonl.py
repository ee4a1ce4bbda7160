"""Step logs as JSONL: full lines as `write_jsonl` makes them, and plain lines that anybody can write.

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
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample

__all__ = ["parse_line"]

PLAIN_FIELDS = (
    *("id", "gold", "student", "teacher", "episode", "step", "goal", "question", "category", "observation"),
    *("success", "namespace", "propensity"),
)
COPIED_FIELDS = ("step", "category", "observation", "success", "namespace", "propensity")


def read_jsonl(path: Path) -> list[LoggedStep]:
    """Read all steps of a JSONL file, of plain or full lines, in their order.

    Raises `InvalidRequest` naming line and field, for a file without steps, and for an id that occurs twice.
    """
    seen: dict[tuple[str, str], int] = {}
    steps = []
    for number, line in _lines(path):
        try:
            step = parse_line(json.loads(line))
        except RecursionError:
            raise InvalidRequest(f"{path} line {number}: nests too deep to be read") from None
        except ValueError as error:
            raise InvalidRequest(f"{path} line {number}: {_complaint(error)}") from None
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


def write_jsonl(path: Path, steps: Iterable[LoggedStep]) -> int:
    """Write one full line a step; the file is written whole or not at all. Returns the number of steps."""
    from agentcascade._util.files import write_atomically

    lines = [step.model_dump_json(exclude_defaults=True) + "\n" for step in steps]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(lines))
    return len(lines)


def parse_line(line: Any) -> LoggedStep:
    """Parse a plain or full line. Raises `InvalidRequest` or pydantic's `ValidationError`.

    >>> step = parse_line({"id": 7, "student": ["18", "18", "17"], "teacher": "18"})
    >>> [sample.action for sample in step.student.samples], step.teacher
    (['18', '18', '17'], '18')
    """
    if not isinstance(line, Mapping):
        raise InvalidRequest(f"a step is an object such as {{'id': 1, 'student': [...]}}, not {type(line).__name__}")
    return LoggedStep.model_validate(line) if "students" in line else _parse_plain(line)


def _parse_plain(line: Mapping[str, Any]) -> LoggedStep:
    for name in line:
        if name not in PLAIN_FIELDS:
            raise InvalidRequest(f"unknown field '{name}': {did_you_mean(name, PLAIN_FIELDS)}")
    if "id" not in line or "student" not in line:
        missing = "id" if "id" not in line else "student"
        raise InvalidRequest(f"field '{missing}' is missing: a step has id, student, and teacher or gold")
    if line.get("teacher") is None and line.get("gold") is None and line.get("success") is None:
        raise InvalidRequest("neither teacher nor gold is given: there is nothing to hold the student against")
    students, right = line["student"], line.get("gold")
    every = (
        [_answer(key, f"gold.{i}") for i, key in enumerate(right)]
        if isinstance(right, list)
        else [_answer(right, "gold")]
    )
    gold = [key for key in dict.fromkeys(every) if key is not None]
    named = students if isinstance(students, Mapping) else {"": students}
    return LoggedStep(
        id=str(line["id"]),
        episode=str(line.get("episode") or ""),
        goal=str(line.get("goal") or line.get("question") or ""),
        students=tuple(
            StudentSamples(model=str(name), samples=_samples(name, answers)) for name, answers in named.items()
        ),
        teacher=_answer(line.get("teacher"), "teacher"),
        gold=gold[0] if gold else None,
        also_right=tuple(gold[1:]),
        **{name: line[name] for name in COPIED_FIELDS if line.get(name) is not None},
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
    """Action key of an answer: its text, or how JSON writes a number or a boolean."""
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


def _complaint(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"
    return f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
