"""Logs of tier choices: what goes in comes out, groups stay whole, and every unusable row is named."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentcascade.errors import InvalidRequest
from agentcascade.memory.combinations import COMBINATIONS, combination_number, combination_tiers
from agentcascade.routers.tier.log import TierLog, load_log
from agentcascade.routers.tier.log_import import from_jsonl, from_recalls, from_rows, to_jsonl
from agentcascade.routers.tier.replay import simulate_log
from agentcascade.types import MODULES, TIERS, ModuleName, ModuleRun, Recall
from tests.tier_sweeps import make_sweep

TEXTS = {"questions", "groups", "about", "metrics"}


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of length 4 that depend on the text."""
    vectors = [[len(t), sum(map(ord, t)) % 97, 1, t.count("e")] for t in texts]
    found = np.array(vectors, dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def same(one: TierLog, other: TierLog, but: Sequence[str] = ()) -> None:
    for name in {f.name for f in fields(TierLog)} - TEXTS - set(but):
        a, b = getattr(one, name), getattr(other, name)
        if a is None or b is None:
            assert a is b, name
        else:
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert (one.questions, one.groups) == (other.questions, other.groups)
    assert one.metrics.keys() == other.metrics.keys()
    for name, values in one.metrics.items():
        np.testing.assert_array_equal(values, other.metrics[name])


@pytest.fixture(scope="module")
def sweep() -> TierLog:
    return make_sweep(12, 6)


numbers = st.floats(-1e12, 1e12, allow_nan=False)
chances = st.floats(1e-3, 1)
rows = st.fixed_dictionaries(
    {
        "question": st.sampled_from(["Who?", "Why is that so?", "", "Où ça, 東京? \ud800 \x00", "When?"]),
        "tiers": st.fixed_dictionaries({m: st.sampled_from(TIERS) for m in MODULES}),
        "score": st.floats(0, 1),
        "cost": numbers,
    },
    optional={
        "group": st.text(max_size=3),
        "metrics": st.dictionaries(st.sampled_from(["tokens", "recall", "ünï/code"]), numbers | st.integers(0, 9)),
    },
)
known = st.one_of(
    st.just({}),
    st.builds(lambda p: {"propensity": p}, chances),
    st.builds(lambda ps: {"propensities": dict(zip(MODULES, ps))}, st.lists(chances, min_size=5, max_size=5)),
)
logs = st.lists(st.builds(lambda row, p: {**row, **p}, rows, known), min_size=1, max_size=12)


@given(logs)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_back_as_they_went_in(tmp_path: Path, given: list[dict[str, Any]]) -> None:
    log = from_rows(given, embed, {"encoder": "toy", "cost_unit": "tokens"})
    assert len(log) == len(given)
    for i, row in enumerate(given):
        asked = log.question[i]
        assert (log.questions[asked], log.groups[asked]) == (row["question"], row.get("group", row["question"]))
        assert dict(zip(MODULES, combination_tiers(int(log.combinations[i])))) == row["tiers"]
        assert (log.score[i], log.cost[i]) == (row["score"], row["cost"])
        wanted = row.get("propensity", math.prod(row.get("propensities", {"": math.nan}).values()))
        found = math.nan if log.propensity is None else log.propensity[i]
        assert found == pytest.approx(wanted, nan_ok=True)
    log.save(tmp_path / "log.npz")
    saved = load_log(tmp_path / "log.npz")
    same(saved, log)
    assert saved.about == log.about == {"encoder": "toy", "cost_unit": "tokens", "dimension": 4}
    to_jsonl(log, tmp_path / "log.jsonl")
    again = from_jsonl(tmp_path / "log.jsonl", embed)
    same(again, log)


def test_a_saved_sweep_is_the_same_sweep(sweep: TierLog, tmp_path: Path) -> None:
    sweep.save(tmp_path / "deeper" / "log.npz")
    found = load_log(tmp_path / "deeper" / "log.npz")
    same(found, sweep)
    assert found.about == sweep.about
    assert [p.name for p in (tmp_path / "deeper").iterdir()] == ["log.npz"], "nothing else is left behind"


def test_a_part_is_saved_without_the_vectors_of_the_rest(sweep: TierLog, tmp_path: Path) -> None:
    part = simulate_log(sweep, "uniform", 1).select([2, 5])
    part.save(tmp_path / "part.npz")
    found = load_log(tmp_path / "part.npz")
    assert len(found.vectors) <= 6
    same(found, part, but=["vectors", "reads"])
    for row in range(len(part)):
        for module in MODULES:
            for a, b in zip(part.state(row, module), found.state(row, module)):
                np.testing.assert_array_equal(a, b)


def test_a_state_is_the_question_and_what_the_module_would_read(sweep: TierLog) -> None:
    row = int(sweep.table_rows()[3, combination_number(["high", "low", "mid", "low", "high"])])
    states = {module: sweep.state(row, module) for module in MODULES}
    assert {s.question for s in states.values()} == {"question 3"}
    first = 3 * 85
    where: dict[ModuleName, int] = {
        "filter": 0,
        "entity": 1 + 2,
        "temporal": 1 + 2,
        "topic": 1 + 2,
        "summary": 4 + 2 * 27 + 3,
    }
    for module, place in where.items():
        np.testing.assert_array_equal(states[module].read, sweep.vectors[first + place].astype(np.float32))
        assert states[module].read.dtype == np.float32
    blind = replace(sweep, reads=np.full_like(sweep.reads, -1))
    assert not blind.state(row, "summary").read.any()


def test_combinations_count_from_all_low_to_all_high() -> None:
    assert combination_number(["low"] * 5) == 0
    assert combination_number(["high"] * 5) == combination_number([2] * 5) == 242
    assert combination_number(["low", "low", "low", "mid", "high"]) == 5
    assert all(combination_number(combination_tiers(i)) == i for i in range(COMBINATIONS))


def test_a_sweep_has_every_combination_of_every_question_once(sweep: TierLog) -> None:
    assert sweep.is_sweep
    mixed = sweep.rows(np.random.default_rng(0).permutation(len(sweep)))
    assert mixed.is_sweep
    for a, b in zip(sweep.tables(), mixed.tables()):
        assert a.shape == (12, 243)
        np.testing.assert_array_equal(a, b)
    twice = np.arange(len(sweep))
    twice[7] = 8
    for part in (sweep.rows(twice), sweep.rows(np.arange(242)), simulate_log(sweep)):
        assert not part.is_sweep
        with pytest.raises(InvalidRequest, match="not all 243 combinations of each"):
            part.tables()


def test_select_keeps_questions_with_their_rows(sweep: TierLog) -> None:
    part = sweep.select([5, 2])
    assert part.questions == ["question 5", "question 2"]
    assert part.is_sweep
    np.testing.assert_array_equal(part.tables()[0], sweep.tables()[0][[5, 2]])
    np.testing.assert_array_equal(part.query, sweep.query[[5, 2]])
    np.testing.assert_array_equal(part.score[part.rows_of(1)], sweep.score[sweep.rows_of(2)])
    np.testing.assert_array_equal(part.state(0, "summary").read, sweep.state(2 * 243, "summary").read)
    masked = sweep.select(np.array([i in (2, 5) for i in range(12)]))
    assert masked.questions == ["question 2", "question 5"]
    with pytest.raises(InvalidRequest, match="named twice"):
        sweep.select([1, 1])
    with pytest.raises(InvalidRequest, match="the log is empty"):
        sweep.select([])


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=4), st.integers(0, 5))
@settings(max_examples=40)
def test_no_group_is_in_two_parts(shares: list[float], seed: int) -> None:
    log = simulate_log(make_sweep(12, 6), "uniform", 1)
    parts = log.split([s / sum(shares) for s in shares], seed)
    groups = [set(part.groups) for part in parts]
    assert all(groups)
    assert sorted(name for found in groups for name in found) == sorted(set(log.groups)), "each in one"
    assert sum(len(part) for part in parts) == len(log)


def test_splits_are_drawn_with_the_seed_or_named(sweep: TierLog) -> None:
    first, second = sweep.split([0.5, 0.2], seed=3)
    assert (len(set(first.groups)), len(set(second.groups))) == (3, 1)
    assert [p.groups for p in sweep.split([0.5, 0.2], seed=3)] == [first.groups, second.groups]
    assert len({tuple(sorted(set(sweep.split([0.5], seed)[0].groups))) for seed in range(9)}) > 3
    named = sweep.split([["group 1", "group 4"], ["group 0"]])
    assert [sorted(set(p.groups)) for p in named] == [["group 1", "group 4"], ["group 0"]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([0.8, 0.4], r"shares are \[0.8, 0.4\]"),
        ([0.5, 0.0], "shares are"),
        ([], "shares are"),
        ([0.1] * 7, r"6 group\(s\) for 7 parts"),
        ([["group 1"], ["group 1"]], "'group 1' is in two parts"),
        ([["grup 1"]], r"no group 'grup 1': did you mean 'group 1'\?"),
    ],
)
def test_impossible_splits(sweep: TierLog, parts: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        sweep.split(parts)


def poked(values: np.ndarray, row: int, value: Any) -> np.ndarray:
    found = values.copy()
    found[row] = value
    return found


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("score", math.nan, "row 7: score nan is no number: leave the row out, or score it again"),
        ("score", math.inf, "row 7: score inf is no number"),
        ("score", 1.5, "row 7: score 1.5 is not between 0 and 1"),
        ("score", -0.1, "row 7: score -0.1 is not"),
        ("cost", math.nan, "row 7: cost nan is no number"),
        ("cost", -math.inf, "row 7: cost -inf is no number"),
        ("propensity", 0.0, "row 7: propensity 0.0 is no probability above 0: leave it out"),
        ("propensity", 1.01, "row 7: propensity 1.01"),
        ("propensity", -0.5, "row 7: propensity -0.5"),
        ("tiers", 3, r"row 7: tiers \[3 3 3 3 3\] are not all 0, 1 or 2"),
        ("tiers", -1, "row 7: tiers"),
        ("question", 12, "row 7: question 12 names no question"),
        ("reads", 12 * 85, "row 7: reads .* name no vector"),
        ("reads", -2, "row 7: reads"),
    ],
)
def test_what_cannot_be_learned_from_is_named(sweep: TierLog, name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        replace(sweep, **{name: poked(getattr(sweep, name), 7, value)})  # type: ignore[arg-type]


def test_parts_that_do_not_fit_are_named(sweep: TierLog) -> None:
    for change, message in (
        ({"vectors": np.zeros((len(sweep.vectors), 384), np.float16)}, r"vectors has size \(384,\), not \(6,\)"),
        ({"query": sweep.query[:5]}, r"query has size \(5,\), not \(12,\)"),
        ({"groups": ["a"]}, "groups has size 1, not 12"),
        ({"score": sweep.score[:9]}, "score has size"),
        ({"metrics": {"tokens": sweep.score[:9]}}, "metric tokens has size"),
        ({"propensity": sweep.score[:9]}, "propensity has size"),
        ({"query": poked(sweep.query, 4, math.nan)}, "question 4: its vector holds values that are no numbers"),
        ({"propensities": np.full((len(sweep), 5), 0.5)}, "row 0: propensity .* is not the product"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            replace(sweep, **change)


def test_missing_propensities_are_allowed_until_they_are_needed(sweep: TierLog) -> None:
    log = replace(sweep, propensity=None)
    with pytest.raises(InvalidRequest, match=r"log with memory.router random or memory.explore above 0"):
        log.known_propensity()
    assert set(log.known_propensity(assume_uniform=True)) == {1 / 243}
    assert sweep.propensity is not None
    gaps = replace(sweep, propensity=poked(sweep.propensity, 3, math.nan))
    with pytest.raises(InvalidRequest, match=r"missing in 1 of 2916, first row 3"):
        gaps.known_propensity()


def test_other_files_are_no_logs(tmp_path: Path, sweep: TierLog) -> None:
    with pytest.raises(InvalidRequest, match="there is no log"):
        load_log(tmp_path / "nothing.npz")
    text = tmp_path / "text.npz"
    text.write_text("hello")
    other = tmp_path / "other.npz"
    np.savez(other, a=np.zeros(3))
    cut = tmp_path / "cut.npz"
    sweep.save(cut)
    cut.write_bytes(cut.read_bytes()[:20_000])
    for path in (text, other, cut, tmp_path):
        with pytest.raises(InvalidRequest, match=r"is no log of tier choices|cannot be read"):
            load_log(path)


GOOD = {"question": "Who?", "tiers": dict.fromkeys(MODULES, "low"), "score": 0.5, "cost": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": None}, "log.jsonl line 3 has no score: it needs question, tiers, score, cost"),
        ({"score": math.nan}, "log.jsonl line 3: score is nan: leave the row out, or score it again"),
        ({"score": "good"}, "log.jsonl line 3: score is 'good': give a number"),
        ({"score": 80}, "log.jsonl line 3: score is 80.0: scale it to 0 to 1"),
        ({"cost": math.inf}, "log.jsonl line 3: cost is inf"),
        ({"tiers": "low"}, "log.jsonl line 3: tiers is 'low': give an object"),
        ({"tiers": {"filter": "low"}}, "log.jsonl line 3: tiers lacks entity, temporal, topic, summary"),
        ({"tiers": {**GOOD["tiers"], "sumary": "low"}}, r"tiers.sumary: no such module: did you mean 'summary'\?"),  # type: ignore[dict-item]
        ({"tiers": {**GOOD["tiers"], "topic": "hgh"}}, r"line 3: tiers.topic is 'hgh': did you mean 'high'\?"),  # type: ignore[dict-item]
        ({"propensity": 0}, "log.jsonl line 3: propensity is 0.0: a probability above 0"),
        ({"propensity": 1.5}, "log.jsonl line 3: propensity is 1.5"),
        ({"propensities": {"filter": 0.5}}, "line 3: propensities lacks entity"),
        ({"propensities": dict.fromkeys(MODULES, 0)}, "line 3: propensities.filter is 0.0"),
        ({"propensities": dict.fromkeys(MODULES, 0.5), "propensity": 0.5}, "multiply to 0.03125: give one"),
        ({"metrics": {"tokens": "many"}}, "line 3: metrics.tokens is 'many': give a number"),
        ({"metrics": [1]}, r"line 3: metrics is \[1\]: give an object"),
        ({"reward": 1}, "line 3: the field 'reward' is unknown: known:"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps({**GOOD, **change}) + "\n")
    with pytest.raises(InvalidRequest, match=message):
        from_jsonl(path, embed)


def test_what_is_no_jsonl_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for content, message in (
        (b"", "the log is empty"),
        (b"{", "log.jsonl line 1 is not JSON"),
        (b"[1]", "log.jsonl line 1 is no object"),
        (b"\xff\xfe", "cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidRequest, match=message):
            from_jsonl(path, embed)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        from_jsonl(tmp_path / "nothing.jsonl", embed)
    with pytest.raises(InvalidRequest, match=r"vectors of shape \(1,\) for 1 questions"):
        from_rows([GOOD], lambda texts: np.zeros(1))


def recall(**changes: Any) -> Recall:
    tiers = ("low", "mid", "high", "low", "mid")
    runs = [ModuleRun(module=m, asked=t, used="low", probability=0.5, milliseconds=2) for m, t in zip(MODULES, tiers)]
    return Recall(**{"history": "h", "question": "Who?", "text": "", "runs": tuple(runs), "tokens": 40, **changes})


def test_a_live_memory_is_a_log() -> None:
    """The asked tier counts, not the one that stood in: that is what the router chose."""
    short = recall(runs=recall().runs[:3])
    pairs = [(recall(), 0.25), (recall(namespace="other"), 1.0), (recall(), None), (short, 0.5)]
    log = from_recalls(pairs, embed, {"encoder": "toy"})
    assert len(log) == 2, "without what was not scored, or not run to the end"
    assert log.groups == ["default/h", "other/h"]
    assert combination_tiers(int(log.combinations[0])) == ("low", "mid", "high", "low", "mid")
    assert log.known_propensity() == pytest.approx([0.5**5] * 2)
    assert log.propensities is not None
    assert (log.about["cost_unit"], log.about["encoder"]) == ("milliseconds", "toy")
    assert log.cost.tolist() == [10, 10]
    assert log.metrics["tokens"].tolist() == [40, 40]


def test_a_live_memory_that_pays_is_a_log_in_dollars() -> None:
    pairs = [(recall(dollars=Decimal("0.002")), 0.5), (recall(), 0.25)]
    log = from_recalls(pairs, embed)
    assert (log.about["cost_unit"], log.cost.tolist()) == ("dollars", [0.002, 0])
    assert from_recalls(pairs, embed, cost_unit="milliseconds").cost.tolist() == [10, 10]
    unknown = recall(dollars=None)
    with pytest.raises(InvalidRequest, match=f"recall {unknown.id}: its dollars are not known: set the model's price"):
        from_recalls([*pairs, (unknown, 0.5)], embed)
    broken = recall()
    with pytest.raises(InvalidRequest, match=f"recall {broken.id}: score is nan"):
        from_recalls([(broken, math.nan)], embed)
    with pytest.raises(InvalidRequest, match="the log is empty"):
        from_recalls([(recall(), None)], embed)


def test_a_sweep_of_1540_questions_loads_in_under_a_second(tmp_path: Path) -> None:
    n, d = 1540, 384
    row = np.arange(n * COMBINATIONS)
    question, number = row // COMBINATIONS, row % COMBINATIONS
    first = 85 * question
    tiers = np.stack([number // place % 3 for place in (81, 27, 9, 3, 1)], axis=1)
    score = np.linspace(0, 1, len(row))
    log = TierLog(
        questions=[f"question {i}" for i in range(n)],
        groups=[f"group {i % 10}" for i in range(n)],
        query=np.full((n, d), d**-0.5, dtype=np.float32),
        question=question.astype(np.int32),
        tiers=tiers.astype(np.int8),
        propensity=np.full(len(row), 1 / COMBINATIONS),
        score=score,
        cost=score,
        reads=np.stack([first, first + 1 + number // 81, first + 4 + number // 3], axis=1).astype(np.int32),
        vectors=np.full((85 * n, d), 0.05, dtype=np.float16),
        metrics=dict.fromkeys(("milliseconds", "tokens", "precision", "recall"), score),
    )
    log.save(tmp_path / "log.npz")
    del log
    started = time.process_time()
    found = load_log(tmp_path / "log.npz")
    assert found.is_sweep
    assert time.process_time() - started < 5.0
    held = [getattr(found, f.name) for f in fields(TierLog)] + list(found.metrics.values())
    assert sum(x.nbytes for x in held if isinstance(x, np.ndarray)) < 200e6
