"""Identity of a stateless caller's episode: its id and goal, given or else read off the conversation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

from agentcascade.episodes.episode import Episode
from agentcascade.episodes.keywords import checked_use
from agentcascade.errors import InvalidRequest
from agentcascade.messages import text_of
from agentcascade.step.engine import Engine
from agentcascade.types import DERIVED, Account, Message

EPISODE, GOAL, CACHE = "agentcascade_episode", "agentcascade_goal", "agentcascade_cache"
"""Keys of a request's `metadata`."""
EPISODE_HEADER, GOAL_HEADER = "x-agentcascade-episode", "x-agentcascade-goal"
CACHE_HEADER = "x-agentcascade-cache"
"""Headers, which win over metadata. A goal may be percent-encoded."""

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/+-]{0,199}")
GOAL_CHARACTERS = 4000


def episode_of(
    engine: Engine,
    messages: Sequence[Message],
    *,
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    namespace: str | None = None,
    accounts: Sequence[Account] = (),
) -> Episode:
    """Stateless episode that the conversation belongs to. Raises `InvalidRequest` for an impossible id or goal."""
    metadata, headers = metadata or {}, headers or {}
    space = namespace or engine.context.config.bank.namespace
    episode = headers.get(EPISODE_HEADER) or metadata.get(EPISODE)
    named = headers.get(GOAL_HEADER)
    use = headers.get(CACHE_HEADER) or metadata.get(CACHE)
    return Episode(
        engine,
        goal=checked_goal(decoded(named) if named else metadata.get(GOAL) or ""),
        id=checked_id(episode) if episode is not None else derived(messages, space, engine.context.name),
        namespace=space,
        accounts=accounts,
        cache_use=checked_use(use, CACHE_HEADER) if use else "auto",
        stateless=True,
    )


def checked_id(value: object) -> str:
    """`value` as an episode's id; raises `InvalidRequest` for one that could be mistaken for anything else."""
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise InvalidRequest(
            f"episode id {str(value)[:60]!r}: use up to 200 letters, digits and _ . : @ / + -, a letter or digit first"
        )
    return value


def checked_goal(value: object) -> str:
    """`value` as it is; raises `InvalidRequest` for what is no text, or too long to be kept whole."""
    if not isinstance(value, str) or len(value) > GOAL_CHARACTERS:
        length = f", not {len(value)}" if isinstance(value, str) else ""
        raise InvalidRequest(f"the goal must be a text of at most {GOAL_CHARACTERS} characters{length}")
    return value


def decoded(header: str) -> str:
    """A header's text, percent-decoded where that gives UTF-8: headers alone need it."""
    try:
        return unquote(header, errors="strict")
    except UnicodeDecodeError:
        return header


def derived(messages: Sequence[Message], namespace: str, cascade: str) -> str:
    """The id of a conversation that names none: what it starts with, up to the first user message, says which it is.

    Two runs that begin with the same words get the same id; the second one replaces the first one's draft, and may be
    shown what the first one did.
    """
    digest = blake2b(f"{namespace}\0{cascade}".encode(), digest_size=10)
    for message in messages:
        digest.update(f"\0{message.get('role')}\0{text_of(message)}".encode(errors="surrogatepass"))
        if message.get("role") == "user":
            break
    return f"{DERIVED}{digest.hexdigest()}"


def provider_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The metadata without our own keys; None when nothing is left."""
    return {k: v for k, v in (metadata or {}).items() if k not in (EPISODE, GOAL, CACHE)} or None
