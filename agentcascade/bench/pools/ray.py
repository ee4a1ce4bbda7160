"""Workers on a Ray cluster: actors, which Ray places, and restarts with their work when they die."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from agentcascade.bench.pools.base import LOCAL_CLUSTER, WorkersDied
from agentcascade.errors import BenchError, MissingExtra, describe

J = TypeVar("J")
R = TypeVar("R")

ATTEMPTS = 5
"""Workers that may die of the same item before it is given up"""
PROBE_SECONDS = 5
STARTS = 3
"""Times that workers are asked for where Ray gives one up before it has run"""
START_SECONDS = 300
"""Seconds within which all workers must have started, since a busy cluster makes them wait"""
OBJECT_STORE_BYTES = 256 * 2**20
"""Object store of a cluster on this machine; items and results are small"""


class _Actor:
    """One worker, with its driver's module paths as far as it has the folders."""

    def __init__(self, path: Sequence[str]) -> None:
        sys.path += [folder for folder in path if folder not in sys.path and os.path.isdir(folder)]
        self._ready = False

    def call(self, start: Callable[..., None], arguments: Sequence[Any], function: Callable[[J], R], item: J) -> R:
        """`arguments` is a reference in a list, so that Ray transfers its object once, not with every call."""
        import ray

        if not self._ready:
            start(*ray.get(arguments[0]))
            self._ready = True
        return function(item)

    def node(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())


class RayPool:
    """Pool of actors with one CPU each; the cluster's machines need this one's packages, data and keys."""

    def __init__(self, address: str, workers: int, start: Callable[..., None], *arguments: Any) -> None:
        check_ray_address(address)
        import ray

        self._ray: Any = ray
        if ray.is_initialized():
            raise BenchError("this process is connected to a Ray cluster already: call ray.shutdown() first")
        _connect(ray, address, workers)
        self._actors: list[Any] = []
        try:
            kind: Any = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=ATTEMPTS)(_Actor)
            self._start = start, [ray.put(arguments)]  # kept, for actors that start again
            here = None if address.startswith("ray://") else ray.get_runtime_context().get_node_id()
            self.shares_files = {here} == self._start_actors(kind, workers)
        except BaseException:
            self._stop()
            raise

    def _start_actors(self, kind: Any, workers: int) -> set[str]:
        """Ids of the nodes on which all of them have started."""
        for start in range(STARTS):
            self._actors = [kind.remote(sys.path) for _ in range(workers)]
            try:
                return self._nodes()
            except self._ray.exceptions.RayActorError as error:
                if start == STARTS - 1 or not _never_ran(error):
                    raise _cannot_start(error) from error
                self._kill_actors()
        raise AssertionError("unreachable")

    def _nodes(self) -> set[str]:
        requests = [actor.node.remote() for actor in self._actors]
        ready, late = self._ray.wait(requests, num_returns=len(requests), timeout=START_SECONDS)
        try:
            nodes = set(self._ray.get(ready))
        except self._ray.exceptions.RayActorError:
            raise
        except self._ray.exceptions.RayError as error:
            raise _cannot_start(error) from error
        if late:
            free = self._ray.available_resources().get("CPU", 0)
            raise BenchError(
                f"{len(late)} of {len(requests)} Ray workers did not start within {START_SECONDS} s, {free:g} CPUs are "
                "free: lower --workers, or wait for the cluster"
            )
        return nodes

    def map(self, function: Callable[[J], R], items: Iterable[J]) -> Iterator[R]:
        from ray.util import ActorPool

        pool: Any = ActorPool(self._actors)
        queue = iter(items)

        def submit(most: int) -> None:
            for item in islice(queue, most):
                pool.submit(lambda actor, item: actor.call.remote(*self._start, function, item), item)

        try:
            submit(2 * len(self._actors))  # a short queue: work may be called off
            while pool.has_next():
                result = pool.get_next_unordered()
                submit(1)
                yield result
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except self._ray.exceptions.RayActorError as error:
            raise WorkersDied(describe(error), for_good=not _never_ran(error)) from error
        except self._ray.exceptions.RayError as error:
            raise BenchError(f"the Ray cluster failed ({describe(error)}): see `ray status`") from error

    def __enter__(self) -> RayPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._kill_actors()
        self._ray.shutdown()

    def _kill_actors(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []


def _never_ran(error: Exception) -> bool:
    """Whether Ray gave an actor up before it had run, which is no fault of its work."""
    return "The actor never ran" in str(error)


def _cannot_start(error: Exception) -> BenchError:
    return BenchError(
        f"a Ray worker cannot start ({describe(error)}): install the same agentcascade on every machine of the cluster"
    )


def _connect(ray: Any, address: str, workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    if address == LOCAL_CLUSTER:
        options |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, **options)
    except Exception as error:  # ray raises bare ConnectionError, RuntimeError, ValueError and ImportError
        raise BenchError(
            f"--ray {address}: {describe(error)}. Start a cluster with `ray start --head`, "
            f"or give --ray {LOCAL_CLUSTER}"
        ) from error
    cpus = ray.cluster_resources().get("CPU", 0)
    if cpus < workers:
        ray.shutdown()
        raise BenchError(f"the Ray cluster has {cpus:g} CPUs, one for each worker: --workers {cpus:g} at most")


def check_ray_address(address: str) -> None:
    """Raises `MissingExtra` without Ray, and `BenchError` where nothing listens, which Ray would try for a minute."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise MissingExtra("ray", "ray", "--ray") from error
    if address in (LOCAL_CLUSTER, "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise BenchError(f"--ray {address} is no address: give HOST:PORT, ray://HOST:PORT, auto or {LOCAL_CLUSTER}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except OSError as error:
        raise BenchError(
            f"no Ray cluster answers at {address} ({describe(error)}): start one with `ray start --head`, or give "
            f"--ray {LOCAL_CLUSTER}"
        ) from error
