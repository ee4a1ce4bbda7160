"""A provider that echoes the key it was sent: it reaches no client, log, database, dashboard or metric."""

from __future__ import annotations

import base64
import io
import json
import logging
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
from agentcascade.config.load import CascadeConfig
from agentcascade.telemetry.logs import StructuredFormatter
from tests.proxy import serving, settings

KEY = "Zq7/plain+form=0123456789xyz"
"""Of no form that a pattern knows."""
CLIENT = "the/clients+own-token=42"
"""Which an open server does not need, and a provider may know from elsewhere."""
ECHOES = (
    KEY,
    KEY.encode().hex().upper(),
    quote(KEY, safe=""),
    f"{KEY[:12]}…",
    base64.b64encode(f"user:{KEY}".encode()).decode(),
)
CASES = [(status, echo) for status in (400, 401, 404, 422, 429, 500, 503) for echo in ECHOES] + [(200, ECHOES[0])]


def leaks(text: str) -> list[str]:
    encoded = [base64.b64encode(b"\0" * n + KEY.encode()).decode()[4:-4] for n in range(3)]
    parts = [
        KEY.encode().hex()[:12].upper(),
        CLIENT[:10],
        CLIENT[-10:],
        KEY[:10],
        KEY[-10:],
        quote(KEY, safe="")[:12],
        *encoded,
    ]
    return [part for part in parts if part in text or json.dumps(part)[1:-1] in text]


def test_a_key_that_a_provider_echoes_goes_no_further(tmp_path: Path) -> None:
    now: list[tuple[int, str]] = [CASES[0]]

    def script(request: Request) -> Reply:
        status, echo = now[0]
        assert KEY in request.headers.get("authorization", request.headers.get("Authorization", ""))
        body = {
            "error": {
                "message": f"Incorrect API key provided: {echo}, {CLIENT}.",
                "type": echo,
                "code": echo,
                "param": None,
            }
        }
        return Reply(status=status, body=body, headers={"x-request-id": echo if echo.isalnum() else "1"})

    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(StructuredFormatter())
    logger = logging.getLogger("agentcascade")
    logger.addHandler(handler)
    said: list[str] = []
    try:
        with FakeOpenAI(script) as fake:
            config = settings(fake, tmp_path, mode="cascade")
            for role in ("teacher", "student"):
                config[role] |= {"api_key": KEY}
            with serving(CascadeConfig(**config)) as proxy:
                for number, case in enumerate(CASES):
                    now[0] = case
                    for stream in (False, True):
                        response = proxy.chat(f"task {number}", key=CLIENT, stream=stream)
                        said.append(f"{response.status_code} {dict(response.headers)} {response.text}")
                for path in ("/dashboard/data?hours=1", "/dashboard/decisions?hours=1", "/metrics", "/readyz"):
                    said.append(proxy.http.get(path).text)
    finally:
        logger.removeHandler(handler)
    assert any("Incorrect API key provided" in text for text in said)  # the message is told, and the test can fail
    assert leaks("\n".join(said)) == []
    assert leaks(log.getvalue()) == []
    rows = "\n".join(sqlite3.connect(tmp_path / "cascade.db").iterdump())
    assert "Incorrect API key provided" in rows
    assert leaks(rows) == []
