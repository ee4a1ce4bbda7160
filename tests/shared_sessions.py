"""Sessions of embedding models for tests: a file is read and opened once a process, not by each embedder.

A session and a digest are of one state of their files: what is written anew is read anew. Embedders themselves are made
as ever, each with a tokenizer of its own.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from agentcascade.retrievers import bert_onnx, onnx

_open, _digest = onnx._session, bert_onnx._digest
State = tuple[int, int, int]


def share_sessions() -> None:
    """From now on what the default embedder opens stays open for the next."""
    onnx._session = _shared_session
    bert_onnx._digest = _known_digest


def _state(file: str | Path) -> State:
    found = Path(file).stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _shared_session(model: str | bytes, threads: int = 1) -> Any:
    return _open(model, threads) if isinstance(model, bytes) else _opened(model, threads, _state(model))


@lru_cache(maxsize=4)
def _opened(model: str, threads: int, state: State) -> Any:
    return _open(model, threads)


def _known_digest(weights: Path, config: Path) -> str:
    return _digest_of(weights, config, _state(weights), _state(config))


@lru_cache(maxsize=16)
def _digest_of(weights: Path, config: Path, *states: State) -> str:
    return _digest(weights, config)
