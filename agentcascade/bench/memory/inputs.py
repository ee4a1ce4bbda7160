"""Inputs of the memory commands: a benchmark's file, a tier log, a tier router."""

from __future__ import annotations

from pathlib import Path

from agentcascade import registry
from agentcascade.bench.suites.memory import MemorySuite
from agentcascade.envs.memory_qa.types import Conversation
from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.memory.types import TierRouter
from agentcascade.routers.tier import log, log_import
from agentcascade.routers.tier.baselines import FixedTiers
from agentcascade.routers.tier.log import TierLog
from agentcascade.types import MODULES


def load_suite(suite: str, path: Path) -> list[Conversation]:
    """The conversations of a published file; questions that ask nothing are left out.

    Args:
        suite: a `MemorySuite`'s name in the entry-point group ``agentcascade.suites``.
        path: of the file, as the suite publishes it.

    Raises:
        ConfigError: where `suite` is no such name.
        InvalidRequest: where the file is not the suite's.
    """
    kind = registry.load(registry.find("suites", suite, "suite"), "suite")
    if not isinstance(kind, MemorySuite):
        raise ConfigError(f"suite '{suite}' is not one of memory: it has no file of conversations")
    conversations = kind.load(path)
    names: set[str] = set()
    for place, conversation in enumerate(conversations):
        if conversation.id in names:
            raise InvalidRequest(f"{path} has two conversations called '{conversation.id}': rename one")
        names.add(conversation.id)
        asking = tuple(q for q in conversation.questions if q.text.strip())
        if dropped := len(conversation.questions) - len(asking):
            problems = (*conversation.problems, f"{dropped} questions have no text: dropped")
            conversations[place] = conversation.model_copy(update={"questions": asking, "problems": problems})
    return conversations


def open_log(path: Path, embedder: str) -> TierLog:
    """Open a tier log: .npz, or .jsonl, whose questions are embedded."""
    if path.suffix != ".jsonl":
        return log.load_log(path)
    from agentcascade.assembly import components

    encoder = components.make_embedder(embedder)
    return log_import.from_jsonl(path, encoder.embed, {"encoder": encoder.name})


def _tiers(text: str) -> str | dict[str, str]:
    """Parse tiers: ``low``, ``filter=low,summary=high``, ``all-low`` or ``low-low-mid-low-high``."""
    if "=" in text:
        pairs = [part.partition("=") for part in text.split(",")]
        return {name.strip(): tier.strip() for name, _, tier in pairs}
    names = text.removeprefix("all-").split("-")
    return dict(zip(MODULES, names)) if len(names) == len(MODULES) else names[0] if len(names) == 1 else text


def open_router(path: Path | None, tiers: str | None) -> TierRouter:
    """Open a trained router by its checkpoint, or make one of fixed tiers by their names."""
    if path is None:
        return FixedTiers(_tiers(tiers or ""))  # type: ignore[arg-type]
    from agentcascade.routers.tier.checkpoints import checkpoint_kind

    router: TierRouter = registry.construct("tier_routers", checkpoint_kind(path), "--router", {"path": path})
    return router
