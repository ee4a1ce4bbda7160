"""Options and helpers that commands share: which configuration, and its database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentcascade.cli.numbers import FiniteRange

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.config.keywords import ConfigKeywords
    from agentcascade.config.load import CascadeConfig
    from agentcascade.storage import Database
    from agentcascade.types import Trajectory

F = TypeVar("F", bound=Callable[..., Any])


def database_options(function: F) -> F:
    """``--config`` and ``--url``."""
    url = click.option("--url", metavar="URL", help="Database. Default: bank.url of the configuration.")
    config = click.option(
        "--config", type=click.Path(path_type=Path), help="Default: $AGENTCASCADE_CONFIG or agentcascade.yaml."
    )
    return config(url(function))


def answer_options(function: F) -> F:
    """``--api-base`` and ``--timeout`` of the models that answer a benchmark's questions."""
    base = click.option("--api-base", help="Endpoint of the answer model, e.g. a local vLLM server.")
    timeout = click.option(
        "--timeout",
        type=FiniteRange(0, 600, min_open=True),
        metavar="SECONDS",
        help="For an answer; a model on a CPU may need minutes. Default: 60.",
    )
    return base(timeout(function))


ray_option = click.option(
    "--ray", metavar="ADDRESS", help="Work on this Ray cluster: HOST:PORT, auto, or local to start one here."
)


def load_config(config: Path | None, url: str | None) -> CascadeConfig:
    """The configuration that is named or found, with `url` in place of its database."""
    from agentcascade.config.load import CascadeConfig, config_path

    overrides: ConfigKeywords = {"bank": {"url": url}} if url else {}
    return CascadeConfig.load(config or config_path(), **overrides)


@contextmanager
def database(settings: CascadeConfig, *, create: bool = False, migrate: bool | None = None) -> Iterator[Database]:
    """The configured database. A question to a SQLite file that is not there is a mistake, not a new file.

    Its tables are brought up to date where ``bank.migrate`` says so, or `migrate` in its place.
    """
    from agentcascade.errors import StorageError
    from agentcascade.storage import open_database
    from agentcascade.storage.engine import database_url

    place = database_url(settings.bank.url)
    file = place.database if place.get_backend_name() == "sqlite" else None
    if not create and file and file != ":memory:" and not Path(file).exists():
        raise StorageError(f"there is no database {file}: give --url or --config, or collect something first")
    may_migrate = settings.bank.migrate if migrate is None else migrate
    opened = open_database(settings.bank.url, migrate=may_migrate)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def opened_bank(settings: CascadeConfig, redact: Callable[[Trajectory], Trajectory] | None = None) -> Iterator[Bank]:
    """The bank of a configuration, for a while; what is added goes through `redact`."""
    from agentcascade.assembly.components import make_embedder, open_bank

    with database(settings, create=True) as opened:
        bank = open_bank(settings, opened, make_embedder(settings.retrieval.embedder), redact)
        try:
            yield bank
        finally:
            bank.close()
