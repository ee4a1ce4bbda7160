"""Sections of what is kept, and for how long: redaction, retention, the response cache, memory."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from pydantic import Field, field_validator

from agentcascade.config.section import Section
from agentcascade.config.sections.models import ModelConfig, RouterConfig


class RedactionConfig(Section):
    """What is replaced before anything is stored. Answers to the agent are never touched."""

    keys: bool = Field(default=True, description="API keys, tokens and passwords")
    emails: bool = Field(default=True, description="e-mail addresses")
    phones: bool = Field(default=True, description="phone numbers")
    patterns: Mapping[str, str] = Field(default_factory=dict, description="placeholder: regular expression")
    presidio: bool = Field(default=False, description="names and more, by Presidio; needs the extra `redaction`")


class RetentionConfig(Section):
    """Days for which records are kept; the bank and histories are never touched. None keeps them for ever."""

    decisions: int | None = Field(default=90, ge=1, description="with their calls and shadows")
    episodes: int | None = Field(default=365, ge=1, description="ended ones, without their steps")
    drafts: int | None = Field(default=14, ge=1, description="unfinished episodes of mode collect")
    recalls: int | None = Field(default=90, ge=1, description="what memory was made of, with its calls")
    responses: int | None = Field(default=30, ge=1, description="of the Responses API, sealed")
    max_decisions: int | None = Field(default=5_000_000, ge=1, description="in number; the oldest go first")


class ResponseCacheConfig(Section):
    """Answers to exactly equal model calls of a namespace, given again for nothing: at temperature 0 or by request."""

    enabled: bool = Field(
        default=False,
        description="requests may say more: the header x-agentcascade-cache, or agentcascade_cache among metadata, is "
        "use (whatever the temperature), no-cache (ask anew, keep that answer) or no-store",
    )
    ttl_seconds: float = Field(default=86_400.0, gt=0, description="for which an answer is given again")
    max_entries: int = Field(default=100_000, ge=1, description="answers of one namespace; the oldest go first")
    max_bytes: int = Field(default=256_000_000, ge=1, description="of one namespace in the database, likewise")
    max_entry_bytes: int = Field(default=1_000_000, ge=1, description="of one answer; a larger one is not kept")
    memory_bytes: int = Field(default=32_000_000, ge=0, description="of answers held in each process")


class MemoryConfig(Section):
    """Memory of long histories, for agents' steps and on its own (BudgetMem)."""

    enabled: bool = Field(default=False, description="put a memory block before every step of the agent")
    teacher_sees_memory: bool = Field(default=True, description="the teacher is given the memory block, too")
    remember: bool = Field(default=True, description="append every step's observation and action to the history")
    history: str = Field(
        default="", description="name of the namespace's history that steps are given; default: the episode's own"
    )
    axis: str = Field(default="local", description="local (no chat model), implementation, reasoning, capacity")
    tiers: Mapping[str, Mapping[str, str]] = Field(
        default_factory=dict, description="module: {tier: rules, models, deep or llm:SIZE[:direct|cot|reflect|refine]}"
    )
    models: Mapping[Literal["small", "medium", "large"], ModelConfig] = Field(default_factory=dict)
    router: RouterConfig = RouterConfig(name="fixed", options={"tiers": "mid"})
    tradeoff: float = Field(default=0.3, ge=0, le=1, description="λ: weight of cost against quality")
    explore: float = Field(default=0.0, ge=0, le=1, description="share of choices made at random, to learn from")
    embedder: str = Field(default="", description="default: retrieval.embedder")
    retrieval: Literal["hybrid", "dense", "lexical"] = Field(
        default="hybrid", description="chunks are searched by BM25 (lexical), by vectors (dense), or by both"
    )
    chunk_tokens: int = Field(default=256, ge=16, description="of a chunk of the history")
    k: int = Field(default=5, ge=1, description="chunks of each search")
    top_k: int = Field(default=10, ge=1, description="chunks that the filter reads")
    token_budget: int = Field(default=1000, ge=0, description="of the memory's text")
    deadline_seconds: float = Field(default=10.0, gt=0, description="of one question; what came too late is left out")
    max_dollars: Decimal | None = Field(default=None, ge=0, description="for the chat models of one question")
    max_history_tokens: int = Field(
        default=1_000_000, ge=1000, description="of one history; the oldest beyond are passed over"
    )
    max_histories: int = Field(default=64, ge=1, description="held in memory at once")
    max_held_bytes: int = Field(
        default=1_000_000_000, ge=0, description="of the histories held at once; a line takes 2 to 7 KB"
    )

    @field_validator("router")
    @classmethod
    def _has_no_latch(cls, router: RouterConfig) -> RouterConfig:
        if router.stuck is not None:
            raise ValueError("stuck is the step router's (router.stuck): a memory is recalled however the run goes")
        if router.latch != "never":
            raise ValueError(
                "latch is the step router's (router.latch): tiers of memory have no prompt cache to stay with"
            )
        return router
