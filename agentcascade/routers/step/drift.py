"""Does the certified risk still hold? Sequential tests on audited steps, which may be looked at after every one.

A gambler bets, at every audited step, that it goes wrong more often than the certified risk R. While a step's risk,
given all audits before it, is at most R, whatever else changes, her expected wealth never rises above 1 (Waudby-Smith &
Ramdas 2024); so 1 / delta is an alarm that is false, ever, with probability at most delta, however often one looks
(Ville's inequality). Steps of one episode that go wrong together raise that: at a correlation of .3 within episodes of
20 steps, of which one in twenty is audited, .05 becomes .09; the rarer audits are, the less. She
spreads her stake over all steps at which a change could begin, so that a long good history costs her only its
logarithm, and over a grid of bets. `Rate` is the detector that starts anew at every step at the full stake instead
(Shiryaev-Roberts; Shin, Ramdas & Rinaldo 2024): faster, and wrong at most once in 1 / delta audits on average.

What is watched is the risk of the steps that are audited. Audits of accepted steps watch selective risk. Marginal risk
is selective risk times the share of accepted steps: to watch it, steps are chosen for audits before it is known who
takes them, and a chosen step that the teacher takes counts as a loss of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import lgamma, log
from typing import Any, Literal

import numpy as np

from agentcascade.errors import ConfigError, InvalidRequest

Promise = Literal["ever", "rate"]
BETS = 12


class Watch:
    """Watches one stream of losses in [0, 1] against `risk`. State is a dozen numbers; `state` and `restored` keep it.

    `promise`: ``ever``, no false alarm with probability 1 - `delta`; ``rate``, at most one in 1 / `delta` audits on
    average. Raises `ConfigError` for impossible settings.
    """

    def __init__(self, risk: float, delta: float = 0.05, promise: Promise = "ever") -> None:
        if not 0 < risk < 1:
            raise ConfigError(f"audit.risk is {risk}: it is a share above 0 and below 1, e.g. 0.05")
        if not 0 < delta < 1:
            raise ConfigError(f"audit.delta is {delta}: it is a probability above 0 and below 1, e.g. 0.05")
        if promise not in ("ever", "rate"):
            raise ConfigError(f"audit.promise is '{promise}': it is 'ever' or 'rate'")
        self.risk: float = risk
        self.delta: float = delta
        self.promise = promise
        self._bets = np.geomspace(0.02, 0.98, BETS) / risk
        self._wealth = np.zeros(BETS)
        self.audits: int = 0
        self.losses: float = 0.0
        self.alarm_at: int | None = None
        """Number of the audit that raised the alarm; it stays until `reset`."""

    def observe(self, loss: float) -> bool:
        """Take one audited step; whether the alarm is raised now or was before. Raises `InvalidRequest`."""
        if not 0 <= loss <= 1:
            raise InvalidRequest(f"a loss of {loss} is not from 0 to 1")
        self.audits += 1
        self.losses += loss
        stake = _stake(self.audits) if self.promise == "ever" else 1.0
        with np.errstate(over="ignore"):
            self._wealth = np.minimum((self._wealth + stake) * (1 + self._bets * (loss - self.risk)), 1e300)
        if self.alarm_at is None and self.evidence >= 1 / self.delta:
            self.alarm_at = self.audits
        return self.alarmed

    @property
    def alarmed(self) -> bool:
        return self.alarm_at is not None

    @property
    def evidence(self) -> float:
        """The wealth; an alarm at 1 / `delta`."""
        kept = log(2) / log(self.audits + 2) if self.promise == "ever" else 0.0
        return float(self._wealth.mean()) + kept

    @property
    def observed(self) -> float | None:
        """Mean loss of all audits; None before the first."""
        return self.losses / self.audits if self.audits else None

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Where the mean risk of all audits lies, valid at all times at once: see `confidence_sequence`."""
        return confidence_sequence(self.losses, self.audits, confidence)

    def reset(self) -> None:
        """Acknowledge an alarm: watch anew from here."""
        self._wealth = np.zeros(BETS)
        self.audits, self.losses, self.alarm_at = 0, 0.0, None

    @property
    def state(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "risk": self.risk,
            "delta": self.delta,
            "promise": self.promise,
            "audits": self.audits,
            "losses": self.losses,
            "alarm_at": self.alarm_at,
            "wealth": self._wealth.tolist(),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Watch:
        """From `state`. Raises `ConfigError` for what is none."""
        try:
            watch = cls(state["risk"], state["delta"], state["promise"])
            watch.audits, watch.losses = int(state["audits"]), float(state["losses"])
            watch.alarm_at = None if state["alarm_at"] is None else int(state["alarm_at"])
            watch._wealth = np.array(state["wealth"], dtype=float).reshape(BETS)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the stored state of the drift watch cannot be read: {error!r}") from None
        return watch


def confidence_sequence(losses: float, audits: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval for the mean of losses that are 0 or 1 that holds at all times at once.

    All means against which a gambler with a uniform prior on the truth is not rich (Robbins 1970, the beta-binomial
    mixture): wealth B(k + 1, n - k + 1) / (m^k (1 - m)^(n - k)).
    """
    if not audits:
        return 0.0, 1.0
    k, rest = losses, audits - losses
    own = lgamma(k + 1) + lgamma(rest + 1) - lgamma(audits + 2)
    limit = own + log(1 - confidence)

    def rich(m: float) -> bool:
        likely = (k * log(m) if k else 0.0) + (rest * log(1 - m) if rest else 0.0)
        return likely < limit

    best = min(max(k / audits, 1e-12), 1 - 1e-12)
    return _edge(rich, 1e-12, best), _edge(rich, 1 - 1e-12, best)


def _edge(rich: Any, outside: float, inside: float) -> float:
    """Where `rich` ends between the two; `outside` where it never begins."""
    if not rich(outside):
        return round(outside)
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if rich(middle) else (outside, middle)
    return inside


def _stake(number: int) -> float:
    """What is kept for a change that begins at audit `number`: all stakes together are 1."""
    return log(2) / log(number + 1) - log(2) / log(number + 2)


def audits_until(risk: float, after: float, delta: float = 0.05) -> float:
    """About how many audits a change to `after` takes to be noticed at once: log(1 / delta) over the bets' growth."""
    gain = after * log(after / risk) + (1 - after) * log((1 - after) / (1 - risk)) if risk < after < 1 else 0.0
    return log(1 / delta) / gain if gain > 0 else float("inf")
