"""Keywords of models, routers, judges, and of stuck runs and the verifier, which are asked beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypedDict

from pydantic import SecretStr

from agentcascade.config.sections import ModelConfig, RouterConfig
from agentcascade.config.stuck import StuckConfig


class ModelKeywords(TypedDict, total=False):
    """Fields of `ModelConfig`. The model is its `name`, or under `model`."""

    model: str
    name: str
    temperature: float | None
    max_tokens: int | None
    timeout_seconds: float
    retries: int
    api_base: str | None
    api_key: SecretStr | str | None
    price: Mapping[str, Decimal | float | str] | None
    options: Mapping[str, Any]
    effort: str | int | None
    text_calls: bool


class StudentKeywords(ModelKeywords, total=False):
    """Fields of `StudentConfig`."""

    samples: int
    weight: int


class PartKeywords(TypedDict, total=False):
    """Fields of `PartConfig`."""

    name: str
    options: Mapping[str, Any]


class StuckKeywords(TypedDict, total=False):
    """Fields of `StuckConfig`."""

    repeated: int | None
    errors: int | None
    nothing_new: int | None
    over_plan: float | None
    false_done: int | None
    silence: int | None
    hold: int
    most: int
    error_phrases: Sequence[str]
    done_phrases: Sequence[str]
    done_actions: Sequence[str]
    empty: Sequence[str]


class VerifierKeywords(ModelKeywords, total=False):
    """Fields of `VerifierConfig`."""

    ask: Literal["split", "stakes", "always"] | Sequence[Literal["split", "stakes", "always"]]
    agreement: Sequence[float]
    accept: float
    reject: float
    think: bool
    read: Literal["auto", "scale"]
    context_tokens: int
    worth: Literal["auto", "always"]


class RouterKeywords(PartKeywords, total=False):
    """Fields of `RouterConfig`."""

    latch: Literal["never", "auto"]
    stuck: StuckConfig | StuckKeywords | None


class LinkKeywords(StudentKeywords, total=False):
    """Fields of `LinkConfig`."""

    router: RouterConfig | RouterKeywords | str


class RungKeywords(StudentKeywords, total=False):
    """Fields of `RungConfig`."""

    router: RouterConfig | RouterKeywords | str | None


class JudgeKeywords(TypedDict, total=False):
    """Fields of `JudgeConfig`."""

    model: ModelConfig | ModelKeywords | str | None
    question: str
    name: str | None
    options: Mapping[str, Any]
    together: int
    together_characters: int
    together_seconds: float
