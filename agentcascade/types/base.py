"""Roots of the data: names of modes, roles and purposes, ids, and the base of every frozen value."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

Message: TypeAlias = dict[str, Any]
"""One chat message in OpenAI's shape."""
Tool: TypeAlias = dict[str, Any]
"""One tool definition in OpenAI's shape (``{"type": "function", "function": {...}}``)."""
Delta: TypeAlias = dict[str, Any]
"""A part of an assistant message, as the `delta` of OpenAI's streaming chunks."""
Mode = Literal["teacher", "collect", "shadow", "cascade", "student"]
"""Mode of an episode: who is asked, and who acts."""
Role = Literal["teacher", "student"]
"""Role of a model in a step."""
Purpose = Literal[
    "act",
    "sample",
    "shadow",
    "audit",
    "plan",
    "first-thought",
    "verify",
    "score",
    "judge",
    "memory",
    "history",
    "other",
]
"""Purpose of a model call, in bills and spans."""
CacheUse = Literal["auto", "use", "no-cache", "no-store"]
"""Of the response cache by one request. auto: at temperature 0; use: whatever the temperature; no-cache: ask anew, and
keep that answer; no-store: ask anew, and keep nothing."""
DERIVED = "cv_"
"""Begins the ids of episodes that are told apart by their first words alone."""


def new_id(prefix: str) -> str:
    """A short random identifier such as ``ep_3f2a…``."""
    return f"{prefix}_{os.urandom(10).hex()}"


def now() -> datetime:
    return datetime.now(UTC)


class Frozen(BaseModel):
    """Base of every value here: immutable, unknown fields refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    def _repr_html_(self) -> str:
        """In a notebook: a table of what it says, every text escaped."""
        from agentcascade._util.notebook import html_of_model

        return html_of_model(self)


F = TypeVar("F", bound=Frozen)


def unchecked(kind: type[F], values: dict[str, Any], given: set[str]) -> F:
    """A value whose fields were checked already, made in a tenth of the time that checking them again takes.

    Args:
        kind: A class without private attributes.
        values: Of all fields.
        given: Names of the fields that were given, as `model_fields_set` has them; both are the value's from now on.
    """
    made = object.__new__(kind)
    put = object.__setattr__
    put(made, "__dict__", values)
    put(made, "__pydantic_fields_set__", given)
    put(made, "__pydantic_extra__", None)
    put(made, "__pydantic_private__", None)
    return made
