"""``agentcascade db``: what is in it, tables up to date, backups, old records out, room given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import say


@click.group("db", cls=NamingGroup)
def command() -> None:
    """Upgrade, back up, prune, clear and vacuum the database."""


@command.command("info")
@database_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def info(config: Path | None, url: str | None, as_json: bool) -> None:
    """Say which database it is, the revision of its tables, its size, and the rows in each table."""
    from sqlalchemy import func, select

    from agentcascade.storage import retention, tables
    from agentcascade.storage.database import revision
    from agentcascade.storage.engine import redacted_url

    with database(load_config(config, url)) as opened:
        with opened.begin() as connection:
            count = {
                t.name: connection.execute(select(func.count()).select_from(t)).scalar_one()
                for t in tables.metadata.sorted_tables
            }
        about = {
            "url": redacted_url(opened.engine.url),
            "revision": revision(opened),
            "bytes": retention.database_bytes(opened),
        }
    if as_json:
        import json

        say(json.dumps(about | {"rows": count}, indent=2))
        return
    say(f"{about['url']}\nrevision {about['revision']}, {about['bytes']:,} bytes")
    for name, rows in sorted(count.items()):
        say(f"{rows:>14,} {name}")


@command.command("upgrade")
@database_options
def upgrade(config: Path | None, url: str | None) -> None:
    """Bring the tables up to date. Every command and `build` do so as well, unless bank.migrate is false."""
    from agentcascade.storage.database import revision

    with database(load_config(config, url), create=True, migrate=True) as opened:
        say(f"the tables are at revision {revision(opened)}")


@command.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@database_options
def backup(file: Path, config: Path | None, url: str | None) -> None:
    """Copy an SQLite database to a new FILE while servers write to it. For PostgreSQL: pg_dump.

    To restore it, stop the servers, move the old file away with its -wal and -shm, and put the copy in its place.
    """
    from agentcascade.storage.backup import backup as write_backup

    say(f"{write_backup(load_config(config, url).bank.url, file):,} bytes in {file}")


@command.command("prune")
@database_options
@click.option("--decisions-days", type=click.IntRange(1), help="Default: retention.decisions, 90.")
@click.option("--episodes-days", type=click.IntRange(1), help="Default: retention.episodes, 365.")
@click.option("--drafts-days", type=click.IntRange(1), help="Default: retention.drafts, 14.")
@click.option("--recalls-days", type=click.IntRange(1), help="Default: retention.recalls, 90.")
@click.option("--responses-days", type=click.IntRange(1), help="Default: retention.responses, 30.")
@click.option("--dry-run", is_flag=True, help="Only count.")
def prune(config: Path | None, url: str | None, dry_run: bool, **days: int | None) -> None:
    """Remove old decisions and recalls (with their calls and shadows), ended episodes, drafts, responses.

    The bank and histories are never touched.
    """
    from agentcascade.storage import retention

    settings = load_config(config, url)
    changed: dict[str, Any] = {k.removesuffix("_days"): v for k, v in days.items() if v is not None}
    policy = retention.RetentionPolicy(**settings.retention.model_dump() | changed)
    with database(settings) as opened:
        pruned = retention.prune(opened, policy, dry_run=dry_run)
    words = ", ".join(f"{count:,} {table}" for table, count in pruned.model_dump().items())
    say(f"{'would remove' if dry_run else 'removed'} {words}")


@command.command("clear-cache")
@database_options
@click.option("--namespace", help="Of one tenant; default: all.")
def clear_cache(config: Path | None, url: str | None, namespace: str | None) -> None:
    """Remove the answers of the response cache; running processes give none of them again after a minute."""
    from agentcascade.storage import cached_responses

    with database(load_config(config, url)) as opened:
        removed = cached_responses.clear(opened, namespace)
    say(f"removed {removed:,} cached answers")


@command.command("vacuum")
@database_options
def vacuum(config: Path | None, url: str | None) -> None:
    """Give the room of removed records back."""
    from agentcascade.storage import retention

    with database(load_config(config, url)) as opened:
        before, after = retention.vacuum(opened)
    say(f"{before:,} bytes before, {after:,} after")
