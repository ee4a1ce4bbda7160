"""Batches of the recorder: decisions wait for each other, what another replica may look for does not wait with them."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from agentcascade.storage import open_database
from agentcascade.storage.recorder import GATHER_SECONDS, LEDGER_SECONDS, DatabaseRecorder, QueuedRecord
from agentcascade.storage.tables import decisions
from agentcascade.types import Decision, Draft, EpisodeEnd, now


class Hurry(threading.Event):
    """Notes how long it is waited for, and lets the time pass at once."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0)
        return self.is_set()


def decision(step: int) -> Decision:
    return Decision(episode="ep_1", step=step, mode="teacher", answered_by="teacher", reason="mode teacher")


DRAFT = Draft(
    namespace="n", episode="ep_1", position=0, goal="g", mode="collect", model="m", observation="o", action="a"
)
END = EpisodeEnd(episode="ep_1", namespace="n", goal="g", mode="collect", success=True, steps=1, started_at=now())
BOTH = [GATHER_SECONDS, LEDGER_SECONDS]


@pytest.mark.parametrize(
    ("records", "is_asked_for", "waited"),
    [
        ([decision(0)], False, BOTH),
        ([decision(0), decision(1)], False, BOTH),
        ([decision(0)], True, BOTH[:1]),
        ([DRAFT], False, BOTH[:1]),
        ([decision(0), END], False, BOTH[:1]),
        ([None], False, BOTH[:1]),
    ],
    ids=["a decision", "decisions", "what is flushed", "a draft", "a decision and an end", "the end of the thread"],
)
def test_decisions_alone_wait_longer(
    records: list[Decision | Draft | EpisodeEnd | None], is_asked_for: bool, waited: list[float], tmp_path: Path
) -> None:
    with closing(open_database(f"sqlite:///{tmp_path}/bank.db")) as database:
        recorder = DatabaseRecorder(database)
        recorder.close()  # its thread has ended
        recorder._hurry = hurry = Hurry()
        if is_asked_for:
            hurry.set()
        entries = [None if record is None else QueuedRecord(record, None, None) for record in records]
        for entry in entries[1:]:  # they come in meanwhile
            recorder._waiting.put(entry)
        batch = entries[:1]
        recorder._gather(batch)
    assert (batch, hurry.waited) == (entries, waited)


def test_a_flush_waits_for_what_was_recorded_and_not_for_what_comes_after(tmp_path: Path) -> None:
    """Under steady traffic the recorder never has nothing to do."""
    is_over = threading.Event()
    with closing(open_database(f"sqlite:///{tmp_path}/bank.db")) as database:
        recorder = DatabaseRecorder(database)

        def traffic() -> None:
            while not is_over.wait(0.001):
                recorder.record(decision(0))

        others = [threading.Thread(target=traffic) for _ in range(2)]
        for other in others:
            other.start()
        try:
            for _ in range(20):
                recorder.record(own := decision(1))
                assert recorder.flush(10)
                with database.begin() as connection:
                    assert connection.execute(select(decisions.c.step).where(decisions.c.id == own.id)).scalar() == 1
        finally:
            is_over.set()
            for other in others:
                other.join()
            recorder.close()
