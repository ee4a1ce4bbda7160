"""Benchmarks behind README and docs/measurements/performance.md: one table, with the goal of each figure.

    python tests/benchmarks             those of the table: a quarter of an hour at most, on two idle cores (make bench)
    python tests/benchmarks step wrap   some of them
    python tests/benchmarks --all       every bench_*.py, by its own defaults (make benchall): hours, and data

What each printed stands in build/bench/. Status 1 where one failed, took longer than its limit, or did not print a
figure; a missed goal is a figure like another.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
KEPT = HERE.parents[1] / "build" / "bench"


class Figure(NamedTuple):
    """A number that a benchmark prints beside its goal."""

    what: str
    unit: str
    pattern: str
    """Its groups: `measured`; `goal`, unless the field says it; `base`, if a multiple of that is meant."""
    goal: float | None = None
    more: bool = False
    """More is better."""


class Bench(NamedTuple):
    """A benchmark, its options for a quick run, the seconds that it may take, and the figures that it prints."""

    name: str
    options: str
    limit: float
    figures: tuple[Figure, ...]


class Row(NamedTuple):
    """A figure as it was measured; without a number, `note` says why."""

    what: str
    measured: float | None
    goal: float | None
    unit: str
    more: bool
    note: str = ""

    @property
    def met(self) -> str:
        if self.measured is None or self.goal is None:
            return ""
        return "yes" if (self.measured >= self.goal if self.more else self.measured <= self.goal) else "no"


def _number(name: str) -> str:
    return rf"(?P<{name}>-?\d[\d,]*\.?\d*)"


MODES = ("teacher", "cascade")
M, G = _number("measured"), _number("goal")


def _added(mode: str, end: str) -> Iterator[Figure]:
    line = rf"^{mode}, {end} +added"
    yield Figure(f"`wrap`, mode `{mode}`, {end}: added p50", "ms", rf"{line} p50 +{M} ms.*goal: p50 {G} ms")
    yield Figure(f"`wrap`, mode `{mode}`, {end}: p99", "× p50", rf"{line}.*, {M} times p50.*p99 {G} times")


def _against_litellm(clients: int, mode: str) -> Iterator[Figure]:
    line, what = rf"^ *{clients} clients, {mode} +\d", f"proxy against litellm's, {clients} clients, mode `{mode}`"
    yield Figure(f"{what}: requests/s", "×", rf"{line}.*?requests/s \( *{M} x\).*goal {G} x", more=True)
    yield Figure(f"{what}: p99", "×", rf"{line}.*p99 +[\d.]+ ms \({M} x\).*goal .*p99 {G} x")


BENCHES = (
    Bench(
        "step", "--steps 100000 --parts overhead whole imports", 180,
        (
            Figure(
                "decision overhead, bank of 100,000 steps: p50", "ms", rf"^decision overhead: p50 {M} ms.*goal p50 {G}"
            ),
            Figure("the same: p99", "ms", rf"^decision overhead:.*?p99 {M} ms.*goal .*p99 {G}"),
            Figure(
                "the same: p50 behind 400 steps over that behind 10", "×",
                rf"(?s)behind 10 steps: p50 {_number('base')} .*behind 400 steps: p50 {M} ", goal=1.1,
            ),
            Figure("whole step against bare litellm", "×", rf"^whole step, hashing.*ratio {M} +\(goal {G}\)"),
            Figure("the same, a new observation embedded", "×", rf"^whole step, minilm.*ratio {M} +\(goal {G}\)"),
            Figure("`import agentcascade`", "s", rf"import agentcascade {M} s \(goal {G} s\)"),
            Figure("`agentcascade --help`", "s", rf"--help {M} s \(goal {G} s\)"),
        ),
    ),
    Bench(
        "embedding", "--queries 300 --sentences 1000", 180,
        (
            Figure("a new observation embedded by MiniLM, int8", "ms", rf"^a new observation, int8: {M} ms.*goal {G}"),
            Figure("sentences a second, int8", "/s", rf"sentences at once, int8: {M}/s.*goal {G}", more=True),
            Figure(
                "recall@6 of int8 questions against float32", "",
                rf"^questions in int8, keys in float32:.*float32 {M} +\(goal (?P<goal>\d*\.\d+)\)", more=True,
            ),
        ),
    ),
    Bench(
        "wrap", "--calls 500 --steps 4000", 90,
        tuple(figure for mode in MODES for end in ("async", "sync") for figure in _added(mode, end)),
    ),
    Bench(
        "proxy", "--rounds 1 --seconds 4 --steps 300", 240,
        (
            *(figure for mode in MODES for n in (8, 64, 256) for figure in _against_litellm(n, mode)),
            *(figure for n in (8, 64) for figure in _against_litellm(n, "teacher, streamed")),
            Figure("`serve --workers 2` against one", "×", rf"^two workers: .*; {M} x as.*goal {G} x", more=True),
        ),
    ),
    Bench(
        "retrieval", "--steps 100000 --queries 500 --index faiss", 120,
        (
            Figure("a search, 100,000 steps × 3 keys: p50", "ms", rf"(?s)faiss: .*?search, .*?: p50 {M} ms", goal=10),
            Figure(
                "the same: recall@6", "", rf"(?s)faiss: .*?recall@6 against exact, .*?: {M} \(goal {G}\)", more=True
            ),
        ),
    ),
    Bench(
        "bank", "--steps 20000", 60,
        (
            Figure(
                "append, one trajectory a commit, durable", "steps/s",
                rf"^append, synchronous=FULL, index none: {M} steps/s", goal=2000, more=True,
            ),
        ),
    ),
    Bench(
        "tiers", "--questions 500", 30,
        (
            Figure("a tier decision, `values`: p50", "µs", rf"(?s)target p50 {G} .*^values +{M} "),
            Figure("a tier decision, `policy`: p50", "µs", rf"(?s)target p50 {G} .*^policy +{M} "),
        ),
    ),
)  # fmt: skip


def read(bench: Bench, printed: str) -> Iterator[Row]:
    """The rows of a benchmark, in what it printed."""
    for figure in bench.figures:
        found = re.search(figure.pattern, printed, re.MULTILINE)
        if found is None:
            yield Row(figure.what, None, figure.goal, figure.unit, figure.more, "not printed")
            continue
        given = {name: float(text.replace(",", "")) for name, text in found.groupdict().items()}
        measured = given["measured"] / given.get("base", 1)
        yield Row(figure.what, measured, given.get("goal", figure.goal), figure.unit, figure.more)


def run(name: str, options: str, limit: float | None) -> tuple[str, str]:
    """(what ``bench_NAME.py`` printed, what went wrong); with its children it is ended after `limit` seconds."""
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"{name}.txt"
    command = [sys.executable, str(HERE / f"bench_{name}.py"), *options.split()]
    with kept.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(limit)
            wrong = f"status {status}, see {kept}" if status else ""
        except subprocess.TimeoutExpired:
            wrong = f"more than {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return kept.read_text(encoding="utf-8", errors="replace"), wrong


def table(rows: Iterable[Row]) -> str:
    lines = ["| what | measured | goal | met |", "| --- | --- | --- | --- |"]
    for row in rows:
        measured = row.note if row.measured is None else f"{row.measured:.3g} {row.unit}".strip()
        sign = "≥" if row.more else "≤"
        goal = "" if row.goal is None else f"{sign} {row.goal:g} {row.unit}".strip()
        lines.append(f"| {row.what} | {measured} | {goal} | {row.met} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(bench.name for bench in BENCHES))
    parser.add_argument("--all", action="store_true", help="every benchmark, by its own defaults and without a limit")
    chosen = parser.parse_args(arguments)
    known = {bench.name: bench for bench in BENCHES}
    if unknown := {*chosen.names} - known.keys():
        parser.error(f"no figure comes of {', '.join(sorted(unknown))}: run bench_NAME.py itself")
    if chosen.all:
        every = sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py"))
        benches = [known.get(name, Bench(name, "", 0, ()))._replace(options="", limit=0) for name in every]
    else:
        benches = [bench for bench in BENCHES if not chosen.names or bench.name in chosen.names]
    rows: list[Row] = []
    failed = []
    for bench in benches:
        started = time.monotonic()
        printed, wrong = run(bench.name, bench.options, bench.limit or None)
        print(f"bench_{bench.name}.py {bench.options}: {time.monotonic() - started:.0f} s {wrong}", flush=True)
        found = [row._replace(note=wrong or row.note) for row in read(bench, printed)]
        rows += found
        if wrong or any(row.measured is None for row in found):
            failed.append(bench.name)
    text = table(rows)
    (KEPT / "table.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\n{sum(row.met == 'yes' for row in rows)} of {len(rows)} goals met")
    if failed:
        print(f"not all of these: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
