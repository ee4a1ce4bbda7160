"""The drift watch: false alarms while all is well, and how soon it tells when a worse student takes over.

    python tests/benchmarks/bench_drift.py [--runs 200] [--steps 100000]

Audited steps are drawn at a rate from a stream of accepted steps; the watch is looked at after every one of them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.stats import binomtest

from agentcascade.routers.step.drift import Promise, Watch

PROMISES: tuple[tuple[Promise, float], ...] = (("ever", 0.05), ("rate", 0.0002))


def watched(losses: np.ndarray, watch: Watch) -> int | None:
    """Index of the audit that raises the alarm."""
    for i, loss in enumerate(losses):
        if watch.observe(float(loss)):
            return i
    return None


def steady(steps: int, runs: int) -> None:
    print(f"## {steps:,} steady accepted steps, {runs} runs: runs with a false alarm, risk just as certified and below")
    for promise, delta in PROMISES:
        for risk, true, rate in ((0.05, 0.05, 0.05), (0.05, 0.04, 0.05), (0.02, 0.02, 0.1), (0.10, 0.10, 0.02)):
            alarms = 0
            for seed in range(runs):
                rng = np.random.default_rng(seed)
                audited = rng.binomial(steps, rate)
                alarms += watched(rng.random(audited) < true, Watch(risk, delta, promise)) is not None
            low, high = binomtest(alarms, runs).proportion_ci(0.95)
            promised = f"at most {delta:g}" if promise == "ever" else f"one in {1 / delta:,.0f} audits on average"
            print(
                f"  {promise:>4}: certified {risk:.2f}, true {true:.2f}, audits {rate:.0%}: {alarms}/{runs} = "
                f"{alarms / runs:.3f} ({low:.3f} to {high:.3f}); promised {promised}",
                flush=True,
            )


def swapped(runs: int, before: int = 20_000) -> None:
    print(f"\n## The student is swapped after {before:,} accepted steps: until the alarm (median, 90 % quantile)")
    for promise, delta in PROMISES:
        for risk, good, bad, rate in (
            (0.05, 0.03, 0.10, 0.05),
            (0.05, 0.03, 0.20, 0.05),
            (0.05, 0.03, 0.40, 0.05),
            (0.02, 0.01, 0.10, 0.05),
            (0.02, 0.01, 0.10, 0.20),
        ):
            delays, audits, risks, false = [], [], [], 0
            for seed in range(runs):
                rng = np.random.default_rng(seed)
                watch = Watch(risk, delta, promise)
                if watched(rng.random(rng.binomial(before, rate)) < good, watch) is not None:
                    false += 1
                    continue
                gaps = np.cumsum(rng.geometric(rate, 20_000))  # steps between audits
                drawn = rng.random(20_000) < bad
                at = watched(drawn, watch)
                assert at is not None
                delays.append(gaps[at])
                audits.append(at + 1)
                risks.append(drawn[: at + 1].mean())
            print(
                f"  {promise:>4}: certified {risk:.2f}, true {good:.2f} then {bad:.2f}, audits {rate:.0%}: steps "
                f"{np.median(delays):,.0f}, {np.quantile(delays, 0.9):,.0f}; audits {np.median(audits):.0f}, "
                f"{np.quantile(audits, 0.9):.0f}; wrong among them {np.median(risks):.2f}; false before {false}/{runs}",
                flush=True,
            )


def speed() -> None:
    watch, losses = Watch(0.05), np.random.default_rng(0).random(50_000) < 0.04
    started = time.perf_counter()
    watched(losses, watch)
    print(f"\n## one audit: {(time.perf_counter() - started) / len(losses) * 1e6:.1f} microseconds")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100_000)
    options = parser.parse_args()
    steady(options.steps, options.runs)
    swapped(options.runs)
    speed()


if __name__ == "__main__":
    main()
