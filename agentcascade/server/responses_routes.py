"""Routes of the Responses API: asked, retrieved, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from starlette.responses import Response

from agentcascade.server.responses import ResponsesProtocol, namespace_of
from agentcascade.server.responses_body import DeletedResponse, InputItems, ResponsesAnswer, ResponsesRequest
from agentcascade.server.routes import as_json, documented, guarded
from agentcascade.server.step_route import StepRoutes

if TYPE_CHECKING:
    from agentcascade.server.auth import Gate


def add_responses_routes(app: FastAPI, steps: StepRoutes, gate: Gate, protocol: ResponsesProtocol) -> None:
    """Add them to the application; a caller sees the stored responses of its namespace."""

    async def namespace(request: Request) -> str:
        return namespace_of(await gate.enter(request.headers, counted=False))

    @app.post("/v1/responses", **documented("Responses", ResponsesAnswer, ResponsesRequest, stream=True))
    @guarded
    async def responses(request: Request) -> Response:
        return await steps.answer(request, protocol)

    @app.get("/v1/responses/{id}", **documented("Responses", ResponsesAnswer))
    @guarded
    async def stored(request: Request, id: str) -> Response:
        kept = await protocol.kept(id, await namespace(request))
        return as_json(kept.response)

    @app.get("/v1/responses/{id}/input_items", **documented("Responses", InputItems))
    @guarded
    async def input_items(request: Request, id: str) -> Response:
        kept = await protocol.kept(id, await namespace(request))
        items = [{"id": f"in_{id.partition('_')[2]}_{i}", **item} for i, item in enumerate(kept.input)]
        first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
        return as_json({"object": "list", "data": items, "has_more": False, "first_id": first, "last_id": last})

    @app.delete("/v1/responses/{id}", **documented("Responses", DeletedResponse))
    @guarded
    async def deleted(request: Request, id: str) -> Response:
        await protocol.forget(id, await namespace(request))
        return as_json({"id": id, "object": "response", "deleted": True})
