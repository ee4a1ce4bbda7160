"""Progress bars of a run, one a policy, with running accuracy and dollars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from types import TracebackType

from rich import progress
from rich.console import Console

from agentcascade.bench.records import EpisodeRecord
from agentcascade.bench.runner import OnRecord, RunPlan, needs_bank


class RunProgress:
    """Progress bars of a run; on Ctrl-C they say how to resume it."""

    def __init__(self, console: Console, *, resume_hint: str) -> None:
        self._console = console
        self._hint = resume_hint
        self._bar = progress.Progress(
            progress.TextColumn("{task.description:<18}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=console,
        )

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            self._console.print(f"stopped; what was played is kept. Continue with: {self._hint}", soft_wrap=True)

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Bar of one phase; the function that it yields takes (done, total)."""
        task = self._bar.add_task(name, total=None, note="")
        yield lambda done, total: self._bar.update(task, completed=done, total=total)
        self._bar.remove_task(task)

    def expecting(self, plan: RunPlan) -> OnRecord:
        """Make the bars of a plan; returns the callback for each record."""
        totals = {p: sum(len(t) for t in plan.tasks.values()) for p in plan.policies}
        if any(needs_bank(p, plan) for p in plan.policies):
            totals = {"demos": sum(len(t) for t in plan.demonstrations.values()), **totals}
        bars = {p: self._bar.add_task(p, total=n, note="") for p, n in totals.items()}
        wins = dict.fromkeys(bars, 0)
        played = dict.fromkeys(bars, 0)
        dollars: dict[str, Decimal | None] = dict.fromkeys(bars, Decimal(0))

        def on_record(record: EpisodeRecord, resumed: bool) -> None:
            name = record.policy
            if name not in bars:
                return
            played[name] += 1
            wins[name] += record.success
            so_far = dollars[name]
            dollars[name] = spent = None if so_far is None or record.dollars is None else so_far + record.dollars
            cost = "$ unknown" if spent is None else f"${spent:.3f}"
            self._bar.update(bars[name], advance=1, note=f"{wins[name] / played[name]:.1%} {cost}")

        return on_record
