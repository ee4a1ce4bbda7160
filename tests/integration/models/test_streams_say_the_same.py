"""A streamed answer is read as the whole one is, by every adapter over HTTP: blank texts, thoughts and arguments."""

from __future__ import annotations

from typing import Any

import pytest

from tests.provider import Provider, part
from tests.provider_cases import ADAPTERS, CHAT, ask, says


def called(*arguments: str) -> dict[str, Any]:
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": "look", "arguments": a}}
        for i, a in enumerate(arguments)
    ]
    return {"tool_calls": calls}


MESSAGES: list[dict[str, Any]] = [
    {"content": " "},
    {"content": "\n\n"},
    {"reasoning_content": " ", "content": "x"},
    {"reasoning_content": "\n a \n", "content": "\n x \n"},
    {"reasoning_content": "a", "content": "", **called("")},
    {"content": " ", **called("{}", '{"at": " "}', "")},
]
OF_CHAT: list[dict[str, Any]] = [
    {"content": "x", "refusal": " "},
    {"content": None, "refusal": "no"},
    {"reasoning": "\n", "content": "x"},
    {"reasoning_details": [{"type": "reasoning.text", "text": " ", "signature": "s", "index": 0}], "content": "x"},
    {
        "reasoning_content": " ",
        "thinking_blocks": [
            {"type": "thinking", "thinking": " ", "signature": "s"}, {"type": "redacted_thinking", "data": "d"},
        ],
        "content": "x",
    },
]  # fmt: skip
"""With fields that other APIs have not."""


def parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The message as servers stream it: a letter a chunk, each call's head before its arguments."""
    chunks = [part({"role": "assistant", "content": ""})]
    for name, said in message.items():
        if name == "tool_calls":
            for index, call in enumerate(said):
                function = call["function"]
                chunks.append(
                    part({"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]})
                )
                for letter in function["arguments"]:
                    chunks.append(part({"tool_calls": [{"index": index, "function": {"arguments": letter}}]}))
        else:
            chunks += [part({name: piece}) for piece in (said if isinstance(said, str) else [said] if said else [])]
    return chunks


def said_by(message: Any) -> Any:
    """What it says, without what is empty: a stream has no chunk for that."""
    if isinstance(message, dict):
        return {k: said_by(v) for k, v in message.items() if v or k == "arguments"}
    return [said_by(m) for m in message] if isinstance(message, list) else message


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_whatever_is_said(adapter: str) -> None:
    for message in [*MESSAGES, *(OF_CHAT if adapter in CHAT else ())]:
        finish = "tool_calls" if "tool_calls" in message else "stop"
        with Provider(says(message, finish, parts_of(message))) as provider:
            model = ADAPTERS[adapter](provider.url)
            whole, streamed = [(await ask(model, form)).answer for form in ("whole", "streamed")]
        assert said_by(streamed.messages[0]) == said_by(whole.messages[0])
        assert streamed.finish_reasons == whole.finish_reasons
        assert streamed.dollars == whole.dollars, "litellm guesses how much of a stream was thought"
