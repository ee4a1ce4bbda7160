"""Deprecation of public names: old ones work as before, and warn of what to use instead and by when they are gone."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

__all__ = ["AgentCascadeDeprecationWarning"]

P = ParamSpec("P")
R = TypeVar("R")

REMOVALS: dict[str, str] = {}
"""What warns → the version that will be without it. Filled as names are declared; a test reads it."""


class AgentCascadeDeprecationWarning(DeprecationWarning):
    """The warning of a public name, argument or path of agentcascade that is going.

    Python shows it where `__main__` or a test runner is the caller; ``python -W error::DeprecationWarning`` finds all.
    """


def deprecated(*, since: str, removed_in: str, instead: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator for a function or method that is going: each call warns at the caller's line.

    Args:
        since: Version that began to warn.
        removed_in: Version that will be without it.
        instead: What to use, as the caller would write it.
    """

    def declare(old: Callable[P, R]) -> Callable[P, R]:
        text = _declare(f"{old.__module__}.{old.__qualname__}", since, removed_in, instead)

        @functools.wraps(old)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            warnings.warn(text, AgentCascadeDeprecationWarning, stacklevel=2)
            return old(*args, **kwargs)

        return call

    return declare


def renamed_argument(old: str, new: str, *, since: str, removed_in: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator that takes the keyword `old` for `new` still, and warns. Raises `TypeError` where both are given."""

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__module__}.{function.__qualname__}({old}=)"
        text = _declare(name, since, removed_in, f"{new}=")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(
                        f"{function.__qualname__}() got {old!r} and {new!r}: the first is the second's old name"
                    )
                warnings.warn(text, AgentCascadeDeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return declare


def moved_names(package: str, homes: Mapping[str, str], *, since: str, removed_in: str) -> Callable[[str], Any]:
    """``__getattr__`` of a module that names have left.

    Args:
        package: The module's own name.
        homes: Old name → where it is now, as ``module:name``, or ``module`` for a module itself.
        since: Version that began to warn.
        removed_in: Version that will be without the old names.
    """
    texts = {
        name: _declare(f"{package}.{name}", since, removed_in, home.replace(":", ".")) for name, home in homes.items()
    }

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        warnings.warn(texts[name], AgentCascadeDeprecationWarning, stacklevel=2)
        module, _, own = homes[name].partition(":")
        return getattr(import_module(module), own) if own else import_module(module)

    return get


def _declare(name: str, since: str, removed_in: str, instead: str) -> str:
    REMOVALS[name] = removed_in
    return f"{name} is deprecated since {since} and gone in {removed_in}: use {instead} instead"
