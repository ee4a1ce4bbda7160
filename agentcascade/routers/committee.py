"""Routers of a committee (`sampling.across: students`): as many votes as its members give."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from agentcascade import registry
from agentcascade.errors import ConfigError
from agentcascade.protocols import Router

KEY = "router.name"


def make_committee_router(name: str, options: Mapping[str, Any], votes: int) -> Router:
    """The router that is registered as `name`, with `votes` for its `n`. Raises `ConfigError`, also for another n."""
    part = registry.load(registry.find("routers", name, KEY), KEY)
    settings = dict(options)
    if "n" in inspect.signature(part).parameters and settings.setdefault("n", votes) != votes:
        raise ConfigError(
            f"router.options.n is {settings['n']!r}, and the committee has {votes} votes: leave n out, or change the "
            "students' samples and weight"
        )
    router: Router = registry.make(part, f"{KEY} '{name}'", settings)
    return router
