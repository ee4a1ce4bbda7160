"""Running the application under uvicorn: slow clients are cut off, requests under way are finished before it stops.

SIGHUP reads the configuration again: the new one takes over when the requests under way are answered, and the port
stays open meanwhile.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from agentcascade._util.garbage import spare_modules
from agentcascade.config.load import CascadeConfig, variants
from agentcascade.errors import AgentCascadeError, ConfigError, describe
from agentcascade.server import session_secret
from agentcascade.server import workers as processes
from agentcascade.server.connections import limited_protocol

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
CONFIG, OVERRIDES = "AGENTCASCADE_CONFIG", "AGENTCASCADE_SERVER__"
LOG_LEVEL, LOG_FORMAT = "AGENTCASCADE_LOG_LEVEL", "AGENTCASCADE_LOG_FORMAT"
"""How worker processes learn what the command line said."""
WORKER_SECONDS = 60
"""In which a worker must have started when it is to take another's place, and must answer its parent."""
STARTUP_FAILURE = 3
"""uvicorn's exit status for it."""
logger = logging.getLogger("agentcascade.server")


def from_environment() -> FastAPI:
    """The application of a worker process: its configuration is the file that $AGENTCASCADE_CONFIG names."""
    spare_modules()
    from agentcascade.server.app import create_app

    processes.end_with_parent()
    config = _read()
    configure_logs(config)
    return create_app(config)


def _read() -> CascadeConfig:
    path = os.environ.get(CONFIG)
    return CascadeConfig.load(Path(path) if path else None)


def configure_logs(config: CascadeConfig) -> None:
    """Structured logs of this process, as the command line wants them."""
    from agentcascade.redaction.redactor import Redactor
    from agentcascade.telemetry.logs import configure_logging

    configure_logging(
        level=os.environ.get(LOG_LEVEL, "info"),
        json=os.environ.get(LOG_FORMAT, "json") == "json",
        redactor=Redactor(**config.redaction.model_dump()),
        contents=config.telemetry.contents,
    )


def serve(
    config: CascadeConfig,
    *,
    workers: int = 1,
    log_config: dict[str, Any] | None = None,
    announce: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal stops it. With several workers, each loads the configuration from its file again.

    `announce` is called when port and databases were found to be there. Raises `ConfigError` when they are not to be
    had, and when strangers could spend the money: no key, not open on purpose, and not on loopback; `StorageError` for
    a database that cannot be opened.
    """
    check_port(config)
    check_databases(config)
    announce()
    # SIGTERM ends the process while it starts, and when uvicorn, which it stopped, raises it once more at the end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if workers > 1:
        _serve_by(workers, config, log_config)
    else:
        _serve_here(config, log_config)


def _serve_by(workers: int, config: CascadeConfig, log_config: dict[str, Any] | None) -> None:
    folder = tempfile.mkdtemp(prefix="agentcascade-")
    os.environ |= {processes.FOLDER: folder, session_secret.VARIABLE: session_secret.new_secret()}
    try:
        uvicorn.run(
            "agentcascade.server.run:from_environment", factory=True, workers=workers, **_options(config, log_config)
        )
    finally:
        del os.environ[processes.FOLDER], os.environ[session_secret.VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)


def _serve_here(config: CascadeConfig, log_config: dict[str, Any] | None) -> None:
    from agentcascade.server.app import create_app

    listener: socket.socket | None = None
    next_config: CascadeConfig | None = config
    try:
        while next_config is not None:
            config, next_config = next_config, None
            server = uvicorn.Server(uvicorn.Config(create_app(config), workers=1, **_options(config, log_config)))
            listener = listener or server.config.bind_socket()

            def reload(*_: object, server: uvicorn.Server = server) -> None:
                nonlocal next_config
                try:
                    next_config = _read()
                except AgentCascadeError as error:
                    logger.error("the configuration is not read again, the old one goes on: %s", describe(error))
                else:
                    server.should_exit = True

            if hasattr(signal, "SIGHUP"):
                signal.signal(signal.SIGHUP, reload)
            server.run([listener.dup()])  # uvicorn closes what it is given
            if not server.started:
                raise SystemExit(STARTUP_FAILURE)
    except KeyboardInterrupt:  # the signal once more, when all is done
        pass
    finally:
        if listener is not None:
            listener.close()


def _options(config: CascadeConfig, log_config: dict[str, Any] | None) -> dict[str, Any]:
    settings = config.server
    return {
        "host": settings.host,
        "port": settings.port,
        "http": limited_protocol(settings.header_seconds),
        "timeout_graceful_shutdown": round(settings.shutdown_seconds),
        "server_header": False,
        "access_log": False,
        "log_config": log_config,
        "loop": "agentcascade.server.accepting:new_loop",
        "ws": "none",
        "timeout_worker_healthcheck": WORKER_SECONDS,
    }


def check_port(config: CascadeConfig) -> None:
    """Raises `ConfigError` when the address cannot be served."""
    host, port = config.server.host, config.server.port
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"http://{host}:{port} cannot be served ({error.strerror or error}): is another server running there? "
            "Stop it, or set server.port (AGENTCASCADE_SERVER__PORT)"
        ) from error


def check_databases(config: CascadeConfig) -> None:
    """Open the database of each cascade, and the server's own, where there must be a key if strangers reach the port.

    Raises `ConfigError`, `StorageError`. Worker processes could only say so each for itself, again and again.
    """
    from agentcascade.storage import open_database
    from agentcascade.storage.keys import Keys

    settings = config.server
    needs_key = settings.host not in LOOPBACK and not settings.open
    banks = {cascade.bank.url: cascade.bank.migrate for cascade in variants(config).values()}
    for url, migrate in {**banks, config.bank.url: config.bank.migrate}.items():
        database = open_database(url, migrate=migrate)
        try:
            if needs_key and url == config.bank.url and not Keys(database).exist():
                raise ConfigError(
                    f"serving on {settings.host} without keys would let anybody spend your money: make one with "
                    "`agentcascade keys create NAME`, or set server.open if something else guards the port"
                )
        finally:
            database.close()
