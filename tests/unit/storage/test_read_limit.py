"""A question that takes too long is cut off by the database itself, and the connection is as it was before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from agentcascade.errors import InvalidRequest, StorageError
from agentcascade.storage import Database
from agentcascade.storage.read_limit import reads_end_within

ENDLESS = text("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n")
LONG = text("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50000) SELECT count(*) FROM n")


def ask(database: Database, question: Any) -> bytes:
    with database.begin() as connection:
        return str(connection.execute(question).scalar()).encode()


def test_a_question_ends_with_its_time_and_others_are_not_cut_off(database: Database) -> None:
    with pytest.raises(InvalidRequest, match="shorter period"), reads_end_within(0.1):
        ask(database, ENDLESS)
    assert ask(database, LONG) == b"50000", "the same connection, without a limit"
    if not database.is_sqlite:
        assert ask(database, text("SHOW statement_timeout")) == b"0"
    with reads_end_within(60):
        assert ask(database, text("SELECT 1")) == b"1"
        with pytest.raises(StorageError):
            ask(database, text("SELECT nothing FROM nowhere"))


def test_no_answer_of_the_dashboard_holds_the_others_up_for_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("starlette", reason="needs starlette: pip install 'agentcascade[server]'")
    from agentcascade.server.dashboard import answers

    monkeypatch.setattr(answers, "MOST_SECONDS", 0.1)

    async def both() -> list[Any]:
        cache = answers.AnswerCache()
        asked = [
            cache.get("acme", "endless", lambda: ask(database, ENDLESS)),
            cache.get("mine", "short", lambda: ask(database, text("SELECT 1"))),
        ]
        return await asyncio.gather(*asked, return_exceptions=True)

    cut_off, short = asyncio.run(both())
    assert isinstance(cut_off, InvalidRequest)
    assert short == b"1"
