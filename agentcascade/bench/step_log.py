"""Step log of a benchmark's episodes of policy ``shadow``; the same run gives the same lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from agentcascade.bench.policies import SHADOW
from agentcascade.bench.records import EpisodeRecord
from agentcascade.models.pricing import PriceTable
from agentcascade.steplog.records import PriceLookup, logged_step
from agentcascade.steplog.types import LoggedStep


def logged_steps(
    records: Iterable[EpisodeRecord],
    table: PriceTable,
    label: Callable[[LoggedStep, str], LoggedStep] | None = None,
) -> Iterator[LoggedStep]:
    """Steps that both models answered, by seed, task and position. Broken episodes count as lost.

    `label` says of a step and its task what was right.
    """
    prices = PriceLookup(table)
    shadowed = [record for record in records if record.policy == SHADOW]
    for record in sorted(shadowed, key=lambda r: (r.seed, r.index)):
        decided = {decision.id: decision for decision in record.decisions}
        for shadow in sorted(record.shadows, key=lambda s: s.step):
            decision = decided[shadow.decision]
            step = logged_step(shadow, (*decision.calls, *shadow.calls), record.success, prices)
            # Random ids and times would make every log another one.
            step = step.model_copy(update={"id": f"{shadow.episode}-{shadow.step}", "created_at": None})
            yield step if label is None else label(step, record.task)
