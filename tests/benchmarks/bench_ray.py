"""One process, two processes and two Ray workers on the same episodes: seconds, and whether they gave the same.

The suite counts to three and costs nothing; its teacher answers after a quarter of a second, as one behind an API does,
and that is what the workers share out. Starting workers, and for Ray a cluster on this machine, is in the seconds. How
work shares out that keeps the processor busy is measured with a real suite:

    time agentcascade bench alfworld --episodes 24 --demos 30 --workers 1
    time agentcascade bench alfworld --episodes 24 --demos 30 --workers 2 --ray local
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_runs import comparable, play

from agentcascade.assembly.components import find_module
from agentcascade.bench.suites.protocol import Task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=80)
    episodes = parser.parse_args().episodes
    tasks = [Task(f"task {i}", f"count task{i}") for i in range(episodes)]
    ways: dict[str, tuple[int, str | None]] = {"one process": (1, None), "two processes": (2, None)}
    if find_module("ray"):
        ways["two Ray workers"] = 2, "local"
    seconds, first = {}, None
    for name, (workers, ray) in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            records = play(
                Path(folder),
                policies=("teacher",),
                tasks=tasks,
                seeds=(0,),
                workers=workers,
                ray=ray,
                teacher="tiny_suite:DistantTeacher",
            )
            seconds[name] = time.perf_counter() - started
        first = first or comparable(records)
        same = "the same records" if comparable(records) == first else "OTHER RECORDS"
        ratio = seconds["one process"] / seconds[name]
        print(f"{name}: {episodes} episodes in {seconds[name]:.1f} s, {ratio:.2f} times one process, {same}")


if __name__ == "__main__":
    main()
