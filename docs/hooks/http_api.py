"""The page of the HTTP API, from the OpenAPI description that the proxy itself gives out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cells import cell, code, table

from agentcascade.config.load import CascadeConfig
from agentcascade.server.app import create_app

HEAD = """\
# HTTP

This page is made from the proxy's own OpenAPI description, which a running server gives out at `/openapi.json`. Bodies are those of the
providers: OpenAI's [Chat Completions](https://platform.openai.com/docs/api-reference/chat) and
[Responses](https://platform.openai.com/docs/api-reference/responses), Anthropic's [Messages](https://docs.claude.com/en/api/messages). Every answer has one field more,
`agentcascade`: who answered and why, votes, demonstrations, dollars, milliseconds. [Serve agents over HTTP](../how-to/serve.md) says how to use it,
[Errors](errors.md) what went wrong.

## Headers

| header | of | meaning |
| --- | --- | --- |
| `Authorization: Bearer KEY` | request | the proxy's key; Anthropic's clients send `x-api-key` |
| `X-AgentCascade-Key` | request | the proxy's key where the client's own goes to its provider (`--passthrough`) |
| `X-AgentCascade-Episode` | request | id of the episode; else its beginning says which it is |
| `X-AgentCascade-Goal` | request | the goal, at most 4,000 characters; retrieval goes by it |
| `X-AgentCascade-Max-Effort` | request | rungs of a ladder above this effort are not climbed |
| `X-AgentCascade-Cache` | request | `use`, `no-cache` or `no-store` ([Response cache](../response-cache.md)) |
| `X-AgentCascade-Ignored` | answer | parameters that could change nothing or may not go to a provider |
| `X-Upstream-Request-Id` | answer | the provider's id of a request that it refused |
| `X-Should-Retry: false` | answer | the same again would fail again, or be paid for again |
"""
WHAT = {
    "/v1/chat/completions": "One step by Chat Completions, whole or streamed. `model` is the name of a cascade.",
    "/v1/responses": "One step by OpenAI's Responses, whole or streamed.",
    "/v1/responses/{id}": "A stored response: read it, or delete it.",
    "/v1/responses/{id}/input_items": "What a stored response was asked.",
    "/v1/messages": "One step by Anthropic's Messages, whole or streamed.",
    "/v1/messages/count_tokens": "Tokens of a Messages request, counted here.",
    "/v1/models": "The cascades that the key may name, or the provider's models where clients bring their own key.",
    "/v1/models/{model}": "One of them.",
    "/v1/episodes/{episode}/feedback": "How an episode ended. A success of mode *collect* becomes a demonstration; without `success` the judge is asked.",
    "/healthz": "The process is alive. Needs no key.",
    "/readyz": "Database and bank answer. Needs no key.",
    "/metrics": "Metrics for Prometheus; needs a key of metrics (`keys create --metrics`) or an admin's where there are keys.",
}  # fmt: skip


def page() -> str:
    """The page, in Markdown. Raises `KeyError` for a path that nothing is said of."""
    parts = {"teacher": {"name": "gpt-4.1"}, "retrieval": {"k": 0}, "bank": {"url": "sqlite:///:memory:"}}
    api = create_app(CascadeConfig.load(None, mode="teacher", **parts)).openapi()  # type: ignore[arg-type]
    blocks = [HEAD, "\n## Routes\n"]
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            blocks.append(f"\n### {method.upper()} {path}\n\n{WHAT[path]}\n")
            blocks += _operation(operation)
    blocks.append("\n## Bodies\n")
    for name, schema in sorted(api["components"]["schemas"].items()):
        if name not in ("HTTPValidationError", "ValidationError"):
            blocks += [f"\n### {name}\n", schema.get("description", ""), _fields(schema)]
    return "\n".join(blocks)


def _operation(operation: Mapping[str, Any]) -> Iterator[str]:
    if operation.get("parameters"):
        yield table(
            ["parameter", "in", "type"],
            ([code(p["name"]), p["in"], _type(p["schema"])] for p in operation["parameters"]),
        )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body and body.get("properties"):
        yield "\nRequest:\n" + _fields(body)
    elif body and "$ref" in body:
        yield f"\nRequest: {_type(body)}.\n"
    answer = operation["responses"].get("200", {}).get("content", {})
    for kind, content in answer.items():
        told = _type(content.get("schema", {}))
        yield f"\nAnswer 200, `{kind}`" + (f": {told}.\n" if told else ".\n")
    others = sorted(status for status in operation["responses"] if status != "200")
    if others:
        yield f"\nErrors: {', '.join(others)}.\n"


def _fields(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        [code(name), _type(field), "yes" if name in required else "", cell(field.get("description", ""))]
        for name, field in schema.get("properties", {}).items()
    ]
    return table(["field", "type", "required", "meaning"], rows) if rows else ""


def _type(schema: Mapping[str, Any]) -> str:
    if ref := schema.get("$ref"):
        name = ref.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(filter(None, (_type(part) for part in schema[union])))
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    pattern = f" {code(schema['pattern'])}" if "pattern" in schema else ""
    return str(schema.get("type", "")) + pattern
