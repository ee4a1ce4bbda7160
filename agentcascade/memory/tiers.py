"""Tier tables: which method answers which tier of which module, for the axes of BudgetMem and for custom ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.memory.llm import ChatMethod, Reasoning, Size
from agentcascade.memory.modules.base import MethodName, Module
from agentcascade.memory.modules.entity import EntityModule
from agentcascade.memory.modules.filter import FilterModule
from agentcascade.memory.modules.summary import SummaryModule
from agentcascade.memory.modules.temporal import TemporalModule
from agentcascade.memory.modules.topic import TopicModule
from agentcascade.types import MODULES, TIERS, ModuleName, Tier

AXES: Mapping[str, Mapping[Tier, str]] = {
    "local": {"low": "rules", "mid": "models", "high": "deep"},
    "implementation": {"low": "rules", "mid": "models", "high": "llm:large"},
    "reasoning": {"low": "llm:large", "mid": "llm:large:cot", "high": "llm:large:reflect"},
    "capacity": {"low": "llm:small", "mid": "llm:medium", "high": "llm:large"},
}
"""``local`` asks no chat model: its high tier compares every token (late interaction)."""

MODULE_CLASSES: Mapping[ModuleName, type[Module[Any]]] = {
    "filter": FilterModule,
    "entity": EntityModule,
    "temporal": TemporalModule,
    "topic": TopicModule,
    "summary": SummaryModule,
}


def make_modules(axis: str, tiers: Mapping[str, Mapping[str, str]] | None = None) -> dict[ModuleName, Module[Any]]:
    """The memory modules on `axis`; `tiers` (module: tier: method) overrides single tiers. Raises `ConfigError`."""
    if axis not in AXES:
        raise ConfigError(f"memory.axis '{axis}' is unknown: {did_you_mean(axis, AXES)}")
    for name, overrides in (tiers or {}).items():
        if name not in MODULES:
            raise ConfigError(f"memory.tiers names a module '{name}': {did_you_mean(name, MODULES)}")
        for tier in overrides:
            if tier not in TIERS:
                raise ConfigError(f"memory.tiers.{name} names a tier '{tier}': {did_you_mean(tier, TIERS)}")
    modules: dict[ModuleName, Module[Any]] = {}
    for name in MODULES:
        overrides = (tiers or {}).get(name, {})
        texts = {tier: overrides.get(tier, AXES[axis][tier]) for tier in TIERS}
        methods = {tier: parse_method(text, f"memory.tiers.{name}.{tier}") for tier, text in texts.items()}
        modules[name] = MODULE_CLASSES[name](methods)
    return modules


def parse_method(text: str, where: str) -> MethodName | ChatMethod:
    """Parse ``rules``, ``models``, ``deep`` or ``llm:SIZE[:REASONING]``; raises `ConfigError` naming `where`."""
    kind, *rest = text.split(":")
    if kind != "llm":
        kinds: tuple[MethodName, ...] = get_args(MethodName)
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
                return ChatMethod(size, style)
    raise ConfigError(f"{where} '{text}' is not llm:SIZE[:REASONING] of {', '.join(sizes)}; {', '.join(styles)}")


def needs_chat_models(modules: Mapping[ModuleName, Module[Any]]) -> bool:
    """Whether a tier asks a chat model."""
    return any(isinstance(m, ChatMethod) for module in modules.values() for m in module.methods.values())
