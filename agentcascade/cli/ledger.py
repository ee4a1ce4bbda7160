"""``agentcascade ledger``: what was spent, what was saved."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click
from rich.table import Column, Table

from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import console, say

ASSUMPTION = (
    "the teacher's own prompt cache is simulated over each episode and always hits, so savings are rather too small"
)
"""Of the counterfactual, as it is told."""


@click.command("ledger")
@database_options
@click.option("--namespace", help="Default: all of them.")
@click.option("--by", type=click.Choice(["all", "namespace", "mode", "episode"]), default="mode", show_default=True)
@click.option("--since", type=click.DateTime(), help="Only steps from this day on (UTC).")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(
    config: Path | None, url: str | None, namespace: str | None, by: str, since: datetime | None, as_json: bool
) -> None:
    """Say what was spent and what was saved.

    "alone" is what the same steps would have cost with the teacher alone, with its own prompt cache over the episode:
    its own bill where it took the step and the one before, the student's tokens at the teacher's prices, without the
    demonstrations, where the student did. Mode "memory" is what was recalled outside of agents' steps, "batch" what was
    sent by the providers' batch interfaces, whatever for.
    """
    from agentcascade.economics.measured import recorded_bills
    from agentcascade.ledger.ledger import Ledger, break_even
    from agentcascade.ledger.recorded_steps import recorded_steps
    from agentcascade.storage.batches import BatchStore

    start = since.replace(tzinfo=UTC) if since else None
    with database(load_config(config, url)) as opened:
        ledger = Ledger(opened)
        lines = ledger.summary(by, namespace=namespace, since=start)
        spending = ledger.spending(namespace=namespace, since=start)
        batched = BatchStore(opened).bill(namespace, start)
        teacher, cascade = (ledger.episode_dollars(mode, namespace=namespace) for mode in ("collect", "cascade"))
        billed = recorded_bills(recorded_steps(opened, namespace=namespace)[0])
        invested = next((s.dollars for s in ledger.summary("mode", namespace=namespace) if s.group == "collect"), None)
    if as_json:
        import json

        data = {
            "assumption": ASSUMPTION,
            "groups": [s.model_dump(mode="json") for s in lines],
            "batches": batched._asdict() | {k: _plain(getattr(batched, k)) for k in ("dollars", "ordinary")},
            "models": [s.model_dump(mode="json") | {"dollars": _plain(s.dollars)} for s in spending],
        }
        say(json.dumps(data, indent=2))
        return
    to = console()
    if not lines:
        to.print("Nothing is recorded yet.")
        return
    table = _table(by, "steps", "deferred", "dollars", "alone", "saved")
    for s in lines:
        spent = _dollars(s.dollars, s.known_dollars, s.estimated_calls)
        alone = _at_least(s.known_teacher_dollars, s.unestimated_steps, s.steps)
        saved = _at_least(s.known_saved_dollars, s.unestimated_steps, s.steps) if s.dollars is not None else "unknown"
        money = spent, alone, saved
        table.add_row(s.group or f"(no {by})", f"{s.steps:,}", f"{s.deferral_share:.1%}", *money)
    to.print(table)
    to.print(f"alone: {ASSUMPTION}", style="dim")
    if regret := sum((s.known_cache_regret for s in lines), Decimal(0)):
        to.print(f"of the dollars, ${regret:,.4f} paid for the teacher's prompt caches that switches left cold")
    if hits := sum(s.cached_calls for s in lines):
        spared, avoided = sum(s.cached_tokens for s in lines), sum((s.avoided_dollars for s in lines), Decimal(0))
        to.print(
            f"response cache: {hits:,} calls answered for nothing; {spared:,} tokens were not bought, which cost "
            f"${avoided:,.4f} before; alone has the same cache, so that none of it counts as saved"
        )
    if uncached := sum(s.uncached_steps for s in lines):
        to.print(
            f"{uncached:,} steps are of an earlier version, whose alone knew no prompt cache: it is too high there"
        )
    if left_out := sum(s.unestimated_steps for s in lines):
        steps = "1 step" if left_out == 1 else f"{left_out:,} steps"
        to.print(
            f"≥ what the teacher alone would have cost is not known for {steps} "
            "(it has no price, or they failed): alone is without them, and their bill is taken off saved"
        )
    models = _table("model", "role", "calls", "input", "cached", "writes", "output", "reasoning", "dollars")
    for m in spending:
        u = m.usage
        tokens = u.input, u.cached_input, u.cache_write + u.cache_write_1h, u.output, u.reasoning
        bill = _dollars(m.dollars, m.known_dollars, m.estimated_calls)
        models.add_row(m.model, m.role, f"{m.calls:,}", *(f"{t:,}" for t in tokens), bill)
    to.print(models)
    if unpriced := sorted({m.model for m in spending if m.unpriced_calls}):
        import json

        to.print(f"no price is known of {', '.join(unpriced)}: set `price` of the model, or server.prices by its name")
        example = json.dumps({unpriced[0]: {"input": 2, "output": 8}})
        to.print(
            f"e.g. AGENTCASCADE_SERVER__PRICES='{example}' (dollars per million tokens), for steps from then on",
            soft_wrap=True,
        )
    if estimated := sum(m.estimated_calls for m in spending):
        to.print(
            f"~ {estimated:,} of {sum(m.calls for m in spending):,} calls are estimated: their providers reported no "
            "usage, or their answers were cut off; what may have been generated is counted"
        )
    if batched.dollars is not None and batched.ordinary:
        gain = batched.ordinary - batched.dollars
        to.print(
            f"batches: ${batched.dollars:,.4f} for {batched.requests:,} requests, which would have cost "
            f"${batched.ordinary:,.4f} at once: ${gain:,.4f} saved"
        )
    if billed is not None and (said := billed.sentence()):
        to.print(f"of the newest steps of mode cascade, {said}")
    if invested is not None and teacher is not None and cascade is not None:
        episodes = break_even(invested, teacher, cascade)
        when = f"pay off after {episodes:,.0f} episodes" if episodes is not None else "do not pay off at these prices"
        to.print(f"demonstrations: ${invested:.4f}; they {when}")


def _table(first: str, *others: str) -> Table:
    table = Table(Column(first, overflow="fold"), box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)


def _at_least(known: Decimal, unknown: int, of: int) -> str:
    """The sum of what is known, marked where something is not."""
    return "unknown" if unknown and unknown == of else f"{'≥ ' if unknown else ''}{_written(known)}"


def _dollars(amount: Decimal | None, known: Decimal | None = None, estimated: int = 0) -> str:
    """``unknown`` rather than zero; with what is known of it; ``~`` before what holds estimated calls."""
    if amount is not None:
        return f"{'~' if estimated else ''}{_written(amount)}"
    return f"unknown (≥ {_written(known)})" if known else "unknown"


def _written(amount: Decimal) -> str:
    """Four digits behind the point, and of less than a tenth of a cent two that say something."""
    places = max(4, min(12, 1 - amount.adjusted())) if amount else 4
    return f"${amount:,.{places}f}"
