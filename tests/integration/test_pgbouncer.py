"""PostgreSQL behind PgBouncer in transaction mode: nothing is kept in a session; names are held by one process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from agentcascade._util.ports import free_port
from agentcascade.retrievers.pgvector import PgvectorRetriever
from agentcascade.storage import open_database
from agentcascade.storage.engine import POOLED
from agentcascade.storage.exclusive import hold
from agentcascade.storage.keys import Keys
from agentcascade.storage.shared_value import SharedValue
from tests.waiting import until

BINARY = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture
def pooled_url(postgres_url: str) -> Iterator[str]:
    """The database through a pooler with two connections, which clients have for a transaction each."""
    with pooler(postgres_url, 2) as url:
        yield url


@contextmanager
def pooler(direct: str, connections: int) -> Iterator[str]:
    if BINARY is None:
        pytest.skip("no pgbouncer here: apt-get install pgbouncer")
    url, port, folder = make_url(direct), free_port(), Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    folder.chmod(0o755)  # as root it runs as another user
    (folder / "users").write_text(f'"{url.username}" "{url.password}"\n', encoding="utf-8")
    settings = {
        "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "plain",
        "auth_file": folder / "users", "pool_mode": "transaction", "default_pool_size": connections,
    }  # fmt: skip
    lines = [f"{name} = {value}" for name, value in settings.items()]
    text = "\n".join(["[databases]", f"* = host={url.host} port={url.port}", "[pgbouncer]", *lines])
    (folder / "pgbouncer.ini").write_text(f"{text}\n", encoding="utf-8")
    as_user = ["-u", "nobody"] if os.getuid() == 0 else []
    process = subprocess.Popen([BINARY, "-q", *as_user, str(folder / "pgbouncer.ini")])

    def listens() -> bool:
        assert process.poll() is None
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(listens)
        yield url.set(port=port).render_as_string(hide_password=False)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def with_digit(digit: str, before: str | None) -> str:
    return f"{before or ''}{digit}"


def test_statements_of_many_clients_go_over_few_connections(pooled_url: str) -> None:
    with closing(open_database(pooled_url)) as here, closing(open_database(pooled_url)) as there:
        for number in range(8):  # more often than after which a statement is prepared
            for database in (here, there):
                SharedValue(database, "v").change(partial(with_digit, str(number)))
        _, token = Keys(here).create("boss", admin=True)
        assert Keys(there).authenticate(token).admin
        assert SharedValue(here, "v").read() == "0011223344556677"


def test_a_name_is_held_by_one_and_free_when_its_holder_lets_go(pooled_url: str) -> None:
    with closing(open_database(pooled_url)) as here, closing(open_database(pooled_url)) as there:
        release = hold(here, "task")
        assert release is not None
        for _ in range(4):
            assert hold(there, "task") is None
            with there.begin() as connection:
                connection.exec_driver_sql("SELECT 1")
        release()
        again = hold(there, "task")
        assert again is not None
        assert hold(here, "task") is None
        again()


def test_a_name_that_is_held_keeps_no_snapshot(pooled_url: str, postgres_url: str) -> None:
    with closing(open_database(pooled_url)) as here, closing(open_database(postgres_url)) as direct:
        release = hold(here, "task")
        assert release is not None
        held = "SELECT backend_xmin FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        with direct.reading() as connection:
            assert connection.execute(text(held)).scalars().all() == [None]  # else no dead row would be vacuumed
        release()


def test_pgvector_makes_its_indexes_through_a_pooler_and_searches_by_its_own_settings(
    pgvector_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pgvector", reason="needs the extra `pgvector`")
    keys, size, clients = np.random.default_rng(0).normal(size=(600, 24)).astype(np.float32), 600, range(3)
    with pooler(pgvector_url, 4) as url, ExitStack() as stack:
        opened = [stack.enter_context(closing(open_database(url))) for _ in clients]
        indexes = [PgvectorRetriever(24, database=one, space="pooled", exact_below=40) for one in opened]
        rows = ",".join(f"({i}, 't{i}', 'd{i}')" for i in range(size))
        with opened[0].begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO trajectories (pk, id, digest, namespace, goal, plan, category, model, success, "
                    "length, metadata, created_at, goal_key, plan_key, episode) SELECT v.*, '', '', '', '', '', "
                    f"true, 1, '{{}}', now(), '', '', '' FROM (VALUES {rows}) AS v"
                )
            )
        for number, index in enumerate(indexes):
            index.add(f"space {number}", np.arange(size) + size * number, np.arange(size), keys)
        with ThreadPoolExecutor(len(clients)) as threads:
            for made in [threads.submit(index.settle) for index in indexes]:
                made.result(120)
        with closing(open_database(pgvector_url)) as direct, direct.reading() as connection:
            assert not connection.execute(text("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'")).all()
    monkeypatch.setattr(PgvectorRetriever, "_exact", None)  # asked where too little is found by an index
    with pooler(pgvector_url, 1) as url, closing(open_database(url)) as here, closing(open_database(url)) as there:
        index = PgvectorRetriever(24, database=here, space="pooled", exact_below=40)
        assert len(index.search("space 1", keys[0], 4)) == 4
        with there.reading() as connection:
            for setting in ("hnsw.ef_search = 1", "hnsw.iterative_scan = off", "enable_sort = off"):  # so it is used
                connection.exec_driver_sql(f"SET {setting}")
        assert len(index.search("space 1", keys[0], 4)) == 4
        with there.reading() as connection:
            assert connection.execute(text("SHOW hnsw.ef_search")).scalar() == "1"


def test_a_server_that_is_asked_itself_is_no_pooler(postgres_url: str) -> None:
    with closing(open_database(postgres_url)) as database, database.begin() as connection:
        assert connection.info[POOLED] is False
