"""Action formats by name: the one that a configuration asks for."""

from __future__ import annotations

from collections.abc import Collection

from agentcascade import registry
from agentcascade.actions.base import (
    REACT,
    ActionFormat,
    AutoActions,
    JsonActions,
    RegexActions,
    TextActions,
    ToolCallActions,
)


def make_format(
    name: str, pattern: str | None = None, *, fold: bool = False, ordered: Collection[str] = ()
) -> ActionFormat:
    """The format that is registered as `name` in the entry-point group ``agentcascade.actions``.

    Args:
        name: auto, text, react, regex, json, tools, python, sql, or of another package.
        pattern: of ``regex`` the regular expression, of ``sql`` the dialect.
        fold: join texts that differ in case, Unicode form, spacing, quotes around them and a final full stop.
        ordered: tools whose calls do not commute.

    Raises:
        ConfigError: for a name that nobody registers, and for a pattern that does not compile.

    A registered format is a function, or a class, of these three keywords:

        >>> def shell(*, pattern=None, fold=False, ordered=()):
        ...     return RegexActions(pattern or r"(?s)```sh\\n(.+?)```", fold)
        >>> shell().parse({"role": "assistant", "content": "I look.\\n```sh\\nls -l\\n```"}).key
        'ls -l'
    """
    make = registry.load(registry.find("actions", name, "actions.format"), "actions.format")
    keywords = {"pattern": pattern, "fold": fold, "ordered": ordered}
    return registry.make(make, f"actions.format '{name}'", keywords)  # type: ignore[no-any-return]


def auto(*, pattern: str | None, fold: bool, ordered: Collection[str]) -> ActionFormat:
    return AutoActions(fold, ordered)


def text(*, pattern: str | None, fold: bool, ordered: Collection[str]) -> ActionFormat:
    return TextActions(fold)


def react(*, pattern: str | None, fold: bool, ordered: Collection[str]) -> ActionFormat:
    return RegexActions(fold=fold)


def regex(*, pattern: str | None, fold: bool, ordered: Collection[str]) -> ActionFormat:
    return RegexActions(pattern or REACT, fold)


def json(*, pattern: str | None, fold: bool, ordered: Collection[str]) -> ActionFormat:
    return JsonActions()


def tools(*, pattern: str | None, fold: bool, ordered: Collection[str]) -> ActionFormat:
    return ToolCallActions(fold, ordered)


def python(*, pattern: str | None, fold: bool, ordered: Collection[str]) -> ActionFormat:
    from agentcascade.actions.python import PythonActions

    return PythonActions()


def sql(*, pattern: str | None, fold: bool, ordered: Collection[str]) -> ActionFormat:
    from agentcascade.actions.sql import SqlActions

    return SqlActions(pattern or "mysql", fold)
