"""Counts of tier combinations follow from the modules: a sixth module is a sixth module everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import agentcascade
from agentcascade.memory.combinations import COMBINATIONS, PLACES, combination_number, combination_tiers

ROOT = Path(agentcascade.__file__).parent
COUNTED = ("memory", "routers/tier", "bench/memory", "cli")
LITERALS = re.compile(r"\b(?:243|242)\b|\b81\b|\b3(?:\.0)? ?\*\* ?\(?-?[45]|range\(5\)|\(rows, 5\)|, 5\), |\(3,\) \* 5")

SIX = """
import agentcascade.types as types
types.MODULES = (*types.MODULES[:-1], "place", types.MODULES[-1])
import numpy as np
from agentcascade.bench.memory.evaluation import combination_name, greedy_combinations
from agentcascade.bench.memory.training import outcome_table
from agentcascade.memory.combinations import COMBINATIONS, EXTRACTORS, PLACES, STAGES, combination_tiers
from agentcascade.routers.tier.baselines import FixedTiers, RandomTiers
from agentcascade.routers.tier.log import TierLog
from agentcascade.routers.tier.replay import exact_value, simulate_log

assert (COMBINATIONS, EXTRACTORS[-1], STAGES) == (729, "place", (0, 1, 1, 1, 1, 2))
n, d, rng = 2, 4, np.random.default_rng(0)
rows, states = np.arange(n * COMBINATIONS), 1 + 3 + COMBINATIONS // 3
question, combination = rows // COMBINATIONS, rows % COMBINATIONS
first = question * states
tiers = combination[:, None] // np.array(PLACES) % 3
log = TierLog(
    questions=["a", "b"], groups=["a", "b"], query=np.eye(n, d, dtype=np.float32), question=question.astype(np.int32),
    tiers=tiers.astype(np.int8), propensity=None, score=rng.random(len(rows)), cost=tiers.sum(axis=1).astype(float),
    reads=np.stack([first, first + 1 + combination // PLACES[0], first + 4 + combination // 3], 1).astype(np.int32),
    vectors=rng.random((n * states, d)).astype(np.float16),
)
table = outcome_table(log)
assert table.score.shape == (2, 729) and table.extracted.shape == (2, 243, d)
high = exact_value(log, FixedTiers("high"))
assert high.cost == 12 and np.allclose(high.values, table.score[:, -1])
assert np.isclose(exact_value(log, RandomTiers()).score, table.score.mean())
assert greedy_combinations(FixedTiers("mid"), table, 0.0).tolist() == [364, 364]
assert combination_tiers(364) == ("mid",) * 6
assert combination_name(5) == "low-low-low-low-mid-high"
played = table.play(np.array([0, 1]), lambda module, query, read, tradeoff: np.full(2, module % 3), np.zeros(2))
assert played.tiers.tolist() == [[0, 1, 2, 0, 1, 2]] * 2
assert np.isclose(simulate_log(log, seed=1).propensity, 3.0**-6).all()
"""


def test_a_sixth_module_is_one_everywhere() -> None:
    done = subprocess.run([sys.executable, "-c", SIX], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_count_of_combinations_is_written_out() -> None:
    files = [path for folder in COUNTED for path in (ROOT / folder).glob("*.py")]
    assert len(files) > 40
    written = [
        f"{path.name}: {line}" for path in files for line in path.read_text().split("\n") if LITERALS.search(line)
    ]
    assert written == []


def test_numbers_and_tiers_are_the_same_combination() -> None:
    assert [combination_number(combination_tiers(number)) for number in range(COMBINATIONS)] == [*range(COMBINATIONS)]
    assert PLACES[-1] == 1
