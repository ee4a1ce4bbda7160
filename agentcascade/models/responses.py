"""ResponsesModel: models asked by OpenAI's Responses API, at OpenAI or at an address of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentcascade.models.openai import OpenAIModel
from agentcascade.models.quirks import RESPONSES_ROUTE
from agentcascade.types import Message
from agentcascade.wire.responses_request import ADAPTED, NATIVE, SAME

if TYPE_CHECKING:
    from agentcascade.models.openai_client import ClientModel


class ResponsesModel(OpenAIModel):
    """A chat model that is asked by ``POST /responses``: some of OpenAI's have nothing else.

    It takes what `OpenAIModel` takes. Its thoughts come back to it in ``response_items`` of the messages that it made;
    nothing is kept at the provider. Options that chat does not have, such as ``reasoning: {summary: auto}``, may be
    among `options`.

    Args:
        name: ``openai/responses/MODEL``, or ``openai/MODEL`` of one that has no other API.
        prices: As for `OpenAIModel`, and so are the others; the price is that of ``openai/MODEL``.
    """

    speaks_responses = True
    """Whether what only Responses can express may be sent to it: hosted tools, reasoning items."""

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self._model = self._model.removeprefix(RESPONSES_ROUTE.partition("/")[2])
        self.endpoint.supports_n = False

    def drops(self, options: Mapping[str, Any]) -> set[str]:
        """Names of those `options` that Responses has not and that an answer can do without."""
        return {name for name in ("seed",) if options.get(name) is not None}

    def _sendable(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages

    def _create_arguments(self, options: Mapping[str, Any]) -> dict[str, Any]:
        given = {k: v for k, v in (self._options | dict(options)).items() if v is not None}
        arguments = {k: v for k, v in given.items() if k in ADAPTED or k in SAME}
        native = {k: v for k, v in given.items() if k not in arguments and k != NATIVE} | given.get(NATIVE, {})
        return arguments | ({NATIVE: native} if native else {})

    def _chat_client(self, client: Any) -> ClientModel:
        from agentcascade.models.openai_client import ClientModel, limited_twin
        from agentcascade.models.responses_calls import responses_calls

        calls = responses_calls(limited_twin(client), self.endpoint)
        return ClientModel(
            client, self._model, prices=self._prices, name=self.name, endpoint=self.endpoint, create=calls
        )  # fmt: skip
