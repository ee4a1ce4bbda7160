"""Lazy public names of a package (PEP 562): importing one file of a package loads no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def public_names(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of `package`, whose public names live in the submodules of `home`.

    ``__all__`` is written out beside it, since type checkers read it.

    Args:
        package: The dotted name of the package.
        home: Name → submodule of `package` that defines it, or a module of another package (in full).
    """
    names = sorted(home)

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        where = home[name]
        return getattr(import_module(where if where.startswith("agentcascade.") else f"{package}.{where}"), name)

    return get, lambda: names
