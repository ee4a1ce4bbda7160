"""A key of metrics reads ``/metrics`` and nothing else: no route of the proxy, no page and no session."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentcascade import CascadeConfig
from agentcascade.cli import main

pytest.importorskip("fastapi", reason="needs fastapi: pip install 'agentcascade[server]'")
from starlette.routing import Route
from starlette.testclient import TestClient

OPEN = {"/healthz", "/readyz", "/openapi.json"}


def doors(app: Any) -> list[tuple[str, str]]:
    """Every method and path behind a key but that of metrics."""
    from agentcascade.server.browsers import PAGES

    found = [("GET", path) for path in (*PAGES, "/dashboard/data", "/dashboard/decisions")]
    for route in app.routes:
        if isinstance(route, Route) and route.path not in OPEN | {"/metrics"}:
            found += [(m, re.sub(r"\{\w+(:path)?\}", "x", route.path)) for m in (route.methods or set()) - {"HEAD"}]
    assert len(found) >= 16
    return found


def create(url: str, *arguments: str) -> str:
    made = CliRunner().invoke(main, ["keys", "create", *arguments, "--url", url, "--quiet"])
    assert made.exit_code == 0, made.output
    return made.output.strip()


def test_a_key_of_metrics_reads_metrics_alone(tmp_path: Path) -> None:
    from agentcascade.server.app import create_app

    url = f"sqlite:///{tmp_path}/a.db"
    metrics, plain, admin = create(url, "prometheus", "--metrics"), create(url, "me"), create(url, "boss", "--admin")
    teacher: Any = {"name": "openai/teacher", "api_key": "k", "api_base": "http://127.0.0.1:9/v1", "retries": 0}
    app = create_app(CascadeConfig.load(None, mode="teacher", teacher=teacher, retrieval={"k": 0}, bank={"url": url}))
    with TestClient(app, base_url="http://localhost") as client:
        for token, status in ((metrics, 200), (plain, 401), (admin, 200), ("", 401)):
            assert client.get("/metrics", headers={"authorization": f"Bearer {token}"}).status_code == status
        for method, path in doors(app):
            for headers in ({"authorization": f"Bearer {metrics}"}, {"x-api-key": metrics}):
                answer = client.request(method, path, headers=headers, json=None if method == "GET" else {})
                assert answer.status_code == 401, f"{method} {path}"
        refused = client.post("/dashboard/sign-in", data={"key": metrics})
        assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
        assert "reads /metrics and nothing else" in refused.text


def test_a_key_is_an_admins_or_of_metrics_alone_and_the_list_says_which(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    both = CliRunner().invoke(main, ["keys", "create", "both", "--metrics", "--admin", "--url", url])
    assert both.exit_code != 0
    assert "an admin's reads metrics, too" in both.output
    create(url, "prometheus", "--metrics")
    listed = CliRunner().invoke(main, ["keys", "list", "--url", url], env={"COLUMNS": "200"}).output
    assert "prometheus (metrics)" in listed
    assert "$0 / month" in listed, "a server that does not know of such keys sells it nothing"
