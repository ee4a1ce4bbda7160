"""A whole run on a Ray cluster of its own, apart from those at an address.

A process that was at a cluster, and then had one of its own, gets no actors from the first any more (Ray 2).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import comparable, play

from agentcascade.assembly.components import find_module
from agentcascade.bench.policies import POLICIES
from agentcascade.bench.pools.base import LOCAL_CLUSTER
from agentcascade.bench.statistics import summarise_policies
from tests.inline_pool import plays_here  # noqa: F401

pytestmark = pytest.mark.usefixtures("plays_here")  # what is compared with Ray's workers


@pytest.mark.skipif(not find_module("ray"), reason="needs ray: pip install 'agentcascade[ray]'")
@pytest.mark.slow
def test_two_ray_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    alone = play(tmp_path / "alone", workers=1)
    together = play(tmp_path / "together", ray=LOCAL_CLUSTER)
    assert comparable(together) == comparable(alone)
    assert (tmp_path / "together" / "episodes.jsonl").read_bytes().count(b"\n") == len(alone)

    def rows(records: Any) -> list[Any]:
        return summarise_policies(sorted(records, key=lambda r: r.key), POLICIES)

    assert [(r.policy, r.accuracy, r.dollars_per_episode) for r in rows(together)] == [
        (r.policy, r.accuracy, r.dollars_per_episode) for r in rows(alone)
    ]
    ray = sys.modules["ray"]
    assert not ray.is_initialized(), "a run leaves no connection behind"
