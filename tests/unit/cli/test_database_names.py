"""The database's name on the command line: a path is a file, and what is none is said, whichever command it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.storage import open_database

COMMANDS = (["db", "info"], ["ledger"], ["keys", "list"])


def run(*arguments):
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_path_is_a_file_and_what_is_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    open_database("a.db").close()
    found = run(*command, "--url", "a.db")
    assert found.exit_code == 0, found.output
    refused = run(*command, "--url", "mysql://somewhere/a")
    assert refused.exit_code != 0
    assert isinstance(refused.exception, SystemExit), refused.exception
    assert "bank.url" in refused.output


def test_a_backup_takes_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_database("a.db").close()
    assert run("db", "backup", "copy.db", "--url", "a.db").exit_code == 0
    assert run("db", "info", "--url", "copy.db").exit_code == 0
