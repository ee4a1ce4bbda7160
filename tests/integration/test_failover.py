"""A failover of PostgreSQL: connections to the old primary live on as a standby's, and are not kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from sqlalchemy import func, select, text

from agentcascade.cli import main
from agentcascade.errors import StorageError
from agentcascade.storage import Database, open_database
from agentcascade.storage.recorder import DatabaseRecorder
from agentcascade.storage.tables import decisions
from agentcascade.types import Decision


@pytest.fixture
def demoted(postgres_url: str) -> Iterator[Database]:
    """Its pooled connections are to a server that takes no writes any more; new ones reach its successor."""
    with closing(open_database(postgres_url)) as database:
        connections = [database.engine.connect() for _ in range(5)]
        for connection in connections:
            connection.execute(text("SET default_transaction_read_only = on"))
            connection.commit()
        for connection in connections:
            connection.close()
        yield database


def test_one_write_is_refused_and_the_next_reaches_the_new_primary(demoted: Database) -> None:
    def write() -> None:
        with demoted.begin() as connection:
            connection.execute(text("CREATE TABLE a (b int)"))

    with pytest.raises(StorageError, match=r"is read-only \(cannot execute CREATE TABLE .*\): is it a standby\?"):
        write()
    write()


def test_no_record_is_lost(demoted: Database, tmp_path: Path) -> None:
    recorder = DatabaseRecorder(demoted, folder=tmp_path)
    for number in range(3):
        recorder.record(
            Decision(episode="e", step=number, mode="teacher", answered_by="teacher", reason="mode teacher")
        )
    recorder.close()
    with demoted.begin() as connection:
        assert connection.execute(select(func.count()).select_from(decisions)).scalar() == 3


@pytest.mark.parametrize("standby", [True, False])
def test_doctor_says_of_a_standby_that_nothing_can_be_recorded(
    standby: bool, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(postgres_url).close()
    url = postgres_url + ("?options=-c%20default_transaction_read_only%3Don" if standby else "")
    config = {"bank": {"url": url}, "retrieval": {"embedder": "hashing"}, "teacher": {"name": "gpt-4.1"}}
    (tmp_path / "agentcascade.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    said = " ".join(CliRunner().invoke(main, ["doctor"]).output.split())
    assert ("is read-only, so nothing can be recorded: is it a standby?" in said) == standby
    assert ("opens" in said) != standby
