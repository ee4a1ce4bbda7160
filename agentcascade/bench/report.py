"""Report of a run: table, JSON, CSV, Pareto plot and one HTML page."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

from rich.table import Table

from agentcascade._util.control_characters import one_line
from agentcascade._util.files import write_atomically
from agentcascade.bench.economics import needed_acceptance
from agentcascade.bench.labels import labels_of, roles_of
from agentcascade.bench.records import EpisodeRecord
from agentcascade.bench.statistics import (
    PolicyResult,
    accuracy_difference,
    demonstrations_dollars,
    dollars_per_episode,
    summarise_policies,
)
from agentcascade.ledger.ledger import break_even


class RunReport:
    """Results of a run; `stopped` policies have none, since their episodes kept failing alike."""

    def __init__(
        self,
        run: Mapping[str, Any],
        records: Sequence[EpisodeRecord],
        policies: Sequence[str],
        stopped: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.run = run
        self.stopped = stopped
        self.rows = summarise_policies(records, [p for p in policies if p not in stopped])
        self.failures = {
            p: Counter(f for r in records if r.policy == p and (f := r.failure) is not None)
            for p in dict.fromkeys(("demos", *policies))
            if p not in stopped
        }
        self._against_random = accuracy_difference(
            *([r for r in records if r.policy == policy] for policy in ("random", "cascade"))
        )
        self._needed = "" if "cascade" in stopped else needed_acceptance(records)
        self.demonstrations = demonstrations_dollars(records)
        self.banked = sum(r.trajectory is not None for r in records)
        by_policy = {p: dollars_per_episode([r for r in records if r.policy == p]) for p in ("teacher", "cascade")}
        self.teacher_dollars = by_policy["teacher"]
        self.cascade_dollars = by_policy["cascade"]
        self.break_even = None
        if self.demonstrations is not None and self.teacher_dollars is not None and self.cascade_dollars is not None:
            self.break_even = break_even(self.demonstrations, self.teacher_dollars, self.cascade_dollars)

    def _repr_html_(self) -> str:
        """In a notebook: a row for each policy."""
        from agentcascade._util.notebook import html_of_models

        return html_of_models(self.rows, caption=str(self.run.get("suite", "")))

    def data(self) -> dict[str, Any]:
        """Content of `results.json`."""
        return {
            "run": dict(self.run),
            "policies": [row.model_dump(mode="json") for row in self.rows],
            "demonstrations_dollars": None if self.demonstrations is None else float(self.demonstrations),
            "break_even_episodes": self.break_even,
        }

    def table(self) -> Table:
        """Table for the terminal."""
        seeds = self.run["seeds"]
        title = f"{self.run['suite']} · {self.run['split']} · seeds {', '.join(map(str, seeds))}"
        roles = one_line(roles_of(self.run["models"]))
        table = Table(
            title=title, caption=roles, caption_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False
        )
        for name in HEADINGS:
            table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
        for row in self._cells():
            table.add_row(*row)
        return table

    def _cells(self) -> list[list[str]]:
        labels = labels_of([row.policy for row in self.rows])
        return [[labels[row.policy], *table_cells(row)[1:]] for row in self.rows]

    def footnotes(self) -> list[str]:
        """Footnotes of the table."""
        lines = []
        if self.demonstrations is not None:
            pays = "break-even unknown: it takes the teacher's and the cascade's dollars"
            if self.break_even is not None:
                pays = f"break-even after {self.break_even:,.0f} episodes"
            elif self.teacher_dollars is not None and self.cascade_dollars is not None:
                pays = "never pays off at these prices"
            lines.append(f"demonstrations: ${self.demonstrations:.4f} a seed; {pays}")
        lines += [line for row in self.rows if (line := against_teacher(row))]
        lines += [line for line in (self._needed, self.random_is_as_good()) if line]
        lines += self.faults
        whole = {row.policy: row.group_accuracy for row in self.rows if row.group_accuracy is not None}
        if whole:
            shares = ", ".join(f"{policy} {share:.3f}" for policy, share in whole.items())
            lines.append(f"{self.run['group']}s solved whole: {shares}")
        return [*lines, *self.run["notes"]]

    def random_is_as_good(self) -> str:
        """The sentence that says that a random mix is cheaper than the cascade and as accurate; empty where not.

        As accurate: its accuracy is no lower, or lower by no more than chance (paired 95 % interval) explains.
        """
        row = {r.policy: r for r in self.rows}
        cascade, mix = row.get("cascade"), row.get("random")
        if cascade is None or mix is None or self._against_random is None:
            return ""
        spent, spent_mix = cascade.dollars_per_episode, mix.dollars_per_episode
        difference, (low, high) = self._against_random
        if spent is None or spent_mix is None or spent_mix >= spent or high < 0:
            return ""
        return (
            f"a random mix at the cascade's teacher share is cheaper (${spent_mix:.5f} against ${spent:.5f} an "
            f"episode) and as accurate, within the interval ({difference:+.3f} [{low:+.3f}, {high:+.3f}], task "
            "by task): here the vote does not pay"
        )

    @property
    def faults(self) -> list[str]:
        """Reasons why results are missing or not of all episodes; a run that has any did not succeed."""
        faults = [f"{policy} was stopped, its episodes broke alike: {why}" for policy, why in self.stopped.items()]
        for policy, failures in self.failures.items():
            if failures:
                why, count = failures.most_common(1)[0]
                often = "" if len(failures) == 1 else f" ({count} times)"
                faults.append(f"{failures.total()} episodes of {policy} broke: {why}{often}; see episodes.jsonl")
        if self.rows and not faults and not any(row.accuracy for row in self.rows):
            faults.append("no episode of any policy was won, which is a fault and no result: see episodes.jsonl")
        return faults

    def write(self, folder: Path) -> list[Path]:
        """Write all files; returns their paths. The plot needs matplotlib (extra ``bench``)."""
        from agentcascade.bench.pareto import plot_pareto

        paths = {
            name: folder / name for name in ("results.json", "results.csv", "report.html", "pareto.png", "pareto.svg")
        }
        write_atomically(paths["results.json"], json.dumps(self.data(), indent=2))
        write_atomically(paths["results.csv"], self._csv())
        plot_pareto(self.rows, self.run, [paths["pareto.png"], paths["pareto.svg"]])
        write_atomically(paths["report.html"], self._html(paths["pareto.svg"].read_text(encoding="utf-8")))
        return list(paths.values())

    def _csv(self) -> str:
        out = io.StringIO()
        fields = [f for f in PolicyResult.model_fields if f != "accuracy_by_seed"]
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(_csv_columns(fields))
        for row in self.rows:
            writer.writerow([_spreadsheet_cell(v) for f in fields for v in _csv_values(getattr(row, f), f)])
        return out.getvalue()

    def _html(self, svg: str) -> str:
        head = "".join(f"<th>{escape(h)}</th>" for h in HEADINGS)
        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>" for cells in self._cells())
        settings = "".join(
            f"<tr><th>{escape(str(k))}</th><td>{escape(v if isinstance(v, str) else json.dumps(v))}</td></tr>"
            for k, v in self.run.items()
        )
        template = Template(files("agentcascade.bench").joinpath("report.html").read_text(encoding="utf-8"))
        return template.substitute(
            title=escape(f"agentcascade bench {self.run['suite']}"),
            head=head,
            body=body,
            settings=settings,
            notes="".join(f"<p>{escape(line)}</p>" for line in self.footnotes()),
            plot=svg[svg.index("<svg") :],
        )


def against_teacher(row: PolicyResult) -> str:
    """What a policy gets and costs beside the teacher on the same tasks, in words; empty where that is not known."""
    if row.difference is None or row.difference_ci is None:
        return ""
    low, high = row.difference_ci
    said = f"{row.policy}: accuracy {row.difference:+.3f} [{low:+.3f}, {high:+.3f}] against the teacher, task by task"
    if row.relative_cost is None or row.relative_ci is None:
        return said
    return f"{said}, at {row.relative_cost:.3f} [{row.relative_ci[0]:.3f}, {row.relative_ci[1]:.3f}] of its cost"


def _spreadsheet_cell(value: Any) -> Any:
    """Escape a text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


HEADINGS = ("policy", "$/teacher's", "$/episode", "accuracy", "95 % CI", "n", "steps", "deferred")
"""Of a run's table: dollars as a share of the teacher's come first"""


def table_cells(row: PolicyResult) -> list[str]:
    low, high = row.accuracy_ci
    return [
        row.policy,
        "–" if row.relative_cost is None else f"{row.relative_cost:.2f}",
        "unknown" if row.dollars_per_episode is None else f"{row.dollars_per_episode:.5f}",
        f"{row.accuracy:.3f}",
        f"{low:.2f}–{high:.2f}",
        str(row.episodes),
        f"{row.steps:.1f}",
        f"{row.deferral_share:.1%}",
    ]


def _csv_columns(fields: Sequence[str]) -> list[str]:
    return [name for f in fields for name in ([f"{f}_low", f"{f}_high"] if f.endswith("_ci") else [f])]


def _csv_values(value: Any, field: str) -> list[Any]:
    if field.endswith("_ci"):
        return list(value) if value is not None else ["", ""]
    return ["" if value is None else value]
