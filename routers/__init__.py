"""Routers: of steps (`step`: who takes this one), of tiers (`tier`: what a memory module may cost), and their `tuning`.

Modules of the two families can be imported from here, too: ``from agentcascade.routers import ppo``.
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    for family in () if name.startswith("_") else ("tier", "step"):
        module = f"{__name__}.{family}.{name}"
        if find_spec(module) is not None:
            return import_module(module)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
