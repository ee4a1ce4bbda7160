"""The proxy in a thread, behind real HTTP, in front of a fake provider; for tests that must reach inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import uvicorn

from agentcascade.config.load import CascadeConfig
from agentcascade.episodes import stateless
from agentcascade.server.app import create_app
from agentcascade.server.connections import limited_protocol
from agentcascade.storage import open_database
from agentcascade.storage.keys import Keys
from tests.fake_openai import FakeOpenAI

UPSTREAM_KEY = "sk-upstream-0123456789abcdefghij"
PRICE = {"input": "1", "output": "2"}


def settings(fake: FakeOpenAI, folder: Path, **more: Any) -> dict[str, Any]:
    """A configuration whose models are called ``teacher`` and ``student``."""
    shared = {"api_base": fake.url, "api_key": UPSTREAM_KEY, "retries": 0, "price": PRICE, "timeout_seconds": 60}
    base: dict[str, Any] = {
        "teacher": {"name": "openai/teacher", **shared},
        "student": {"name": "openai/student", **shared},
        "bank": {"url": f"sqlite:///{folder}/cascade.db"},
        "retrieval": {"embedder": "hashing", "index": "exact"},
        "actions": {"format": "text"},
        "prompt": {"min_demonstrations": 0},
        "sampling": {"timeout_seconds": 30},
    }
    return base | more


class Proxy:
    """A running server. `app` is the application, `keys` makes keys for it."""

    def __init__(self, app: Any, port: int, config: CascadeConfig) -> None:
        self.app, self.port, self.config = app, port, config
        self.base = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.base, timeout=60)

    def chat(
        self, text: str = "hi", key: str = "", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        asked = {"model": "default", "messages": [{"role": "user", "content": text}]} | body
        own = {"authorization": f"Bearer {key}"} if key else {}
        return self.http.post("/v1/chat/completions", json=asked, headers=own | (headers or {}))

    def feedback(self, episode: str, success: bool | None = True, key: str = "") -> httpx.Response:
        own = {"authorization": f"Bearer {key}"} if key else {}
        body = {} if success is None else {"success": success}
        return self.http.post(f"/v1/episodes/{episode}/feedback", json=body, headers=own)

    def key(self, name: str = "k", **options: Any) -> str:
        database = open_database(self.config.bank.url)
        try:
            _, token = Keys(database).create(name, **options)
        finally:
            database.close()
        deadline = time.monotonic() + 60
        headers = {"authorization": f"Bearer {token}"}
        while (  # until the server has seen that keys are needed now, and this one
            self.http.get("/v1/models").status_code != 401
            or self.http.get("/v1/models", headers=headers).status_code != 200
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return token


@contextmanager
def serving(config: CascadeConfig) -> Iterator[Proxy]:
    """Serve until the end of the block; everything is closed then. Nobody else writes into its database."""
    app = create_app(config)
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5,
            http=limited_protocol(config.server.header_seconds),  # type: ignore[arg-type]
        )
    )  # fmt: skip
    thread = threading.Thread(target=server.run, name="proxy", daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    proxy = Proxy(app, server.servers[0].sockets[0].getsockname()[1], config)
    try:
        with patch.object(stateless, "PATIENCE", (0.1,)):
            yield proxy
    finally:
        proxy.http.close()
        server.should_exit = True
        thread.join(90)
        assert not thread.is_alive()
