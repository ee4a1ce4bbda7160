"""Recorded answers of real models to BFCL's tasks: calls, official verdicts, tokens and seconds, by the model's name.

`answers` are BFCL's own of August 2024 (`BFCL_DATA`), `samples` our own of Qwen2.5-Coder, which ship with the package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from agentcascade.envs.bfcl import calls, rows, tasks
from agentcascade.envs.bfcl.calls import Call, Form
from agentcascade.envs.recorded.models import nearest
from agentcascade.envs.recorded.rows import read
from agentcascade.errors import ConfigError, EnvironmentFailed, InvalidAction, did_you_mean
from agentcascade.types import Message

PREFIX = "recorded/"
RECORDINGS = Path(__file__).parent / "recordings"
_WRITES: tuple[tuple[str, Form, bool], ...] = (
    (r"firefunction.*", "tools", True),
    (r".*-FC(?:-\w+)?|gemini.*|yi-large-fc", "tools", False),
    (r"Salesforce_xLAM.*", "json", True),
    (r"NousResearch_Hermes.*", "hermes", False),
    (r"ibm-granite.*", "granite", False),
    (r"gpt-.*", "list", True),
    (r".*", "open list", True),
)
"""How models of a name write calls, and whether the functions that they were shown kept the dots in their names"""


class Answer(NamedTuple):
    """One answer to one task."""

    task: str
    model: str
    calls: tuple[Call, ...] | None
    """None where nothing could be read as a call: text, or one in another form than was asked for"""
    text: str
    right: bool | None
    """The official verdict, but where `contradicted`; None where nobody gave one"""
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    dots: bool = False
    """Functions kept the dots in their names"""
    contradicted: bool = False
    """The file calls all of the model's answers right where no function fits, this one too, which calls one: some
    copies were never judged there. By the official rule it is wrong, and `right` is False."""

    @property
    def finish(self) -> str:
        return "tool_calls" if self.calls else "stop"

    @property
    def message(self) -> Message:
        return calls.message(self.calls or (), self.text)


class Samples(NamedTuple):
    """One model's samples of one task."""

    task: str
    answers: tuple[Answer, ...]
    prompt_tokens: int
    output_tokens: int
    """Of all samples"""


def models() -> list[str]:
    """Names of the models that have recorded answers. Raises `EnvironmentFailed`."""
    return list(_by_model())


def answers(model: str) -> dict[str, Answer]:
    """A model's answers by task. Raises `ConfigError` for an unknown name and `EnvironmentFailed` for a bad file."""
    name, known = model.removeprefix(PREFIX), _by_model()
    if name not in known:
        raise ConfigError(f"there are no recorded answers of '{name[:80]}': {nearest(name, list(known))}")
    return _read(name)


def answer(model: str, task: str) -> Answer:
    """A model's answer to one task. Raises `EnvironmentFailed` where it has none."""
    found = answers(model).get(tasks.canonical(task))
    if found is None:
        raise EnvironmentFailed(f"there is no recorded answer of '{model[:80]}' to '{task[:80]}'")
    return found


def matrix(names: Sequence[str], wanted: Sequence[str] | None = None) -> dict[str, dict[str, Answer]]:
    """Answers of several models to the same tasks: `wanted`, else all tasks.

    Raises `EnvironmentFailed` that names the first task which one of them did not answer: policies are compared on the
    same tasks.
    """
    ids = [tasks.canonical(id) for id in wanted] if wanted is not None else list(tasks.tasks())
    found = {}
    for name in names:
        given = answers(name)
        missing = [id for id in ids if id not in given]
        if missing:
            raise EnvironmentFailed(
                f"'{name}' has no recorded answer to {len(missing)} tasks, '{missing[0]}' the first"
            )
        found[name] = {id: given[id] for id in ids}
    return found


@cache
def _by_model() -> dict[str, dict[str, dict[str, Any]]]:
    known = tasks.tasks()
    path = rows.source("answers")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for where, row in read(path):
        model, id = row.get("model"), row.get("id")
        if not isinstance(model, str) or not model or not isinstance(id, str):
            raise EnvironmentFailed(f"{where}: an answer needs an id and a model")
        id = tasks.canonical(id)
        if id not in known:
            raise EnvironmentFailed(f"{where}: an answer of '{model[:80]}' to '{id}', which is no task")
        if id in found.setdefault(model, {}):
            raise EnvironmentFailed(f"{where}: '{model[:80]}' answers '{id}' twice")
        if not isinstance(row.get("right"), bool):
            raise EnvironmentFailed(f"{where}: 'right' is {row.get('right')!r:.40}, not true or false")
        if not isinstance(row.get("answer"), (str, list)):
            raise EnvironmentFailed(f"{where}: an answer is a text or a list, not {row.get('answer')!r:.40}")
        for field in ("input_tokens", "output_tokens", "latency_s"):
            value = row.get(field)
            whole = field != "latency_s"
            if value is not None and (
                isinstance(value, bool)
                or not isinstance(value, int if whole else (int, float))
                or not 0 <= value <= 1e9
            ):
                raise EnvironmentFailed(f"{where}: {field} is {value!r:.40}, not a count")
        found[model][id] = row
    return found


@cache
def _read(model: str) -> dict[str, Answer]:
    form, dots = next((form, dots) for name, form, dots in _WRITES if re.fullmatch(name, model))
    made = {}
    declining = [row for id, row in _by_model()[model].items() if tasks.tasks()[id].category == "irrelevance"]
    unjudged = all(row["right"] for row in declining)
    for id, row in _by_model()[model].items():
        task = tasks.tasks()[id]
        given = row["answer"]
        try:
            found: tuple[Call, ...] | None = calls.read(given, form, task.language)
        except InvalidAction:
            found = None
        contradicted = unjudged and bool(found) and task.category == "irrelevance"
        made[id] = Answer(
            task=id,
            model=model,
            calls=found,
            text="" if found else given if isinstance(given, str) else str(given),
            right=row["right"] and not contradicted,
            input_tokens=row.get("input_tokens"),
            output_tokens=row.get("output_tokens"),
            seconds=row.get("latency_s"),
            dots=dots,
            contradicted=contradicted,
        )
    return made


def sampled() -> list[str]:
    """Names of the models whose samples ship with the package."""
    return sorted(path.name.removesuffix(".jsonl.xz") for path in RECORDINGS.glob("*.jsonl.xz"))


@cache
def samples(model: str, lenient: bool = False) -> dict[str, Samples]:
    """Our own samples of a small model by task. No official verdict: `check.check` gives one.

    `lenient` reads a call in text too (in a fence, as bare JSON), which the engine's parser did not find.
    """
    name = model.removeprefix(PREFIX)
    if name not in sampled():
        raise ConfigError(f"there are no recorded samples of '{name[:80]}': {did_you_mean(name, sampled())}")
    found: dict[str, Samples] = {}
    for where, row in read(RECORDINGS / f"{name}.jsonl.xz"):
        try:
            id = tasks.canonical(str(row["task"]))
            given = tuple(_sample(id, name, sample, lenient) for sample in row["samples"])
            made = Samples(id, given, int(row["prompt_tokens"]), int(row["output_tokens"]))
        except (KeyError, TypeError, ValueError) as error:
            raise EnvironmentFailed(f"{where}: not a row of samples: {error}") from error
        if id in found:
            raise EnvironmentFailed(f"{where}: '{id}' is there twice")
        found[id] = made
    return found


def _sample(id: str, model: str, sample: dict[str, Any], lenient: bool) -> Answer:
    text, made = str(sample.get("text") or ""), sample.get("calls")
    language = tasks.language(id.rpartition("_")[0])
    try:
        if made:
            found: tuple[Call, ...] | None = calls.read([{name: given} for name, given in made], "tools", language)
        else:
            found = calls.read(text, "any", language) if lenient else None
    except InvalidAction:
        found = None
    return Answer(id, model, found, "" if found else text, None, None, int(sample["tokens"]))
