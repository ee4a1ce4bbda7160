"""Charts of the dashboard as geometry: bars, lines and ticks in a box of 1000 by 200, which a template draws as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, log10
from typing import NamedTuple

from agentcascade.ledger.dashboard_rows import AgreementBin
from agentcascade.ledger.trends import TrendPoint
from agentcascade.server.dashboard.formats import bucket_time, count, dollars, share

WIDTH, HEIGHT = 1000.0, 200.0


class Bar(NamedTuple):
    """A rectangle of a kind, which its class shows by colour and pattern."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    words: str


class Line(NamedTuple):
    """A path of a kind."""

    kind: str
    path: str


class Chart(NamedTuple):
    """Geometry, labels of both axes at shares of the box, and what it says in words."""

    title: str
    words: str
    bars: list[Bar]
    lines: list[Line]
    levels: list[tuple[float, str]]
    """(y, label)"""
    times: list[tuple[float, str]]
    """(x in percent, label)"""
    zero: float | None = None


def ticks(least: float, most: float, about: int = 4) -> list[float]:
    """Round numbers from at most `least` to at least `most`."""
    span = (most - least) or 1.0
    raw = span / about
    size = 10 ** floor(log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    first = floor(least / step + 1e-9)
    marks = [first * step]
    while marks[-1] < most - 1e-12 * span:
        marks.append((first + len(marks)) * step)
    return marks if len(marks) > 1 else [*marks, marks[0] + step]


def _labels(points: Sequence[TrendPoint], bucket: str) -> list[tuple[float, str]]:
    every = max(1, -(-len(points) // 5))
    return [(100 * i / len(points), bucket_time(p.time, bucket)) for i, p in enumerate(points) if i % every == 0]


def savings_chart(points: Sequence[TrendPoint], bucket: str) -> Chart:
    """Dollars saved so far, over the dollars that each bucket saved, known ones alone."""
    saved = [float(p.spending.known_saved_dollars) for p in points]
    total, sums = 0.0, []
    for value in saved:
        total += value
        sums.append(total)
    marks = ticks(min(0.0, *sums, *saved), max(0.0, *sums, *saved))
    y = _scale(marks[0], marks[-1])
    slot = WIDTH / len(points)
    bars = [
        Bar("saved" if v >= 0 else "lost", i * slot + slot * 0.12, min(y(v), y(0)), slot * 0.76, abs(y(v) - y(0)),
            f"{bucket_time(p.time, bucket)}: saved {dollars(v)}, {dollars(s)} so far")
        for i, (p, v, s) in enumerate(zip(points, saved, sums)) if v
    ]  # fmt: skip
    path = "M" + "L".join(f"{(i + 0.5) * slot:.1f},{y(s):.1f}" for i, s in enumerate(sums))
    return Chart(
        f"Saved over time, per {bucket} and in all",
        f"{dollars(abs(total))} {'saved' if total >= 0 else 'lost'} in all.",
        bars, [Line("sum", path)], [(y(m), dollars(round(m, 12))) for m in marks], _labels(points, bucket), y(0),
    )  # fmt: skip


def spending_chart(points: Sequence[TrendPoint], bucket: str) -> Chart:
    """Dollars spent and dollars of the teacher alone, side by side in each bucket."""
    pairs = [(float(p.spending.known_dollars), float(p.spending.known_teacher_dollars)) for p in points]
    marks = ticks(0.0, max(max(pair) for pair in pairs))
    y, slot = _scale(0.0, marks[-1]), WIDTH / len(points)
    bars = []
    for i, (p, (spent, alone)) in enumerate(zip(points, pairs)):
        words = f"{bucket_time(p.time, bucket)}: spent {dollars(spent)}, teacher alone {dollars(alone)}"
        x = i * slot
        if alone:
            bars.append(Bar("alone", x + slot * 0.52, y(alone), slot * 0.36, HEIGHT - y(alone), words))
        if spent:
            bars.append(Bar("spent", x + slot * 0.12, y(spent), slot * 0.36, HEIGHT - y(spent), words))
    spent, alone = (sum(values) for values in zip(*pairs))
    return Chart(
        f"Spent and teacher alone, per {bucket}",
        f"{dollars(spent)} spent in all, {dollars(alone)} with the teacher alone.",
        bars, [], [(y(m), dollars(round(m, 12))) for m in marks], _labels(points, bucket),
    )  # fmt: skip


def drift_chart(points: Sequence[TrendPoint], bucket: str) -> Chart:
    """Shares over time: steps deferred, mean agreement of samples, audited steps that differ from the teacher."""
    y, slot = _scale(0.0, 1.0), WIDTH / len(points)

    def line(kind: str, value: Callable[[TrendPoint], float | None]) -> Line:
        path, pen = "", False
        for i, p in enumerate(points):
            level = value(p)
            if level is not None:
                x, at = (i + 0.5) * slot, y(min(1.0, level))
                alone = not pen and (i + 1 == len(points) or value(points[i + 1]) is None)
                path += f"{'L' if pen else 'M'}{x:.1f},{at:.1f}" + (f"h{min(slot, 8):.1f}" if alone else "")
            pen = level is not None
        return Line(kind, path)

    lines = [
        line("agreement", lambda p: p.drift.agreement / p.drift.voted if p.drift.voted else None),
        line("deferred", lambda p: p.spending.deferred / p.spending.cascaded if p.spending.cascaded else None),
        line("differing", lambda p: p.drift.differing / p.drift.audited if p.drift.audited else None),
    ]
    cascaded, deferred = sum(p.spending.cascaded for p in points), sum(p.spending.deferred for p in points)
    audited, differing = sum(p.drift.audited for p in points), sum(p.drift.differing for p in points)
    words = f"{share(deferred, cascaded)} of the steps deferred"
    words += (
        f"; {share(differing, audited)} of {count(audited)} audited steps differ from the teacher." if audited else "."
    )
    levels = [(y(v), f"{v:.0%}".replace("%", " %")) for v in (0.0, 0.5, 1.0)]
    return Chart(
        f"Drift, per {bucket}", words, [], [part for part in lines if part.path], levels, _labels(points, bucket)
    )


def agreement_chart(bins: Sequence[AgreementBin]) -> Chart:
    """Voted steps by the share of samples that agree: taken by the student, and deferred on top."""
    marks = [m for m in ticks(0.0, max(b.accepted + b.deferred for b in bins)) if m == int(m)]
    y, slot, bars = _scale(0.0, marks[-1]), WIDTH / len(bins), []
    for i, b in enumerate(bins):
        words = f"{bin_name(b)}: {count(b.accepted)} by the student, {count(b.deferred)} deferred"
        x, width = i * slot + slot * 0.1, slot * 0.8
        if b.accepted:
            bars.append(Bar("student", x, y(b.accepted), width, HEIGHT - y(b.accepted), words))
        if b.deferred:
            top = y(b.accepted + b.deferred)
            bars.append(Bar("deferred", x, top, width, y(b.accepted) - top, words))
    voted, full = sum(b.accepted + b.deferred for b in bins), bins[-1].accepted + bins[-1].deferred
    times = [
        (100 * i / len(bins), "all" if b.low == b.high else f"{b.low:.0%}".replace("%", "")) for i, b in enumerate(bins)
    ]
    return Chart(
        "Steps by the share of samples that agree",
        f"All samples agreed in {count(full)} of {count(voted)} voted steps.",
        bars, [], [(y(m), count(int(m))) for m in marks], times,
    )  # fmt: skip


def bin_name(b: AgreementBin) -> str:
    return "all agree" if b.low == b.high else f"{b.low:.0%} to {b.high:.0%}".replace("%", " %")


def _scale(least: float, most: float) -> Callable[[float], float]:
    return lambda value: round(HEIGHT * (most - value) / (most - least), 2)
