"""A folder like $BFCL_DATA, of four tasks: two students that are wrong once each, and a teacher that never is."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentcascade.envs.bfcl import recorded, tasks

STUDENTS, TEACHER = ("gpt-4o-mini-2024-07-18-FC", "open-mistral-nemo-2407-FC-Auto"), "gpt-4-1106-preview-FC"
WEATHER: dict[str, Any] = {
    "name": "weather.get",
    "description": "Weather of a city.",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string", "description": "Which."},
            "days": {"type": "integer"},
            "limits": {"type": "array", "items": {"type": "float"}},
            "share": {"type": "float", "description": "How much."},
        },
        "required": ["city"],
    },
}
QUESTIONS: list[dict[str, Any]] = [
    {"id": "simple_0", "question": "Weather in Rome?", "function": WEATHER},
    {"id": "simple_python_1", "question": [[{"role": "user", "content": "In Oslo?"}]], "function": [WEATHER]},
    {"id": "relevance_0", "question": "Who are you?", "function": WEATHER},
    {"id": "parallel_function_3", "question": "Rome and Oslo?", "function": WEATHER},
]
POSSIBLE: list[dict[str, Any]] = [
    {"id": "simple_0", "ground_truth": {"weather.get": {"city": ["Rome", "Roma"], "days": [1, ""]}}},
    {"id": "simple_python_1", "ground_truth": [{"weather.get": {"city": ["Oslo"]}}]},
    {"id": "parallel_3", "ground_truth": {"weather.get_1": {"city": ["Rome"]}, "weather.get_2": {"city": ["Oslo"]}}},
]


def said(city: str, **more: Any) -> list[dict[str, str]]:
    return [{"weather_get": json.dumps({"city": city, **more})}]


def answers(model: str, given: dict[str, Any], right: dict[str, bool], tokens: int = 100) -> list[dict[str, Any]]:
    return [
        {
            "id": id,
            "model": model,
            "answer": answer,
            "right": right[id],
            "input_tokens": tokens,
            "output_tokens": 10,
            "latency_s": 0.5,
        }
        for id, answer in given.items()
    ]


BOTH = [*said("Rome"), *said("Oslo")]
ALL = {"simple_0": said("Rome"), "simple_1": said("Oslo"), "relevance_0": "I am a model.", "parallel_3": BOTH}
RIGHT = dict.fromkeys(ALL, True)
RECORDED = [
    *answers(STUDENTS[0], ALL | {"simple_1": said("Bergen")}, RIGHT | {"simple_1": False}),
    *answers(STUDENTS[1], ALL | {"simple_0": said("Paris")}, RIGHT | {"simple_0": False}, tokens=50),
    *answers(TEACHER, ALL, RIGHT),
]


Write = Callable[..., Path]
"""Writes the folder's files, some of them as given; returns it"""


def data_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """For a fixture: sets BFCL_DATA, and forgets what was read of it in the end."""

    def write(**files: list[Any]) -> Path:
        for name, rows in ({"questions": QUESTIONS, "possible_answers": POSSIBLE, "answers": RECORDED} | files).items():
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            with lzma.open(folder / f"{name}.jsonl.xz", "wt", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        forget()
        return folder

    monkeypatch.setenv("BFCL_DATA", str(folder))
    write()
    yield write
    forget()


def forget() -> None:
    for function in (tasks.tasks, tasks.possible_answers, recorded._by_model, recorded._read, recorded.samples):
        function.cache_clear()
