"""Embeddings under onnxruntime: the same vectors as sentence-transformers, without torch."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agentcascade.errors import ConfigError, MissingExtra, describe
from agentcascade.retrievers.bert_int8 import int8_file
from agentcascade.retrievers.bert_onnx import onnx_file
from agentcascade.retrievers.folders import max_length_of, model_folder, onnx_files, pooling_of, vector_space
from agentcascade.retrievers.precision import Precision, chosen_precision

if TYPE_CHECKING:
    from agentcascade.protocols import Vectors


CHARACTERS = 12
"""Of a long text for each token that the model reads: so much of it is tokenised first, and nearly always suffices."""
BATCH_TOKENS = 128
"""Of a batch: what its layers give stays in a core's cache; of 64 to 4,096, the fastest for sentences."""


class OnnxEmbedder:
    """`model`: ``minilm``, or the folder of a sentence encoder with an ONNX file or a BERT checkpoint. Thread-safe.

    An ONNX file made by another exporter may give token vectors: they are pooled as the folder says, and normalised.

    Args:
        model: See above.
        batch_size: Texts that go through the model together, at most.
        threads: Within one batch.
        cores: Batches at once; default: as many as the process may use.
        precision: Of a BERT checkpoint. ``int8`` takes a third of the time on processors with VNNI. ``auto`` measures
            for ``minilm`` once a machine which one is better, and is ``float32`` for other models. Their vectors are of
            one space: of the six nearest demonstrations .98 to .99 are those of float32 where either questions or keys
            are int8, .977 to .984 where both are (tests/benchmarks/bench_embedding.py, by which episodes are held out).
    """

    def __init__(
        self,
        model: str | Path = "minilm",
        *,
        batch_size: int = 32,
        threads: int = 1,
        cores: int | None = None,
        precision: Precision | Literal["auto"] = "auto",
    ) -> None:
        folder = model_folder(str(model))
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtra("onnxruntime and tokenizers", "onnx", f"embedder '{model}'") from error
        self.name = vector_space(str(model))
        if precision == "auto" and str(model) == "minilm":
            runtime = f"onnxruntime {onnxruntime.__version__}"
            precision = chosen_precision(self.name, runtime, lambda: (_of("float32"), _of("int8")))
        self.precision: Precision = "int8" if precision == "int8" else "float32"
        """What the model computes in. The vector space, and so `name`, is that of float32."""
        exported = onnx_files(folder)
        if exported and self.precision == "int8":
            raise ConfigError(f"embedding model '{model}' has an ONNX file, which is used as it is: precision float32")
        file = None if self.precision == "int8" else exported[0] if exported else onnx_file(folder)
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._length = max_length_of(folder)
            self._tokenizer.enable_truncation(self._length)
            self._tokenizer.no_padding()
            self._is_by_words = type(self._tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer"
            self._session = _session(str(file or int8_file(folder, self._tokenizer, _session)), threads)
        except ConfigError:
            raise
        except Exception as error:  # both raise bare or private classes
            raise ConfigError(f"embedding model '{model}' cannot be loaded ({describe(error)})") from error
        self._inputs = {i.name for i in self._session.get_inputs()}
        outputs = [o.name for o in self._session.get_outputs()]
        token_outputs = ("tokens", "token_embeddings", "last_hidden_state")
        self._tokens = next((n for n in token_outputs if n in outputs), None)
        self._output = next((n for n in ("embedding", "sentence_embedding") if n in outputs), outputs[0])
        self._pooling = pooling_of(folder)
        self._batch_size = batch_size
        self._cores = cores or _available_cores()
        self.dimension = self._run([self._tokenizer.encode("").ids]).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 (len(texts), dimension), rows of unit length. Many are embedded on all cores."""
        tokens = self.token_ids(texts)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)

        def fill(part: list[int]) -> None:
            vectors[part] = self._run([tokens[i] for i in part])

        self._in_batches(tokens, fill)
        return vectors

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text that the model reads; what stands behind them is not tokenised, as far as can be."""
        most = CHARACTERS * self._length if self._is_by_words else max(map(len, texts), default=0)
        encoded = self._tokenizer.encode_batch([text[:most] for text in texts])
        return [
            e.ids if len(text) <= most or self._fills(e, text[:most]) else self._tokenizer.encode(text).ids
            for e, text in zip(encoded, texts)
        ]

    def _fills(self, encoded: Any, beginning: str) -> bool:
        """Whether the model reads nothing of the last word of a text's beginning, which may be cut, nor behind it."""
        last = max(map(beginning.rfind, " \t\n\r"))
        return len(encoded.ids) == self._length and max(end for _, end in encoded.offsets) <= last

    def _in_batches(self, tokens: Sequence[Sequence[int]], work: Callable[[list[int]], None]) -> None:
        """`work` for the indexes of each batch: longest first, equal lengths together, so that no padding is wasted."""
        parts: list[list[int]] = []
        for i in sorted(range(len(tokens)), key=lambda i: -len(tokens[i])):
            room = min(self._batch_size, BATCH_TOKENS // max(1, len(tokens[parts[-1][0]]))) if parts else 0
            if not parts or len(parts[-1]) >= room:
                parts.append([])
            parts[-1].append(i)
        at_once = min(self._cores, len(parts))
        if at_once > 1:  # the runtime lets go of the interpreter's lock
            with ThreadPoolExecutor(at_once, "agentcascade-embed") as pool:
                deque(pool.map(work, parts), maxlen=0)
        else:
            deque(map(work, parts), maxlen=0)

    def token_vectors(self, texts: Sequence[str]) -> list[Vectors]:
        """For each text float32 (tokens, dimension), rows of unit length: what `embed` takes the mean of.

        Raises `ConfigError` for a model whose ONNX file gives sentence vectors only.
        """
        if self._tokens is None:
            raise ConfigError(f"the ONNX file of embedder {self.name} has no output with the vectors of tokens")
        tokens = self.token_ids(texts)
        vectors: list[Vectors] = [np.empty((0, self.dimension), dtype=np.float32)] * len(texts)

        def fill(part: list[int]) -> None:
            rows: np.ndarray = self._session.run([self._tokens], self._feed([tokens[i] for i in part]))[0]
            rows = rows / np.linalg.norm(rows, axis=2, keepdims=True)
            for i, row in zip(part, rows):
                vectors[i] = row[: len(tokens[i])]

        self._in_batches(tokens, fill)
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


def _of(precision: Precision) -> OnnxEmbedder:
    return OnnxEmbedder("minilm", precision=precision, cores=1)


def _available_cores() -> int:
    if sys.platform != "linux" or not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def _session(model: str | bytes, threads: int = 1) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
