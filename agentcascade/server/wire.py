"""What clients send and get: OpenAI's chat API as far as the proxy reads it, and what it adds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError
from pydantic_core import from_json

from agentcascade.server.errors import invalid
from agentcascade.types import Decision

OPTIONS = (
    *("tool_choice", "parallel_tool_calls", "response_format", "n", "temperature", "top_p", "max_tokens"),
    *("max_completion_tokens", "seed", "stop", "frequency_penalty", "presence_penalty", "logit_bias", "user"),
    *("reasoning_effort", "verbosity", "thinking", "prediction", "modalities", "audio", "service_tier"),
    *("web_search_options", "safety_identifier", "prompt_cache_key", "top_k", "min_p", "repetition_penalty"),
    "choices",
)
"""What a client may set of a model call. Anything else is not passed on: addresses and keys are the server's own."""


class Loose(BaseModel):
    """Fields that are not named here are allowed."""

    model_config = ConfigDict(extra="allow")


class Function(Loose):
    name: StrictStr = Field(min_length=1, max_length=200)
    arguments: StrictStr = ""


class ToolCall(Loose):
    id: StrictStr = Field(min_length=1, max_length=5000)
    type: Literal["function"] = "function"
    function: Function


class Part(Loose):
    type: StrictStr


class ChatMessage(Loose):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: StrictStr | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
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
    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[ToolDefinition] | None = None
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
    choices: Annotated[list[StrictStr], Field(max_length=10_000)] | None = None
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


def read(body: bytes, model: type[BaseModel]) -> dict[str, Any]:
    """The body as plain data that `model` allows. Raises `Refused` (400) naming the field at fault."""
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise invalid(f"the body is not JSON: {str(error)[:200]}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise invalid(f"the body must be a JSON object, not {type(data).__name__}", code="invalid_json")
    try:
        model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(p) for p in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise invalid(f"{path or 'the body'}: {first['msg']}{more}", param=path or None) from None
    return data


def said(decision: Decision) -> dict[str, Any]:
    """The decision for a client: without the texts of failures, which may name hosts and paths of the server."""
    shown = decision.model_dump(mode="json")
    shown["saved_dollars"] = None if decision.saved_dollars is None else str(decision.saved_dollars)
    shown["failures"] = [":".join(f.split(":")[:2]).strip() for f in decision.failures]
    return shown
