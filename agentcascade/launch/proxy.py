"""A proxy in a thread of this process, on a free loopback port, for as long as one program runs."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError

STARTING_SECONDS = 60.0


@contextmanager
def proxy(config: CascadeConfig) -> Iterator[str]:
    """The root of its address, once it answers; at the end everything is recorded and closed.

    Raises:
        ConfigError: It cannot be started.
    """
    import uvicorn

    from agentcascade.server.app import create_app
    from agentcascade.server.connections import limited_protocol

    listener = _bound(config.server.host, config.server.port)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(config),
            host=config.server.host,
            port=config.server.port,
            http=limited_protocol(config.server.header_seconds),  # type: ignore[arg-type]
            timeout_graceful_shutdown=round(config.server.shutdown_seconds),
            server_header=False,
            access_log=False,
            log_config=None,
            ws="none",
        )
    )
    ended = threading.Event()

    def serve() -> None:
        try:
            server.run([listener])
        finally:
            ended.set()

    thread = threading.Thread(target=serve, name="agentcascade-proxy", daemon=True)
    thread.start()
    try:
        waited = 0.0
        while not server.started:
            if ended.wait(0.02) or (waited := waited + 0.02) > STARTING_SECONDS:
                raise ConfigError("the proxy did not start; its log says why")
        host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        where = f"port {port}" if port else "a free port"
        raise ConfigError(
            f"the proxy cannot have {where} of {host} ({error.strerror or error}): leave --port out for a free one"
        ) from error


def log_to(path: Path, config: CascadeConfig) -> None:
    """Our logs, and uvicorn's, to a file: the terminal is the program's. There is no file without a warning."""
    from agentcascade.redaction.redactor import Redactor
    from agentcascade.telemetry.logs import StructuredFormatter

    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, delay=True, encoding="utf-8")
    handler.setFormatter(StructuredFormatter(redactor=Redactor(**config.redaction.model_dump()), as_json=False))
    for name in ("agentcascade", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.WARNING)
        logger.propagate = False
