"""Pass-through: the model that a client names is the teacher, asked at its provider with the client's own key.

Nothing of a key is kept. It goes to the base URL of its API's provider and nowhere else: no redirect to another origin
is followed, keys of the server's own environment are never sent in its place, nor is a key of this proxy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from agentcascade.config.load import variants
from agentcascade.errors import ConfigError, InvalidKey, did_you_mean
from agentcascade.models.callers import CallersModel, NamelessModel
from agentcascade.models.openai import NO_KEY
from agentcascade.models.pricing import PriceTable

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.config.load import CascadeConfig
    from agentcascade.config.sections import ServerConfig
    from agentcascade.protocols import ChatModel, StreamingModel

Api = Literal["chat", "messages", "responses"]
OPENAI, CHATGPT, ANTHROPIC = (
    "https://api.openai.com/v1",
    "https://chatgpt.com/backend-api/codex",
    "https://api.anthropic.com",
)
PROVIDERS = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}
"""Host → the provider in litellm's names, by which prices are listed. Models of other hosts have no listed price."""
FORWARDED = re.compile(
    r"(?:anthropic|openai)-[a-z0-9-]{1,60}|chatgpt-account-id|originator|session[_-]id|thread-id|conversation_id"
    r"|x-app|x-claude-code-[a-z0-9-]{1,60}|x-codex-[a-z0-9-]{1,60}|x-stainless-[a-z0-9-]{1,60}|user-agent|version"
)
"""Headers beside the credentials that providers go by: betas, versions, accounts, the program."""
OF_THE_CLIENT = re.compile(r"x-stainless-(?:raw-response|helper-method|poll-helper|custom-poll-interval|read-timeout)")
"""What a client's SDK tells itself: sent by ours, it would give a raw response in place of an answer."""
CREDENTIALS = "authorization", "x-api-key"
OWN_KEY = re.compile(r"(?:bearer\s+)?ac-[a-z0-9]{12}-[\w-]{43}", re.IGNORECASE)
"""A key of this proxy: no provider's business."""
SECONDS = 3600.0
"""For one answer. The program that waits for it has a limit of its own."""


class Passthrough:
    """Teachers that clients name, each asked with its client's own key.

    Args:
        settings: Its `upstreams` are asked in place of the providers themselves; its `prices` are those of models.
    """

    def __init__(self, settings: ServerConfig) -> None:
        self._upstreams = {name: checked_upstream(url) for name, url in settings.upstreams.items()}
        self._prices = PriceTable(settings.prices)
        self._model = lru_cache(maxsize=256)(self._made)

    def teacher(self, api: Api, name: str, headers: Mapping[str, str]) -> CallersModel:
        """The model of that name behind the API that the client speaks.

        Raises:
            InvalidKey: The client brought no key of a provider.
        """
        return CallersModel(self._model(api, self.upstream(api, headers), name), forwarded(headers, api))

    def upstream(self, api: Api, headers: Mapping[str, str]) -> str:
        """The base URL of an API's provider."""
        if api == "messages":
            return self._upstreams.get("anthropic", ANTHROPIC)
        if "openai" not in self._upstreams and "chatgpt-account-id" in headers:  # Codex with a subscription's login
            return CHATGPT
        return self._upstreams.get("openai", OPENAI)

    def _made(self, api: Api, base: str, name: str) -> StreamingModel:
        host = urlsplit(base).hostname or ""
        provider = PROVIDERS.get(host, host)
        own = name.removeprefix(f"{provider}/")
        recorded = f"{provider}/{own}"
        settings: dict[str, Any] = {"prices": self._prices, "api_base": base, "timeout": SECONDS, "retries": 0}
        if api == "messages":
            from agentcascade.models.anthropic import AnthropicModel

            return AnthropicModel(recorded, model=own, **settings)
        from agentcascade.models.openai import OpenAIModel
        from agentcascade.models.responses import ResponsesModel

        return (ResponsesModel if api == "responses" else OpenAIModel)(recorded, api_key=NO_KEY, **settings)


class CallersCascade(NamedTuple):
    """The cascade whose teachers are the models that callers name, and those models."""

    cascade: Cascade
    models: Passthrough


def with_passthrough(config: CascadeConfig) -> tuple[CascadeConfig, dict[str, ChatModel]]:
    """(the configuration with a deadline that suits agents, unless it has one; teachers by cascade) of pass-through.

    Raises `ConfigError` where `server.passthrough` names no cascade.
    """
    name = config.server.passthrough
    if not name:
        return config, {}
    if name not in (known := variants(config)):
        raise ConfigError(f"server.passthrough: there is no cascade '{name}': {did_you_mean(name, known)}")
    if "deadline_seconds" not in config.model_fields_set:
        config = config.model_copy(update={"deadline_seconds": SECONDS})
    return config, {name: NamelessModel()}


def callers_cascade(cascades: Mapping[str, Cascade], settings: ServerConfig) -> CallersCascade | None:
    """The cascade of `server.passthrough` with the models that callers name; None where it is off."""
    return CallersCascade(cascades[settings.passthrough], Passthrough(settings)) if settings.passthrough else None


def nameable(cascades: Mapping[str, Cascade]) -> dict[str, Cascade]:
    """Cascades that a client can name: all but one whose teacher only a client names."""
    return {name: c for name, c in cascades.items() if not isinstance(c.context.teacher, NamelessModel)}


def forwarded(headers: Mapping[str, str], api: Api) -> dict[str, str]:
    """The headers of a client's request that its provider gets. Raises `InvalidKey` without a key of a provider."""
    keys = {name: headers[name] for name in CREDENTIALS if headers.get(name) and not OWN_KEY.fullmatch(headers[name])}
    if api != "messages":
        keys.pop("x-api-key", None)
    if not keys:
        where = "X-Api-Key or Authorization" if api == "messages" else "Authorization"
        raise InvalidKey(f"this model is asked with your own key, of its provider: send it as {where}")
    more = {n: value for n, value in headers.items() if FORWARDED.fullmatch(n) and not OF_THE_CLIENT.fullmatch(n)}
    # openai's client knows its own headers by these spellings, and would send both
    return {"-".join(part.capitalize() for part in name.split("-")): value for name, value in (more | keys).items()}


def checked_upstream(url: str) -> str:
    """A base URL to which keys may be sent. Raises `ConfigError` for one that is none, or would show them to others."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ConfigError(f"upstream {url[:100]!r}: give a base URL such as https://api.openai.com/v1")
    return url.rstrip("/")
