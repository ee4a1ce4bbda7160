"""Numbers of options: no limit, budget or time is "nan" or "inf", whichever command takes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.cli.numbers import FiniteRange


def floats(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Parameter]]:
    """Every option and argument of the command line that is a float, with its command."""
    yield from ((path, p) for p in command.params if isinstance(p.type, (click.FloatRange, type(click.FLOAT))))
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from floats(inner, (*path, name))


def test_every_float_of_the_command_line_is_finite() -> None:
    found = list(floats(main))
    assert len(found) > 10
    assert [(path, p.name) for path, p in found if not isinstance(p.type, FiniteRange)] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["judge", "episodes", "--idle", "nan"], "nan is no finite number"),
        (["judge", "episodes", "--idle", "inf"], "inf is no finite number"),
        (["judge", "episodes", "--idle", "1e10"], "is not in the range"),
        (["judge", "check", "--max-dollars", "NaN"], "NaN is no finite number"),
        (["bank", "collect", "--active", "--budget", "-inf"], "-inf is no finite number"),
        (["bank", "collect", "--active", "--budget", "0"], "is not in the range"),
        (["bank", "collect", "--active", "--budget", "much"], "is not a valid float"),
    ],
)
def test_what_is_no_finite_number_in_the_range_is_named(arguments: list[str], said: str) -> None:
    result: Any = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
