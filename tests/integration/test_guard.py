"""The drift guard on SQLite and on a real PostgreSQL: several processes watch one risk, and no audit is lost."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from agentcascade.routers.step.drift import Watch
from agentcascade.routers.step.drift_guard import PREFIX, DriftGuard
from agentcascade.steplog.audits import count_audits
from agentcascade.storage import open_database
from agentcascade.storage.shared_value import SharedValue

AUDIT = """
    import sys
    from agentcascade.routers.step.drift_guard import PREFIX, DriftGuard
    from agentcascade.storage import open_database
    from agentcascade.storage.shared_value import SharedValue
    database = open_database(sys.argv[1])
    guard = DriftGuard(SharedValue(database, PREFIX + "default"), 0.2)
    for i in range(60):
        guard.observe(float(i % 6 == 0))
    database.close()
"""


def test_processes_share_one_watch_and_lose_nothing(url: str) -> None:
    database = open_database(url)
    workers = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(AUDIT), url]) for _ in range(3)]
    assert [worker.wait(300) for worker in workers] == [0, 0, 0]
    guard = DriftGuard(SharedValue(database, PREFIX + "default"), 0.2)
    assert guard.watch.audits == 180
    assert guard.watch.losses == 30
    assert not guard.alarmed
    database.close()


def test_an_alarm_reaches_the_others_and_is_acknowledged_for_all(url: str) -> None:
    database = open_database(url)
    one, two = (DriftGuard(SharedValue(database, PREFIX + "default", every=0.0), 0.05) for _ in range(2))
    while not one.observe(1.0):
        pass
    for _ in range(200):  # the other looks again behind its answers
        if two.alarmed:
            break
        two._kept.close()  # type: ignore[attr-defined]
    assert two.alarmed
    kept = SharedValue(database, PREFIX + "default")
    kept.drop()
    assert DriftGuard(kept, 0.05).watch.audits == 0
    database.close()


def test_a_watch_of_another_risk_begins_anew(url: str) -> None:
    database = open_database(url)
    kept = SharedValue(database, PREFIX + "a")
    first = DriftGuard(kept, 0.05)
    for _ in range(5):
        first.observe(0.0)
    assert DriftGuard(SharedValue(database, PREFIX + "a"), 0.05).watch.audits == 5
    assert DriftGuard(SharedValue(database, PREFIX + "a"), 0.1).watch.audits == 0
    assert DriftGuard(SharedValue(database, PREFIX + "b"), 0.05).watch.audits == 0
    assert Watch.restored(first.watch.state).audits == 5
    assert count_audits(database).steps == 0  # of which nothing was recorded here
    database.close()
