"""Requests and answers of the HTTP API: OpenAI's chat API as far as the proxy reads it, and what it adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from agentcascade.server.errors import invalid
from agentcascade.types import Decision

OPTIONS = (
    *("tool_choice", "parallel_tool_calls", "response_format", "n", "temperature", "top_p", "max_tokens"),
    *("max_completion_tokens", "seed", "stop", "frequency_penalty", "presence_penalty", "logit_bias", "user"),
    *("reasoning_effort", "verbosity", "thinking", "prediction", "modalities", "audio", "service_tier"),
    *("web_search_options", "safety_identifier", "prompt_cache_key", "top_k", "min_p", "repetition_penalty"),
    *("logprobs", "top_logprobs", "functions", "function_call", "store", "prompt_cache_retention", "choices"),
    "max_effort",
)
"""What a client may set of a model call, by the names that every adapter knows."""

PROXY_FIELDS = frozenset({"model", "messages", "tools", "stream", "stream_options", "metadata"})
"""What the proxy reads itself."""

SERVER_SETTINGS = frozenset(
    {
        *("api_base", "api_key", "api_version", "api_type", "base_url", "organization", "custom_llm_provider"),
        *("extra_headers", "extra_query", "extra_body", "headers", "timeout", "request_timeout", "ssl_verify"),
        *("num_retries", "max_retries", "model_list", "fallbacks", "drop_params", "allowed_openai_params"),
        *("mock_response", "mock_tool_calls", "cache", "caching", "callbacks", "success_callback", "user_config"),
    }
)
"""Addresses, keys and settings of client libraries, which are the server's own: never passed on, and said so."""


def options_of(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options of a request, and the names of those that are left out.

    What no adapter knows by name goes into the request's body as it is (`extra_body`): a provider may know it, and
    refuses it otherwise. Under a budget, `surcharges` looks through both.
    """
    set_options = {k: v for k, v in data.items() if v is not None and k not in PROXY_FIELDS}
    options = {k: v for k, v in set_options.items() if k in OPTIONS}
    others = {k: v for k, v in set_options.items() if k not in OPTIONS and k not in SERVER_SETTINGS}
    if others:
        options["extra_body"] = others
    return options, sorted(set_options.keys() & SERVER_SETTINGS)


MOST_BRACKETS = 500_000
"""In a body: millions of empty lists take seconds to read, and hundreds of megabytes to hold."""
MOST_MESSAGES, MOST_PARTS, MOST_TOOLS, MOST_FIELDS = 10_000, 10_000, 2_000, 200


class Loose(BaseModel):
    """Fields that are not named here are allowed."""

    model_config = ConfigDict(extra="allow")


class Function(Loose):
    name: StrictStr = Field(min_length=1, max_length=200)
    arguments: StrictStr = ""


class Custom(Loose):
    name: StrictStr = Field(min_length=1, max_length=200)
    input: StrictStr = ""


class ToolCall(Loose):
    id: StrictStr = Field(min_length=1, max_length=5000)
    type: Literal["function", "custom"] = "function"
    function: Function | None = None
    custom: Custom | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> ToolCall:
        if getattr(self, self.type) is None:
            raise ValueError(f"a call of type '{self.type}' needs '{self.type}'")
        return self


class Part(Loose):
    type: StrictStr


Parts = Annotated[list[Part], Field(max_length=MOST_PARTS, fail_fast=True)]
"""Fails at the first bad one: to list what is wrong with a million of them takes a minute."""


class ChatMessage(Loose):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: StrictStr | Parts | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    tool_call_id: StrictStr | None = None
    name: StrictStr | None = None


class FunctionDefinition(Loose):
    name: StrictStr = Field(min_length=1, max_length=200)
    description: StrictStr | None = None
    parameters: dict[str, Any] | None = None


class ToolDefinition(Loose):
    type: StrictStr
    function: FunctionDefinition | None = None


class StreamOptions(Loose):
    include_usage: StrictBool | None = None


class ChatRequest(Loose):
    """`POST /v1/chat/completions`. `model` names a configured cascade."""

    model: StrictStr = Field(min_length=1, max_length=200)
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
    tools: Annotated[list[ToolDefinition], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: StrictStr | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=128)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[StrictFloat | StrictInt, Field(ge=0, le=2)] | None = None
    top_p: Annotated[StrictFloat | StrictInt, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    seed: StrictInt | None = None
    choices: Annotated[list[StrictStr], Field(max_length=10_000, fail_fast=True)] | None = None
    """The admissible actions, where the students are constrained to them"""
    metadata: dict[str, StrictStr] | None = None


class Feedback(BaseModel):
    """`POST /v1/episodes/{id}/feedback`. Without `success` the configured judge decides."""

    model_config = ConfigDict(extra="forbid")
    success: StrictBool | None = None


class FeedbackAnswer(BaseModel):
    episode: str
    banked: bool
    """Whether the episode became demonstrations."""
    reason: str | None = None
    """Why it did not."""


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    error: ErrorDetail


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    object: Literal["list"]
    data: list[Model]


class ChatAnswer(BaseModel):
    """OpenAI's `ChatCompletion`, and in `agentcascade` what the cascade did."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any]
    agentcascade: dict[str, Any]


def parse_body(body: bytes, model: type[BaseModel]) -> dict[str, Any]:
    """The body as plain data that `model` allows. Raises `Refused` (400) naming the field at fault."""
    if body.count(b"[") + body.count(b"{") > MOST_BRACKETS:
        raise invalid(f"the body has more than {MOST_BRACKETS:,} lists and objects", code="invalid_json")
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise invalid(f"the body is not JSON: {str(error)[:200]}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise invalid(f"the body must be a JSON object, not {type(data).__name__}", code="invalid_json")
    if len(data) > MOST_FIELDS:
        raise invalid(f"the body has {len(data)} fields: a request has at most {MOST_FIELDS}")
    try:
        model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(p) for p in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise invalid(f"{path or 'the body'}: {first['msg']}{more}", param=path or None) from None
    return data


def decision_fields(decision: Decision) -> dict[str, Any]:
    """The decision for a client: without the texts of failures, which may name hosts and paths of the server."""
    fields = decision.model_dump(mode="json")
    fields["saved_dollars"] = None if decision.saved_dollars is None else str(decision.saved_dollars)
    fields["failures"] = [":".join(f.split(":")[:2]).strip() for f in decision.failures]
    return fields
