"""Requests and answers of Anthropic's Messages API, as far as the proxy reads them, and what it adds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from agentcascade.server.wire import MOST_MESSAGES, MOST_PARTS, MOST_TOOLS, Loose


class ContentBlock(Loose):
    type: StrictStr


Blocks = Annotated[list[ContentBlock], Field(max_length=MOST_PARTS, fail_fast=True)]


class TextBlock(Loose):
    type: Literal["text"]
    text: StrictStr


class MessageParam(Loose):
    role: Literal["user", "assistant", "system"]
    content: StrictStr | Blocks


class ToolParam(Loose):
    """A tool with an `input_schema`, or one of Anthropic's own kinds, by its `type`."""

    type: StrictStr | None = None
    name: StrictStr | None = None
    description: StrictStr | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoice(Loose):
    type: Literal["auto", "any", "tool", "none"]
    name: StrictStr | None = None
    disable_parallel_tool_use: StrictBool | None = None


class Metadata(Loose):
    """The episode and its goal may be named here, in `agentcascade_episode` and `agentcascade_goal`."""

    user_id: StrictStr | None = None


class TokensRequest(Loose):
    """`POST /v1/messages/count_tokens`. `model` names a configured cascade."""

    model: StrictStr = Field(min_length=1, max_length=200)
    messages: Annotated[list[MessageParam], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
    system: StrictStr | Annotated[list[TextBlock], Field(max_length=MOST_PARTS, fail_fast=True)] | None = None
    tools: Annotated[list[ToolParam], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    metadata: Metadata | None = None


class MessagesRequest(TokensRequest):
    """`POST /v1/messages`. `model` names a configured cascade."""

    max_tokens: Annotated[StrictInt, Field(ge=1)]
    stream: StrictBool | None = None
    temperature: Annotated[StrictFloat | StrictInt, Field(ge=0, le=1)] | None = None
    top_p: Annotated[StrictFloat | StrictInt, Field(ge=0, le=1)] | None = None
    top_k: Annotated[StrictInt, Field(ge=0)] | None = None
    stop_sequences: Annotated[list[StrictStr], Field(max_length=10_000, fail_fast=True)] | None = None


class MessagesAnswer(BaseModel):
    """Anthropic's `Message`, and in `agentcascade` what the cascade did."""

    model_config = ConfigDict(extra="allow")
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: dict[str, Any]
    agentcascade: dict[str, Any]


class TokensAnswer(BaseModel):
    input_tokens: int


class MessagesErrorDetail(BaseModel):
    model_config = ConfigDict(extra="allow")
    type: str
    message: str


class MessagesError(BaseModel):
    type: Literal["error"]
    error: MessagesErrorDetail
    request_id: str | None = None
