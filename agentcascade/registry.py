"""Registry of parts: entry points by group and name, those of this package and of any other that is installed.

A package registers a router, a model, an action format, a judge, a merger, a prompt template or a benchmark suite in
its ``pyproject.toml``, and a configuration names it::

    [project.entry-points."agentcascade.routers"]
    cautious = "acme_agents.routers:Cautious"
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from agentcascade._util import known_secrets
from agentcascade.errors import AgentCascadeError, ConfigError, describe, did_you_mean, without_secrets

OURS = "agentcascade"
"""The distribution whose names no other one takes"""


def registered(group: str) -> dict[str, EntryPoint]:
    """Entry points of the group ``agentcascade.<group>`` by name; of two with one name ours, else the first found."""
    points: dict[str, EntryPoint] = {}
    for point in _scan(tuple((path, _changed_at(path)) for path in sys.path)).select(group=f"agentcascade.{group}"):
        if point.name not in points or distribution_of(point).startswith(f"{OURS} "):
            points[point.name] = point
    return points


@lru_cache(maxsize=4)
def _scan(path: tuple[tuple[str, int], ...]) -> Any:  # EntryPoints; on Python 3.11 SelectableGroups
    """All entry points on `sys.path`, read again when a package was installed: that takes 10 ms, the rest 0.1 ms."""
    return entry_points()


def _changed_at(path: str) -> int:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


def find(group: str, name: str, key: str, aliases: Iterable[str] = ()) -> EntryPoint:
    """The entry point `name` of a group.

    Args:
        group: what follows ``agentcascade.`` in the group's name, e.g. ``routers``.
        name: as it is registered.
        key: where the name stands in the configuration or on the command line, for the error.
        aliases: further names that the caller understands, which the error suggests, too.

    Raises:
        ConfigError: names the nearest registered name.
    """
    points = registered(group)
    if name in points:
        return points[name]
    if not points:
        raise ConfigError(
            f"{key} '{name}' is unknown: no {group} are registered, so install the package that has it with pip "
            f"(agentcascade itself, too, registers its own when it is installed)"
        )
    raise ConfigError(f"{key} '{name}' is unknown: {did_you_mean(name, [*points, *aliases])}")


def load(point: EntryPoint, key: str) -> Any:
    """The object that an entry point names.

    Raises:
        ConfigError: names the distribution that registered it, where it cannot be imported; `MissingExtra` and other
            errors of this package are raised as they are.
    """
    try:
        return point.load()
    except AgentCascadeError:
        raise
    except (Exception, SystemExit) as error:  # whatever a strange module does when it is imported
        raise ConfigError(
            f"{key} '{point.name}' cannot be loaded: {distribution_of(point)} registers {point.value} for it "
            f"({describe(error)})"
        ) from error


def construct(group: str, name: str, key: str, options: Mapping[str, Any], aliases: Iterable[str] = ()) -> Any:
    """An instance of the part that is registered as `name`, made with `options`. Raises `ConfigError`."""
    return make(load(find(group, name, key, aliases), key), f"{key} '{name}'", options)


def make(part: Callable[..., Any], what: str, options: Mapping[str, Any]) -> Any:
    """`part(**options)`. Raises `ConfigError` for options that it does not take."""
    try:
        return part(**options)
    except TypeError as error:
        known_secrets.register_fields(options, configured=True)  # a model of one's own may be given its key so
        raise ConfigError(without_secrets(f"{what} does not take {dict(options)}: {error}")) from error


def distribution_of(point: EntryPoint) -> str:
    """Name and version of the distribution that registered an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"
