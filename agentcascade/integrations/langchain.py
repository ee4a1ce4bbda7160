"""A LangChain chat model that is a cascade: for chains, LangGraph agents, anything that takes a `BaseChatModel`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, ClassVar, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field

from agentcascade.cascade import Cascade
from agentcascade.episodes import identity
from agentcascade.episodes.episode import Episode
from agentcascade.episodes.stream import StepStream
from agentcascade.episodes.sync import loop_of
from agentcascade.errors import InvalidRequest
from agentcascade.models import message_fields
from agentcascade.types import Decision, Message

__all__ = ["ChatAgentCascade"]

IN_LANGCHAIN = frozenset({"role", "content", "tool_calls", "name", "parsed", message_fields.EXTRA})
"""Fields of an answer with a place of their own in LangChain's messages; others go into `additional_kwargs`."""
OF_CALLS = "tool_call_fields"
"""Key of `additional_kwargs` for further fields of tool calls, by id: Gemini wants its signatures back with them."""
NOT_OPTIONS = frozenset({"stream", "ls_structured_output_format"})
"""LangChain's own arguments of a call, which no model is sent."""
CUT = frozenset({"text", "summary", "thinking", "index", "type"})
"""Fields of a block that come in parts, or in each of them."""


class ChatAgentCascade(BaseChatModel):
    """Chat model of LangChain that answers by a cascade.

    Episode and goal are taken from the run's metadata (``config={"metadata": {"agentcascade_episode": …}}``), else read
    off the messages. The decision is in `response_metadata["agentcascade"]`.

    Args:
        cascade: Answers; it is not closed with the model.
        temperature: Of the teacher, 0 to 2; the student's is ``sampling.temperature``.
        max_tokens: Tokens of an answer at most.
        stop: Texts that end an answer.
        options: Further keywords of `Episode.complete` for every call.

    >>> from agentcascade import ScriptedModel, build
    >>> with build(teacher=ScriptedModel(["look"]), mode="teacher") as cascade:
    ...     answer = ChatAgentCascade(cascade=cascade).invoke("Find the mug.")
    >>> answer.content, answer.response_metadata["agentcascade"]["answered_by"]
    ('look', 'teacher')
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)

    cascade: Cascade = Field(exclude=True)
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "agentcascade"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"cascade": self.cascade.name, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider="agentcascade", ls_model_name=kwargs.get("model", self.cascade.name), ls_model_type="chat"
        )  # fmt: skip
        for name, value in (
            ("ls_temperature", kwargs.get("temperature", self.temperature)),
            ("ls_max_tokens", kwargs.get("max_tokens", self.max_tokens)),
            ("ls_stop", stop or self.stop),
        ):
            if value is not None:
                params[name] = value  # type: ignore[literal-required]
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind `tools` to the model; `tool_choice` may be a tool's name, 'any', 'auto', 'none' or OpenAI's own form."""
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        if tool_choice:
            kwargs["tool_choice"] = _choice(tool_choice, [t["function"]["name"] for t in formatted if "function" in t])
        return super().bind(tools=formatted, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Structured output by a tool call, or, with `method` 'json_schema' or 'json_mode', by `response_format`."""
        method = kwargs.get("method", "function_calling")
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        if method not in ("json_schema", "json_mode"):
            raise ValueError(f"method={method!r}: use 'function_calling', 'json_schema' or 'json_mode'")
        shape = convert_to_json_schema(schema)
        response_format: dict[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            named = {"name": shape["title"], "schema": shape}
            strict = {"strict": kwargs["strict"]} if kwargs.get("strict") is not None else {}
            response_format = {"type": "json_schema", "json_schema": named | strict}
        typed = isinstance(schema, type) and is_basemodel_subclass(schema)
        parser: Runnable[Any, Any] = PydanticOutputParser(pydantic_object=schema) if typed else JsonOutputParser()
        tracing = {"kwargs": {"method": method}, "schema": schema}
        model = self.bind(response_format=response_format, ls_structured_output_format=tracing)
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        episode, request = self._begin(messages, stop, run_manager, kwargs)
        return loop_of(self.cascade.engine.state.life).run(_result(episode, request))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await _result(*self._begin(messages, stop, run_manager, kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        episode, request = self._begin(messages, stop, run_manager, kwargs)
        loop = loop_of(self.cascade.engine.state.life)
        stream, chunks = loop.run(_open(episode, request)), _Chunks()
        try:
            while True:
                try:
                    chunk = chunks.chunk(loop.run(_next(stream)))
                except StopAsyncIteration:
                    return
                if run_manager:
                    run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
                yield chunk
        finally:
            loop.run(stream.aclose())

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        episode, request = self._begin(messages, stop, run_manager, kwargs)
        chunks = _Chunks()
        async with await _open(episode, request) as stream:
            async for data in stream:
                chunk = chunks.chunk(data)
                if run_manager:
                    await run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
                yield chunk

    def _begin(
        self, messages: list[BaseMessage], stop: list[str] | None, run_manager: Any, options: dict[str, Any]
    ) -> tuple[Episode, dict[str, Any]]:
        plain: list[Message] = [_message(m) for m in messages]
        request = {**self.options, "temperature": self.temperature, "max_tokens": self.max_tokens, **options}
        if request.pop("model", self.cascade.name) != self.cascade.name:
            raise InvalidRequest(f"model={options['model']!r}: make a ChatAgentCascade of that cascade instead")
        request["stop"] = stop or self.stop
        request = {k: v for k, v in request.items() if v is not None and k not in NOT_OPTIONS}
        metadata = {**(getattr(run_manager, "metadata", None) or {}), **(request.pop("metadata", None) or {})}
        episode = identity.episode_of(self.cascade.engine, plain, metadata=metadata)
        return episode, {**request, "messages": plain}


def _choice(choice: dict[str, Any] | str | bool, names: Sequence[str]) -> Any:
    if choice is True or choice == "any":
        return "required"
    if isinstance(choice, str) and choice in names:
        return {"type": "function", "function": {"name": choice}}
    return choice


def _message(message: BaseMessage) -> Message:
    converted = convert_to_openai_messages(message)
    assert isinstance(converted, dict)
    if not isinstance(message, AIMessage):
        return converted
    extra = {k: v for k, v in message.additional_kwargs.items() if v and k not in IN_LANGCHAIN}
    call_fields = extra.pop(OF_CALLS, None)
    if isinstance(call_fields, dict) and converted.get("tool_calls"):
        converted["tool_calls"] = [_whole_call(c, call_fields.get(c.get("id")) or {}) for c in converted["tool_calls"]]
    # The chunks of a stream are added up by LangChain, which does not know where a block goes on.
    return {**{k: message_fields.join_field(None, k, v) for k, v in extra.items()}, **converted}


def _whole_call(call: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    if "custom" not in beside:
        return {**call, **beside}
    return {**{k: v for k, v in call.items() if k != "function"}, "type": "custom", **beside}


async def _result(episode: Episode, request: dict[str, Any]) -> ChatResult:
    messages, tools = request.pop("messages"), request.pop("tools", None)
    completion, answers, decision = await episode.answer(messages, tools=tools, options=request)
    usage = completion.usage
    generations = []
    for index, answer in enumerate(answers):
        reasons = completion.finish_reasons
        reason = reasons[index] if index < len(reasons) else "stop"
        choice_fields = completion.choice_fields[index] if index < len(completion.choice_fields) else {}
        metadata = {**completion.fields, **choice_fields, **_metadata(completion.model, reason, decision)}
        message = _assistant(answer, metadata)
        if index == 0:
            message.usage_metadata = _usage(
                usage.prompt, usage.completion, usage.cached_input, usage.cache_write + usage.cache_write_1h,
                usage.reasoning,
            )  # fmt: skip
        generations.append(
            ChatGeneration(message=message, generation_info={"finish_reason": metadata["finish_reason"]})
        )
    return ChatResult(generations=generations, llm_output={"model_name": completion.model})


def _metadata(model: str, reason: str, decision: Decision) -> dict[str, Any]:
    return {
        "model_name": model,
        "model_provider": "agentcascade",
        "finish_reason": reason,
        "agentcascade": decision.model_dump(mode="json"),
    }


def _assistant(answer: Message, metadata: dict[str, Any]) -> AIMessage:
    good, bad = [], []
    for call in answer.get("tool_calls") or ():
        if "custom" in call:  # its input is a text: LangChain's own name for the one argument of such a tool
            custom = call["custom"]
            good.append(tool_call(name=custom["name"], args={"__arg1": custom.get("input") or ""}, id=call["id"]))
            continue
        name, raw = call["function"]["name"], call["function"].get("arguments") or "{}"
        try:
            arguments = json.loads(raw)
            if not isinstance(arguments, dict):
                raise ValueError("the arguments are not an object")
            good.append(tool_call(name=name, args=arguments, id=call["id"]))
        except (ValueError, RecursionError) as error:
            bad.append(invalid_tool_call(name=name, args=raw, id=call["id"], error=str(error)))
    return AIMessage(
        content=answer.get("content") or "",
        tool_calls=good,
        invalid_tool_calls=bad,
        additional_kwargs=_extra(answer) | _of_calls({c["id"]: c for c in answer.get("tool_calls") or ()}),
        response_metadata=metadata,
        id=metadata["agentcascade"]["id"],
    )


def _extra(message: Message) -> dict[str, Any]:
    """Fields of a message that LangChain's have no place for."""
    return {k: v for k, v in message.items() if v and k not in IN_LANGCHAIN}


def _usage(prompt: int, completion: int, cached: int, written: int, reasoning: int) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=prompt,
        output_tokens=completion,
        total_tokens=prompt + completion,
        input_token_details=InputTokenDetails(cache_read=cached, cache_creation=written),
        output_token_details=OutputTokenDetails(reasoning=reasoning),
    )


async def _open(episode: Episode, request: dict[str, Any]) -> StepStream:
    messages, tools = request.pop("messages"), request.pop("tools", None)
    stream = episode.stream(messages, tools=tools, **request)
    await stream.begin()
    return stream


async def _next(stream: StepStream) -> dict[str, Any]:
    return await stream.__anext__()


def _of_calls(calls: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Fields of tool calls, by id, that LangChain's have no place for."""
    known = ("id", "type", "index", "function")
    fields = {id: rest for id, call in calls.items() if (rest := {k: v for k, v in call.items() if k not in known})}
    return {OF_CALLS: fields} if fields else {}


class _Chunks:
    """Chunks of one stream. LangChain adds up the texts of blocks of one index: what is repeated is left out."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, Any], dict[str, Any]] = {}
        self._ids: dict[Any, str] = {}

    def chunk(self, data: dict[str, Any]) -> ChatGenerationChunk:
        delta = data["choices"][0]["delta"] if data["choices"] else {}
        extra = {k: [self._new(k, b) for b in v] if isinstance(v, list) else v for k, v in _extra(delta).items()}
        by_id = {}
        for call in delta.get("tool_calls") or ():
            if call.get("id"):
                self._ids[call.get("index")] = call["id"]
            by_id[self._ids.get(call.get("index"), "")] = call
        return _chunk(data, extra | _of_calls(by_id))

    def _new(self, name: str, block: Any) -> Any:
        if not isinstance(block, dict) or block.get("index") is None:
            return block
        known = self._blocks.setdefault((name, block["index"]), {})
        new = {k: v for k, v in block.items() if k in CUT or k not in known or known[k] != v}
        known.update(block)
        return new


def _chunk(data: dict[str, Any], extra: dict[str, Any]) -> ChatGenerationChunk:
    choice: dict[str, Any] = data["choices"][0] if data["choices"] else {"delta": {}, "finish_reason": None}
    delta, reason = choice["delta"], choice["finish_reason"]
    calls = [
        tool_call_chunk(
            name=call.get("function", {}).get("name"),
            args=call.get("function", {}).get("arguments"),
            id=call.get("id"),
            index=call.get("index"),
        )
        for call in delta.get("tool_calls") or ()
    ]
    position: Literal["last"] | None = None
    metadata: dict[str, Any] = {}
    usage = None
    if raw := data.get("usage"):
        position = "last"
        metadata = _metadata(data["model"], reason or "stop", data["agentcascade"])
        usage = _usage(
            raw["prompt_tokens"],
            raw["completion_tokens"],
            raw["prompt_tokens_details"]["cached_tokens"],
            0,
            raw["completion_tokens_details"]["reasoning_tokens"],
        )
    message = AIMessageChunk(
        content=delta.get("content") or "",
        tool_call_chunks=calls,
        additional_kwargs=extra,
        response_metadata=metadata,
        usage_metadata=usage,
        id=data["id"],
        chunk_position=position,
    )
    return ChatGenerationChunk(message=message, generation_info={"finish_reason": reason} if reason else None)
