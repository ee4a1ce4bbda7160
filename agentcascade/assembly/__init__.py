"""Assembly: a configuration becomes a cascade; the one place where names turn into parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = ["build", "build_all", "build_memory", "config_path", "make_model"]

if TYPE_CHECKING:
    from agentcascade.assembly.cascade import build as build
    from agentcascade.assembly.cascade import build_all as build_all
    from agentcascade.assembly.components import make_model as make_model
    from agentcascade.assembly.memory import build_memory as build_memory
    from agentcascade.config.load import config_path as config_path
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "build": "cascade",
            "build_all": "cascade",
            "build_memory": "memory",
            "config_path": "agentcascade.config.load",
            "make_model": "components",
        },
    )
