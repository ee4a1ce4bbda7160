"""The exact gradient where every outcome is known: the expected reward of a stochastic policy over a complete table.

What PPO estimates from draws is here a sum over the 243 combinations of each question, differentiable as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.routers.network import Network, Tensor
from agentcascade.routers.table import Table

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector
    from agentcascade.routers.table import Floats, Ints


def expected(
    network: Network, table: Table, questions: Ints, reward: Floats, tradeoff: Vector, noise: float
) -> tuple[Tensor, Tensor]:
    """(expected reward, mean entropy of a decision), each (batch,), for `reward` (batch, 243) at λ (batch,)."""
    tensor = network.torch.from_numpy
    n = len(questions)
    query = network.blurred(tensor(table.query[questions]), noise)
    strength = tensor(tradeoff)

    def states(read: Any, times: int) -> Tensor:
        rows = network.blurred(tensor(np.ascontiguousarray(read, dtype=np.float32)), noise)
        return network.state(
            query.repeat_interleave(times, dim=0), rows.reshape(n * times, -1), strength.repeat_interleave(times)
        )

    first = network.actor(network.hidden(states(table.raw[questions], 1), 0))  # (n, 3)
    middle = states(table.kept[questions], 3)
    extracted = [network.actor(network.hidden(middle, module)).reshape(n, 3, 3) for module in (1, 2, 3)]
    last = network.actor(network.hidden(states(table.found[questions], 81), 4)).reshape(n, 3, 3, 3, 3, 3)
    entity, temporal, topic = extracted
    before = (
        first[:, :, None, None, None]
        + entity[:, :, :, None, None]
        + temporal[:, :, None, :, None]
        + topic[:, :, None, None, :]
    )
    joint = (before[..., None] + last).exp().reshape(n, 243)
    earned = (joint * tensor(reward.astype(np.float32))).sum(dim=1)
    reached = before.exp().reshape(n, 81)
    entropy = _entropy(first) + (first.exp()[:, :, None] * sum(x.exp() * -x for x in extracted)).sum(dim=(1, 2))
    entropy = entropy + (reached * _entropy(last.reshape(n, 81, 3))).sum(dim=1)
    return earned, entropy / 5


def _entropy(log: Tensor) -> Tensor:
    return -(log.exp() * log).sum(dim=-1)
