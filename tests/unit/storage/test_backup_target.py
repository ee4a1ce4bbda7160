"""A backup's name: nothing that is there is written over, also what came while the copy was made."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentcascade.errors import ConfigError, StorageError
from agentcascade.storage import backup as module


@pytest.fixture
def url(tmp_path: Path) -> str:
    with closing(sqlite3.connect(tmp_path / "a.db")) as opened:
        opened.execute("CREATE TABLE t (x)")
    return f"sqlite:///{tmp_path / 'a.db'}"


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_came_meanwhile_stays(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    target, copy = tmp_path / "copy.db", module._copy

    def slowly(source, temporary):
        copy(source, temporary)
        target.write_text("another backup")

    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(module, "_copy", slowly)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match="exists"):
        module.backup(url, target)
    assert target.read_text() == "another backup"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db", "copy.db"]


def test_a_link_that_leads_nowhere_is_there_too(url: str, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.symlink_to(tmp_path / "elsewhere" / "copy.db")
    with pytest.raises(StorageError, match="exists"):
        module.backup(url, target)
    assert target.is_symlink()


def test_a_database_is_named_as_everywhere_else(url: str, tmp_path: Path) -> None:
    assert module.backup(str(tmp_path / "a.db"), tmp_path / "copy.db")
    with pytest.raises(ConfigError, match=r"bank\.url"):
        module.backup("a://b://c", tmp_path / "other.db")


def test_without_links_the_copy_is_there_and_its_owners_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "copy.db"
    assert module.backup(url, target) == os.path.getsize(target)
    assert target.stat().st_mode & 0o777 == 0o600
