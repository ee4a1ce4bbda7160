"""Responses kept for their clients: per namespace, in their order, sealed; on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from sqlalchemy import select

from agentcascade.errors import InvalidRequest
from agentcascade.storage import Database, responses, tables
from agentcascade.storage.responses import KeptResponse, ResponseStore


def kept(number: int, text: str = "hello") -> KeptResponse:
    earlier = [f"resp_{i}" for i in range(number)]
    return KeptResponse(f"resp_{number}", "ep_1", earlier, [{"content": text, "half": "\ud83d"}], {"n": number})


def test_a_conversation_comes_back_in_its_order_to_its_namespace(database: Database) -> None:
    store = ResponseStore(database)
    for number in range(4):
        store.save("mine", kept(number))
    conversation = store.conversation("mine", "resp_3")
    assert conversation == [kept(n) for n in range(4)]
    assert store.conversation("theirs", "resp_3") is None
    assert not store.delete("theirs", "resp_1")
    assert store.delete("mine", "resp_1")
    assert store.conversation("mine", "resp_3") is None, "a gap is no conversation"
    assert store.find("mine", "resp_3") == kept(3)


def test_a_row_is_read_with_the_id_alone(database: Database) -> None:
    store = ResponseStore(database)
    store.save("mine", kept(0, "ada@example.com"))
    with database.begin() as connection:
        (row,) = connection.execute(select(tables.responses)).all()
    assert b"ada" not in row.body
    assert "resp_0" not in str(row)
    with pytest.raises(InvalidTag):
        responses._unsealed("resp_1", row.body, 1000)


def test_a_conversation_has_a_size(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResponseStore(database)
    store.save("mine", kept(0, "x" * 100_000))
    monkeypatch.setattr(responses, "MOST_BYTES", 50_000)
    with pytest.raises(InvalidRequest, match="50,000 bytes"):
        store.find("mine", "resp_0")
    monkeypatch.setattr(responses, "MOST_EARLIER", 3)
    with pytest.raises(InvalidRequest, match="at most 3 responses"):
        store.save("mine", kept(3))
