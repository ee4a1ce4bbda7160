"""The drift watch: seldom wrong however often one looks, quick when the risk rises, and the same after a restart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.routers.step.drift import Watch, confidence_sequence


def alarm(losses: Any, watch: Watch) -> int | None:
    for loss in losses:
        if watch.observe(float(loss)):
            return watch.alarm_at
    return None


def test_looking_after_every_audit_raises_few_false_alarms() -> None:
    rng = np.random.default_rng(0)
    false = sum(alarm(rng.random(800) < 0.1, Watch(0.1, delta=0.1)) is not None for _ in range(150))
    assert false <= 15 + 3 * (150 * 0.1 * 0.9) ** 0.5


def test_a_late_change_is_noticed_although_all_was_well_for_long() -> None:
    rng = np.random.default_rng(1)
    delays = []
    for _ in range(20):
        watch = Watch(0.05)
        assert alarm(rng.random(2000) < 0.02, watch) is None
        found = alarm(rng.random(1000) < 0.3, watch)
        assert found is not None
        delays.append(found - 2000)
    assert np.median(delays) < 80


def test_the_rate_of_false_alarms_is_kept_where_that_is_promised() -> None:
    rng = np.random.default_rng(2)
    alarms, audits, watch = 0, 0, Watch(0.1, delta=0.002, promise="rate")
    for loss in rng.random(20_000) < 0.1:
        audits += 1
        if watch.observe(float(loss)):
            alarms += 1
            watch.reset()
    assert alarms <= audits * 0.002 + 3 * (audits * 0.002) ** 0.5


def test_an_alarm_stays_until_it_is_acknowledged() -> None:
    watch = Watch(0.05)
    assert alarm([1.0] * 20, watch) is not None
    for _ in range(200):
        watch.observe(0.0)
    assert watch.alarmed
    watch.reset()
    assert not watch.alarmed
    assert watch.observed is None


@given(st.lists(st.sampled_from([0.0, 1.0, 0.5]), max_size=60), st.sampled_from(["ever", "rate"]))
def test_a_watch_survives_a_restart_at_any_point(losses: list[float], promise: Any) -> None:
    whole, parts = Watch(0.1, promise=promise), Watch(0.1, promise=promise)
    for loss in losses:
        whole.observe(loss)
        parts = Watch.restored(json.loads(json.dumps(parts.state)))
        parts.observe(loss)
    assert parts.state == whole.state
    assert parts.evidence == whole.evidence


def test_endless_losses_overflow_nothing() -> None:
    watch = Watch(0.001)
    for _ in range(5000):
        watch.observe(1.0)
    assert np.isfinite(watch.evidence)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_interval_holds_the_mean(k: int, rest: int) -> None:
    low, high = confidence_sequence(k, k + rest)
    assert 0 <= low <= high <= 1
    if k + rest:
        assert low <= k / (k + rest) <= high


def test_the_interval_covers_at_all_times_at_once() -> None:
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(150):
        sums = np.cumsum(rng.random(300) < 0.2)
        missed += any(not low <= 0.2 <= high for low, high in _intervals(sums))
    assert missed <= 15 + 3 * (150 * 0.05) ** 0.5


def _intervals(sums: Any) -> Any:
    return (confidence_sequence(float(sums[n - 1]), n) for n in range(1, len(sums) + 1, 7))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Watch(0), r"audit\.risk is 0"),
        (lambda: Watch(0.1, delta=2), r"audit\.delta is 2"),
        (lambda: Watch(0.1, promise="never"), r"audit\.promise is 'never'"),  # type: ignore[arg-type]
        (lambda: Watch.restored({"risk": 0.1}), "cannot be read"),
    ],
)
def test_impossible_watches_say_what_to_change(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
    with pytest.raises(InvalidRequest, match="from 0 to 1"):
        Watch(0.1).observe(float("nan"))
