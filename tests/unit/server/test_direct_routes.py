"""Posts to routes that take steps pass FastAPI's router by; they are answered, counted and refused like all others."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from agentcascade import CascadeConfig
from agentcascade._util.garbage import GC_THRESHOLD
from agentcascade.server.app import STEP_PATHS, create_app


@pytest.fixture
def app(tmp_path: Path) -> Any:
    teacher = {"name": "openai/teacher", "api_key": "k", "api_base": "http://127.0.0.1:9/v1", "retries": 0}
    parts: dict[str, Any] = {"teacher": teacher, "retrieval": {"k": 0}, "bank": {"url": f"sqlite:///{tmp_path}/a.db"}}
    return create_app(CascadeConfig.load(None, mode="teacher", **parts))


def test_a_step_is_refused_and_counted_and_other_methods_are_not_allowed(app: Any) -> None:
    sent: dict[str, Any] = {
        "headers": {"host": "localhost", "x-request-id": "one"},
        "content": b'{"model": "default"}',
    }
    with TestClient(app) as client:
        for path in sorted(STEP_PATHS):
            refused = client.post(path, **sent)
            assert refused.status_code == 400
            assert "error" in refused.json()
            assert refused.headers["x-request-id"] == "one"
            assert client.post(f"{path}/", **sent, follow_redirects=False).status_code in (307, 404)
            assert client.get(path, headers=sent["headers"]).status_code == 405
            assert client.head(path, headers=sent["headers"]).status_code == 405
        page = client.get("/metrics", headers={"host": "localhost"}).text
    for path in STEP_PATHS:
        labels = f'{{http_request_method="POST",http_response_status_code="400",http_route="{path}"}}'
        assert f"agentcascade_http_requests_total{labels} 1.0" in page


def test_the_router_is_not_asked(app: Any) -> None:
    asked: list[str] = []
    routed = app.router.middleware_stack

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope.get("path", scope["type"]))
        await routed(scope, receive, send)

    app.router.middleware_stack = counting
    with TestClient(app) as client:
        for path in sorted(STEP_PATHS):
            assert client.post(path, json={"model": "default"}, headers={"host": "localhost"}).status_code == 400
        assert client.get("/healthz").status_code == 200
    assert "/healthz" in asked
    assert not STEP_PATHS & set(asked)


def test_garbage_is_looked_for_less_often_while_it_serves(app: Any) -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        with TestClient(app):
            assert gc.get_threshold() == (GC_THRESHOLD, 10, 10)
        assert gc.get_threshold() == (700, 10, 10)
    finally:
        gc.set_threshold(*before)
