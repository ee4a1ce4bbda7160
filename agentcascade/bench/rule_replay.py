"""Replay many acceptance rules on a log's arms, in worker processes here or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentcascade.bench.pools.open import open_pool
from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.replay import Replayed, replay
from agentcascade.routers.tuning.rules import Rule


class RuleOnLog(NamedTuple):
    """A rule, and the index of the log that it is replayed on."""

    log: int
    rule: Rule


def replay_rules(
    logs: Sequence[Columns], pairs: Sequence[RuleOnLog], bill: Bill, *, ray: str | None = None, workers: int = 1
) -> list[Replayed]:
    """Replay every pair, results in their order. Raises `InvalidRequest`, and with `ray` what `open_pool` raises."""
    if ray is None:
        return [replay(logs[log], rule, [bill]) for log, rule in pairs]
    results: dict[int, Replayed] = {}
    with open_pool(min(workers, len(pairs)), _start, list(logs), bill, ray=ray) as pool:
        for number, row in pool.map(_replay, list(enumerate(pairs))):
            results[number] = row
    return [results[number] for number in range(len(pairs))]


_logs: Sequence[Columns] = ()
_bill = Bill()


def _start(logs: Sequence[Columns], bill: Bill) -> None:
    global _logs, _bill
    _logs, _bill = logs, bill


def _replay(job: tuple[int, RuleOnLog]) -> tuple[int, Replayed]:
    number, pair = job
    return number, replay(_logs[pair.log], pair.rule, [_bill])
