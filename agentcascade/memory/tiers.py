"""Which method answers which tier of which module: the axes of BudgetMem as tables, and tables of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.memory.llm import Language, Reasoning, Size
from agentcascade.memory.modules.base import Kind, Module
from agentcascade.memory.modules.entity import Entity
from agentcascade.memory.modules.filter import Filter
from agentcascade.memory.modules.summary import Summary
from agentcascade.memory.modules.temporal import Temporal
from agentcascade.memory.modules.topic import Topic
from agentcascade.types import MODULES, TIERS, ModuleName, Tier

AXES: Mapping[str, Mapping[Tier, str]] = {
    "local": {"low": "rules", "mid": "models", "high": "deep"},
    "implementation": {"low": "rules", "mid": "models", "high": "llm:large"},
    "reasoning": {"low": "llm:large", "mid": "llm:large:cot", "high": "llm:large:reflect"},
    "capacity": {"low": "llm:small", "mid": "llm:medium", "high": "llm:large"},
}
"""``local`` asks no chat model: its high tier compares every token (late interaction)."""

CLASSES: Mapping[ModuleName, type[Module[Any]]] = {
    "filter": Filter,
    "entity": Entity,
    "temporal": Temporal,
    "topic": Topic,
    "summary": Summary,
}


def make_modules(axis: str, tiers: Mapping[str, Mapping[str, str]] | None = None) -> dict[ModuleName, Module[Any]]:
    """The five modules on `axis`, with `tiers` (module: tier: method) laid on top; raises `ConfigError`."""
    if axis not in AXES:
        raise ConfigError(f"memory.axis '{axis}' is unknown: {did_you_mean(axis, AXES)}")
    for name, own in (tiers or {}).items():
        if name not in MODULES:
            raise ConfigError(f"memory.tiers names a module '{name}': {did_you_mean(name, MODULES)}")
        for tier in own:
            if tier not in TIERS:
                raise ConfigError(f"memory.tiers.{name} names a tier '{tier}': {did_you_mean(tier, TIERS)}")
    made: dict[ModuleName, Module[Any]] = {}
    for name in MODULES:
        own = (tiers or {}).get(name, {})
        texts = {tier: own.get(tier, AXES[axis][tier]) for tier in TIERS}
        methods = {tier: method(text, f"memory.tiers.{name}.{tier}") for tier, text in texts.items()}
        made[name] = CLASSES[name](methods)
    return made


def method(text: str, where: str) -> Kind | Language:
    """``rules``, ``models``, ``deep``, or ``llm:SIZE[:REASONING]``; raises `ConfigError` naming `where`."""
    kind, *rest = text.split(":")
    if kind != "llm":
        kinds: tuple[Kind, ...] = get_args(Kind)
        for known in kinds:
            if text == known:
                return known
        raise ConfigError(f"{where} '{text}' is unknown: {did_you_mean(text, [*kinds, 'llm:large'])}")
    sizes: tuple[Size, ...] = get_args(Size)
    styles: tuple[Reasoning, ...] = get_args(Reasoning)
    wanted = (*rest, *("large", "direct")[len(rest) :])
    for size in sizes:
        for style in styles:
            if wanted == (size, style):
                return Language(size, style)
    raise ConfigError(f"{where} '{text}' is not llm:SIZE[:REASONING] of {', '.join(sizes)}; {', '.join(styles)}")


def needs_models(modules: Mapping[ModuleName, Module[Any]]) -> bool:
    """Whether a tier asks a chat model."""
    return any(isinstance(m, Language) for module in modules.values() for m in module.methods.values())
