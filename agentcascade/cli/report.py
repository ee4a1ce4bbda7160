"""``agentcascade report``: one HTML file from a log, a run or the live database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import say

MOST_DAYS = 1000


@click.command()
@click.option(
    "--log", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A log of steps, JSONL or Parquet."
)
@click.option(
    "--run", type=click.Path(path_type=Path, exists=True, file_okay=False), help="The folder of a benchmark's run."
)
@database_options
@click.option("--namespace", help="Of the database; default: all.")
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=30, show_default=True, help="Of the database.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"), show_default=True)
def command(
    log: Path | None,
    run: Path | None,
    config: Path | None,
    url: str | None,
    namespace: str | None,
    days: int,
    out: Path,
) -> None:
    """Write one self-contained HTML file with plots. Without --log and --run it is about the configured database."""
    if log and run:
        raise click.UsageError("give --log or --run, not both: a report is about one of them")
    if (log or run) and (config or url or namespace):
        raise click.UsageError("--config, --url and --namespace are of the database: leave --log and --run out")
    if log:
        from agentcascade.reports.log import write_log_report
        from agentcascade.steplog.files import read_log as load_log

        write_log_report(out, load_log(log), f"agentcascade report: {log.name}")
    elif run:
        from agentcascade.reports.run import write_run_report as write_run

        write_run(out, run)
    else:
        from agentcascade.reports.live import write_live_report as write_live

        settings = load_config(config, url)
        with database(settings) as opened:
            write_live(out, opened, namespace=namespace, since=datetime.now(UTC) - timedelta(days=days))
    say(f"wrote {out}")
