"""Steps asked for by OpenAI's Responses API: what a request continues, its answer or events, and what is kept of it.

The proxy and `wrap` differ in how a request comes in and an error goes out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from agentcascade._util.threads import apart
from agentcascade.errors import AgentCascadeError, describe
from agentcascade.storage.responses import KeptResponse, ResponseStore
from agentcascade.types import Decision
from agentcascade.wire import responses_answer
from agentcascade.wire.responses_events import Event, EventWriter
from agentcascade.wire.responses_request import ReadRequest, read_request
from agentcascade.wire.responses_tools import ToolBook
from agentcascade.wire.unusable import UnusableField

if TYPE_CHECKING:
    from agentcascade.episodes.stream import Answer, StepStream
    from agentcascade.step.context import StepContext

log = logging.getLogger("agentcascade.responses")
MOST_REFERENCES = 200
"""Responses that the items of one request may refer to."""


@dataclass(frozen=True)
class Shelf:
    """Where one namespace's responses are kept.

    Attributes:
        store: None where none are.
        namespace: Whose they are.
    """

    store: ResponseStore | None
    namespace: str

    async def conversation(self, id: str | None) -> list[KeptResponse]:
        """The response and those before it, oldest first. Raises `UnusableField` where it is not kept."""
        if id is None:
            return []
        found = None if self.store is None else await apart(self.store.conversation, self.namespace, id)
        if found is None:
            why = ": none are kept here (server.store_responses), send the whole input" if self.store is None else ""
            raise UnusableField(
                f"Previous response with id '{id[:100]}' not found{why}",
                "previous_response_id",
                "previous_response_not_found",
            )
        return list(found)

    async def with_references(self, items: list[Any]) -> list[Any]:
        """The items, with those of stored responses in place of references to them."""
        places = {
            item["id"]: place
            for item in items
            if isinstance(item, dict) and (item.get("type") == "item_reference" or item.keys() == {"id"})
            if isinstance(item.get("id"), str) and (place := responses_answer.place_of(item["id"]))
        }
        ids = sorted({id for id, _ in places.values()})
        if not ids or self.store is None:
            return items
        if len(ids) > MOST_REFERENCES:
            raise UnusableField(f"input: items of more than {MOST_REFERENCES} responses are referred to", "input")
        found = await apart(self.store.find_all, self.namespace, ids)

        def resolved(item: Any) -> Any:
            id, index = places.get(item.get("id"), ("", 0)) if isinstance(item, dict) else ("", 0)
            output = found[id].response["output"] if id in found else []
            return output[index] if index < len(output) else item

        return [resolved(item) for item in items]


@dataclass(frozen=True)
class ResponsesStep:
    """One request of the Responses API on its way to an answer.

    Attributes:
        read: The request as an episode takes it.
        head: What the response repeats of it.
        shelf: Where it is kept.
        earlier: Ids of the responses before it.
        input: The items that it adds.
        episode: Id of the episode that it continues, "" where it begins one.
    """

    read: ReadRequest
    head: Mapping[str, Any]
    shelf: Shelf
    earlier: Sequence[str] = ()
    input: Sequence[Any] = field(default_factory=list)
    episode: str = ""

    @property
    def book(self) -> ToolBook:
        """The tools under both their names."""
        return self.read.book

    async def whole(self, answer: Answer, render_decision: Callable[[Decision], Any]) -> dict[str, Any]:
        """The response of an answer, kept where it is to be."""
        message, completion = answer.messages[0], answer.completion
        told = completion.choice_fields[0].get("logprobs") if completion.choice_fields else None
        logprobs = told.get("content") if isinstance(told, Mapping) else None
        items = responses_answer.output(message, self.book, self.head["id"], completion.model, logprobs)
        return await self._kept(answer, items, render_decision)

    async def events(
        self,
        stream: StepStream,
        render_decision: Callable[[Decision], Any],
        failed: Callable[[Exception], Mapping[str, str]] | None = None,
    ) -> AsyncIterator[Event]:
        """The answer as events.

        Args:
            stream: The step's chunks.
            render_decision: Makes the response's field ``agentcascade``.
            failed: Makes the ``error`` of a response that failed in the middle; default: what went wrong is raised.
        """
        writer = EventWriter(self.head, self.book)
        for event in writer.begin():
            yield event
        try:
            async for chunk in stream:
                for choice in chunk["choices"]:
                    told = choice.get("logprobs") or {}
                    for event in writer.delta(choice.get("delta") or {}, told.get("content") or ()):
                        yield event
            assert stream.answer is not None
            for event in writer.end(stream.answer.messages[0], stream.answer.completion.model):
                yield event
            response = await self._kept(stream.answer, writer.items, render_decision)
        except Exception as error:
            if failed is None:
                raise
            response = {**self.head, "status": "failed", "error": failed(error), "output": writer.items, "store": False}
        for event in writer.last(response):
            yield event

    async def _kept(
        self, answer: Answer, items: Sequence[Mapping[str, Any]], render_decision: Callable[[Decision], Any]
    ) -> dict[str, Any]:
        completion = answer.completion
        reason = completion.finish_reasons[0] if completion.finish_reasons else "stop"
        model = str(completion.fields.get("model") or completion.model)
        response = responses_answer.finished(self.head, items, model, reason, completion.usage, int(time.time()))
        if response["store"] and self.shelf.store is not None:
            field = answer.decision.model_dump(mode="json", include={"id", "episode", "answered_by", "reason"})
            kept = KeptResponse(
                self.head["id"], answer.decision.episode, self.earlier, self.input, {**response, "agentcascade": field}
            )
            try:
                await apart(self.shelf.store.save, self.shelf.namespace, kept)
            except AgentCascadeError as error:  # the answer is paid for, and whoever needs it stored is told
                log.error("a response is not stored: %s", describe(error))
                response["store"] = False
        return {**response, "agentcascade": render_decision(answer.decision)}


async def begin_step(data: Mapping[str, Any], shelf: Shelf, models: Collection[str], *, native: bool) -> ResponsesStep:
    """Read a request.

    Args:
        data: Its body.
        shelf: Where the responses are that it continues.
        models: Names of the models that may be given back what they thought.
        native: Whether the teacher speaks Responses itself.

    Raises:
        UnusableField: A field, named, that cannot be used.
    """
    given = data.get("input")
    own = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else list(given or ())
    own = await shelf.with_references(own)
    conversation = await shelf.conversation(data.get("previous_response_id"))
    items = [item for kept in conversation for item in (*kept.input, *kept.response["output"])]
    read = read_request({**data, "input": own}, items, models=models, native=native)
    store = shelf.store is not None and data.get("store") is not False
    head = responses_answer.head({**data, "store": store}, f"resp_{uuid4().hex}", int(time.time()))
    episode = conversation[-1].episode if conversation else ""
    return ResponsesStep(read, head, shelf, [kept.id for kept in conversation], own, episode)


def models_of(context: StepContext) -> set[str]:
    """Names of the models that answer an agent."""
    models = (context.teacher, context.student, *(further.model for further in context.students))
    return {model.name for model in models if model is not None}
