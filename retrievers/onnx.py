"""Embeddings under onnxruntime: the same vectors as sentence-transformers, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.errors import ConfigError, MissingExtra, describe
from agentcascade.retrievers.bert_onnx import onnx_file
from agentcascade.retrievers.folders import max_length_of, model_folder, onnx_files, pooling_of, vector_space

if TYPE_CHECKING:
    from agentcascade.protocols import Vectors


class OnnxEmbedder:
    """`model`: ``minilm``, or the folder of a sentence encoder with an ONNX file or a BERT checkpoint. Thread-safe.

    An ONNX file made by another exporter may give token vectors: they are pooled as the folder says, and normalised.
    """

    def __init__(self, model: str | Path = "minilm", *, batch_size: int = 32, threads: int = 1) -> None:
        folder = model_folder(str(model))
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtra("onnxruntime and tokenizers", "onnx", f"embedder '{model}'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        exported = onnx_files(folder)
        file = exported[0] if exported else onnx_file(folder)
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # both raise bare or private classes
            raise ConfigError(f"embedding model '{model}' cannot be loaded ({describe(error)})") from error
        self._tokenizer.enable_truncation(max_length_of(folder))
        self._tokenizer.no_padding()
        self._inputs = {i.name for i in self._session.get_inputs()}
        outputs = [o.name for o in self._session.get_outputs()]
        token_outputs = ("tokens", "token_embeddings", "last_hidden_state")
        self._tokens = next((n for n in token_outputs if n in outputs), None)
        self._output = next((n for n in ("embedding", "sentence_embedding") if n in outputs), outputs[0])
        self._pooling = pooling_of(folder)
        self._batch_size = batch_size
        self.name = vector_space(str(model))
        self.dimension = self._run([self._tokenizer.encode("").ids]).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 (len(texts), dimension), rows of unit length."""
        tokens = [e.ids for e in self._tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        order = np.argsort([len(t) for t in tokens], kind="stable")  # equal lengths together waste no padding
        for start in range(0, len(order), self._batch_size):
            part = order[start : start + self._batch_size]
            vectors[part] = self._run([tokens[i] for i in part])
        return vectors

    def token_vectors(self, texts: Sequence[str]) -> list[Vectors]:
        """For each text float32 (tokens, dimension), rows of unit length: what `embed` takes the mean of.

        Raises `ConfigError` for a model whose ONNX file gives sentence vectors only.
        """
        if self._tokens is None:
            raise ConfigError(f"the ONNX file of embedder {self.name} has no output with the vectors of tokens")
        tokens = [e.ids for e in self._tokenizer.encode_batch(list(texts))]
        vectors: list[Vectors] = [np.empty((0, self.dimension), dtype=np.float32)] * len(texts)
        order = np.argsort([len(t) for t in tokens], kind="stable")
        for start in range(0, len(order), self._batch_size):
            part = order[start : start + self._batch_size]
            feed = self._feed([tokens[i] for i in part])
            rows: np.ndarray = self._session.run([self._tokens], feed)[0]
            rows = rows / np.linalg.norm(rows, axis=2, keepdims=True)
            for i, row in zip(part, rows):
                vectors[i] = row[: len(tokens[i])]
        return vectors

    def _feed(self, tokens: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        shape = len(tokens), max(map(len, tokens))
        feed = {name: np.zeros(shape, dtype=np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        for i, ids in enumerate(tokens):
            feed["input_ids"][i, : len(ids)], feed["attention_mask"][i, : len(ids)] = ids, 1
        return {name: value for name, value in feed.items() if name in self._inputs}

    def _run(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        feed = self._feed(tokens)
        output: np.ndarray = self._session.run([self._output], feed)[0]
        if output.ndim == 3 and self._pooling == "cls":
            output = output[:, 0]
        elif output.ndim == 3:
            mask = np.array([[i < len(t) for i in range(output.shape[1])] for t in tokens], dtype=np.float32)[
                :, :, None
            ]
            output = (output * mask).sum(axis=1) / mask.sum(axis=1)
        return np.asarray(output / np.linalg.norm(output, axis=1, keepdims=True), dtype=np.float32)
