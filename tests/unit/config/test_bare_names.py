"""A bare name stands for a model or a part wherever the configuration takes one, however it is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

import agentcascade
from agentcascade.config.keywords import StudentKeywords
from agentcascade.config.load import CascadeConfig, variants
from agentcascade.config.section import NamedSection
from agentcascade.errors import ConfigError

NAME = "acme/one"


def places(section: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a configuration takes a named section; ``*`` is an element of a list, ``small`` a key of a mapping."""
    for name, field in section.model_fields.items():
        found = list(sections_in(field.annotation))
        many = {"tuple": "*", "Mapping": "small"}.get(getattr(field.annotation, "__name__", ""))
        for inner in found:
            here = (*path, name, *([many] if many else []))
            if issubclass(inner, NamedSection):
                yield here
            elif inner not in (CascadeConfig,):
                yield from places(inner, here)


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections_in(part)


def settings_at(place: tuple[str, ...], value: Any) -> Any:
    for part in reversed(place):
        value = [value] if part == "*" else {part: value}
    return value


PLACES = sorted(set(places(CascadeConfig)))


def test_the_places_are_found() -> None:
    assert {("teacher",), ("judge", "model"), ("actions", "mergers", "*"), ("memory", "models", "small")} <= {*PLACES}
    assert len(PLACES) >= 12


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_file_takes_a_bare_name(place: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "agentcascade.yaml"
    if place == ("ladder", "*"):
        file.write_text(yaml.safe_dump({"ladder": [NAME, "acme/two"]}))
        assert [rung.name for rung in CascadeConfig.load(file).ladder] == [NAME, "acme/two"]
        return
    bare, mapping = settings_at(place, NAME), settings_at(place, {"name": NAME})
    file.write_text(yaml.safe_dump(bare))
    assert CascadeConfig.load(file) == CascadeConfig.load(**mapping)


def test_the_environment_takes_one_and_adds_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "agentcascade.yaml"
    file.write_text(f"teacher: {NAME}\nstudent: {{name: {NAME}, price: {{input: 1}}}}\n")
    monkeypatch.setenv("AGENTCASCADE_TEACHER__RETRIES", "7")
    monkeypatch.setenv("AGENTCASCADE_STUDENT", "acme/two")
    monkeypatch.setenv("AGENTCASCADE_ROUTER", "majority")
    config = CascadeConfig.load(file)
    assert config.teacher is not None
    assert (config.teacher.name, config.teacher.retries) == (NAME, 7)
    assert config.student is not None
    assert (config.student.name, config.student.price) == ("acme/two", None)
    assert config.router.name == "majority"


def test_a_cascade_changes_a_bare_name_and_leaves_options_alone() -> None:
    student: StudentKeywords = {"name": NAME, "timeout_seconds": 5, "options": {"model": "theirs"}}
    changes: dict[str, dict[str, Any]] = {
        "other": {"student": "acme/two"},
        "slower": {"teacher": {"retries": 1}, "student": {"options": {"router": "own"}}},
    }
    made = variants(CascadeConfig.load(teacher=NAME, student=student, cascades=changes))
    other, slower = made["other"].student, made["slower"].student
    assert other is not None
    assert (other.name, other.timeout_seconds, dict(other.options)) == ("acme/two", 5, {})
    assert slower is not None
    assert dict(slower.options) == {"model": "theirs", "router": "own"}
    teacher = made["slower"].teacher
    assert teacher is not None
    assert (teacher.name, teacher.retries) == (NAME, 1)


def test_build_takes_what_a_file_takes() -> None:
    cascade = agentcascade.build(
        teacher={"model": "openai/gpt-4.1"}, student="openai/gpt-4.1-mini", mode="teacher", retrieval={"k": 0}
    )
    with cascade:
        assert cascade.context.teacher is not None
        assert cascade.context.teacher.name == "openai/gpt-4.1"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"teacher": ["openai/gpt-4.1"]},
            r"teacher: a name or a mapping is needed, such as \{name: …\}, not \['openai",
        ),
        ({"judge": "openai/gpt-4.1"}, r"judge: a mapping is needed, such as \{model: …\}, not 'openai/gpt-4.1'"),
        ({"bank": "sqlite:///a.db"}, r"bank: a mapping is needed, such as \{url: …\}.*its keys are url, namespace"),
        ({"student": {"nme": NAME}}, r"student.name: Field required.*unknown key 'student.nme': did you mean 'name'"),
    ],
)
def test_what_else_is_refused_says_what_is_needed(settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CascadeConfig.load(**settings)


@pytest.mark.parametrize("value", ["six", "[1"])
def test_a_section_in_the_environment_that_is_no_json(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTCASCADE_RETRIEVAL", value)
    with pytest.raises(ConfigError, match=r"sets 'retrieval' as a whole must be JSON.*RETRIEVAL__KEY"):
        CascadeConfig.load()
