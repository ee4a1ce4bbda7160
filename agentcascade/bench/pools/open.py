"""Open a worker pool: processes of this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentcascade.bench.pools.base import Pool


def open_pool(workers: int, start: Callable[..., None], *arguments: Any, ray: str | None = None) -> Pool:
    """Open a pool of `workers`, on each of which ``start(*arguments)`` has run; all of it picklable.

    `ray` is the address of a cluster (``host:port``, ``ray://host:port``, ``auto``) or `LOCAL`. Raises `MissingExtra`
    and `BenchError`.
    """
    if ray is None:
        from agentcascade.bench.pools.local import ProcessPool

        return ProcessPool(workers, start, *arguments)
    from agentcascade.bench.pools.ray import RayPool

    return RayPool(ray, workers, start, *arguments)


def check_pool(ray: str | None) -> None:
    """Raises what `open_pool` would, as far as it can be known beforehand."""
    if ray is not None:
        from agentcascade.bench.pools import ray as ray_pool

        ray_pool.check_ray_address(ray)
