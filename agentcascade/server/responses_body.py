"""Bodies of the Responses API as far as the proxy reads them itself, and its answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from agentcascade.server.wire import MOST_TOOLS, Loose

MOST_ITEMS = 20_000
Object = dict[str, Any]


class ResponsesRequest(Loose):
    """`POST /v1/responses`. `model` names a configured cascade; of hosted tools and the like an error says why not."""

    model: StrictStr = Field(min_length=1, max_length=200)
    input: StrictStr | Annotated[list[Object], Field(max_length=MOST_ITEMS, fail_fast=True)] | None = None
    instructions: StrictStr | None = None
    tools: Annotated[list[Object], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: StrictStr | Object | None = None
    parallel_tool_calls: StrictBool | None = None
    previous_response_id: Annotated[StrictStr, Field(min_length=1, max_length=200)] | None = None
    store: StrictBool | None = None
    stream: StrictBool | None = None
    stream_options: Object | None = None
    include: Annotated[list[StrictStr], Field(max_length=50, fail_fast=True)] | None = None
    text: Object | None = None
    reasoning: Object | None = None
    max_output_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None
    temperature: Annotated[StrictFloat | StrictInt, Field(ge=0, le=2)] | None = None
    top_p: Annotated[StrictFloat | StrictInt, Field(ge=0, le=1)] | None = None
    truncation: StrictStr | None = None
    metadata: dict[str, StrictStr] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=1)] | None = None


class ResponsesAnswer(BaseModel):
    """OpenAI's `Response`, and in `agentcascade` what the cascade did."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any]
    agentcascade: dict[str, Any]


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response"]
    deleted: bool


class InputItems(BaseModel):
    """What a stored response was asked, oldest first."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
