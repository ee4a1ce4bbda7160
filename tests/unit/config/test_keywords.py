"""The typed keywords of `build` and `CascadeConfig.load` are the fields of the configuration, with what they accept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import reduce
from operator import or_
from pathlib import Path
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel, SecretStr

from agentcascade.config import keywords, sections
from agentcascade.config.load import CascadeConfig
from agentcascade.config.section import NamedSection

SECTIONS = {
    name: section
    for name, section in vars(sections).items()
    if isinstance(section, type)
    and issubclass(section, sections.Section)
    and section not in (sections.Section, NamedSection)
}
READ_BY_A_VALIDATOR = {
    ("PromptConfig", "template"): str | Mapping[str, str | Mapping[str, str]],
    ("CascadeConfig", "student"): sections.ModelConfig | keywords.StudentKeywords | str | None,
}


def keywords_of(section: type[BaseModel]) -> type:
    found: type = getattr(keywords, section.__name__.removesuffix("Config") + "Keywords")
    return found


def accepted(annotation: Any) -> Any:
    """The type of what pydantic reads as `annotation`."""
    plain = {Decimal: Decimal | float | str, SecretStr: SecretStr | str, Path: Path | str}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, sections.Section):
        mapping = annotation | keywords_of(annotation)
        return mapping | str if issubclass(annotation, NamedSection) else mapping
    if origin is Annotated:
        return accepted(arguments[0])
    if origin in (Union, UnionType):
        return reduce(or_, map(accepted, arguments))
    if origin is tuple:
        if arguments[1:] == (Ellipsis,):
            return GenericAlias(Sequence, accepted(arguments[0]))
        return GenericAlias(tuple, tuple(accepted(a) for a in arguments))
    if origin is get_origin(Mapping[str, str]):
        return GenericAlias(Mapping, tuple(accepted(a) for a in arguments))
    assert origin in (None, Literal), annotation
    return plain.get(annotation, annotation)


def expected(model: type[BaseModel]) -> dict[str, Any]:
    hints = get_type_hints(model, include_extras=True)
    fields = {name: accepted(hints[name]) for name in model.model_fields}
    fields |= dict.fromkeys(getattr(model, "aliases", ()), str)
    return fields | {name: t for (section, name), t in READ_BY_A_VALIDATOR.items() if section == model.__name__}


@pytest.mark.parametrize("model", [*SECTIONS.values(), CascadeConfig], ids=lambda model: model.__name__)
def test_keywords_are_the_fields_of_the_section(model: type[BaseModel]) -> None:
    typed = keywords.ConfigKeywords if model is CascadeConfig else keywords_of(model)
    assert get_type_hints(typed) == expected(model)
