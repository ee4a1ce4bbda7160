"""Keywords of what is kept, and for how long: redaction, retention, the response cache, memory."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, TypedDict

from agentcascade.config.keywords.models import ModelKeywords, RouterKeywords
from agentcascade.config.sections import ModelConfig, RouterConfig


class RedactionKeywords(TypedDict, total=False):
    """Fields of `RedactionConfig`."""

    keys: bool
    emails: bool
    phones: bool
    patterns: Mapping[str, str]
    presidio: bool


class RetentionKeywords(TypedDict, total=False):
    """Fields of `RetentionConfig`."""

    decisions: int | None
    episodes: int | None
    drafts: int | None
    recalls: int | None
    responses: int | None
    max_decisions: int | None


class ResponseCacheKeywords(TypedDict, total=False):
    """Fields of `ResponseCacheConfig`."""

    enabled: bool
    ttl_seconds: float
    max_entries: int
    max_bytes: int
    max_entry_bytes: int
    memory_bytes: int


class MemoryKeywords(TypedDict, total=False):
    """Fields of `MemoryConfig`."""

    enabled: bool
    teacher_sees_memory: bool
    remember: bool
    history: str
    axis: str
    tiers: Mapping[str, Mapping[str, str]]
    models: Mapping[Literal["small", "medium", "large"], ModelConfig | ModelKeywords | str]
    router: RouterConfig | RouterKeywords | str
    tradeoff: float
    explore: float
    embedder: str
    retrieval: Literal["hybrid", "dense", "lexical"]
    chunk_tokens: int
    k: int
    top_k: int
    token_budget: int
    deadline_seconds: float
    max_dollars: Decimal | float | str | None
    max_history_tokens: int
    max_histories: int
    max_held_bytes: int
