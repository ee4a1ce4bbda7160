"""PostgreSQL behind PgBouncer in transaction mode: no statement is prepared, and names are held by one process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from agentcascade._util.ports import free_port
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
    if BINARY is None:
        pytest.skip("no pgbouncer here: apt-get install pgbouncer")
    url, port, folder = make_url(postgres_url), free_port(), Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    folder.chmod(0o755)  # as root it runs as another user
    (folder / "users").write_text(f'"{url.username}" "{url.password}"\n', encoding="utf-8")
    settings = {
        "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "plain",
        "auth_file": folder / "users", "pool_mode": "transaction", "default_pool_size": 2,
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


def test_a_server_that_is_asked_itself_is_no_pooler(postgres_url: str) -> None:
    with closing(open_database(postgres_url)) as database, database.begin() as connection:
        assert connection.info[POOLED] is False
