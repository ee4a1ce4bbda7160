"""A BERT sentence encoder's checkpoint as an ONNX graph, without torch.

Packages carry weights as safetensors, and the usual export needs torch and transformers (gigabytes) for what is six
layers of attention. The graph takes token ids and an attention mask, (batch, length) int64, and gives unit vectors
``embedding`` (batch, width): mean pooling over the mask and normalisation included. What was pooled is there as
``tokens`` (batch, length, width) for those who ask for it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import numpy as np

from agentcascade._util.files import cache_folder
from agentcascade.errors import ConfigError, MissingExtra
from agentcascade.retrievers.folders import pooling_of

OPSET = 20  # the first with Gelu


def onnx_file(folder: Path) -> Path:
    """The ONNX file of the checkpoint in `folder`, made on first use and kept in the cache, keyed by its content."""
    return cached_model(folder, "tokens", convert)


def cached_model(folder: Path, form: str, make: Callable[[Path], Any]) -> Path:
    """The file of a `form` of the checkpoint in `folder`: what `make` gives, kept in the cache by content and form."""
    weights = folder / "model.safetensors"
    try:
        key = _digest(weights, folder / "config.json")
    except OSError as error:
        raise ConfigError(f"{folder} holds neither an ONNX file nor a safetensors checkpoint: {error}") from error
    target = cache_folder("onnx") / f"{key}-{OPSET}-{form}.onnx"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
        try:
            with open(handle, "wb") as file:
                file.write(make(folder).SerializeToString())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return target


def _digest(weights: Path, config: Path) -> str:
    """Of both files' bytes. Weights are read in pieces: to copy them in memory takes as long as their digest."""
    with weights.open("rb") as file:
        digest = file_digest(file, lambda: blake2b(digest_size=12))
    digest.update(config.read_bytes())
    return digest.hexdigest()


def convert(folder: Path) -> Any:
    """The ONNX model of a BERT checkpoint; raises `ConfigError` for another architecture or pooling."""
    return BertGraph(*read_checkpoint(folder)).model()


def read_checkpoint(folder: Path) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]]:
    """(the package onnx, weights by name, configuration) of a BERT checkpoint; raises `ConfigError` for another."""
    try:
        import onnx
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingExtra("onnx and safetensors", "onnx", "converting an embedding model") from error
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise ConfigError(
            f"{folder} is a {config.get('model_type')} model: only BERT with gelu can be converted; "
            f"use retrieval.embedder: sentence-transformers:{folder}"
        )
    if pooling_of(folder) != "mean":
        raise ConfigError(f"{folder} does not pool by the mean: export it with sentence-transformers instead")
    return onnx, load_file(str(folder / "model.safetensors")), config


class BertGraph:
    """Nodes and weights, collected in order."""

    domains: tuple[str, ...] = ()
    """Of operators beside ONNX's own."""

    def __init__(self, onnx: Any, weights: dict[str, np.ndarray], config: dict[str, Any]) -> None:
        self._onnx = onnx
        self._config = config
        self._weights = {k.removeprefix("bert."): v for k, v in weights.items()}
        self._nodes: list[Any] = []
        self._constants: dict[str, np.ndarray] = {}
        self._width = int(config["hidden_size"])
        self._heads = int(config["num_attention_heads"])

    def model(self) -> Any:
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        hidden = self._embeddings()
        mask = self._attention_mask()
        for layer in range(int(self._config["num_hidden_layers"])):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, mask)
        self._nodes.append(helper.make_node("Identity", [hidden], ["tokens"]))
        self._pool(hidden)
        graph = helper.make_graph(
            self._nodes,
            "sentence-encoder",
            [
                helper.make_tensor_value_info(n, kinds.INT64, ["batch", "length"])
                for n in ("input_ids", "attention_mask")
            ],
            [
                helper.make_tensor_value_info("embedding", kinds.FLOAT, ["batch", self._width]),
                helper.make_tensor_value_info("tokens", kinds.FLOAT, ["batch", "length", self._width]),
            ],
            [self._onnx.numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in self.domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        self._onnx.checker.check_model(model)
        return model

    def _embeddings(self) -> str:
        self._constants["one"] = np.array([1], dtype=np.int64)
        self._constants["zero"] = np.array([0], dtype=np.int64)
        words = self._node("Gather", [self._weight("embeddings.word_embeddings.weight"), "input_ids"])
        length = self._node("Shape", ["input_ids"], start=1, end=2)
        positions = self._node("Slice", [self._weight("embeddings.position_embeddings.weight"), "zero", length, "zero"])
        kind = self._constant("kind", self._weights["embeddings.token_type_embeddings.weight"][0])
        total = self._node("Add", [self._node("Add", [words, positions]), kind])
        return self._norm("embeddings.LayerNorm", total)

    def _attention_mask(self) -> str:
        """0 where a token is, a large negative number where none is: (batch, 1, 1, length)."""
        mask = self._node("Cast", ["attention_mask"], to=self._onnx.TensorProto.FLOAT)
        absent = self._node("Sub", [self._constant("one_float", np.float32(1)), mask])
        scaled = self._node("Mul", [absent, self._constant("lowest", np.float32(-1e9))])
        return self._node("Unsqueeze", [scaled, self._constant("axes", np.array([1, 2], dtype=np.int64))])

    def _layer(self, name: str, hidden: str, mask: str) -> str:
        size = self._width // self._heads
        split = self._constant("split", np.array([0, 0, self._heads, size], dtype=np.int64))
        query, key, value = (
            self._node("Reshape", [self._dense(f"{name}.attention.self.{part}", hidden), split])
            for part in ("query", "key", "value")
        )
        query, value = (self._node("Transpose", [x], perm=[0, 2, 1, 3]) for x in (query, value))
        key = self._node("Transpose", [key], perm=[0, 2, 3, 1])
        scale = self._constant("scale", np.float32(1 / np.sqrt(size)))
        scores = self._node("Mul", [self._node("MatMul", [query, key]), scale])
        shares = self._node("Softmax", [self._node("Add", [scores, mask])], axis=-1)
        mixed = self._node("Transpose", [self._node("MatMul", [shares, value])], perm=[0, 2, 1, 3])
        joined = self._constant("joined", np.array([0, 0, self._width], dtype=np.int64))
        attended = self._dense(f"{name}.attention.output.dense", self._node("Reshape", [mixed, joined]))
        hidden = self._norm(f"{name}.attention.output.LayerNorm", self._node("Add", [attended, hidden]))
        inner = self._node("Gelu", [self._dense(f"{name}.intermediate.dense", hidden)])
        outer = self._dense(f"{name}.output.dense", inner)
        return self._norm(f"{name}.output.LayerNorm", self._node("Add", [outer, hidden]))

    def _pool(self, hidden: str) -> None:
        mask = self._node("Cast", ["attention_mask"], to=self._onnx.TensorProto.FLOAT)
        mask = self._node("Unsqueeze", [mask, self._constant("last", np.array([2], dtype=np.int64))])
        total = self._node("ReduceSum", [self._node("Mul", [hidden, mask]), "one"], keepdims=0)
        mean = self._node("Div", [total, self._node("ReduceSum", [mask, "one"], keepdims=0)])
        norm = self._node("ReduceL2", [mean, "one"], keepdims=1)
        self._nodes.append(self._onnx.helper.make_node("Div", [mean, norm], ["embedding"]))

    def _dense(self, name: str, value: str) -> str:
        weight = self._constant(f"{name}.weight", np.ascontiguousarray(self._weights[f"{name}.weight"].T))
        return self._node("Add", [self._node("MatMul", [value, weight]), self._weight(f"{name}.bias")])

    def _norm(self, name: str, value: str) -> str:
        inputs = [value, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        return self._node("LayerNormalization", inputs, axis=-1, epsilon=float(self._config["layer_norm_eps"]))

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        self._constants[name] = array if array.dtype.kind in "iu" else array.astype(np.float32)
        return name

    def _node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output
