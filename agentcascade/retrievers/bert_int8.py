"""A BERT sentence encoder's checkpoint as an int8 ONNX graph: a third of the time where the processor multiplies bytes.

Weights are signed bytes with one scale for each output, activations unsigned bytes with one scale for each token, found
as they come: a text's vector does not depend on the texts beside it. What follows a layer norm has a few channels ten
times as large as the rest; they are made smaller by the root of their range, and the weights behind them larger
(SmoothQuant, Xiao et al. 2023, section 4, with the activations' ranges alone). Ranges are those of `EXAMPLES`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from agentcascade.retrievers.bert_onnx import BertGraph, cached_model, convert, read_checkpoint

Ranges = dict[str, np.ndarray]
"""Largest absolute value (width,) behind each layer norm, by its name."""

EXAMPLES = (
    "You are in the middle of a room. Looking quickly around you, you see a bed 1, a desk 2, and a drawer 3.",
    "Your task is to: put a clean mug on the coffee table.",
    "On the countertop 1, you see a butterknife 2, a saltshaker 3, and a tomato 1.",
    "How many singers are older than forty, and from which countries do they come?",
    "SELECT name, count(*) FROM orders JOIN clients ON orders.client = clients.id GROUP BY name HAVING count(*) > 3",
    "Error: column 'adress' does not exist; did you mean 'address'?",
    '{"reservation": "ZFA04Y", "passengers": 2, "cabin": "economy", "insurance": false}',
    "I'd like to change my flight to the 21st of May, if that is not more than $100.",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)",
    "We went camping last weekend with the children, and it rained all day.",
    "Nothing happens.",
    "Which band did the guitarist join after leaving the group that recorded the album?",
    "Die Rechnung ist im Mai fällig, und der Vertrag läuft bis 2027.",
    "> think: To solve the task, I need to find a keychain first, then open the safe.",
)


def int8_file(folder: Path, tokenizer: Any, open_session: Callable[[bytes], Any]) -> Path:
    """The int8 ONNX file of the checkpoint in `folder`, made on first use and kept in the cache.

    `tokenizer` is the folder's; `open_session` makes onnxruntime's session of a model, for the ranges of activations.
    """

    def convert_int8(source: Path) -> Any:
        return _Int8Graph(*read_checkpoint(source), ranges=_ranges(source, tokenizer, open_session)).model()

    return cached_model(folder, "int8", convert_int8)


def _ranges(folder: Path, tokenizer: Any, open_session: Callable[[bytes], Any]) -> Ranges:
    model = convert(folder)
    norms = {n.output[0]: n.input[1].removesuffix(".weight") for n in model.graph.node if n.op_type.startswith("Layer")}
    for output in norms:
        model.graph.output.add(name=output)
    session = open_session(model.SerializeToString())
    largest: Ranges = {}
    for encoded in tokenizer.encode_batch(list(EXAMPLES)):
        ids = np.array([encoded.ids], dtype=np.int64)
        values = session.run(list(norms), {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        for name, value in zip(norms.values(), values):
            largest[name] = np.maximum(largest.get(name, 1e-3), np.abs(value[0]).max(axis=0))
    return largest


class _Int8Graph(BertGraph):
    """The graph of `BertGraph` with its dense layers in bytes."""

    domains = ("com.microsoft",)

    def __init__(self, onnx: Any, weights: dict[str, np.ndarray], config: dict[str, Any], *, ranges: Ranges) -> None:
        super().__init__(onnx, weights, config)
        self._ranges = ranges
        self._smoothing: dict[str, np.ndarray] = {}
        """By the output of a layer norm: what its channels are divided by."""
        self._quantized: dict[str, tuple[str, str]] = {}
        """By value: its bytes (tokens, width), and their scales (tokens, 1)."""
        self._constant("zero_point", np.array(128, dtype=np.uint8))
        self._constant("one_scale", np.float32(1))
        self._shape = self._node("Shape", ["input_ids"])
        tokens = self._node("ReduceProd", [self._shape], keepdims=1)
        self._zero_points = self._node("Expand", [self._constant("zero_points", np.array([128], np.uint8)), tokens])

    def _norm(self, name: str, value: str) -> str:
        output = super()._norm(name, value)
        self._smoothing[output] = np.sqrt(self._ranges[name])
        return output

    def _dense(self, name: str, value: str) -> str:
        weight = self._weights[f"{name}.weight"].T
        if (smoothing := self._smoothing.get(value)) is not None:
            weight = weight * smoothing[:, None]
        scales = np.maximum(np.abs(weight).max(axis=0) / 127, 1e-12)
        quantized_weight = self._constant(f"{name}.bytes", np.rint(weight / scales).astype(np.int8))
        of_outputs = self._constant(f"{name}.scales", scales)
        tokens, of_tokens = self._bytes_of(value, len(weight))
        product = self._node(
            "MatMulIntegerToFloat",
            [tokens, quantized_weight, "one_scale", of_outputs, "zero_point"],
            domain="com.microsoft",
        )
        total = self._node("Add", [self._node("Mul", [product, of_tokens]), self._weight(f"{name}.bias")])
        width = self._constant(f"width_{weight.shape[1]}", np.array([weight.shape[1]], dtype=np.int64))
        return self._node("Reshape", [total, self._node("Concat", [self._shape, width], axis=0)])

    def _bytes_of(self, value: str, width: int) -> tuple[str, str]:
        """What is quantized once, though several layers read it."""
        if value not in self._quantized:
            smoothed = value
            if (smoothing := self._smoothing.get(value)) is not None:
                smoothed = self._node("Mul", [value, self._constant(f"{value}.smoothing", 1 / smoothing)])
            flat = self._constant(f"flat_{width}", np.array([-1, width], dtype=np.int64))
            rows = self._node("Reshape", [smoothed, flat])
            last = self._constant("row", np.array([1], dtype=np.int64))
            largest = self._node("ReduceMax", [self._node("Abs", [rows]), last], keepdims=0)
            scales = self._node("Mul", [largest, self._constant("per_step", np.float32(1 / 127))])
            tokens = self._node("QuantizeLinear", [rows, scales, self._zero_points], axis=0)
            self._quantized[value] = tokens, self._node("Unsqueeze", [scales, last])
        return self._quantized[value]
