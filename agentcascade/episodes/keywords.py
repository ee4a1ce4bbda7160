"""Keywords of episodes and of model requests, for editors and type checkers; nothing of this is run at a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypedDict, TypeVar, cast, get_args

from agentcascade.errors import InvalidRequest
from agentcascade.types import Account, CacheUse, Mode, Tool

P = ParamSpec("P")
Owner = TypeVar("Owner")
Result = TypeVar("Result")


class EpisodeKeywords(TypedDict, total=False):
    """Keywords of `Episode` that `Cascade.episode` and `Cascade.sync_episode` hand on."""

    plan: str
    category: str
    id: str | None
    namespace: str | None
    mode: Mode | None
    seed: int | None
    accounts: Sequence[Account]
    cache_use: CacheUse
    stateless: bool


def request(
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Tool] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    parallel_tool_calls: bool | None = None,
    response_format: Mapping[str, Any] | None = None,
    choices: Sequence[str] | None = None,
    n: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    max_completion_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    logit_bias: Mapping[str, float] | None = None,
    logprobs: bool | None = None,
    top_logprobs: int | None = None,
    reasoning_effort: str | None = None,
    max_effort: str | int | None = None,
    user: str | None = None,
    metadata: Mapping[str, str] | None = None,
    stream_options: Mapping[str, Any] | None = None,
    extra_headers: Mapping[str, str] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    response_cache: CacheUse | None = None,
    **provider_options: Any,
) -> None:
    """The parameters of `Episode.complete` and `Episode.stream`, streamed or not, blocking or not.

    Those named here mean what OpenAI's API means by them; None stands for a provider's default. Whatever else is given
    goes to the teacher's provider as it is, and to no student. A provider's own option may be given by its name
    (``top_k=20``) or, where the provider's client would refuse the name, in ``extra_body``.

    Args:
        messages: The whole conversation, as for any chat API.
        tools: Definitions of tools that may be called.
        tool_choice: Which tool must be called: ``auto``, ``none``, ``required``, or a tool.
        parallel_tool_calls: Whether an answer may call several tools.
        response_format: JSON mode or a JSON schema that the answer must fit.
        choices: Admissible actions, for ``sampling.constrain: choice``; no model is sent them.
        n: Answers, from 1. Several are not one action: they all come from the teacher.
        temperature: Of the teacher, 0 to 2; the student's is ``sampling.temperature``.
        top_p: Nucleus of sampling, 0 to 1.
        max_tokens: Tokens of an answer at most.
        max_completion_tokens: Likewise, with hidden reasoning.
        stop: Texts that end an answer.
        seed: Of sampling, where a provider has one; of the student's samples, counted up from it.
        frequency_penalty: -2 to 2.
        presence_penalty: -2 to 2.
        logit_bias: Token id → bias, -100 to 100.
        logprobs: Whether the teacher's answers come with log-probabilities of their tokens.
        top_logprobs: Likely tokens that are told at each position.
        reasoning_effort: Of the teacher.
        max_effort: The most effort that models are asked at, a level or tokens to think with: rungs above it are not
            climbed, and the teacher is asked at it.
        user: Whom the request is for.
        metadata: What the provider keeps with the request.
        stream_options: ``{"include_usage": True}`` puts usage into a chunk of its own.
        extra_headers: HTTP headers of the teacher's request.
        extra_body: Fields of the teacher's request that no keyword names.
        response_cache: Of the configured response cache: ``use`` it whatever the temperature, ``no-cache`` (ask anew,
            keep that answer) or ``no-store``; default: at temperature 0.
        provider_options: Options of one provider, as they are.
    """


def takes(
    parameters: Callable[P, object],
) -> Callable[[Callable[..., Result]], Callable[Concatenate[Owner, P], Result]]:
    """Decorator: to type checkers, the method takes `parameters`; it is returned as it is.

    >>> class Model:
    ...     @takes(request)
    ...     def complete(self, messages, **options):
    ...         return options
    >>> Model().complete([], temperature=0.5)
    {'temperature': 0.5}
    """

    def unchanged(method: Callable[..., Any]) -> Any:
        return method

    return unchanged


def checked_use(said: object, name: str) -> CacheUse:
    """What a request says of the response cache under `name`; raises `InvalidRequest` for anything else.

    >>> checked_use("no-store", "response_cache")
    'no-store'
    """
    if said not in get_args(CacheUse):
        raise InvalidRequest(f"{name} is {str(said)[:40]!r}: say one of {', '.join(get_args(CacheUse))}")
    return cast(CacheUse, said)
