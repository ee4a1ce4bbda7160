"""Action formats by name: the one that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection

from agentcascade.actions.base import (
    REACT,
    ActionFormat,
    AutoActions,
    JsonActions,
    RegexActions,
    TextActions,
    ToolCallActions,
)
from agentcascade.errors import ConfigError, did_you_mean


def make_format(
    name: str, pattern: str | None = None, *, fold: bool = False, ordered: Collection[str] = ()
) -> ActionFormat:
    """The format that a config names: auto, text, react, regex, json, tools, python or sql. Raises `ConfigError`.

    `fold` joins texts that differ in case, Unicode form, spacing, quotes around them and a final full stop; `ordered`
    are tools whose calls do not commute.
    """
    formats: dict[str, Callable[[], ActionFormat]] = {
        "auto": lambda: AutoActions(fold, ordered),
        "text": lambda: TextActions(fold),
        "react": lambda: RegexActions(fold=fold),
        "regex": lambda: RegexActions(pattern or REACT, fold),
        "json": JsonActions,
        "tools": lambda: ToolCallActions(fold, ordered),
    }
    if name == "sql":
        from agentcascade.actions.sql import SqlActions

        return SqlActions(pattern or "mysql", fold)
    if name == "python":
        from agentcascade.actions.python import PythonActions

        return PythonActions()
    if name not in formats:
        raise ConfigError(f"actions.format '{name}' is unknown: {did_you_mean(name, formats)}")
    return formats[name]()
