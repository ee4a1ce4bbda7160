"""Prompt of the soft verifier: the conversation and one candidate action, both quoted, and what is asked of it.

"When Reasoning Beats Scale" (arXiv 2505.03786), section 3: a small reasoning model as discriminator, whose probability
of "yes" is the score. What is quoted is cut to a budget: of the conversation its head and its newest messages stay, of
the candidate its beginning. The conversation stands first, so that candidates of one step share a cached prefix.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from agentcascade.messages import text_of
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.quoting import mark_of
from agentcascade.types import Message, Tool

Form = Literal["word", "scale"]
"""How a verifier answers: yes or no, of which the probability is read, or a number from 0 to 10."""

CHARACTERS = 4
"""Of a token, on the whole: budgets are counted so, since nothing of this must cost the step time."""
SHARES = {"candidate": 0.25, "tools": 0.15, "head": 0.35}
"""Of the budget, at most; what is left is the newest messages'."""
CUT = "\n[… left out …]\n"
SYSTEM = ("system", "developer")


def verification(
    messages: Sequence[Message],
    candidate: Message,
    *,
    budget: int = 4_000,
    form: Form = "word",
    think: bool = True,
    tools: Sequence[Tool] | None = None,
    prompts: Prompts = DEFAULT,
) -> list[Message]:
    """The messages that ask whether `candidate` is the right next action of a conversation.

    Args:
        messages: What the agent was asked, without demonstrations.
        candidate: The assistant's message that would be sent.
        budget: Tokens, roughly, of all that is quoted.
        form: How the answer is asked for.
        think: Whether the model may say some words before it answers.
        tools: That the agent has: those that the candidate calls are shown.
        prompts: Templates, and the quoting.

    Returns:
        A system message and a user's.

    >>> asked = verification([{"role": "user", "content": "2 + 2?"}], {"role": "assistant", "content": "4"})
    >>> [message["role"] for message in asked]
    ['system', 'user']
    """
    room = budget * CHARACTERS
    quote = prompts.quoting.text
    called = quote(_called(candidate, tools or (), int(room * SHARES["tools"])))
    action = quote(shortened(_said(candidate), int(room * SHARES["candidate"])))
    shown = _shown(messages, room - len(action) - len(called), int(room * SHARES["head"]), quote)
    values = {"conversation": shown, "candidate": action, "tools": called}
    if prompts.quoting.on:
        system = next((text_of(m) for m in messages if m.get("role") in SYSTEM), "")
        values["mark"] = mark_of(f"verify\0{system}", (shown, action, called))
    asked = prompts.render("verify_" + form + ("_think" if think else ""))
    return [
        {"role": "system", "content": prompts.render("verify_system", mark=values.get("mark", ""))},
        {"role": "user", "content": prompts.render("verify", **values, form=asked)},
    ]


def shortened(text: str, characters: int) -> str:
    """`text`, or its beginning and its end, where it has more characters.

    >>> shortened("abcdefghijklmnopqrstuvwxyz" * 2, 30)
    'abcdefghi\\n[… left out …]\\nvwxyz'
    """
    if len(text) <= characters:
        return text
    keep = max(characters - len(CUT), 0)
    behind = keep * 2 // 5
    return text[: keep - behind] + CUT + (text[-behind:] if behind else "")


def _shown(messages: Sequence[Message], room: int, least: int, quote: Callable[[str], str]) -> str:
    """The conversation: what the agent is and was asked first, then the newest messages that fit."""
    place = next((i for i, m in enumerate(messages) if m.get("role") == "user"), len(messages) - 1)
    said = [_said(message) for message in messages]
    left = room - sum(map(len, said[place + 1 :]))
    share = max(least, left) // max(place + 1, 1)
    for i in range(place + 1):
        said[i] = shortened(said[i], share)
    left = room - sum(map(len, said[: place + 1]))
    first = len(said)
    while first > place + 1 and len(said[first - 1]) <= left:
        first -= 1
        left -= len(said[first])
    if first == len(said) > place + 1 and left > len(CUT):
        first -= 1
        said[first] = shortened(said[first], left)
    lines = [f"## {_role(messages[i])}\n{quote(said[i])}" for i in (*range(place + 1), *range(first, len(said)))]
    if first > place + 1:
        lines.insert(place + 1, CUT.strip())
    return "\n\n".join(lines)


def _role(message: Message) -> str:
    """One of those that quoting tells from a text's own lines."""
    role = message.get("role")
    return "system" if role in SYSTEM else str(role) if role in ("user", "assistant") else "tool"


def _said(message: Message) -> str:
    """The text of a message and the calls that it makes; thoughts are no part of it."""
    text = text_of(message).strip()
    calls = [_call(call) for call in message.get("tool_calls") or () if isinstance(call, Mapping)]
    return "\n".join([text, *calls] if text else calls)


def _call(call: Mapping[str, Any]) -> str:
    function = call.get("function") or call.get("custom") or {}
    given = function.get("arguments", function.get("input", ""))
    return f"{function.get('name', '')}({given if isinstance(given, str) else json.dumps(given, default=str)})"


def _called(candidate: Message, tools: Sequence[Tool], characters: int) -> str:
    """The definitions of the tools that a candidate calls, each on a line."""
    names = {
        str((call.get("function") or {}).get("name"))
        for call in candidate.get("tool_calls") or ()
        if isinstance(call, Mapping)
    }
    found = [tool.get("function") or {} for tool in tools]
    lines = [json.dumps(f, ensure_ascii=False, default=str) for f in found if f.get("name") in names]
    return shortened("\n".join(lines), characters)
