"""Several engines of one student behind litellm's router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentcascade.models import LiteLLMModel, import_litellm


class ReplicatedModel(LiteLLMModel):
    """`LiteLLMModel` at several addresses. One that fails rests while the others answer."""

    def __init__(self, name: str, api_bases: Sequence[str], **settings: Any) -> None:
        super().__init__(name, **settings)
        self._bases = tuple(api_bases)
        self._router: Any = None

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
                num_retries=len(self._bases) - 1,
                cooldown_time=15,
            )
        own = {k: v for k, v in request.items() if k not in ("num_retries", "max_retries")}
        return await self._router.acompletion(**own)
