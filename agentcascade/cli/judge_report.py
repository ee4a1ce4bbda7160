"""Report of ``agentcascade judge check``: what verdicts alone and together are worth, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentcascade.cli.terminal import console, say
from agentcascade.judging.check import Measured, measure
from agentcascade.judging.run import Verdicts


def show_check(said: Mapping[int, Verdicts], truth: Sequence[bool | None]) -> None:
    """Print one column for each number of episodes that shared a call, and how their verdicts agree.

    Args:
        said: Verdicts by number of episodes of a call; 1 is there.
        truth: What became of the episodes.
    """
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for number in said:
        table.add_column("alone" if number == 1 else f"{number} together")
    measured = {number: measure(verdicts.said, truth) for number, verdicts in said.items()}
    rows: dict[str, list[str]] = {
        "verdicts": [f"{verdicts.readable:,} of {len(verdicts.said):,}" for verdicts in said.values()],
        "accuracy": [str(m.accuracy) for m in measured.values()],
        "sensitivity (successes called one)": [str(m.sensitivity) for m in measured.values()],
        "specificity (failures called one)": [str(m.specificity) for m in measured.values()],
        "Cohen's kappa": [kappa(m) for m in measured.values()],
        "calls": [f"{sum(call.requests for call in v.calls):,}" for v in said.values()],
        "prompt tokens a verdict": [each(v.usage.prompt, v) for v in said.values()],
        "output tokens a verdict": [each(v.usage.output, v) for v in said.values()],
        "reasoning tokens a verdict": [each(v.usage.reasoning, v) for v in said.values()],
        "dollars a verdict": [dollars(v) for v in said.values()],
        "dollars": ["unknown" if v.dollars is None else f"{v.dollars:.6f}" for v in said.values()],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console().print(table)
    for number, verdicts in said.items():
        if number > 1:
            _compare(number, said[1], verdicts, truth)


def _compare(number: int, alone: Verdicts, together: Verdicts, truth: Sequence[bool | None]) -> None:
    """How verdicts of shared calls agree with those of the same episodes alone, and who is right where they do not."""
    both = measure(together.said, alone.said)
    say(f"alone and {number} together agree: {both.accuracy}, kappa {kappa(both)}")
    pairs = [(a, t, k) for a, t, k in zip(alone.said, together.said, truth) if a is not None and t is not None]
    better = sum(t == k != a for a, t, k in pairs)
    worse = sum(a == k != t for a, t, k in pairs)
    say(f"together right where alone is wrong: {better:,}; wrong where alone is right: {worse:,}")
    if together.dollars is not None and alone.dollars:
        say(f"dollars together: {float(together.dollars / alone.dollars):.3f} of alone")


def kappa(measured: Measured) -> str:
    return "unknown" if measured.kappa is None else f"{measured.kappa:.3f}"


def each(tokens: int, verdicts: Verdicts) -> str:
    return f"{tokens / verdicts.readable:,.1f}" if verdicts.readable else "unknown"


def dollars(verdicts: Verdicts) -> str:
    spent = verdicts.dollars
    return "unknown" if spent is None or not verdicts.readable else f"{spent / verdicts.readable:.8f}"
