"""Pareto plot of a run: names that can be read, and a front of what one could choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentcascade.bench.pareto import front_of, label_of, plot_pareto
from agentcascade.bench.statistics import PolicyResult

MODELS = {"teacher": "recorded/gpt-4", "student": "recorded/qwen", "member 2": "openai/mini", "member 3": "other"}
RUN: dict[str, Any] = {
    "suite": "sql",
    "models_are": "recorded",
    "samples": 1,
    "models": {role: {"name": name} for role, name in MODELS.items()},
}
POINTS = {
    "teacher": (0.0691, 0.737),
    "student": (0.00006, 0.497),
    "alone mini": (0.0004, 0.614),
    "alone other": (0.0006, 0.716),
    "2 of 2": (0.0492, 0.747),
    "3 of 3": (0.0533, 0.75),
    "cascade": (0.0288, 0.758),
    "random": (0.0398, 0.715),
    "oracle": (0.0474, 0.80),
    "shadow": (0.0703, 0.737),
    "free": (None, 0.9),
}


def result(policy: str, dollars: float | None, accuracy: float) -> PolicyResult:
    return PolicyResult(
        policy=policy,
        episodes=1034,
        accuracy=accuracy,
        accuracy_ci=(accuracy - 0.03, accuracy + 0.03),
        accuracy_by_seed={0: accuracy},
        dollars_per_episode=dollars,
        dollars_ci=None,
        relative_cost=None,
        steps=1,
        deferral_share=0,
        errors=0,
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    figures: list[Any] = []
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    return figures


def texts(figure: Any) -> dict[str, Any]:
    figure.draw_without_rendering()
    (axes,) = figure.axes
    from matplotlib.text import Annotation

    return {a.get_text(): a.get_window_extent() for a in axes.texts if isinstance(a, Annotation) and a.get_text()}


def test_every_policy_is_named_and_no_name_covers_another(drawn: list[Any]) -> None:
    plot_pareto([result(policy, *point) for policy, point in POINTS.items()], RUN, [Path("x.png")])
    named = texts(drawn[0])
    assert set(named) == {
        "teacher: gpt-4", "student: qwen", "mini", "other",
        "2 of 2", "3 of 3", "cascade: 2 of 3", "random mix", "oracle",
    }  # fmt: skip
    boxes = list(named.values())
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = drawn[0].axes[0].get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_the_front_holds_what_one_could_choose(drawn: list[Any]) -> None:
    plot_pareto([result(policy, *point) for policy, point in POINTS.items()], RUN, [Path("x.svg")])
    line = next(line for line in drawn[0].axes[0].lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2)
    assert list(line.get_ydata()) == [0.497, 0.614, 0.716, 0.758], "neither the oracle nor what has no price"
    assert front_of([(1, 0.5), (1, 0.4), (2, 0.5), (3, 0.6)]) == [(1, 0.5), (3, 0.6)]


@pytest.mark.parametrize("points", [{}, {"teacher": (0.0, 1.0)}, {"teacher": (None, 1.0)}, {"teacher": (1.0, 0.0)}])
def test_little_can_be_drawn_too(points: dict[str, Any], tmp_path: Path) -> None:
    plot_pareto([result(p, *point) for p, point in points.items()], {**RUN, "models": {}}, [tmp_path / "x.svg"])
    assert "<svg" in (tmp_path / "x.svg").read_text()


def test_a_committee_is_named_by_its_votes() -> None:
    assert label_of("cascade", {**RUN, "samples": 2, "needed": 4}) == "cascade: 4 of 6"
    assert label_of("cascade", {"models": {"student": {"name": "a"}}}) == "cascade"
