"""``agentcascade batch``: what was sent by providers' batch interfaces."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Column, Table

from agentcascade.cli.batching import model_of, open_batches, poll_option
from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import console, say

if TYPE_CHECKING:
    from agentcascade.batches.polling import BatchPoller
    from agentcascade.config.load import CascadeConfig
    from agentcascade.storage.batches import Batch


@click.group(cls=NamingGroup)
def command() -> None:
    """See, await and cancel what was sent by providers' batch interfaces.

    A command with --batch that was stopped is run again to go on: it finds here what was sent. `wait` bills what ended
    meanwhile, without that command.
    """


@command.command("list")
@database_options
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--open", "open_only", is_flag=True, help="Only those that have not ended.")
def list_(config: Path | None, url: str | None, limit: int, open_only: bool) -> None:
    """The batches, newest first, as they were last heard of."""
    from agentcascade.storage.batches import BatchStore

    with database(load_config(config, url)) as opened:
        store = BatchStore(opened)
        rows = [
            (b, store.dollars_of(b.id) if b.is_over else None) for b in store.newest(
                open_only=open_only, limit=limit
            )
        ]  # fmt: skip
    if not rows:
        say("There are no batches.")
        return
    table = Table(
        Column("id", no_wrap=True), "job", "model", "requests", "state", "dollars", "sent", box=None,
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    for batch, dollars in rows:
        if batch.is_over:
            money = "unknown" if dollars is None else f"${dollars:,.4f}"
        else:
            money = "unknown" if batch.reserved is None else f"≤ ${batch.reserved:,.4f}"
        state = batch.status if batch.is_over or batch.state == "submitted" else batch.state
        sent = f"{batch.created_at:%Y-%m-%d %H:%M}"
        table.add_row(batch.id, batch.job, batch.model, f"{batch.requests:,}", state, money, sent)
    console().print(table)


@command.command()
@database_options
@click.argument("id")
def status(config: Path | None, url: str | None, id: str) -> None:
    """One batch, as its provider knows it now; one that has ended is billed."""
    settings = load_config(config, url)
    with database(settings) as opened:
        poller = open_batches(settings, opened, 1.0).poller
        batch = _batch(poller, id)
        if not batch.is_over:
            asyncio.run(poller.advance(batch, model_of(settings, batch.model, batch.api_base)))
            batch = poller.store.get(batch.id) or batch
        _tell(poller, batch)


@command.command()
@database_options
@poll_option
@click.argument("ids", nargs=-1)
def wait(config: Path | None, url: str | None, poll: float, ids: Sequence[str]) -> None:
    """Wait until the batches (default: all) have ended, and bill them."""
    settings = load_config(config, url)
    with database(settings) as opened:
        poller = open_batches(settings, opened, poll).poller
        named = [_batch(poller, id).id for id in ids]
        asyncio.run(_wait(poller, settings, named, poll))
        for id in named:
            if (batch := poller.store.get(id)) is not None:
                _tell(poller, batch)


@command.command()
@database_options
@click.argument("id")
def cancel(config: Path | None, url: str | None, id: str) -> None:
    """Ask the provider to end a batch; what it has answered until then is billed, and kept for its command."""
    settings = load_config(config, url)
    with database(settings) as opened:
        poller = open_batches(settings, opened, 1.0).poller
        batch = _batch(poller, id)
        asyncio.run(poller.cancel(batch, model_of(settings, batch.model, batch.api_base)))
    say(f"{batch.id} is being cancelled, which takes minutes: `agentcascade batch wait {batch.id}` bills what was done")


@command.command()
@database_options
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(config: Path | None, url: str | None, id: str, yes: bool) -> None:
    """End a batch that its provider no longer knows. What it did cost is not known: its worst case is booked."""
    settings = load_config(config, url)
    with database(settings) as opened:
        poller = open_batches(settings, opened, 1.0).poller
        batch = _batch(poller, id)
        if not yes:
            click.confirm(f"Book the worst case of {batch.id}, and ask its provider no more?", abort=True)
        asyncio.run(poller.forget(batch, model_of(settings, batch.model, batch.api_base)))
        _tell(poller, poller.store.get(batch.id) or batch)


async def _wait(poller: BatchPoller, settings: CascadeConfig, ids: Sequence[str], seconds: float) -> None:
    await poller.settle()
    while True:
        waiting = [b for b in poller.store.newest(open_only=True, limit=1000) if not ids or b.id in ids]
        if not waiting:
            return
        ended = [await poller.advance(b, model_of(settings, b.model, b.api_base)) for b in waiting]
        if not any(results is not None for results in ended):
            await asyncio.sleep(seconds)


def _batch(poller: BatchPoller, id: str) -> Batch:
    from agentcascade.errors import InvalidRequest

    batch = poller.store.get(id) if id else None
    if batch is None:
        raise InvalidRequest(f"there is no batch '{id}': `agentcascade batch list` shows those that are known")
    return batch


def _tell(poller: BatchPoller, batch: Batch) -> None:
    say(f"{batch.id} · {batch.job} · {batch.model} · {batch.provider_id or 'not sent'} · {batch.status or batch.state}")
    outcomes = Counter(poller.store.outcomes_of(batch.id))
    outcomes["succeeded"] += outcomes.pop("taken", 0)
    say(", ".join(f"{count:,} {state}" for state, count in sorted(outcomes.items()) if count))
    if batch.error:
        say(batch.error)
    if batch.is_over:
        dollars = poller.store.dollars_of(batch.id)
        say("of unknown price" if dollars is None else f"${dollars:,.6f}")
