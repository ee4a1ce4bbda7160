"""Precision of an embedding model, float32 or int8: chosen by measurement on this processor, and kept in the cache.

int8 is taken where it is much faster and its vectors are those of float32 within a bound: a processor that multiplies
bytes without an instruction for it (AVX2 without VNNI) may do so slowly, or with sums that saturate.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from agentcascade._util.files import cache_folder, write_atomically
from agentcascade.errors import describe

log = logging.getLogger("agentcascade.retrievers")

Precision: TypeAlias = Literal["float32", "int8"]

PROBES = (
    "You open the drawer 2. The drawer 2 is open. In it, you see a cellphone 1 and a pencil 3.",
    "What is the average age of all pilots who fly for an airline that was founded before 1990?",
    "Traceback (most recent call last): KeyError: 'total'",
    "Jon told Maria that the studio opens on 20 June, and that he still looks for a dancer.",
    "You arrive at shelf 4. On the shelf 4, you see nothing.",
)
"""Texts by which precisions are compared; the ranges of int8 were found with others."""
FASTER = 1.3
"""int8 must be so many times as fast."""
NEARNESS = 0.985
"""Least cosine of int8's and float32's vector of a text."""
ROUNDS = 7


class Measured(NamedTuple):
    """Milliseconds of one core that a text took under each precision, and the least cosine of their vectors."""

    float32_ms: float
    int8_ms: float
    nearness: float

    @property
    def best(self) -> Precision:
        good = self.nearness >= NEARNESS and self.int8_ms * FASTER <= self.float32_ms
        return "int8" if good else "float32"


def chosen_precision(model: str, runtime: str, embedders: Callable[[], tuple[Any, Any]]) -> Precision:
    """The better precision of `model`, by what was measured here before, else of `embedders()`: float32's and int8's.

    Whatever goes wrong with int8, float32 is taken.
    """
    file = cache_folder("onnx") / f"precision-{_setting(model, runtime)}.json"
    with suppress(OSError, ValueError, TypeError):
        return Measured(**json.loads(file.read_text())).best
    try:
        measured = measure(*embedders())
    except Exception as error:  # onnxruntime raises bare and private classes
        log.warning("embedding model %s in int8 cannot be used (%s): float32 is", model, describe(error))
        return "float32"
    log.info("embedding model %s: %s, for %s", model, measured.best, measured)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(measured._asdict()))
    return measured.best


def measure(float32: Any, int8: Any) -> Measured:
    """Compare two embedders of one model, in turn, by the time of their threads: a busy machine slows both."""
    nearness = float((float32.embed(PROBES) * int8.embed(PROBES)).sum(axis=1).min())
    seconds = [0.0, 0.0]
    for _ in range(ROUNDS):
        for which, embedder in enumerate((float32, int8)):
            started = time.thread_time()
            for text in PROBES:
                embedder.embed([text])
            seconds[which] += time.thread_time() - started
    float32_ms, int8_ms = (round(1000 * s / ROUNDS / len(PROBES), 3) for s in seconds)
    return Measured(float32_ms, int8_ms, round(nearness, 5))


def _setting(model: str, runtime: str) -> str:
    """A digest of what the measurement holds for: the model, the runtime, and the processor's abilities."""
    abilities = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        abilities = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    parts = model, runtime, platform.machine(), platform.processor(), abilities
    return blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
