"""Lists of models in pass-through, as clients ask for them, and routes that are not forwarded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

pytest.importorskip("fastapi", reason="needs the extra `server`")
pytest.importorskip("anthropic", reason="needs the extra `anthropic`")
import anthropic

from agentcascade.config.load import CascadeConfig
from tests.provider import Out, Provider
from tests.proxy import serving

KEY, CLAUDES = "sk-callers-own-0123456789abcdefghij", "sk-ant-callers-own-0123456789abcdef"
GPT = {"id": "gpt-any", "object": "model", "created": 1, "owned_by": "openai"}
CLAUDE = {"type": "model", "id": "claude-any", "display_name": "Claude", "created_at": "2026-01-01T00:00:00Z"}


def answer(body: dict[str, Any], out: Out) -> None:
    """OpenAI's and Anthropic's lists, of two pages; a model that there is, and one that there is not."""
    request: Any = out._handler
    path, _, query = request.path.partition("?")
    asked.append(f"{path}?{query}" if query else path)
    is_claudes = "anthropic-version" in request.headers
    if path.endswith("/gone"):
        error = {"type": "not_found_error", "message": "model: gone", "code": "model_not_found"}
        out.raw(json.dumps({"type": "error", "error": error}).encode(), 404, {"content-type": "application/json"})
    elif path.endswith("/models"):
        page = {"data": [CLAUDE], "has_more": False, "first_id": "claude-any", "last_id": "claude-any"}
        out.json(page if is_claudes else {"object": "list", "data": [GPT]})
    else:
        out.json(CLAUDE if is_claudes else GPT)


asked: list[str] = []


def test_the_providers_list_comes_with_the_callers_key(tmp_path: Path) -> None:
    asked.clear()
    with Provider(answer) as provider:
        upstreams = {"openai": provider.url, "anthropic": provider.root}
        teacher = {"name": "openai/m", "api_base": provider.url, "api_key": "sk-servers-own-00000000", "retries": 0}
        config = CascadeConfig(
            mode="collect",
            bank={"url": f"sqlite:///{tmp_path}/c.db"},
            retrieval={"embedder": "hashing", "k": 0},
            cascades={"free": {"mode": "collect"}, "mine": {"teacher": teacher, "mode": "teacher"}},
            server={"passthrough": "free", "upstreams": upstreams},
        )
        with serving(config) as proxy:
            gpt = openai.OpenAI(api_key=KEY, base_url=f"{proxy.base}/v1", max_retries=0)
            claude = anthropic.Anthropic(api_key=CLAUDES, base_url=proxy.base, max_retries=0)
            assert [m.id for m in gpt.models.list()] == ["mine", "gpt-any"]
            assert [m.id for m in claude.models.list(limit=20)] == ["mine", "claude-any"]
            assert gpt.models.retrieve("gpt-any").owned_by == "openai"
            assert gpt.models.retrieve("mine").owned_by == "agentcascade"
            assert claude.models.retrieve("claude-any").display_name == "Claude"
            with pytest.raises(openai.NotFoundError, match="model: gone"):
                gpt.models.retrieve("gone")
            with pytest.raises(anthropic.NotFoundError):
                claude.models.retrieve("gone")
            assert [m["id"] for m in proxy.http.get("/v1/models").json()["data"]] == ["mine"]  # without a key
            for elsewhere in ("%2E%2E%2Ffiles", "a%2F%2E%2E%2F%2E%2E%2Ffiles", "%2E%2E%2F%2E%2E%2Fadmin", "%2E%2E"):
                led = proxy.http.get(f"/v1/models/{elsewhere}", headers={"authorization": f"Bearer {KEY}"})
                assert led.status_code == 404, led.text
            with pytest.raises(openai.NotFoundError, match=r"POST /v1/embeddings.*own base URL"):
                gpt.embeddings.create(model="e", input="x")
            with pytest.raises(openai.NotFoundError, match=r"GET /v1/files.*own base URL"):
                gpt.files.list()
            batch: Any = {"custom_id": "1", "params": {"model": "m", "max_tokens": 1, "messages": []}}
            with pytest.raises(anthropic.NotFoundError, match=r"/v1/messages/batches.*own base URL"):
                claude.messages.batches.create(requests=[batch])
    keys = {h.get("authorization", "").removeprefix("Bearer ") or h["x-api-key"] for h in provider.headers}
    assert keys == {KEY, CLAUDES}
    assert "/v1/models?limit=20" in asked
    assert not any("embeddings" in path or "files" in path or "batches" in path for path in asked)
    assert all(path.startswith("/v1/models") for path in asked)


def moved(body: dict[str, Any], out: Out) -> None:
    out.raw(b"", 307, {"location": "http://127.0.0.1:1/v1/models"})


def endless(body: dict[str, Any], out: Out) -> None:
    out.raw(b'{"data": [' + b" " * 9 * 2**20 + b"]}", 200, {"content-type": "application/json"})


def a_page(body: dict[str, Any], out: Out) -> None:
    out.raw(b"<html>", 200, {"content-type": "text/html"})


def test_what_is_no_list_is_an_error_and_no_redirect_is_followed(tmp_path: Path) -> None:
    with Provider(moved) as provider:
        config = CascadeConfig(
            mode="collect",
            bank={"url": f"sqlite:///{tmp_path}/c.db"},
            retrieval={"embedder": "hashing", "k": 0},
            server={"passthrough": "default", "upstreams": {"openai": provider.url}},
        )
        with serving(config) as proxy:
            for provider.answer in (moved, endless, a_page):
                said = proxy.http.get("/v1/models", headers={"authorization": f"Bearer {KEY}"})
                assert said.status_code == 502, said.text
                assert KEY not in said.text
    assert len(provider.headers) == 3
