"""Report of a benchmark run, from its records."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from agentcascade.bench.pareto import plot_pareto
from agentcascade.bench.records import EpisodeRecord
from agentcascade.bench.report import HEADINGS, RunReport, table_cells
from agentcascade.errors import InvalidRequest, describe
from agentcascade.reports.page import Page


def write_run_report(path: Path, folder: Path) -> None:
    """Write the report of a run folder of `agentcascade bench`. Raises `InvalidRequest` for another folder."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        with (folder / "episodes.jsonl").open(encoding="utf-8") as file:
            records = [EpisodeRecord.model_validate_json(line) for line in file if line.endswith("\n")]
        report = RunReport(run, records, list(dict.fromkeys(r.policy for r in records if r.policy not in ("demos",))))
    except (OSError, ValueError, KeyError) as error:
        raise InvalidRequest(f"{folder} holds no run of a benchmark: {describe(error)}") from None
    page = Page(f"agentcascade bench {run['suite']}")
    page.table(HEADINGS, [table_cells(row) for row in report.rows])
    with tempfile.TemporaryDirectory() as temporary:
        plot = Path(temporary) / "pareto.svg"
        plot_pareto(report.rows, run, [plot])
        svg = plot.read_text(encoding="utf-8")
    page.figure(
        svg[svg.index("<svg") :], "Accuracy against dollars, with 95 % intervals and the front of what could be chosen."
    )
    for line in report.footnotes():
        page.note(line)
    page.heading("How it was run")
    page.facts(run)
    page.write(path)
