"""Split-conformal risk control: the alternative that bounds the expected risk, without a confidence.

In every chain the boldest rule is taken whose losses, and one whole loss more, stay below `max_risk` of their bases
(Angelopoulos et al. 2024); the expectation is over the log and the next episode. The chain is chosen on one half of the
episodes and its rule on the other, so that choosing costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentcascade.errors import InvalidRequest
from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.families import parts
from agentcascade.routers.tuning.multiple import Tested
from agentcascade.routers.tuning.replay import drawn, replay
from agentcascade.routers.tuning.risks import Risk
from agentcascade.routers.tuning.rules import Rule


def conformal(
    chains: Sequence[tuple[Columns, list[Rule]]], risk: Risk, max_risk: float, bill: Bill, seed: int = 0
) -> list[list[Tested]]:
    """At most one rule is certified. Raises `InvalidRequest` for a risk that need not grow along a chain."""
    if risk.count != "marginal":
        raise InvalidRequest(f"split-conformal control is of marginal risk, not of {risk.count}: choose method test")
    found = [[Tested(None, max_risk, False) for _ in rules] for _, rules in chains]
    best: tuple[float, int] | None = None
    for i, (log, rules) in enumerate(chains):
        choosing, _ = parts(log, 0.5, seed)
        boldest = _boldest(choosing, rules, risk, max_risk)
        if boldest is not None:
            cost = replay(choosing, rules[boldest], [bill]).cost
            best = min(best, (cost, i)) if best else (cost, i)
    if best is not None:
        log, rules = chains[best[1]]
        _, calibrating = parts(log, 0.5, seed)
        boldest = _boldest(calibrating, rules, risk, max_risk)
        if boldest is not None:
            found[best[1]][boldest] = Tested(None, max_risk, True)
    return found


def _boldest(log: Columns, rules: Sequence[Rule], risk: Risk, max_risk: float) -> int | None:
    """The losses of a rule are held to be no smaller than those of the rules before it, where they happen to be."""
    last, worst = None, np.zeros(0)
    for j, rule in enumerate(rules):
        seen = drawn(log, rule, risk)
        loss = seen.loss - max_risk * seen.base
        worst = np.maximum(worst, loss) if len(worst) == len(loss) else loss
        if worst.sum() + 1 - max_risk > 0:
            break
        last = j
    return last
