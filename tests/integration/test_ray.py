"""Whole runs on real Ray clusters of two workers: what they give, and what becomes of a worker that dies."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from tiny_runs import SETTINGS, TASKS, comparable, play

from agentcascade.assembly.components import find_module
from agentcascade.bench.pools.base import LOCAL_CLUSTER
from agentcascade.bench.pools.open import check_pool
from agentcascade.bench.records import EpisodeRunFolder
from agentcascade.bench.suites.protocol import Task
from agentcascade.cli import main
from agentcascade.errors import BenchError, ConfigError, MissingExtra
from agentcascade.storage import open_database, trajectories
from tests.inline_pool import plays_here  # noqa: F401

pytestmark = pytest.mark.usefixtures("plays_here")  # what is compared with Ray's workers

NO_BANK = "postgresql://nobody@127.0.0.1:1/none"
"""Which a teacher alone never opens"""
needs_ray = pytest.mark.skipif(not find_module("ray"), reason="needs ray: pip install 'agentcascade[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of two machines, as far as Ray knows, with a CPU each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made.address
    made.shutdown()


@pytest.fixture(autouse=True)
def _disconnected() -> Iterator[None]:
    yield
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized(), "a run leaves no connection behind"


@needs_ray
@pytest.mark.slow
def test_machines_that_share_no_files_share_a_bank_in_postgresql(
    cluster: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(BenchError, match=r"the bank is a file of this machine, .* --bank postgresql://"):
        play(tmp_path / "files", ray=cluster, policies=("cascade",), seeds=(0, 1))
    assert not (tmp_path / "files" / "episodes.jsonl").read_bytes()
    url = request.getfixturevalue("postgres_url")
    open_database(url).close()  # with tables of its own
    shared = play(tmp_path / "shared", ray=cluster, bank=url)
    assert comparable(shared) == comparable(play(tmp_path / "alone", workers=2))
    main_bank = open_database(url)
    with main_bank.begin() as connection:
        assert not trajectories.read_index_rows(connection, 0), "a run leaves the database's own bank as it is"
    main_bank.close()


@needs_ray
@pytest.mark.slow
def test_an_episode_whose_ray_worker_died_is_played_again_and_counted_once(cluster: str, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    tasks = [*TASKS, Task("deadly", f"die once {marker}")]
    records = play(tmp_path / "run", policies=("teacher",), tasks=tasks, seeds=(0,), ray=cluster, bank_is=NO_BANK)
    assert marker.exists()
    assert sorted(r.task for r in records) == ["deadly", *(t.id for t in TASKS)]
    assert all(r.success and not r.error for r in records)
    assert (tmp_path / "run" / "episodes.jsonl").read_bytes().count(b"\n") == len(tasks)


@needs_ray
@pytest.mark.slow
def test_workers_that_ray_gives_up_before_they_run_are_asked_for_again(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.core.generated.common_pb2 import ActorDiedErrorContext
    from ray.exceptions import ActorDiedError

    from agentcascade.bench.pools.ray import RayPool

    waits = RayPool._nodes
    asked: list[int] = []

    def given_up(pool: RayPool) -> set[str]:
        asked.append(1)
        if len(asked) < 3:
            raise ActorDiedError(ActorDiedErrorContext(actor_id=bytes(16), never_started=True))
        return waits(pool)

    monkeypatch.setattr(RayPool, "_nodes", given_up)
    with RayPool(cluster, 2, print) as pool:
        assert sorted(pool.map(abs, range(-9, 0))) == [*range(1, 10)]
    assert len(asked) == 3


@needs_ray
@pytest.mark.slow
def test_a_task_that_kills_every_ray_worker_ends_the_run_and_keeps_the_rest(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentcascade.bench.pools import ray as ray_pool

    monkeypatch.setattr(ray_pool, "ATTEMPTS", 1)
    tasks = [*TASKS, Task("deadly", "die")]
    with pytest.raises(BenchError, match=r"worker processes died .* continue with --resume"):
        play(tmp_path, policies=("teacher",), tasks=tasks, seeds=(0,), workers=1, ray=cluster, bank_is=NO_BANK)
    records = play(tmp_path, policies=("teacher",), seeds=(0,), workers=1)
    assert sorted(r.task for r in records) == [t.id for t in TASKS]


@needs_ray
@pytest.mark.slow
def test_a_run_that_was_stopped_on_ray_goes_on_without(
    cluster: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url")
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "run", stop_after=9, ray=cluster, bank=url)
    store = EpisodeRunFolder(tmp_path / "run", SETTINGS, resume=True)
    assert len(list(store)) == 9
    store.close()
    assert comparable(play(tmp_path / "run", bank=url)) == comparable(play(tmp_path / "whole"))


RUN = """
import sys
sys.path[:0] = {folders!r}
from pathlib import Path
from agentcascade.bench.suites.protocol import Task
from tiny_runs import play
play(Path({folder!r}), policies=("teacher",), tasks=[Task(str(i), f"count {{i}}") for i in range(400)], ray="local")
"""


@needs_ray
@pytest.mark.slow
def test_ctrl_c_ends_a_run_on_ray_and_its_cluster(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    program = RUN.format(folders=[str(Path(__file__).parents[1])], folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    episodes, give_up = folder / "episodes.jsonl", time.monotonic() + 240
    while not (episodes.exists() and episodes.read_bytes().count(b"\n") >= 20) and time.monotonic() < give_up:
        time.sleep(0.02)
    cluster = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in p.name() for p in cluster)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, error
    assert "KeyboardInterrupt" in error
    assert not psutil.wait_procs(cluster, timeout=120)[1]
    kept = episodes.read_bytes().count(b"\n")
    assert 20 <= kept < 800
    store = EpisodeRunFolder(folder, SETTINGS, resume=True)
    assert len({r.key for r in store}) == kept
    store.close()


@needs_ray
@pytest.mark.slow
def test_more_workers_than_cpus_and_broken_suites_are_told(cluster: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"the Ray cluster has 2 CPUs, one for each worker: --workers 2 at most"):
        play(tmp_path / "many", workers=3, ray=cluster)
    with pytest.raises(ConfigError, match="'no:Suite' cannot be loaded"):
        play(tmp_path / "none", policies=("teacher",), suite="no:Suite", ray=cluster, bank_is=NO_BANK)


@needs_ray
@pytest.mark.slow
def test_replay_on_ray_prints_the_same(cluster: str, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with log.open("w") as file:
        for i in range(60):
            samples = ["a", "a", "a" if i % 3 else "b"]
            gold = "a" if i % 5 else "b"
            step = {"id": i, "student": samples, "gold": gold, "teacher": gold}
            file.write(json.dumps(step) + "\n")

    def replay(*more: str) -> Any:
        done = CliRunner().invoke(main, ["replay", "--log", str(log), "--n", "2", "--n", "3", "--json", *more])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    alone = replay()
    assert len(alone) == 5
    assert replay("--ray", cluster) == alone


def test_without_a_cluster_at_the_address_it_is_told_at_once() -> None:
    pytest.importorskip("ray", reason="needs ray: pip install 'agentcascade[ray]'")
    with socket.socket() as bound:  # not listening
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        for given in (address, f"ray://{address}"):
            with pytest.raises(BenchError, match=rf"no Ray cluster answers at {given} .*ray start --head"):
                check_pool(given)
    for wrong in ("nowhere", "host:", ":6379", "host:99999999", ""):
        with pytest.raises(BenchError, match="is no address: give HOST:PORT"):
            check_pool(wrong)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r'--ray needs ray: pip install "agentcascade\[ray\]"'):
        check_pool(LOCAL_CLUSTER)
    (tmp_path / "log.jsonl").write_text('{"id": 1, "student": ["a", "a"], "gold": "a", "teacher": "a"}\n')
    done = CliRunner().invoke(main, ["replay", "--log", str(tmp_path / "log.jsonl"), "--n", "2", "--ray", "local"])
    assert done.exit_code == 1
    assert 'pip install "agentcascade[ray]"' in done.output


@pytest.mark.parametrize("url", ["sqlite:///bank.db", "mysql://host/db"])
def test_a_shared_bank_is_a_postgresql_database(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a bank that several machines share is a PostgreSQL database"):
        play(tmp_path, bank=url)
