"""Every combination of tiers for one question, without doing anything twice: the table a router is trained on.

Costs are what each combination alone would have cost from a cold cache (see `Meter`), in milliseconds of one core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from agentcascade.errors import ConfigError
from agentcascade.memory.llm import Language, Size
from agentcascade.memory.modules.base import Module
from agentcascade.memory.modules.filter import Kept
from agentcascade.memory.question import Item, Meter, Work
from agentcascade.memory.render import Text, compose
from agentcascade.types import TIERS, Message, ModuleName, Tier

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

EXTRACTORS: tuple[ModuleName, ...] = ("entity", "temporal", "topic")


@dataclass(frozen=True)
class Outcome:
    """One combination: what came out, what it cost, and what its decisions were made on."""

    tiers: tuple[Tier, ...]
    text: Text
    milliseconds: float
    reads: tuple[Vector, Vector, Vector]
    """Mean vectors (d,) of the chunks retrieved, the chunks kept, and what was extracted."""


def sweep(work: Work, modules: Mapping[ModuleName, Module[Any]], budget: int) -> Iterator[Outcome]:
    """The 243 outcomes for the question of `work`, in the order of `product` over tiers.

    For tiers without chat models, which would cost dollars: log those with `explore` instead. Raises `ConfigError`.
    """
    for name, tier in product(modules, TIERS):
        if isinstance(modules[name].methods[tier], Language):
            raise ConfigError(
                f"{name} {tier} asks a chat model: a sweep takes tiers without: log those with memory.explore, "
                "or set memory.axis local"
            )
    raw = work.mean_of_chunks(work.raw)
    for first in TIERS:
        filtered = work.but(meter=Meter(charging=True))
        kept, filter_ms = timed(modules["filter"], first, filtered)
        assert isinstance(kept, Kept)
        paid = filtered.meter.paid
        filtered = filtered.but(kept=kept.chunks, relevance=kept.relevance)
        read = filtered.mean_of_chunks(kept.chunks)
        made: dict[tuple[ModuleName, Tier], tuple[list[Item], float, set[tuple[str, str]]]] = {}
        for name, tier in product(EXTRACTORS, TIERS):
            own = filtered.but(meter=Meter(charging=True, paid=paid))
            items, milliseconds = timed(modules[name], tier, own)
            made[name, tier] = items, milliseconds, own.meter.paid
        for middle in product(TIERS, repeat=3):
            parts = {name: made[name, tier] for name, tier in zip(EXTRACTORS, middle)}
            before = filter_ms + sum(part[1] for part in parts.values())
            before -= shared(parts, paid, work)
            found = {name: part[0] for name, part in parts.items()}
            known = set().union(*(part[2] for part in parts.values()))
            outputs = work.mean_of_items(found)
            for last in TIERS:
                own = filtered.but(found=found, meter=Meter(charging=True, paid=known))
                items, milliseconds = timed(modules["summary"], last, own)
                text = compose(own, items, budget)
                yield Outcome((first, *middle, last), text, before + milliseconds, (raw, read, outputs))


def shared(
    parts: Mapping[ModuleName, tuple[list[Item], float, set[tuple[str, str]]]],
    paid: set[tuple[str, str]],
    work: Work,
) -> float:
    """Milliseconds that several extractors were each charged for and that only the first of them would spend."""
    seen, twice = set(paid), 0.0
    for _, _, own in parts.values():
        twice += sum(work.tools.cost(what) for what in (own - paid) & (seen - paid))
        seen |= own
    return twice


def timed(module: Module[Any], tier: Tier, work: Work) -> tuple[Any, float]:
    """A tier's result and its milliseconds of this thread, with what a cold cache would have added."""
    started = time.thread_time()
    result = module.run(tier, work, _nobody)
    return result, (time.thread_time() - started) * 1000 + work.meter.milliseconds


async def _nobody(size: Size, messages: Sequence[Message], max_tokens: int) -> str:
    raise AssertionError("a sweep asks no chat model")
