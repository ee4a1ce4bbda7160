"""Running the application under uvicorn: slow clients are cut off, requests under way are finished before it stops."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agentcascade.config import CascadeConfig
from agentcascade.errors import ConfigError

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
CONFIG, OVERRIDES = "AGENTCASCADE_CONFIG", "AGENTCASCADE_SERVER__"
LOG_LEVEL, LOG_FORMAT = "AGENTCASCADE_LOG_LEVEL", "AGENTCASCADE_LOG_FORMAT"
"""How worker processes learn what the command line said."""


def impatient(seconds: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol for clients that must have sent their request's head within `seconds`."""

    class Impatient(HttpToolsProtocol):
        _cutoff: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._cutoff is None:  # a further request on a kept connection
                self._await_head()

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            super().on_headers_complete()

        def connection_lost(self, error: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(error)

        def _await_head(self) -> None:
            self._cutoff = self.loop.call_later(seconds, self._too_slow)

        def _stop_waiting(self) -> None:
            if self._cutoff is not None:
                self._cutoff.cancel()
                self._cutoff = None

        def _too_slow(self) -> None:
            self._cutoff = None
            if self.transport is not None and not self.transport.is_closing():
                self.transport.close()

    return Impatient


def from_environment() -> FastAPI:
    """The application of a worker process: its configuration is the file that $AGENTCASCADE_CONFIG names."""
    from agentcascade.server.app import create_app

    path = os.environ.get(CONFIG)
    config = CascadeConfig.load(Path(path) if path else None)
    log(config)
    return create_app(config)


def log(config: CascadeConfig) -> None:
    """Structured logs of this process, as the command line wants them."""
    from agentcascade.redaction import Redactor
    from agentcascade.telemetry.logs import configure

    configure(
        level=os.environ.get(LOG_LEVEL, "info"),
        json=os.environ.get(LOG_FORMAT, "json") == "json",
        redactor=Redactor(**config.redaction.model_dump()),
        contents=config.telemetry.contents,
    )


def serve(config: CascadeConfig, *, workers: int = 1, log_config: dict[str, Any] | None = None) -> None:
    """Serve until a signal stops it. With several workers, each loads the configuration from its file again.

    Raises `ConfigError` when strangers could spend the money: no key, not open on purpose, and not on loopback.
    """
    from agentcascade.server.app import create_app

    settings = config.server
    check_exposure(config)
    # uvicorn raises the signal that stopped it once more when all is done: then it is no fault any more.
    signal.signal(signal.SIGTERM, lambda *_: None)
    common: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": impatient(settings.header_seconds),
        "timeout_graceful_shutdown": round(settings.shutdown_seconds),
        "server_header": False,
        "access_log": False,
        "log_config": log_config,
        "ws": "none",
    }
    if workers > 1:
        uvicorn.run("agentcascade.server.run:from_environment", factory=True, workers=workers, **common)
    else:
        uvicorn.run(create_app(config), **common)


def check_exposure(config: CascadeConfig) -> None:
    from agentcascade.storage import open_database
    from agentcascade.storage.keys import Keys

    settings = config.server
    if settings.host in LOOPBACK or settings.open:
        return
    database = open_database(config.bank.url)
    try:
        if not Keys(database).exist():
            raise ConfigError(
                f"serving on {settings.host} without keys would let anybody spend your money: make one with "
                "`agentcascade keys create NAME`, or set server.open if something else guards the port"
            )
    finally:
        database.close()
