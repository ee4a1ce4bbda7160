"""Routes of the proxy: how each is guarded, answered and documented."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

from agentcascade.server import wire
from agentcascade.server.errors import Problem, explain
from agentcascade.server.problem import error_body

Handler = Callable[..., Awaitable[Response]]
STATUSES = {
    400: "the request cannot be used",
    401: "no valid API key",
    402: "over budget",
    404: "no such model or episode",
    403: "a page of another site, or a name that the server does not go by",
    408: "the request did not come in time",
    413: "the body is too long",
    415: "the body is not plain JSON",
    429: "rate limited, here or by the provider",
    500: "a fault of the server's",
    502: "the provider failed",
    503: "busy, or the database does not answer",
    504: "a deadline passed",
}


def guarded(handler: Handler) -> Handler:
    """Whatever goes wrong inside is answered in the error shape of the route's API."""

    @wraps(handler)
    async def answered(request: Request, **path: str) -> Response:
        try:
            return await handler(request, **path)
        except Exception as error:
            return respond(explain(error), request.url.path)

    return answered


def respond(problem: Problem, path: str) -> Response:
    body = error_body(problem, path)
    return Response(to_json(body), problem.status, problem.headers(), media_type="application/json")


def as_json(data: Any) -> Response:
    return Response(to_json(data), media_type="application/json")


def documented(
    tag: str,
    answer: type[BaseModel] | None,
    body: type[BaseModel] | None = None,
    *,
    stream: bool = False,
    error: type[BaseModel] = wire.ErrorAnswer,
    event: str = "a chat.completion.chunk or an error as JSON, or [DONE] at the end",
) -> dict[str, Any]:
    """What the OpenAPI document says of a route that reads its own body; `event` is the data of its events in words."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": words, "model": error} for status, words in STATUSES.items()
    }
    if answer is not None:
        responses[200] = {"description": "the answer", "model": answer}
        if stream:
            responses[200]["content"] = {"text/event-stream": {"itemSchema": _event(event)}}
    route: dict[str, Any] = {"tags": [tag], "responses": responses}
    if body is not None:
        schema = body.model_json_schema(ref_template=f"#/components/schemas/{body.__name__}_{{model}}")
        route["openapi_extra"] = {
            "requestBody": {"required": True, "content": {"application/json": {"schema": _flat(schema)}}}
        }
    return route


def _event(data: str) -> dict[str, Any]:
    properties = {"data": {"type": "string", "description": data}}
    return {"type": "object", "required": ["data"], "properties": properties}


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its definitions put where they are used: FastAPI collects only those of its own parameters."""
    definitions = schema.pop("$defs", {})

    def put(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                name = node["$ref"].rsplit("_", 1)[1]
                return put(definitions[name])
            return {k: put(v) for k, v in node.items()}
        return [put(v) for v in node] if isinstance(node, list) else node

    flat: dict[str, Any] = put(schema)
    return flat
