"""langchain-openai's ChatOpenAI, unmodified, against `serve --passthrough`: chat and Responses, whole and streamed.

It asks by `with_raw_response`, whose header must not travel on to the provider.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `server`")
pytest.importorskip("langchain_openai", reason="needs langchain-openai")
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from agentcascade.config.load import CascadeConfig
from agentcascade.ledger.ledger import Ledger
from agentcascade.storage import open_database
from tests.provider import Out, Provider, last, part, whole
from tests.proxy import serving

KEY = "sk-callers-own-0123456789abcdefghij"
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "bed"}'}}


@tool
def look(at: str) -> str:
    """Look at a place."""
    return f"the {at} is empty"


def answer(body: dict[str, Any], out: Out) -> None:
    """A call, and a word when it was answered."""
    turns = body.get("messages") or body.get("input") or []
    done = any(t.get("role") == "tool" or t.get("type") == "function_call_output" for t in turns)
    message: dict[str, Any] = {"content": "not here"} if done else {"content": None, "tool_calls": [CALL]}
    if not body.get("stream"):
        out.json(whole(message, "stop" if done else "tool_calls"))
        return
    calls = [] if done else [part({"tool_calls": [{"index": 0, **CALL}]})]
    said = [part({"role": "assistant", "content": message["content"] or ""})]
    out.events([*said, *calls, part({}, "stop" if done else "tool_calls"), last()])


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_a_tool_loop(responses: bool, tmp_path: Path) -> None:
    with Provider(answer) as provider:
        config = CascadeConfig(
            mode="collect",
            bank={"url": f"sqlite:///{tmp_path}/c.db"},
            retrieval={"embedder": "hashing", "k": 0},
            server={"passthrough": "default", "upstreams": {"openai": provider.url}},
        )
        with serving(config) as proxy:
            chat = ChatOpenAI(
                model="gpt-any", api_key=KEY, base_url=f"{proxy.base}/v1", use_responses_api=responses, max_retries=0
            ).bind_tools([look])
            for stream in (False, True):
                messages: list[Any] = [("user", f"Where is the mug? {stream}")]
                for _ in range(2):
                    if stream:
                        chunks = list(chat.stream(messages))
                        said: Any = chunks[0]
                        for chunk in chunks[1:]:
                            said += chunk
                    else:
                        said = chat.invoke(messages)
                    messages += [said, *(look.invoke(call) for call in said.tool_calls)]
                assert said.text == "not here"
                assert messages[2].content == "the bed is empty"
    assert len(provider.headers) == 4
    assert all(headers["authorization"] == f"Bearer {KEY}" for headers in provider.headers)
    assert not any("x-stainless-raw-response" in headers for headers in provider.headers)
    database = open_database(f"sqlite:///{tmp_path}/c.db")
    lines = Ledger(database).summary("mode")
    database.close()
    assert [(line.group, line.steps) for line in lines] == [("collect", 4)]
