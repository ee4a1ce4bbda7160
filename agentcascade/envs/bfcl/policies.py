"""BFCL's recorded models as columns of one table, for policies over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agentcascade.envs.bfcl import keys, prices, recorded, tasks
from agentcascade.envs.recorded import policies
from agentcascade.envs.recorded.policies import Column
from agentcascade.envs.recorded.prices import Price


class Table(policies.Table):
    """Several models on the same tasks. Raises what `recorded.matrix` raises."""

    def __init__(
        self,
        names: Sequence[str],
        ids: Sequence[str],
        known: Mapping[str, Price] | None = None,
        *,
        declined_alike: bool = False,
    ) -> None:
        columns = {}
        for name, given in recorded.matrix(names, ids).items():
            cost = prices.price(name, known)
            answers = list(given.values())
            columns[name] = Column(
                right=np.array([float(bool(a.right)) for a in answers]),
                dollars=np.array([_dollars(a, cost) for a in answers]),
                seconds=np.array([np.nan if a.seconds is None else a.seconds for a in answers]),
                votes=tuple(keys.key(a, tasks.task(a.task).tools, declined_alike=declined_alike) for a in answers),
            )
        super().__init__(ids, columns)


def _dollars(answer: recorded.Answer, cost: Price | None) -> float:
    if cost is None or answer.input_tokens is None or answer.output_tokens is None:
        return float("nan")
    return float(cost.dollars(answer.input_tokens, answer.output_tokens))
