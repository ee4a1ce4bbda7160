"""Routes of the Messages API: asked, and counted beforehand."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from agentcascade.server.messages import MessagesProtocol, parse_count
from agentcascade.server.messages_body import (
    MessagesAnswer,
    MessagesError,
    MessagesRequest,
    TokensAnswer,
    TokensRequest,
)
from agentcascade.server.routes import as_json, documented, guarded
from agentcascade.server.step_route import StepRoutes

EVENT = "an event of a streamed message as JSON, from message_start to message_stop, or an error at the end"


def add_messages_routes(app: FastAPI, steps: StepRoutes) -> None:
    """Add them to the application."""
    protocol = MessagesProtocol()
    body = documented("Messages", MessagesAnswer, MessagesRequest, stream=True, error=MessagesError, event=EVENT)

    @app.post("/v1/messages", **body)
    @guarded
    async def messages(request: Request) -> Response:
        return await steps.answer(request, protocol)

    @app.post(
        "/v1/messages/count_tokens", **documented("Messages", TokensAnswer, TokensRequest, error=MessagesError)
    )  # fmt: skip
    @guarded
    async def count_tokens(request: Request) -> Response:
        caller, body = await steps.enter(request)
        with steps.place():
            data = parse_count(body)
            cascade = steps.cascade(data["model"], caller, protocol.api)
            return as_json({"input_tokens": await protocol.count_tokens(data, cascade, caller)})
