"""Section of a configuration: checked, frozen, and without fields that nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class NamedSection(Section):
    """Section with a `name`, for which a bare name may stand: ``teacher: openai/gpt-4.1``, ``router: unanimity``."""

    aliases: ClassVar[tuple[str, ...]] = ()
    """Other keys that the name may have."""

    @model_validator(mode="before")
    @classmethod
    def _read_name(cls, setting: object) -> object:
        return with_name(setting, *cls.aliases)


def with_name(setting: object, *aliases: str) -> object:
    """The mapping that a bare name stands for, and one whose name is under an alias; what else there is as it is.

    >>> with_name("openai/gpt-4.1"), with_name({"model": "openai/gpt-4.1", "effort": "low"}, "model")
    ({'name': 'openai/gpt-4.1'}, {'name': 'openai/gpt-4.1', 'effort': 'low'})
    """
    if isinstance(setting, str):
        return {"name": setting}
    if isinstance(setting, Mapping) and "name" not in setting and (used := [key for key in aliases if key in setting]):
        return {("name" if key == used[0] else key): value for key, value in setting.items()}
    return setting
