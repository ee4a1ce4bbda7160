"""`wrap(client)`: an OpenAI client whose chat completions and responses go through a cascade.

The teacher is the model that the program asks for, through the program's own client; everything else about the client
stays as it is. What a caller may rely on: the class, `create` with all its arguments, streams, `parse`, `with_options`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from openai import AsyncOpenAI, OpenAI

from agentcascade.assembly.components import NAMED, OWN
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import ConfigError
from agentcascade.integrations.openai_bypasses import beta_of, bypasses
from agentcascade.integrations.openai_chat import AsyncCascadeChat, AsyncCascadeStream, CascadeChat, CascadeStream
from agentcascade.integrations.openai_control import Running, Wrapped
from agentcascade.integrations.openai_responses import AsyncCascadeResponses, CascadeResponses
from agentcascade.models import http_limits
from agentcascade.models.openai_client import ClientModel
from agentcascade.models.pricing import PriceTable
from agentcascade.step.audit_rounds import NEEDS_CONFIGURED

if TYPE_CHECKING:
    from pathlib import Path

    from agentcascade.actions.base import Validator
    from agentcascade.config.keywords import BuildKeywords, JudgeKeywords, LinkKeywords, ModelKeywords, StudentKeywords
    from agentcascade.config.load import CascadeConfig
    from agentcascade.config.sections import JudgeConfig, LinkConfig
    from agentcascade.integrations.openai_control import Client
    from agentcascade.models.structured_output import Choices
    from agentcascade.protocols import ChatModel, Judge, Merger, Observer, Recorder, TokenCounter

__all__ = ["AsyncCascadeStream", "CascadeStream", "Running", "Wrapped", "wrap"]

C = TypeVar("C", bound="Client")


def wrap(
    client: C,
    config: CascadeConfig | str | Path | None = None,
    *,
    cascade: str | None = None,
    teacher: ModelConfig | ModelKeywords | str | None = None,
    student: ChatModel | ModelConfig | StudentKeywords | str | None = None,
    students: Sequence[ChatModel | LinkConfig | LinkKeywords | str] = (),
    validators: Sequence[Validator] = (),
    mergers: Sequence[Merger] = (),
    choices: Choices | None = None,
    recorder: Recorder | None = None,
    judge: Judge | JudgeConfig | JudgeKeywords | None = None,
    observer: Observer | None = None,
    **keywords: Unpack[BuildKeywords],
) -> C:
    """Wrap an OpenAI client: chat completions and responses go through a cascade, all else stays as it is.

    The teacher is the model that each call names. Answers are OpenAI's own objects with the `Decision` in a field
    ``agentcascade``. ``client.agentcascade``, to type checkers ``Wrapped.of(client)``, names and finishes episodes and
    closes the cascade.

    Args:
        client: An `openai.OpenAI` or `AsyncOpenAI`, Azure's among them, an `anthropic.Anthropic` or `AsyncAnthropic`,
            also for Bedrock, Vertex AI or Foundry, or of a subclass; it is not changed.
        config: As for `agentcascade.build`; models named ``client/MODEL`` are reached through the client.
        cascade: Name of one of the configuration's `cascades`.
        teacher: Gives the price of the model that it names: ``{"name": …, "price": …}``.
        student: A model's name, its section, or a model of your own.
        students: Further ones, each likewise. A ``ladder`` names them all: its last rung stands for the model that
            each call names, and gives its price.
        validators: As for `build`, and so are the others.
        mergers: Say which actions are the same though their keys differ.
        choices: Lists a situation's admissible actions.
        recorder: Keeps decisions, in place of the database.
        judge: Says whether an episode succeeded where `finish` is not told.
        observer: Watches steps and model calls.
        keywords: Sections and fields of `CascadeConfig`, such as ``mode="shadow"`` or ``retrieval={"k": 4}``.

    Returns:
        A client of the same class that shares the connections of `client`.

    Raises:
        ConfigError, MissingExtra, StorageError: As `build`.

    >>> import openai
    >>> from agentcascade import ScriptedModel, wrap
    >>> client = wrap(openai.OpenAI(api_key="none"), student=ScriptedModel(["look"]), retrieval={"k": 0})
    >>> with client.agentcascade:
    ...     answer = client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "Go."}])
    >>> type(client).__name__, answer.choices[0].message.content, answer.agentcascade.answered_by
    ('OpenAI', 'look', 'student')
    """
    from agentcascade.assembly.cascade import build
    from agentcascade.assembly.components import make_model

    messages = _anthropic(client)
    if messages is None and not isinstance(client, (OpenAI, AsyncOpenAI)):
        raise ConfigError(
            "wrap takes a client, openai.OpenAI(…), openai.AsyncOpenAI(…), anthropic.Anthropic(…) or "
            f"anthropic.AsyncAnthropic(…), or of a subclass: got {type(client).__name__}"
        )
    own: Any = client

    def make(model: ModelConfig, count: TokenCounter) -> ChatModel:
        if not model.name.startswith(OWN):
            return make_model(model, count)
        return messages.model_through(own, model) if messages else _through(own, model)

    placeholder: Any = messages.placeholder(own) if messages else ClientModel(own, NAMED)
    if teacher and not isinstance(teacher, (str, Mapping, ModelConfig)):
        raise ConfigError(
            "wrap: the teacher is the model that each call names, so teacher cannot be a model of your own: leave it "
            "out, give {'name': …, 'price': …} for a price, or use agentcascade.build(teacher=…)"
        )
    built = build(
        config,
        cascade=cascade,
        teacher=teacher or placeholder,
        student=student,
        students=students,
        validators=validators,
        mergers=mergers,
        choices=choices,
        recorder=recorder,
        judge=judge,
        observer=observer,
        models=make,
        **keywords,
    )
    if built.context.batches is not None:
        built.close()
        raise ConfigError(NEEDS_CONFIGURED)
    if built.config.teacher is not None and built.config.teacher.effort is not None:
        built.close()
        where = f"ladder.{len(built.config.ladder) - 1}" if built.config.ladder else "teacher"
        raise ConfigError(
            f"{where}.effort: a wrapped client's calls name the teacher and how much it thinks (reasoning_effort, "
            "thinking): leave the effort out here"
        )
    attach = messages.attached if messages else _attached
    return cast("C", attach(own.copy(), Wrapped(built)))


def _anthropic(client: object) -> Any:
    """The module that wraps Anthropic's clients, where `client` is one of them; it is not imported otherwise."""
    if not any(kind.__module__.partition(".")[0] == "anthropic" for kind in type(client).__mro__):
        return None
    from agentcascade.integrations import anthropic

    return anthropic if anthropic.is_anthropic(client) else None


def _through(client: OpenAI | AsyncOpenAI, model: ModelConfig) -> ClientModel:
    """Model of the configuration that is reached through the program's own client."""
    if model.api_base is not None or model.api_key is not None:
        raise ConfigError(
            f"model '{model.name}' is reached through the wrapped client, which has an address and a key of its own: "
            "leave api_base and api_key out, or name a provider in place of 'client/'"
        )
    name = model.name.removeprefix(OWN)
    fixed = {**model.options, **({} if model.max_tokens is None else {"max_tokens": model.max_tokens})}
    return ClientModel(client, name, prices=PriceTable({name: dict(model.price)}) if model.price else None, fixed=fixed)


def _property(kind: type[Any], name: str, read: Callable[[Any], Any]) -> Any:
    attribute: Any = cached_property(read)
    attribute.__set_name__(kind, name)
    return attribute


def _attached(client: Any, wrapped: Wrapped) -> OpenAI | AsyncOpenAI:
    """The client, a copy that is ours to change, with its chat completions cascaded."""
    kind: Any = type(client)
    chat: Any = AsyncCascadeChat if isinstance(client, AsyncOpenAI) else CascadeChat

    def copy(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _attached(kind.copy(self, *args, **kwargs), wrapped)

    responses: Any = AsyncCascadeResponses if isinstance(client, AsyncOpenAI) else CascadeResponses
    body = {
        **bypasses(kind),
        "agentcascade": wrapped,
        "chat": _property(kind, "chat", lambda self: chat(self, wrapped)),
        "responses": _property(kind, "responses", lambda self: responses(self, wrapped)),
        "beta": _property(kind, "beta", lambda self: beta_of(self, kind.beta.func(self), wrapped)),
        "copy": copy,
        "with_options": copy,
        "__module__": kind.__module__,
    }
    for name in body:
        client.__dict__.pop(name, None)
    client._client = http_limits.limited_twin(client._client)  # the program's own client keeps its own
    client.__class__ = type(kind.__name__, (kind,), body)
    return cast("OpenAI | AsyncOpenAI", client)
