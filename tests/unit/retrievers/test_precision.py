"""int8 embeddings: the space of float32, chosen by measurement, never in float32's way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcascade.assembly.components import make_embedder
from agentcascade.bank.bank import Bank
from agentcascade.errors import ConfigError
from agentcascade.retrievers import onnx, precision
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.retrievers.onnx import OnnxEmbedder
from agentcascade.storage import open_database
from agentcascade.types import Situation, Step, Trajectory

OBSERVATIONS = [
    f"You {how} the {place} {i}. {seen}"
    for i, (how, place, seen) in enumerate(
        (how, place, seen)
        for how in ("open", "arrive at", "close")
        for place in ("drawer", "fridge", "coffee table", "safe")
        for seen in ("In it, you see a mug 1.", "It is empty.", "On it are a pen 2, a CD 3 and a watch 1.", "")
    )
]


@pytest.fixture(scope="module")
def int8() -> OnnxEmbedder:
    return OnnxEmbedder(precision="int8")


@pytest.fixture(scope="module")
def float32() -> OnnxEmbedder:
    return OnnxEmbedder(precision="float32")


def test_int8_vectors_lie_by_those_of_float32(int8: OnnxEmbedder, float32: OnnxEmbedder) -> None:
    texts = [*OBSERVATIONS, "", "Käse 🧀", "SELECT " + "a, " * 600]
    theirs, ours = float32.embed(texts), int8.embed(texts)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)
    cosines = (theirs * ours).sum(axis=1)
    assert cosines.min() > 0.985
    assert np.median(cosines) > 0.995
    assert cosines.max() < 0.99999, "float32 answered"
    assert (int8.precision, int8.name, int8.dimension) == ("int8", float32.name, 384)
    for row, other in zip(int8.token_vectors(texts[:9]), float32.token_vectors(texts[:9])):
        assert (row * other).sum(axis=1).min() > 0.98


def test_an_int8_vector_does_not_depend_on_the_texts_beside_it(int8: OnnxEmbedder) -> None:
    texts = [*OBSERVATIONS[:12], "x " * 200]
    together = int8.embed(texts)
    alone = np.concatenate([int8.embed([text]) for text in texts])
    assert (together * alone).sum(axis=1).min() > 0.9999


def test_many_texts_are_embedded_on_several_cores_in_their_order(float32: OnnxEmbedder) -> None:
    several = OnnxEmbedder(precision="float32", cores=4)
    assert np.abs(several.embed(OBSERVATIONS) - float32.embed(OBSERVATIONS[::-1])[::-1]).max() < 1e-5
    assert [len(rows) for rows in several.token_vectors(OBSERVATIONS)] == [
        len(rows) for text in OBSERVATIONS for rows in float32.token_vectors([text])
    ]


async def test_a_bank_that_was_embedded_in_float32_is_searched_with_int8_and_added_to(
    int8: OnnxEmbedder, float32: OnnxEmbedder
) -> None:
    database = open_database("sqlite://")
    try:
        runs = [
            Trajectory(goal="find a mug", steps=(Step(observation=text, action=f"look {i}"),), success=True)
            for i, text in enumerate(OBSERVATIONS)
        ]
        first = Bank(database, float32, ExactRetriever(3 * 384))
        await first.add_many(runs[::2])
        both = Bank(database, int8, ExactRetriever(3 * 384))
        await both.add_many(runs[1::2])
        for i, text in enumerate(OBSERVATIONS):
            situation = Situation(goal="find a mug", observation=text)
            (found,) = (await both.retrieve(situation, 1)).demonstrations
            assert found.steps[0].action == f"look {i}"
    finally:
        database.close()


class Timed:
    """An embedder that takes `seconds` of its thread for a text."""

    def __init__(self, seconds: float, vector: Sequence[float]) -> None:
        self._seconds, self._vector = seconds, np.array(vector, dtype=np.float32)

    def embed(self, texts: Sequence[str]) -> Any:
        until = time.thread_time() + self._seconds * len(texts)
        while time.thread_time() < until:
            pass
        return np.stack([self._vector] * len(texts))


@pytest.mark.parametrize(
    ("int8", "best"),
    [
        (Timed(0.0002, [1, 0]), "int8"),
        (Timed(0.0009, [1, 0]), "float32"),  # hardly faster
        (Timed(0.0002, [0.9, 0.43]), "float32"),  # sums that saturate
    ],
)
def test_the_faster_precision_is_taken_where_it_is_near_enough_and_the_measurement_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8: Timed, best: str
) -> None:
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path))
    made = []

    def embedders() -> tuple[Any, Any]:
        made.append(1)
        return Timed(0.001, [1, 0]), int8

    assert [precision.chosen_precision("some-model", "runtime 1", embedders) for _ in range(3)] == [best] * 3
    assert made == [1]
    precision.chosen_precision("another-model", "runtime 1", embedders)
    precision.chosen_precision("some-model", "runtime 2", embedders)
    assert made == [1, 1, 1]
    for file in (tmp_path / "onnx").iterdir():
        file.write_text("{half")  # a crash, or another version's
    assert precision.chosen_precision("some-model", "runtime 1", embedders) == best


def test_float32_is_taken_where_int8_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(precision, "_setting", lambda *_: "of a test that fails")  # the models stay where they are

    def fails(*_: object) -> Path:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(onnx, "int8_file", fails)
    assert OnnxEmbedder().precision == "float32"
    assert "no such kernel" in caplog.text


def test_the_precision_can_be_configured() -> None:
    assert [make_embedder(f"minilm:{p}").precision for p in ("int8", "float32")] == ["int8", "float32"]  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="minilm:int8 or minilm:float32"):
        make_embedder("minilm:int4")
