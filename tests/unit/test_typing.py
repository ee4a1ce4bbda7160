"""Users' code against the public names is checked; keywords that are typed apart are those that calls take."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import agentcascade
from agentcascade import protocols
from agentcascade.config.keywords import ConfigKeywords
from agentcascade.episodes.keywords import EpisodeKeywords, request
from agentcascade.memory.types import RecallOptions
from agentcascade.step.context import ContextParts, StepContext
from agentcascade.step.model_calls import FORWARDED_OPTIONS

ROOT = Path(__file__).parents[2]


def test_users_code_is_typed_for_pyright_too() -> None:
    """The editor's checker, strict: the lines that mypy takes for mistakes (`make test` runs it), and no others."""
    pytest.importorskip("basedpyright")
    command = [sys.executable, "-m", "basedpyright", "-p", "tests/typing", "--pythonpath", sys.executable]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def hints_of(function: Any) -> dict[str, Any]:
    return {
        name: parameter.annotation
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }


def test_keywords_of_episodes_are_those_that_an_episode_takes() -> None:
    taken = hints_of(agentcascade.Episode.__init__)
    assert {"self", "engine", "goal"} == taken.keys() - EpisodeKeywords.__annotations__.keys()
    assert {name: hint.__forward_arg__ for name, hint in EpisodeKeywords.__annotations__.items()} == {
        name: hint for name, hint in taken.items() if name not in ("self", "engine", "goal")
    }


def test_parts_of_a_twin_are_the_fields_of_a_context() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(StepContext)}
    assert {name: hint.__forward_arg__ for name, hint in ContextParts.__annotations__.items()} == fields


def test_keywords_of_recall_sync_are_those_of_recall() -> None:
    taken = hints_of(agentcascade.Memory.recall)
    typed = {name: hint.__forward_arg__ for name, hint in RecallOptions.__annotations__.items()}
    assert {name: hint for name, hint in taken.items() if name in typed} == typed
    assert taken.keys() - typed.keys() == {"self", "question", "history", "decision", "caller"}  # of an agent's step


@pytest.mark.parametrize("call", [agentcascade.build, agentcascade.wrap, agentcascade.build_memory])
def test_every_key_of_a_configuration_is_a_keyword(call: Any) -> None:
    keywords = inspect.signature(call).parameters["keywords"].annotation
    typed = get_type_hints(importlib.import_module("agentcascade.config.keywords").__dict__[keywords[7:-1]])
    explicit = hints_of(call).keys()
    assert typed.keys() | explicit >= get_type_hints(ConfigKeywords).keys()
    assert not typed.keys() & explicit


def test_every_option_that_a_student_is_sent_is_a_keyword() -> None:
    assert hints_of(request).keys() >= FORWARDED_OPTIONS


def test_errors_and_protocols_are_handed_on() -> None:
    errors = importlib.import_module("agentcascade.errors")
    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    users = {"ChatModel", "Embedder", "Judge", "Merger", "Observer", "Recorder", "Retriever", "Router", "Verdict"}
    assert tree | users | {"DryRun", "Verifier", "Validator"} <= {*agentcascade.__all__}
    assert agentcascade.Router is protocols.Router
    for name in agentcascade.__all__:
        assert getattr(agentcascade, name) is not None


PUBLIC = [
    getattr(agentcascade, name)
    for name in agentcascade.__all__
    if inspect.isclass(value := getattr(agentcascade, name)) or inspect.isfunction(value)
]
DESCRIBED = [value for value in PUBLIC if value.__module__ not in ("agentcascade.errors", "agentcascade.protocols")]


@pytest.mark.parametrize("value", DESCRIBED, ids=lambda value: value.__name__)
def test_public_docstrings_have_an_example_and_name_every_argument(value: Any) -> None:
    """`test_doctests` runs the examples. A method may refer to the one whose arguments it takes."""
    assert ">>> " in (inspect.getdoc(value) or "")
    methods = [value] if inspect.isfunction(value) else [m for k, m in vars(value).items() if not k.startswith("_")]
    for method in methods:
        function = inspect.unwrap(getattr(method, "__func__", getattr(method, "fget", method)))
        if not inspect.isfunction(function) or function.__module__ != value.__module__ or is_pydantics(function):
            continue
        text = inspect.getdoc(function)
        assert text, function.__qualname__
        if re.search(r"`[A-Z]\w+\.\w+`", text.splitlines()[0]):
            continue
        names = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
        assert [name for name in names if not re.search(rf"\b{name}\b", text)] == [], function.__qualname__


def is_pydantics(function: Any) -> bool:
    return bool(function.__name__ == "settings_customise_sources")
