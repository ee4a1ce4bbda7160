"""``agentcascade keys``: who may use the proxy, for which namespace, and for how much."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click
from rich.table import Column, Table

from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import console, say
from agentcascade.types import now


@click.group("keys", cls=NamingGroup)
def command() -> None:
    """Create, list and revoke API keys."""


def _dollars(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Decimal | None:
    try:
        return None if value is None else Decimal(value.removeprefix("$"))
    except InvalidOperation:
        raise click.BadParameter(f"'{value}' is no amount of dollars: e.g. 10 or 2.50") from None


def _time(ctx: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    at = _moment(value)
    if at <= now():
        raise click.BadParameter(f"'{value}' is over already: the key would never work")
    return at


def _moment(value: str) -> datetime:
    if span := re.fullmatch(r"(\d{1,6})([hd])", value):
        return now() + timedelta(**{{"h": "hours", "d": "days"}[span[2]]: int(span[1])})
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"'{value}' is no time: e.g. 30d, 12h or 2027-01-31") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


@command.command("create")
@click.argument("name")
@database_options
@click.option("--namespace", default="default", show_default=True, help="Whose demonstrations it sees and adds to.")
@click.option("--cascade", "cascades", multiple=True, help="May use only this one; repeatable. Default: all.")
@click.option("--admin", is_flag=True, help="May read metrics, and every namespace on the dashboard.")
@click.option("--metrics", is_flag=True, help="Reads /metrics and nothing else: a key for Prometheus.")
@click.option("--budget", metavar="DOLLARS", callback=_dollars, help="Default: none.")
@click.option("--period", type=click.Choice(["total", "day", "month"]), default="month", show_default=True)
@click.option("--rpm", type=click.IntRange(1), help="Requests per minute. Default: no limit.")
@click.option("--expires", metavar="30d|12h|DATE", callback=_time, help="Default: never.")
@click.option("--quiet", is_flag=True, help="Print nothing but the key.")
def create(config: Path | None, url: str | None, rpm: int | None, quiet: bool, **options: Any) -> None:
    """Make a key and print it, once."""
    from agentcascade.storage.keys import Keys

    with database(load_config(config, url), create=True) as opened:
        key, token = Keys(opened).create(
            options.pop("name"), requests_per_minute=rpm, expires_at=options.pop("expires"), **options
        )
    if not quiet:
        say(f"key {key.id} for namespace '{key.namespace}'. It is shown this one time:", err=True)
    say(token)


@command.command("list")
@database_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(config: Path | None, url: str | None, as_json: bool) -> None:
    """List the keys with what they have spent in their present period."""
    from agentcascade.storage.budgets import DatabaseBudgets
    from agentcascade.storage.keys import Keys

    with database(load_config(config, url)) as opened:
        budgets = DatabaseBudgets(opened)
        lines = [(key, budgets.balance(a).spent if (a := key.account()) else None) for key in Keys(opened).list()]
    if as_json:
        import json

        data = [key.model_dump(mode="json") | {"spent": None if s is None else str(s)} for key, s in lines]
        say(json.dumps(data, indent=2))
        return
    id = Column("id", no_wrap=True)  # what `keys revoke` takes
    table = Table(id, "name", "namespace", "cascades", "budget", "spent", "rpm", "state", box=None, pad_edge=False)
    for key, spent in lines:
        state = "revoked" if key.revoked_at else "valid" if key.valid else "expired"
        table.add_row(
            key.id,
            key.name + (" (admin)" if key.admin else " (metrics)" if key.metrics else ""),
            key.namespace,
            ", ".join(key.cascades) or "all",
            "none" if key.budget is None else f"${key.budget:f} / {key.period}",
            "" if spent is None else f"${spent:.4f}",
            str(key.requests_per_minute or ""),
            state,
        )
    console().print(table if lines else "There are no keys: the proxy is open to whoever reaches it.")


@command.command("revoke")
@click.argument("key_id", metavar="ID")
@database_options
def revoke(key_id: str, config: Path | None, url: str | None) -> None:
    """Make a key useless, within seconds and for good."""
    from agentcascade.storage.keys import Keys

    with database(load_config(config, url)) as opened:
        Keys(opened).revoke(key_id)
    say(f"revoked {key_id}")
