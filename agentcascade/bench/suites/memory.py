"""Benchmark suites of memory: questions on long histories, with the evidence of each answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentcascade.envs.memory_qa import hotpotqa, locomo, longmemeval
from agentcascade.envs.memory_qa.types import Conversation


@dataclass(frozen=True)
class MemorySuite:
    """A set of questions that `agentcascade bench NAME` asks memories of different cost.

    Args:
        help: of the command, one line.
        load: reads the published file; raises `InvalidRequest`.
    """

    help: str
    load: Callable[[Path], list[Conversation]]


LOCOMO = MemorySuite(
    "LoCoMo: questions on conversations of months, with the evidence of each answer.", locomo.load_conversations
)
LONGMEMEVAL = MemorySuite(
    "LongMemEval: questions on what a user told an assistant over many sessions.", longmemeval.load_conversations
)
HOTPOTQA = MemorySuite("HotpotQA (distractor): questions that need two of ten paragraphs.", hotpotqa.load_conversations)
