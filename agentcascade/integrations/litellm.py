"""A litellm provider: `litellm.completion(model="agentcascade/NAME")`, and so litellm's Router and proxy.

In a program: `agentcascade.integrations.litellm.register("agentcascade.yaml")`. In litellm's proxy configuration:

    litellm_settings:
      custom_provider_map:
        - {provider: agentcascade, custom_handler: agentcascade.integrations.litellm.handler}
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentcascade._util import forking
from agentcascade.episodes import identity
from agentcascade.episodes.response_json import as_json
from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.event_loop import LoopThread
from agentcascade.models.litellm_setup import import_litellm
from agentcascade.step.effort_ceiling import split_ceiling
from agentcascade.types import Decision

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.config.load import CascadeConfig
    from agentcascade.episodes.episode import Episode

__all__ = ["Provider", "handler", "register"]

litellm = import_litellm()
from litellm.llms.custom_llm import CustomLLM  # noqa: E402
from litellm.types.utils import ModelResponse, ModelResponseStream  # noqa: E402

PROVIDER = "agentcascade"
NOT_OPTIONS = {"tools", "stream", "stream_options", "metadata", "extra_headers", "extra_body", "timeout", "n"}


class Provider(CustomLLM):  # type: ignore[misc]
    """Provider of litellm's: every cascade of a configuration, built on first use.

    Args:
        config: A configuration, or the path of a YAML file; default: $AGENTCASCADE_CONFIG or ./agentcascade.yaml.
    """

    def __init__(self, config: CascadeConfig | str | Path | None = None) -> None:
        super().__init__()
        self._config = config
        self._cascades: dict[str, Cascade] = {}
        self._loop: LoopThread | None = None
        self._close: Any = None
        self._lock = forking.lock()

    def cascade(self, name: str) -> Cascade:
        """Cascade of that name. Raises `ConfigError` for one that the configuration lacks."""
        with self._lock:
            if not self._cascades:
                self._open()
        if name not in self._cascades:
            raise ConfigError(f"there is no cascade '{name}': {did_you_mean(name, self._cascades)}")
        return self._cascades[name]

    def _open(self) -> None:
        from agentcascade.assembly.cascade import build_all
        from agentcascade.config.load import CascadeConfig, config_path

        config = self._config
        if not isinstance(config, CascadeConfig):
            config = CascadeConfig.load(config or config_path())
        self._cascades, shared = build_all(config)
        self._close, self._loop = shared.close, LoopThread()

    def close(self) -> None:
        """Flush the records and release database and thread; the next call opens them again."""
        with self._lock:
            if self._loop is not None:
                self._loop.close()
                self._close()
            self._cascades, self._loop = {}, None

    def completion(self, model: str, messages: list[Any], **call: Any) -> Any:
        """A step of the cascade, as litellm calls it for ``litellm.completion``."""
        return self._running(model).run(self.acompletion(model, messages, **call))

    async def acompletion(self, model: str, messages: list[Any], **call: Any) -> Any:
        """A step of the cascade, as litellm calls it for ``litellm.acompletion``."""
        episode, options = self._begin(model, messages, call)
        tools = (call.get("optional_params") or {}).get("tools")
        completion, answers, decision = await episode.answer(_plain(messages), tools=tools, options=options)
        response = ModelResponse(**as_json(completion, answers, decision, _decision_fields(decision)))
        if decision.dollars is not None:
            response._hidden_params["response_cost"] = float(decision.dollars)
        return response

    def streaming(self, model: str, messages: list[Any], **call: Any) -> Iterator[Any]:
        """A streamed step, as litellm calls it for ``litellm.completion(stream=True)``."""
        loop = self._running(model)
        chunks = self.astreaming(model, messages, **call)
        try:
            while True:
                try:
                    yield loop.run(_next(chunks))
                except StopAsyncIteration:
                    return
        finally:
            loop.run(_stop(chunks))

    async def astreaming(self, model: str, messages: list[Any], **call: Any) -> AsyncIterator[Any]:
        """A streamed step, as litellm calls it for ``litellm.acompletion(stream=True)``."""
        episode, options = self._begin(model, messages, call)
        tools = (call.get("optional_params") or {}).get("tools")
        async with episode.stream(_plain(messages), tools=tools, render_decision=_decision_fields, **options) as stream:
            async for data in stream:
                yield _last(data) if "usage" in data else ModelResponseStream(**data)

    def _running(self, model: str) -> LoopThread:
        self.cascade(_name(model))
        assert self._loop is not None
        return self._loop

    def _begin(self, model: str, messages: list[Any], call: Mapping[str, Any]) -> tuple[Episode, dict[str, Any]]:
        optional_params = call.get("optional_params") or {}
        litellm_params = call.get("litellm_params") or {}
        metadata = {**(litellm_params.get("metadata") or {}), **(optional_params.get("metadata") or {})}
        headers = {**(call.get("headers") or {}), **(optional_params.get("extra_headers") or {})}
        episode = identity.episode_of(
            self.cascade(_name(model)).engine,
            _plain(messages),
            metadata=metadata,
            headers={str(k).lower(): v for k, v in headers.items()},
        )
        _, ceiling = split_ceiling({**optional_params, "extra_headers": headers})
        options = {k: v for k, v in optional_params.items() if k not in NOT_OPTIONS and v is not None} | ceiling
        if optional_params.get("n"):
            options["n"] = optional_params["n"]
        return episode, options


def _name(model: str) -> str:
    return model.removeprefix(f"{PROVIDER}/")


def _plain(messages: list[Any]) -> list[dict[str, Any]]:
    return [m if isinstance(m, dict) else m.model_dump(exclude_none=True) for m in messages]


def _decision_fields(decision: Decision) -> dict[str, Any]:
    return decision.model_dump(mode="json")


def _last(data: dict[str, Any]) -> dict[str, Any]:
    """Last chunk, in litellm's own generic form: it takes usage from no other."""
    return {
        "text": "",
        "tool_use": None,
        "is_finished": True,
        "finish_reason": data["choices"][0]["finish_reason"] if data["choices"] else "stop",
        "usage": data["usage"],
        "index": 0,
        "provider_specific_fields": {"agentcascade": data["agentcascade"]},
    }


async def _next(chunks: AsyncIterator[Any]) -> Any:
    return await anext(chunks)


async def _stop(chunks: Any) -> None:
    await chunks.aclose()


handler: Provider = Provider()
"""For litellm's proxy: the cascades of $AGENTCASCADE_CONFIG or ./agentcascade.yaml."""


def register(config: CascadeConfig | str | Path | None = None) -> Provider:
    """Register the provider: ``agentcascade/NAME`` is a model of litellm's from then on.

    Args:
        config: A configuration, or the path of a YAML file; default: $AGENTCASCADE_CONFIG or ./agentcascade.yaml.

    Returns:
        The provider; close it when done.
    """
    from litellm.utils import custom_llm_setup

    provider = Provider(config)
    others = [item for item in litellm.custom_provider_map if item["provider"] != PROVIDER]
    litellm.custom_provider_map = [*others, {"provider": PROVIDER, "custom_handler": provider}]
    custom_llm_setup()
    return provider
