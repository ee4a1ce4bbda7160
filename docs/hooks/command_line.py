"""The page of the command line: every command as its ``--help`` shows it, from click."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
from cells import code, prose, table

from agentcascade.cli import main

HEAD = """\
# Command line

This page is made from the commands themselves; `agentcascade COMMAND --help` says the same. Benchmarks of other packages appear there, too.
Every command that reads a configuration takes `--config PATH`; without it `$AGENTCASCADE_CONFIG`, else `agentcascade.yaml`.
"""


def page() -> str:
    """The page, in Markdown."""
    context = click.Context(main, info_name="agentcascade")
    rows = (
        [f"[agentcascade {name}](#{_anchor(f'agentcascade {name}')})", prose(found.get_short_help_str(120))]
        for name, found in _below(main, context)
    )
    blocks = [HEAD, table(["command", "what it does"], rows)]
    for name, found in _below(main, context):
        blocks += _command(found, click.Context(found, info_name=name, parent=context), 2)
    return "\n".join(blocks)


def _below(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if found is not None and not found.hidden:
            yield name, found


def _anchor(path: str) -> str:
    return path.replace(" ", "-")


def _command(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    path = context.command_path
    yield f"\n{'#' * depth} {path.removeprefix('agentcascade ')} {{ #{_anchor(path)} }}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{path} {usage}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").partition("\f")[0].split("\n\n"):
        if paragraph.startswith("\b"):
            yield f"```text\n{paragraph.removeprefix(chr(8)).strip(chr(10))}\n```\n"
        else:
            yield f"{prose(paragraph)}\n"
    records = [
        record
        for p in command.params
        if (record := p.get_help_record(context)) and "--help" not in record[0] and record[1]
    ]
    if records:
        yield table(["option", "meaning"], ([code(name), prose(" ".join(told.split()))] for name, told in records))
    if isinstance(command, click.Group):
        for name, found in _below(command, context):
            yield from _command(found, click.Context(found, info_name=name, parent=context), depth + 1)
