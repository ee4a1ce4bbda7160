"""Several engines of one student behind litellm's router: an episode stays with the one that has cached its prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from agentcascade.messages import text_of
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.litellm_setup import import_litellm
from agentcascade.prompts.demonstrations import without_demonstrations
from agentcascade.types import Message

REST = 15.0
"""Seconds that an engine is left alone after a failure."""


class ReplicatedModel(LiteLLMModel):
    """`LiteLLMModel` at several addresses. One that fails rests while the others answer."""

    def __init__(self, name: str, api_bases: Sequence[str], **settings: Any) -> None:
        super().__init__(name, **settings)
        self._bases = tuple(api_bases)
        self._router: Any = None

    def asked_with(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """As of `LiteLLMModel`, at all addresses: each of them has the same model."""
        return {**super().asked_with(options), "bases": self._bases}

    async def _send(self, litellm: Any, request: Mapping[str, Any]) -> Any:
        if self._router is None:
            self._router = import_litellm().Router(
                model_list=[
                    {
                        "model_name": self.name,
                        "litellm_params": {"model": self.name, "api_base": base, "api_key": "none"},
                    }
                    for base in self._bases
                ],
                routing_strategy="simple-shuffle",
                optional_pre_call_checks=["session_affinity"],
                num_retries=len(self._bases) - 1,
                retry_after=0,
                allowed_fails=0,  # an episode would come back to a dead engine again and again
                cooldown_time=REST,
            )
        own = {k: v for k, v in request.items() if k not in ("num_retries", "max_retries")}
        session = {**(own.pop("metadata", None) or {}), "session_id": shared_prefix(own["messages"])}
        return await self._router.acompletion(**own, metadata=session)


def shared_prefix(messages: Sequence[Message]) -> str:
    """Names what all steps of an episode begin with: all up to the task, without the demonstrations behind it."""
    said = []
    for message in messages:
        said.append(f"{message.get('role')}: {text_of(without_demonstrations(message)).rstrip()}")
        if message.get("role") == "user":
            break
    return blake2b("\n".join(said).encode(errors="replace"), digest_size=12).hexdigest()
