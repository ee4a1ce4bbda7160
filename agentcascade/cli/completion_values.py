"""Names that the shell completes: of the configuration's cascades and models, of what a SQLite database holds.

At every press of the Tab key a new process comes here: nothing heavy is imported, a broken configuration or a busy
database completes nothing, and no error is printed into somebody's command line.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from agentcascade._util.yaml_bounds import load_bounded

SAFE = re.compile(r"[\w@%+=./][\w@%+=:./-]{0,199}", re.ASCII)
"""What may be put into a command line: shells do not quote what they complete, and a client can name a namespace."""
MOST = 100
"""Names of a kind that are offered."""
LARGEST = 1_000_000
"""Bytes of a configuration that is read for its names."""
SECONDS = 1.0
"""A configuration whose aliases multiply, or a view without end in a database, completes nothing after so long."""
DEEPEST = 50
"""Levels of nesting in a configuration."""
VALUES_READ = 50_000
"""Values in it."""
MODEL_KEYS = ("teacher", "student", "verifier", "model", "small", "medium", "large")
MODEL_LISTS = ("students", "ladder")
DISTINCT = """
WITH RECURSIVE found(name) AS (
  SELECT min({column}) FROM {table}
  UNION ALL SELECT (SELECT min({column}) FROM {table} WHERE {column} > name) FROM found WHERE name IS NOT NULL
) SELECT name FROM found WHERE name IS NOT NULL LIMIT 100"""


def configured(ctx: click.Context) -> Mapping[str, Any]:
    """The configuration as it is written: unchecked, and {} where it cannot be read."""
    import yaml

    named = ctx.params.get("config") or os.environ.get("AGENTCASCADE_CONFIG") or "agentcascade.yaml"
    path = Path(named)
    if not path.is_file() or path.stat().st_size > LARGEST:
        return {}
    text, loader = path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, loader):  # the faster loader ends the process where it nests without end
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            return {}
    found = load_bounded(text, loader, VALUES_READ)
    return found if isinstance(found, Mapping) else {}


def cascades(ctx: click.Context) -> Iterator[str]:
    """Names of the configured cascades."""
    found = configured(ctx).get("cascades")
    yield from found if isinstance(found, Mapping) and found else ("default",)


def models(ctx: click.Context) -> Iterator[str]:
    """Names of the configured models, wherever they are."""
    yield from _models(configured(ctx), 0)


def _models(settings: object, depth: int) -> Iterator[str]:
    if not isinstance(settings, Mapping) or depth > 4:
        return
    for key, value in settings.items():
        if key in MODEL_KEYS:
            yield from _named(value)
        elif key in MODEL_LISTS and isinstance(value, list):
            for one in value:
                yield from _named(one)
        elif key != "options":
            yield from _models(value, depth + 1)


def _named(setting: object) -> Iterator[str]:
    if isinstance(setting, Mapping):
        setting = setting.get("name", setting.get("model"))
    if isinstance(setting, str):
        yield setting


def namespaces(ctx: click.Context) -> Iterator[str]:
    """Namespaces of the configuration and of what is recorded."""
    settings = configured(ctx)
    own = settings.get("cascades")
    for section in (settings, *(own.values() if isinstance(own, Mapping) else ())):
        bank = section.get("bank") if isinstance(section, Mapping) else None
        if isinstance(bank, Mapping) and isinstance(bank.get("namespace"), str):
            yield bank["namespace"]
    for table in ("decisions", "trajectories"):
        yield from _stored(ctx, DISTINCT.format(table=table, column="namespace"))


def _newest(table: str, column: str = "id") -> Callable[[click.Context], Iterator[str]]:
    def newest(ctx: click.Context) -> Iterator[str]:
        yield from _stored(ctx, f"SELECT {column} FROM {table} ORDER BY rowid DESC LIMIT 30")

    return newest


def decisions(ctx: click.Context) -> Iterator[str]:
    """The newest decisions."""
    yield "last"
    yield from _newest("decisions")(ctx)


def _stored(ctx: click.Context, query: str) -> Iterator[str]:
    """What a query to the SQLite file finds, read only; nothing of other databases."""
    import sqlite3
    from contextlib import closing

    bank = configured(ctx).get("bank")
    configured_url = bank.get("url") if isinstance(bank, Mapping) else None
    url = ctx.params.get("url") or os.environ.get("AGENTCASCADE_BANK__URL") or configured_url
    kind, _, file = str(url or "sqlite:///agentcascade.db").partition(":///")
    if kind != "sqlite" or not Path(file).is_file():
        return
    with closing(sqlite3.connect(f"{Path(file).resolve().as_uri()}?mode=ro", uri=True, timeout=0.2)) as opened:
        end = time.monotonic() + SECONDS
        opened.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        yield from (row[0] for row in opened.execute(query) if isinstance(row[0], str))


VALUES: dict[str, Callable[[click.Context], Iterator[str]]] = {
    "cascade": cascades,
    "cascades": cascades,
    "decision": decisions,
    "key_id": _newest("keys"),
    "model": models,
    "teacher": models,
    "student": models,
    "students": models,
    "judge_model": models,
    "answer_model": models,
    "namespace": namespaces,
}
"""Parameter's name in a command: what it may be."""
BY_COMMAND = {
    ("bank", "id"): _newest("trajectories"),
    ("bank", "ids"): _newest("trajectories"),
    ("batch", "id"): _newest("batches"),
    ("batch", "ids"): _newest("batches"),
    ("memory", "history"): _newest("histories", "name"),
}


def complete_values(top: str, command: click.Command) -> None:
    """Let a command, and those under it, complete the names that they take.

    Args:
        top: Name of the command at the top.
        command: It, or one under it.
    """
    for parameter in command.params:
        names = BY_COMMAND.get((top, parameter.name or "")) or VALUES.get(parameter.name or "")
        if names is not None and isinstance(parameter.type, click.types.StringParamType):
            parameter._custom_shell_complete = _offering(names)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            complete_values(top, below)


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Raises `TimeoutError` inside when it takes longer, where the system has such a clock."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _offering(
    names: Callable[[click.Context], Iterator[str]],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]:
    def offer(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        found: dict[str, None] = {}
        with suppress(Exception), _in_time(SECONDS):  # of a configuration that is no YAML, of a database that is none
            for name in names(ctx):
                if isinstance(name, str) and name.startswith(incomplete) and SAFE.fullmatch(name):
                    found[name] = None
        return [CompletionItem(name) for name in list(found)[:MOST]]

    return offer
