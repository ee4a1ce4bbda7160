"""The prompts of a configuration: templates by name, and how texts of others are quoted in them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.prompts.quoting import FENCED, PLAIN, Quoting, quoting_of
from agentcascade.prompts.template import Template, replaced


class Prompts:
    """Templates, and the quoting of what is put into them.

    Args:
        quoting: how texts of others are quoted.
        texts: texts that replace the default templates, by name.

    Raises:
        ConfigError: a name, or a field in a text, is not known, or a field is missing.

    >>> Prompts(texts={"planned": "You plan to:\\n$plan"}).render("planned", plan="${goal}")
    'You plan to:\\n${goal}'
    """

    def __init__(self, quoting: Quoting = FENCED, texts: Mapping[str, str] | None = None) -> None:
        self.quoting = quoting
        self.templates: Mapping[str, Template] = replaced(TEMPLATES, texts) if texts else TEMPLATES

    def render(self, name: str, **values: str) -> str:
        """The template of that name with `values`, which are quoted already."""
        return self.templates[name].render(**values)


DEFAULT, UNQUOTED = Prompts(FENCED), Prompts(PLAIN)


class Settings(Protocol):
    """The section `prompt` of a configuration."""

    @property
    def quoting(self) -> str: ...

    @property
    def template(self) -> Mapping[str, str]: ...


def prompts_of(settings: Settings) -> Prompts:
    """The prompts that a configuration's section `prompt` asks for: for equal ones the same object."""
    if not settings.template:
        return UNQUOTED if settings.quoting == "plain" else DEFAULT
    return _made(settings.quoting, tuple(sorted(settings.template.items())))


@lru_cache(maxsize=64)
def _made(quoting: str, texts: tuple[tuple[str, str], ...]) -> Prompts:
    return Prompts(quoting_of(quoting), dict(texts))
