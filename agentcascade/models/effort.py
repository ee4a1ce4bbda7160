"""EffortModel: one chat model at a fixed reasoning effort (thinking budget), whatever its provider calls that.

The same `effort` for OpenAI's ``reasoning_effort``, Anthropic's ``thinking`` and ``output_config.effort``, Gemini's
budgets and levels, and vLLM's ``chat_template_kwargs`` and ``thinking_token_budget``. What a family knows is data
(`thinking_quirks`); an effort that it does not know is an error here, and never a thought that is billed unasked.
Elastic Reasoning (arXiv 2505.05315) and Budget Guidance (2506.13752) bound thinking apart from the answer: so does a
budget here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from agentcascade.config.effort import LEVEL_TOKENS, LEVELS, Effort, name_at
from agentcascade.errors import ConfigError
from agentcascade.models.quirks import ROOM_TO_ANSWER
from agentcascade.models.thinking_quirks import thinker
from agentcascade.protocols import ChatModel, can_stream
from agentcascade.types import Completion, Delta, Message, Usage

CALLERS_OWN = ("reasoning_effort", "thinking", "reasoning", "output_config", "thinking_token_budget")
"""Options by which a request says itself how much is to be thought: it wins."""
MOST_OF_A_SHARE = LEVEL_TOKENS["max"]
"""Tokens, whatever a namespace usually thinks."""
MOST_EFFORTS = 64
"""Of one model that are remembered: a request may name any number of tokens."""
USUAL = "agentcascade_usual_thinking"
"""Option: tokens that the namespace usually thinks with this model, of which a share is a budget. No model gets it."""


class EffortModel:
    """A chat model asked at one effort. What a call says of it itself (``reasoning_effort``, ``thinking``) wins.

    Args:
        model: Is asked.
        effort: At which.

    Raises:
        ConfigError: The model's family does not know it; the message names those that it knows.

    >>> from agentcascade.config.effort import Effort
    >>> from agentcascade.models.anthropic import AnthropicModel
    >>> EffortModel(AnthropicModel("anthropic/claude-sonnet-4-5"), Effort("high")).name
    'anthropic/claude-sonnet-4-5@high'
    """

    bills_failures = True

    def __init__(self, model: ChatModel, effort: Effort) -> None:
        self.model: ChatModel = model
        self.effort: Effort = effort
        self.name: str = name_at(model.name, effort)
        self._fixed = {} if effort.share is not None else thinking_options(model, effort)
        if effort.share is not None:
            thinking_options(model, Effort(tokens=MOST_OF_A_SHARE), said=effort)  # whether it takes a number at all
        self.bills_failures = bool(getattr(model, "bills_failures", False))
        self._others: dict[Effort, ChatModel] = {effort: self}

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.model, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def supports_n(self) -> bool:
        """As the model's own."""
        return self.model.supports_n

    @supports_n.setter
    def supports_n(self, value: bool) -> None:
        self.model.supports_n = value

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The options that go with every call, those of the effort among them."""
        own: Mapping[str, Any] = getattr(self.model, "defaults", {})
        if self.effort.share is not None:  # the most that it may come to
            return with_options(own, thinking_options(self.model, Effort(tokens=MOST_OF_A_SHARE)))
        return with_options(own, self._fixed)

    @property
    def refused(self) -> frozenset[str]:
        """Of the options of this effort, those that the endpoint refused, so that it is asked without."""
        endpoint: Any = getattr(self.model, "endpoint", None)
        refused = {*getattr(self.model, "refused", ()), *getattr(endpoint, "refused", ())}
        return frozenset(refused & {*self._fixed, *self._fixed.get("extra_body", {}), *self._as_thinking})

    def is_silenced(self, options: Mapping[str, Any]) -> bool:
        """Whether a call does not think though its effort says so: Claude may not where a tool is forced."""
        thinks = self.effort.share is not None or bool(self.effort.expected_tokens())
        return thinks and thinker(self.model.name).dialect == "messages" and _forces_tool(options.get("tool_choice"))

    @property
    def _as_thinking(self) -> tuple[str, ...]:
        """What Anthropic calls `reasoning_effort`."""
        is_messages = "reasoning_effort" in self._fixed and not _by_litellm(self.model)
        return ("thinking", "output_config") if is_messages else ()

    def at(self, effort: Effort) -> ChatModel:
        """The same model at another effort."""
        if effort not in self._others and len(self._others) < MOST_EFFORTS:
            self._others[effort] = at_effort(self.model, effort)
        return self._others.get(effort) or at_effort(self.model, effort)

    def dollars(self, usage: Usage) -> Decimal | None:
        """As the model's own: thoughts are billed as output, or at the price of `reasoning` where there is one."""
        return self.model.dollars(usage)

    @property
    def asked_with(self) -> Callable[[Mapping[str, Any]], Mapping[str, Any]] | None:
        """As the model's own, of the options with those of the effort."""
        own: Any = getattr(self.model, "asked_with", None)
        return None if own is None else lambda options: own(self._with_effort(dict(options)))

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        """As the model's own."""
        return await self.model.complete(messages, **self._with_effort(options))

    def _with_effort(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a call with those of the effort, unless it has its own, or forces a tool where that is refused
        while a model thinks (Anthropic)."""
        usual = options.pop(USUAL, None)
        body = options.get("extra_body") or {}
        if any(options.get(name) is not None or name in body for name in CALLERS_OWN):
            return options
        added = self._fixed
        if self.effort.share is not None:
            if usual is None:
                return options
            tokens = min(max(1, round(self.effort.share * usual)), MOST_OF_A_SHARE)
            added = thinking_options(self.model, Effort(tokens=tokens), clamp=True)
        if "thinking" in added and _forces_tool(options.get("tool_choice")):
            return options
        defaults = getattr(self.model, "defaults", {})
        merged = with_options({**options, "extra_body": {**(defaults.get("extra_body") or {}), **body}}, added)
        if not merged["extra_body"]:
            del merged["extra_body"]
        budget = (added.get("thinking") or {}).get("budget_tokens")
        limit = options.get("max_tokens") or defaults.get("max_tokens")
        if budget and limit and limit <= budget:
            merged["max_tokens"] = budget + max(ROOM_TO_ANSWER, limit)
        return merged


class StreamingEffortModel(EffortModel):
    """Likewise, of one that can stream."""

    async def stream(
        self, messages: Sequence[Message], on_delta: Callable[[Delta], None], **options: Any
    ) -> Completion:
        """As the model's own."""
        model: Any = self.model
        return await model.stream(messages, on_delta, **self._with_effort(options))  # type: ignore[no-any-return]


def at_effort(model: ChatModel, effort: Effort | None) -> ChatModel:
    """The model at an effort; the same where there is none, or where it has it. Raises `ConfigError`."""
    if effort is None or (isinstance(model, EffortModel) and model.effort == effort):
        return model
    plain = model.model if isinstance(model, EffortModel) else model
    return (StreamingEffortModel if can_stream(plain) else EffortModel)(plain, effort)


def thinking_options(
    model: ChatModel, effort: Effort, clamp: bool = False, said: Effort | None = None
) -> dict[str, Any]:
    """Options of a call at a level, or with a number of tokens. With `clamp` too few are as many as it takes.

    Args:
        model: That is asked.
        effort: A level, or a number of tokens.
        clamp: See above.
        said: The effort that errors name, where it is a share, of which `effort` is the most that it comes to.

    Raises:
        ConfigError: The model does not know it.
    """
    named = said or effort
    own = getattr(model, "efforts", None)
    if own is not None:
        if str(effort) not in own and effort.level not in own:
            raise _unknown(model.name, named, tuple(own))
        return {"reasoning_effort": effort.level or effort.tokens}
    if not hasattr(model, "endpoint"):
        raise ConfigError(
            f"effort {named}: '{model.name}' is no provider's model, and has no attribute `efforts` that lists what "
            "it knows: leave effort out"
        )
    known, native = thinker(model.name), not _by_litellm(model)
    levels = known.levels if known.dialect is not None else LEVELS
    if effort.tokens is not None:
        if not known.budgets:
            raise _unknown(model.name, named, levels, "it takes no number of tokens")
        tokens = effort.tokens
        if tokens < known.least_tokens:
            if not clamp:
                raise _unknown(model.name, named, levels, f"it thinks with {known.least_tokens} tokens or more")
            tokens = known.least_tokens
    elif effort.level not in levels:
        raise _unknown(model.name, named, levels)
    else:
        tokens = LEVEL_TOKENS[effort.level]
    if known.dialect == "template":
        return _by_template(known.switch, effort, tokens)
    if effort.tokens is None:
        options: dict[str, Any] = {"reasoning_effort": effort.level}
    elif known.dialect == "messages" and native:
        return {"reasoning_effort": tokens}
    else:
        options = {"thinking": {"type": "enabled", "budget_tokens": tokens}}
    drops: Any = getattr(model, "drops", None)
    if drops is not None and drops(options):
        raise ConfigError(
            f"effort {named}: nothing that asks '{model.name}' passes {', '.join(options)} on, so that it would think "
            "as it likes: leave effort out, or say in `options` how this provider is told"
        )
    return options


def _by_template(switch: str, effort: Effort, tokens: int) -> dict[str, Any]:
    body: dict[str, Any] = {"chat_template_kwargs": {switch: tokens > 0}}
    if tokens > 0 and effort.level != "max":
        body["thinking_token_budget"] = tokens
    return {"extra_body": body}


def _by_litellm(model: ChatModel) -> bool:
    return not getattr(model, "speaks_messages", False)


def _unknown(name: str, effort: Effort, levels: Sequence[str], why: str = "") -> ConfigError:
    if effort.share is not None and levels:
        why = "it takes no number of tokens, and a share of what is usually thought is one"
    if not levels:
        return ConfigError(f"effort {effort}: '{name}' does not think, so it has no effort: leave it out")
    reason = f"{why}; " if why else ""
    return ConfigError(f"effort {effort}: '{name}' does not know it ({reason}it knows {', '.join(levels)})")


def with_options(options: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with those that are `added`; bodies and what the chat template is told are joined."""
    merged = {**options, **added}
    if "extra_body" in added:
        body = dict(options.get("extra_body") or {})
        told = {**(body.get("chat_template_kwargs") or {}), **added["extra_body"].get("chat_template_kwargs", {})}
        merged["extra_body"] = {**body, **added["extra_body"], **({"chat_template_kwargs": told} if told else {})}
    return merged


def _forces_tool(choice: object) -> bool:
    return choice == "required" or isinstance(choice, Mapping)
