"""Sweep of all tier combinations of one question: the rows of the outcome table that a tier router is trained on.

Each module and tier runs once. The cost of a combination is what it alone would have cost from a cold cache (see
`ColdCacheMeter`), in milliseconds of one core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from agentcascade.errors import ConfigError
from agentcascade.memory.combinations import EXTRACTORS
from agentcascade.memory.llm import ChatMethod, Size
from agentcascade.memory.modules.base import Module
from agentcascade.memory.modules.filter import FilteredChunks
from agentcascade.memory.question import ColdCacheMeter, MemoryItem, QuestionContext
from agentcascade.memory.render import MemoryText, compose
from agentcascade.types import TIERS, Message, ModuleName, Tier

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector


@dataclass(frozen=True)
class TierOutcome:
    """Outcome of one combination of tiers: its memory, its cost, and the vectors that its decisions were made on."""

    tiers: tuple[Tier, ...]
    text: MemoryText
    milliseconds: float
    reads: tuple[Vector, Vector, Vector]
    """Mean vectors (d,) of the retrieved chunks, the filtered chunks, and the extracted items"""


def sweep_tiers(
    context: QuestionContext, modules: Mapping[ModuleName, Module[Any]], budget: int
) -> Iterator[TierOutcome]:
    """Outcomes of all tier combinations for one question, in the order of `itertools.product` over tiers.

    Raises `ConfigError` for tiers that ask chat models, which would cost dollars: log those with `explore` instead.
    """
    for name, tier in product(modules, TIERS):
        if isinstance(modules[name].methods[tier], ChatMethod):
            raise ConfigError(
                f"{name} {tier} asks a chat model: a sweep takes tiers without: log those with memory.explore, "
                "or set memory.axis local"
            )
    raw = context.mean_of_chunks(context.retrieved)
    for first in TIERS:
        filtered_context = replace(context, meter=ColdCacheMeter(charging=True))
        filtered, filter_ms = run_timed(modules["filter"], first, filtered_context)
        assert isinstance(filtered, FilteredChunks)
        paid = filtered_context.meter.paid
        filtered_context = replace(filtered_context, filtered=filtered.chunks, relevance=filtered.relevance)
        read = filtered_context.mean_of_chunks(filtered.chunks)
        results: dict[tuple[ModuleName, Tier], tuple[list[MemoryItem], float, set[tuple[str, str]]]] = {}
        for name, tier in product(EXTRACTORS, TIERS):
            branch = replace(filtered_context, meter=ColdCacheMeter(charging=True, paid=paid))
            items, milliseconds = run_timed(modules[name], tier, branch)
            results[name, tier] = items, milliseconds, branch.meter.paid
        for middle in product(TIERS, repeat=len(EXTRACTORS)):
            parts = {name: results[name, tier] for name, tier in zip(EXTRACTORS, middle)}
            spent = filter_ms + sum(part[1] for part in parts.values())
            spent -= double_charged(parts, paid, context)
            extracted = {name: part[0] for name, part in parts.items()}
            paid_for = set().union(*(part[2] for part in parts.values()))
            outputs = context.mean_of_items(extracted)
            for last in TIERS:
                meter = ColdCacheMeter(charging=True, paid=paid_for)
                branch = replace(filtered_context, extracted=extracted, meter=meter)
                items, milliseconds = run_timed(modules["summary"], last, branch)
                text = compose(branch, items, budget)
                yield TierOutcome((first, *middle, last), text, spent + milliseconds, (raw, read, outputs))


def double_charged(
    parts: Mapping[ModuleName, tuple[list[MemoryItem], float, set[tuple[str, str]]]],
    paid: set[tuple[str, str]],
    context: QuestionContext,
) -> float:
    """Milliseconds that several extractors were charged for, of which only the first would spend them."""
    paid_so_far, twice = set(paid), 0.0
    for _, _, charged in parts.values():
        twice += sum(
            context.small_models.compute_milliseconds(what) for what in (charged - paid) & (paid_so_far - paid)
        )
        paid_so_far |= charged
    return twice


def run_timed(module: Module[Any], tier: Tier, context: QuestionContext) -> tuple[Any, float]:
    """A tier's result, and its milliseconds on this thread and of a cold cache."""
    started = time.thread_time()
    result = module.run(tier, context, _nobody)
    return result, (time.thread_time() - started) * 1000 + context.meter.milliseconds


async def _nobody(size: Size, messages: Sequence[Message], max_tokens: int) -> str:
    raise AssertionError("a sweep asks no chat model")
