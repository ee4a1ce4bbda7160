"""Sweep a benchmark: score every tier combination of every question, into the log that a tier router is trained on.

Workers take one conversation at a time, and a folder keeps its part, so that a killed run resumes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade._util.files import write_atomically
from agentcascade.bench.pools.base import WorkersDied
from agentcascade.bench.pools.open import open_pool
from agentcascade.config.load import CascadeConfig
from agentcascade.envs.memory_qa.scoring import score_evidence
from agentcascade.envs.memory_qa.types import Conversation
from agentcascade.errors import BenchError
from agentcascade.memory.combinations import COMBINATIONS, PLACES, PREFIXES
from agentcascade.types import TIERS

if TYPE_CHECKING:
    from agentcascade.memory.memory import Memory
    from agentcascade.routers.tier.log import TierLog

METRICS = ("milliseconds", "tokens", "precision", "recall")
CACHED = 12_000
"""Token vectors in a worker's cache, as many as a long conversation has, 30 KiB each"""

OnDone = Callable[[int, int], None]
"""Callback with the numbers of conversations done and in all"""


@dataclass(frozen=True)
class SweepPlan:
    """Plan of a sweep: conversations, and a configuration whose tiers ask no chat model."""

    config: CascadeConfig
    conversations: Sequence[Conversation]
    workers: int = 2
    ray: str | None = None

    def describe(self) -> dict[str, Any]:
        """Settings that must be the same where a sweep is resumed."""
        memory = self.config.memory.model_dump(mode="json", exclude={"router", "tradeoff", "explore", "max_held_bytes"})
        said = {"prompts": dict(self.config.prompt.template)} if self.config.prompt.template else {}
        return {"memory": memory, **said, "embedder": self.config.retrieval.embedder, "conversations": self.digest}

    @property
    def digest(self) -> str:
        """Digest of all questions and turns."""
        digest = blake2b(digest_size=12)
        for conversation in self.conversations:
            text = json.dumps(conversation.model_dump(mode="json"), separators=(",", ":"), ensure_ascii=False)
            digest.update(text.encode(errors="replace"))
        return digest.hexdigest()


def collect_sweep(sweep: SweepPlan, folder: Path, on_done: OnDone | None = None) -> TierLog:
    """Sweep the questions with evidence into a complete log. Raises `BenchError` for another sweep's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    description, manifest = sweep.describe(), folder / "sweep.json"
    if manifest.exists() and json.loads(manifest.read_text(encoding="utf-8")) != description:
        raise BenchError(f"{folder} holds another sweep: choose another --out, or the settings it was begun with")
    write_atomically(manifest, json.dumps(description, indent=2))
    conversations = [c for c in sweep.conversations if any(q.evidence and q.answerable for q in c.questions)]
    if not conversations:
        raise BenchError("no question of these data has evidence: nothing can be scored without an answer model")
    parts = {c.id: folder / f"{blake2b(c.id.encode(), digest_size=8).hexdigest()}.npz" for c in conversations}
    waiting = [c for c in conversations if not parts[c.id].exists()]
    done = len(conversations) - len(waiting)
    if on_done:
        on_done(done, len(conversations))
    if waiting:
        longest = sorted(waiting, key=lambda c: -len(c.turns) * len(c.questions))
        try:
            with open_pool(sweep.workers, _start, sweep.config, ray=sweep.ray) as pool:
                for name, arrays in pool.map(_play, longest):
                    _write_part(parts[name], arrays)
                    done += 1
                    if on_done:
                        on_done(done, len(conversations))
        except WorkersDied as error:
            raise BenchError(
                f"a worker died ({error}): see its memory; what was swept is kept, continue with --resume"
            ) from error
    return _merge_parts(sweep, [(c, parts[c.id]) for c in conversations])


_memory: Memory | None = None


def _start(config: CascadeConfig) -> None:
    from agentcascade.assembly.memory import make_memory
    from agentcascade.assembly.resources import Resources
    from agentcascade.routers.tier.baselines import FixedTiers

    global _memory
    _memory = make_memory(config, Resources(), router=FixedTiers("low"), stored=False, charging=True, cached=CACHED)


def _play(conversation: Conversation) -> tuple[str, dict[str, Any]]:
    """Sweep one conversation's questions; returns its id and the arrays of its part."""
    import asyncio

    from agentcascade.memory.sweep import sweep_tiers

    memory = _memory
    assert memory is not None
    asyncio.run(memory.append(conversation.id, conversation.turns))
    asyncio.run(memory.prepare(conversation.id))
    rows: dict[str, list[Any]] = {"query": [], "raw": [], "kept": [], "found": [], "score": [], "ids": []}
    metrics: dict[str, list[list[float]]] = {name: [] for name in METRICS}
    for question in conversation.questions:
        if not question.evidence or not question.answerable:
            continue
        work = memory.question_context(question.text, conversation.id)
        outcomes = list(sweep_tiers(work, memory.pipeline.modules, memory.config.token_budget))
        scores = [score_evidence(o.text.sources, question.evidence) for o in outcomes]
        rows["ids"].append(question.id)
        rows["query"].append(work.query.vector)
        rows["raw"].append(outcomes[0].reads[0])
        rows["kept"].append([outcomes[i].reads[1] for i in range(0, COMBINATIONS, PLACES[0])])
        rows["found"].append([outcomes[i].reads[2] for i in range(0, COMBINATIONS, len(TIERS))])
        rows["score"].append([s.f1 for s in scores])
        metrics["milliseconds"].append([o.milliseconds for o in outcomes])
        metrics["tokens"].append([float(o.text.tokens) for o in outcomes])
        metrics["precision"].append([s.precision for s in scores])
        metrics["recall"].append([s.recall for s in scores])
    asyncio.run(memory.remove(conversation.id))  # a worker plays many
    arrays: dict[str, Any] = {
        "ids": np.array(rows["ids"]),
        "query": np.array(rows["query"], dtype=np.float32),
        **{name: np.array(rows[name], dtype=np.float16) for name in ("raw", "kept", "found")},
        "score": np.array(rows["score"]),
        **{name: np.array(values) for name, values in metrics.items()},
    }
    return conversation.id, arrays


def _write_part(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a conversation's part, whole or not at all."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **arrays)
    temporary.replace(path)


def _merge_parts(sweep: SweepPlan, parts: Sequence[tuple[Conversation, Path]]) -> TierLog:
    """Merge the parts of all conversations into one log."""
    from agentcascade.bench.memory.training import question_embedder
    from agentcascade.routers.tier.log import TierLog

    loaded: list[Mapping[str, Any]] = [np.load(path) for _, path in parts]
    whole = {name: np.concatenate([part[name] for part in loaded]) for name in loaded[0] if name != "ids"}
    texts = {q.id: q.text for c, _ in parts for q in c.questions}
    questions = [texts[str(name)] for part in loaded for name in part["ids"]]
    groups = [c.id for (c, _), part in zip(parts, loaded) for _ in part["ids"]]
    n, d = whole["query"].shape
    combinations = (np.arange(COMBINATIONS)[:, None] // np.array(PLACES) % len(TIERS)).astype(np.int8)
    row = np.arange(n * COMBINATIONS)
    question, combination = row // COMBINATIONS, row % COMBINATIONS
    states = 1 + len(TIERS) + PREFIXES  # vectors of one question, in this order
    first = question * states
    filtered = first + 1 + combination // PLACES[0]
    extracted = first + 1 + len(TIERS) + combination // len(TIERS)
    reads = np.stack([first, filtered, extracted], axis=1)
    vectors = np.concatenate([whole["raw"][:, None], whole["kept"], whole["found"].reshape(n, PREFIXES, d)], axis=1)
    encoder = question_embedder(sweep.config).name
    return TierLog(
        questions=questions,
        groups=groups,
        query=whole["query"],
        question=question.astype(np.int32),
        tiers=combinations[combination],
        propensity=np.full(len(row), 1 / COMBINATIONS),
        score=whole["score"].reshape(-1).astype(np.float64),
        cost=whole["milliseconds"].reshape(-1).astype(np.float64),
        reads=reads.astype(np.int32),
        vectors=vectors.reshape(-1, d),
        metrics={name: whole[name].reshape(-1).astype(np.float64) for name in METRICS},
        about={
            "encoder": encoder,
            "dimension": d,
            "cost_unit": "milliseconds",
            "score": "evidence F1",
            "axis": sweep.config.memory.axis,
            "token_budget": sweep.config.memory.token_budget,
            "data": sweep.digest,
        },
    )
