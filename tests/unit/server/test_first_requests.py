"""First requests: their models' clients and packages are there before the server says that it serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentcascade import CascadeConfig
from agentcascade.models.anthropic import AnthropicHttp
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.openai import OpenAIModel
from agentcascade.server.app import create_app
from agentcascade.storage.keys import Keys


async def test_clients_are_made_once_a_loop_before_the_server_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(kind: type, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def making(model: Any) -> Any:
            made.append(kind.__name__)
            return make(model)

        return making

    for kind, name in ((OpenAIModel, "_new_client_model"), (AnthropicHttp, "_new_client")):
        monkeypatch.setattr(kind, name, counted(kind, getattr(kind, name)))

    def failing(self: Any) -> None:
        made.append("LiteLLMModel")
        raise ImportError("no such package")  # its requests say so: the server serves the others

    monkeypatch.setattr(LiteLLMModel, "prepare", failing)
    parts: dict[str, Any] = {
        "bank": {"url": f"sqlite:///{tmp_path}/bank.db"},
        "retrieval": {"k": 0},
        "cascades": {
            "one": {
                "teacher": {"name": "anthropic/claude-sonnet-4-5", "api_key": "k" * 20},
                "student": {"name": "openai/gpt-4.1-mini", "api_key": "k" * 20},
                "mode": "cascade",
            },
            "two": {"teacher": {"name": "groq/llama-3", "api_key": "k" * 20}, "mode": "teacher"},
        },
    }
    app = create_app(CascadeConfig.load(None, **parts))
    assert made == []  # a worker's loop is not there yet
    async with app.router.lifespan_context(app):
        assert sorted(made) == ["AnthropicHttp", "LiteLLMModel", "OpenAIModel"]


async def test_keys_are_read_before_the_server_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first request of a new worker is refused where the database takes its time."""
    read: list[Keys] = []
    load = Keys._load

    def counted(keys: Keys) -> Any:
        read.append(keys)
        return load(keys)

    monkeypatch.setattr(Keys, "_load", counted)
    parts: dict[str, Any] = {"bank": {"url": f"sqlite:///{tmp_path}/bank.db"}, "retrieval": {"k": 0}}
    app = create_app(CascadeConfig.load(None, mode="teacher", teacher="openai/gpt-4.1", **parts))
    assert read == []
    async with app.router.lifespan_context(app):
        assert len(read) == 1
