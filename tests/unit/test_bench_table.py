"""`make bench`: figures are read off what benchmarks print, beside their goals; a benchmark that hangs is ended."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PRINTED = """\
decision overhead: p50 1.54 ms, p99 2.26 ms  (goal p50 0.7 ms, p99 3.0 ms)
  behind 10 steps: p50 2.00 ms, p99 3.16 ms, p50 1.00 × that behind 10  (goal p50 0.7 ms, p99 3.0 ms, 1.0 ×)
  behind 100 steps: p50 2.50 ms, p99 3.08 ms, p50 1.25 × that behind 10  (goal p50 0.7 ms, p99 3.0 ms, 1.0 ×)
  behind 400 steps: p50 3.00 ms, p99 3.17 ms, p50 1.50 × that behind 10  (goal p50 0.7 ms, p99 3.0 ms, 1.0 ×)
whole step, hashing:384: 3.92 ms; bare litellm 4.17 ms; ratio 0.94  (goal 1.1)
python alone 0.013 s; import agentcascade 0.030 s (goal 0.15 s); --help 0.361 s (goal 0.35 s)
"""


@pytest.fixture
def runner(tmp_path: Path) -> Any:
    """The runner's names, with what benchmarks print kept in `tmp_path`; its own globals are `globals`."""
    names = runpy.run_path(str(ROOT / "tests/benchmarks/__main__.py"), run_name="runner")
    names["main"].__globals__["KEPT"] = tmp_path
    return SimpleNamespace(**names, globals=names["main"].__globals__)


def test_figures_are_read_beside_their_goals(runner: Any) -> None:
    (step,) = (bench for bench in runner.BENCHES if bench.name == "step")
    rows = [(row.measured, row.goal, row.met) for row in runner.read(step, PRINTED)]
    assert rows == [
        (1.54, 0.7, "no"), (2.26, 3, "yes"), (1.5, 1.1, "no"), (0.94, 1.1, "yes"), (None, None, ""),
        (0.03, 0.15, "yes"), (0.361, 0.35, "no"),
    ]  # fmt: skip
    text = runner.table(runner.read(step, PRINTED))
    assert "| the same: p99 | 2.26 ms | ≤ 3 ms | yes |" in text
    assert "| the same, a new observation embedded | not printed |  |  |" in text


def test_more_is_better_where_it_says_so(runner: Any) -> None:
    figure = runner.Figure("appended", "steps/s", r"appended (?P<measured>\d[\d,]*)", goal=2000, more=True)
    bench = runner.Bench("x", "", 1, (figure,))
    assert [row.met for text in ("appended 3,758", "appended 1,999") for row in runner.read(bench, text)] == [
        "yes",
        "no",
    ]


def test_the_quick_run_is_of_benchmarks_and_options_that_there_are_and_takes_a_quarter_of_an_hour(runner: Any) -> None:
    for bench in runner.BENCHES:
        source = (ROOT / f"tests/benchmarks/bench_{bench.name}.py").read_text(encoding="utf-8")
        assert [o for o in re.findall(r"--[a-z-]+", bench.options) if f'"{o}"' not in source] == []
        assert bench.figures
    assert sum(bench.limit for bench in runner.BENCHES) <= 15 * 60


def test_what_fails_or_hangs_is_a_row_without_a_number(
    runner: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = {
        "good": "print('took 3 ms (goal 4)')",
        "hung": "import time; print('took 5 ms (goal 4)', flush=True); time.sleep(600)",
        "bad": "raise SystemExit(3)",
    }
    for name, text in scripts.items():
        (tmp_path / f"bench_{name}.py").write_text(text)
    figure = runner.Figure("it", "ms", r"took (?P<measured>\d+) ms \(goal (?P<goal>\d+)\)")
    benches = [runner.Bench(name, "", 1 if name == "hung" else 60, (figure,)) for name in scripts]
    runner.globals.update(HERE=tmp_path, BENCHES=benches)
    assert runner.main(["good"]) == 0
    assert "1 of 1 goals met" in capsys.readouterr().out
    assert runner.main([]) == 1
    told = capsys.readouterr()
    assert "| it | 3 ms | ≤ 4 ms | yes |" in told.out
    assert "more than 1 s" in told.out
    assert re.search(r"^\| it \| status 3, see .*bad.txt \|", told.out, re.MULTILINE)
    assert "not all of these: hung, bad" in told.err
    assert (tmp_path / "table.md").read_text() in told.out
