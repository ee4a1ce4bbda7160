"""Bounded history of a step (`history`): older steps leave its prompts, and a carried state stands in their place.

For student prompts, and for the teacher's where `history.teacher` says so; what the caller sent, gets and has stored is
never touched. The carried state of the same older steps is the same text again: a pure function of them in the low
tier; what a model made of them is kept by their digest, in this process and sealed in the database, so that nothing is
paid twice and prefix caches hit. Whatever fails is recorded, and the low tier's state stands there.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from agentcascade._util.bounds import AT_ONCE, off_loop
from agentcascade._util.threads import apart
from agentcascade.messages import text_of
from agentcascade.prompts import bounded as windows
from agentcascade.step.caching import student_terms
from agentcascade.step.carried_states import CarriedState
from agentcascade.step.context import StepContext
from agentcascade.step.model_calls import ModelCalls
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.types import CarriedHistory, Message

if TYPE_CHECKING:
    from agentcascade.config.history import HistoryConfig
    from agentcascade.memory.llm import Size

log = logging.getLogger("agentcascade.history")

KIND = "history"
"""Of models' carried states among computed results."""
MATERIAL = 4
"""Tokens of the older steps that a model is shown, for each token of the carried state."""
SUMMARY_SHARE = 0.5
"""Of the carried state for a model's summary; exact values have the rest."""
WORDS_PER_TOKEN = 0.6


async def bound(context: StepContext, request: Request, record: StepRecord) -> Request:
    """The request with a bounded history; the same where all of it stays, or it cannot be bounded."""
    settings = context.config.history
    if settings is None or request.bounded is not None:
        return request
    try:
        window = windows.window_of(request.remembered, settings.keep, settings.every)
        if window is None:
            return request
        state = await _carried(_Older(context, settings, request, window, record.situation.namespace), record)
        if not state.saves:
            return request
        made = windows.bounded(request.remembered, window, state.block, state.values, context.prompts)
    except Exception as error:
        record.add_failure("history", error)
        return request
    ends = request.parts(context.count).ends
    gone = [i for i in range(window.head, window.cut) if request.remembered[i].get("role") not in windows.SYSTEM]
    after = ends[-1] - sum(ends[i + 1] - ends[i] for i in gone) + state.tokens
    after += context.count(windows.asked_text(request.remembered, window, context.prompts))
    _warn(context, request, ends[-1], after)
    record.add_history(
        CarriedHistory(
            steps=window.steps,
            tokens_before=ends[-1],
            tokens_after=max(0, after),
            state_tokens=state.tokens,
            tier=state.tier,
        )
    )
    return request.with_bounded_history(made)


def _warn(context: StepContext, request: Request, before: int, after: int) -> None:
    """Says once of a student that its provider's cache holds the whole prompt, and not the bounded one."""
    student, warned = context.student, context.carried_states.warned
    shows = context.bank is not None and context.config.retrieval.k > 0
    if student is None or student.name in warned or shows:
        return
    terms = student_terms(context, request)
    if not terms.never and after < terms.minimum <= before:
        warned.add(student.name)
        log.warning(
            "history: a prompt of %d tokens is bounded to %d, fewer than the %d from which %s caches one: all of it is "
            "paid in full at every step. Keep more steps (history.keep), or leave history out for this student",
            *(before, after, terms.minimum, student.name),
        )


def shown(context: StepContext, messages: Sequence[Message]) -> Sequence[Message]:
    """Those of the messages that a student's prompt shows as they are."""
    settings = context.config.history
    window = None if settings is None else windows.window_of(messages, settings.keep, settings.every)
    return messages if window is None else [*messages[: window.head], *messages[window.cut :]]


def for_teacher(context: StepContext, request: Request, shown: bool) -> Sequence[Message]:
    """What the teacher is sent: whole, unless `history.teacher` is on; with demonstrations where they are `shown`."""
    sent = request.prompt if shown else request.remembered
    settings, made = context.config.history, request.bounded
    if made is None or (settings is not None and settings.teacher):
        return sent
    return windows.whole_again(made, sent) if shown else made.whole


class _Older(NamedTuple):
    """The older steps of a request."""

    context: StepContext
    settings: HistoryConfig
    request: Request
    window: windows.Window
    namespace: str
    """What was made of one's histories is not another's, though they be equal."""

    @property
    def settled(self) -> list[Message]:
        """What was there when they left the window, as the caller sent it: what is added to it changes by the step."""
        return [windows.as_sent(message) for message in self.request.remembered[: self.window.settled]]

    @property
    def room(self) -> int:
        """Tokens of the carried state without its frame."""
        frame = windows.frame_tokens(self.window.steps, self.context.count, self.context.prompts)
        return self.settings.carry - frame - 4


async def _carried(older: _Older, record: StepRecord) -> CarriedState:
    """The carried state of the older steps: known, or made now."""
    context, window, states = older.context, older.window, older.context.carried_states
    prints = older.request.parts(context.count).prints[: window.settled]
    print_key = (older.namespace, older.settings.setting, window, context.prompts, prints)
    known = states.seen.get(print_key)
    if known is None:
        known = await _known_or_made(older, record)
        states.seen.put(print_key, known)
    return known


async def _known_or_made(older: _Older, record: StepRecord) -> CarriedState:
    context, messages = older.context, older.settled
    heavy = sum(len(text_of(message)) for message in messages) > AT_ONCE
    key = await off_loop(heavy, _digest, older, messages)
    states = context.carried_states
    known = states.made.get(key)
    if known is not None:
        return known
    if older.settings.tier == "low" or context.historian is None:
        return states.made.setdefault(key, await off_loop(heavy, _extracted, older, messages))
    lock = states.making.setdefault((id(asyncio.get_running_loop()), key), asyncio.Lock())
    async with lock:
        known = states.made.get(key)
        if known is None:
            known = await _summarised(older, messages, record, key)
            states.made.put(key, known)
    return known


def _digest(older: _Older, messages: Sequence[Message]) -> str:
    """Of everything that a carried state is made of."""
    prompts = older.context.prompts
    texts = [prompts.templates[name].text for name in (windows.TEMPLATE, windows.ASKED, "history_summary")]
    digest = blake2b(digest_size=32)
    digest.update(
        json.dumps([older.namespace, older.settings.setting, *older.window, prompts.quoting.on, *texts]).encode()
    )
    for message in messages:
        said = [message.get("role"), message.get("tool_call_id"), message.get("content"), message.get("tool_calls")]
        digest.update(json.dumps(said, default=repr).encode())
    return digest.hexdigest()


def _extracted(older: _Older, messages: Sequence[Message]) -> CarriedState:
    """The low tier's state."""
    return _stated(older, messages, _lines(older, messages, older.room), "low")


def _lines(older: _Older, messages: Sequence[Message], budget: int) -> list[str]:
    from agentcascade.memory.carried import carried_lines

    if budget <= 0:
        return []
    head, cut, asked = older.window.head, older.window.cut, older.window.asked
    visible = [*messages[:head], *messages[cut:], *([] if asked is None else [messages[asked]])]
    return carried_lines(messages[head:cut], visible, budget=budget, count=older.context.count)


def _stated(
    older: _Older, messages: Sequence[Message], lines: Sequence[str], tier: Literal["low", "mid", "high"]
) -> CarriedState:
    context, window = older.context, older.window
    block, values = "", dict[str, str]()
    if lines:
        block, values = windows.carried_block(
            lines,
            window.steps,
            key=windows.goal_of(messages),
            budget=older.settings.carry,
            count=context.count,
            prompts=context.prompts,
        )
    tokens, asked = context.count(block) if block else 0, windows.asked_text(messages, window, context.prompts)
    left_out = sum(context.count(windows.said(message)) for message in messages[window.head : window.cut])
    return CarriedState(block, values, tokens, tier, saves=tokens + context.count(asked) < left_out)


async def _summarised(older: _Older, messages: Sequence[Message], record: StepRecord, key: str) -> CarriedState:
    """A model's summary with exact values below it; the low tier's state where there is none."""
    from agentcascade.memory.carried import lines_within

    context, settings = older.context, older.settings
    low = await apart(_extracted, older, messages)
    if not low.saves or older.room <= 0:
        return low
    try:
        text = await _known_or_asked(older, messages, record, key)
    except Exception as error:
        record.add_failure("history", error)
        return low
    summary = lines_within(text, round(older.room * SUMMARY_SHARE), context.count)
    if not summary:
        record.add_failure("history", ValueError("the model's answer holds no carried state"))
        return low
    rest = older.room - context.count("\n".join(summary)) - 1
    return _stated(older, messages, [*summary, *await apart(_lines, older, messages, rest)], settings.tier)


async def _known_or_asked(older: _Older, messages: Sequence[Message], record: StepRecord, key: str) -> str:
    """What the model said of these steps, here or in another process, else what it says now."""
    from agentcascade.storage.sealed_texts import SealedTexts

    database = older.context.database
    texts = SealedTexts(database, KIND) if database is not None else None
    known = await apart(texts.get, key) if texts is not None else None
    if known is not None:
        return known
    async with asyncio.timeout(older.settings.timeout_seconds):
        text = await _ask(older, messages, record)
    if texts is not None and text.strip():
        await apart(texts.put, key, text)
    return text


async def _ask(older: _Older, messages: Sequence[Message], record: StepRecord) -> str:
    """What the model says of the older steps, asked as the modules of a memory ask, on the step's bill."""
    from agentcascade.memory.llm import ChatMethod, ask_model

    context, settings = older.context, older.settings
    material = await apart(_lines, older, messages, MATERIAL * settings.carry)
    quoted = "\n".join(context.prompts.quoting.text(line) for line in material)
    calls, model = ModelCalls(context, older.request, record), context.historian
    assert model is not None

    async def ask(size: Size, messages: Sequence[Message], max_tokens: int) -> str:
        options: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_tokens, "timeout": settings.timeout_seconds}
        completion = await calls.ask(model, messages, "history", options)
        return text_of(completion.messages[0])

    most = max(32, round(settings.carry * SUMMARY_SHARE))
    task = context.prompts.render("history_summary", words=str(max(10, round(most * WORDS_PER_TOKEN))))
    method = ChatMethod("large", "direct" if settings.tier == "mid" else "refine")
    return await ask_model(task, quoted, windows.goal_of(messages), method, ask, most, context.prompts)
