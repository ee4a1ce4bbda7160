"""``agentcascade serve``: the OpenAI-compatible proxy and its dashboard."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentcascade.assembly.components import find_module
from agentcascade.cli.passthrough import as_environment, is_unconfigured, passing, upstream_option
from agentcascade.cli.terminal import say
from agentcascade.config.load import CascadeConfig, config_path
from agentcascade.errors import MissingExtra

if TYPE_CHECKING:
    from agentcascade.config.keywords import ServerKeywords


@click.command("serve")
@click.option("--config", type=click.Path(path_type=Path), help="Default: $AGENTCASCADE_CONFIG or agentcascade.yaml.")
@click.option("--host", help="Default: server.host, 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: server.port, 8080.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes over one database.")
@click.option("--passthrough", is_flag=True, help="Ask the models that clients name, with the clients' own keys.")
@upstream_option
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True)
def command(
    config: Path | None,
    host: str | None,
    port: int | None,
    workers: int,
    passthrough: bool,
    upstreams: tuple[str, ...],
    log_level: str,
    log_format: str,
) -> None:
    """Serve every configured cascade under /v1, and a dashboard at /.

    Point an agent's base URL at http://HOST:PORT/v1 and name a cascade as its model.

    Without any configuration, or with --passthrough, whatever model a client names is the teacher, asked at its
    provider with the client's own key, of which nothing is kept.
    """
    require_server("agentcascade serve")
    # process 1 of a container ignores a signal without a handler, and what follows takes seconds to load
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from agentcascade.server.run import CONFIG, LOG_FORMAT, LOG_LEVEL, OVERRIDES, configure_logs, serve

    path = config or config_path()
    changed: ServerKeywords = {}
    if host is not None:
        changed["host"] = host
    if port is not None:
        changed["port"] = port
    settings = CascadeConfig.load(path, server=changed)
    with _environment_as_before():  # what is set there is for worker processes
        if passthrough or is_unconfigured(settings):
            more = passing(settings, upstreams)
            os.environ |= {f"AGENTCASCADE_{k}": v for k, v in as_environment(more).items()}
            settings = CascadeConfig.load(path, server=changed)  # which the environment has the rest of
        elif upstreams:
            raise click.UsageError("--upstream is of pass-through: add --passthrough")
        if path is not None:
            os.environ[CONFIG] = str(path)
        os.environ |= {f"{OVERRIDES}{k.upper()}": str(v) for k, v in changed.items() if k in ("host", "port")}
        os.environ |= {LOG_LEVEL: log_level, LOG_FORMAT: log_format}
        configure_logs(settings)
        names = ", ".join(sorted(settings.cascades) or ["default"])
        if settings.server.passthrough:
            names += " (pass-through: the models that clients name, with the clients' own keys)"
        root = f"http://{settings.server.host}:{settings.server.port}"

        def announce() -> None:
            say(f"agentcascade serves {names} on {root}/v1, and a dashboard on {root}/", err=True)
            say(reached_by(settings), err=True)

        serve(settings, workers=workers, announce=announce)


@contextmanager
def _environment_as_before() -> Iterator[None]:
    """Variables that are set inside are gone behind it, and changed ones as they were."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def require_server(command: str) -> None:
    """Raises `MissingExtra` where the packages of the extra ``server`` are not installed."""
    for module in ("fastapi", "uvicorn", "httptools", "prometheus_client", "opentelemetry.sdk"):
        if not find_module(module):
            raise MissingExtra(module, "server", command)


def reached_by(config: CascadeConfig) -> str:
    """What a browser may do with the server, and how to let it do more."""
    hosts = ", ".join(("addresses, localhost, names without a dot", *config.server.hosts))
    origins = ", ".join(("its own dashboard", *config.server.origins))
    return (
        f"It goes by {hosts} (more: server.hosts, or AGENTCASCADE_SERVER__HOSTS='[\"ai.example.com\"]'; with keys any "
        f"name does while that is empty). In a browser it serves {origins} (more: server.origins)."
    )
