"""The question at hand: its parsed query, and the context that the memory modules share while it is answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from agentcascade._util import forking
from agentcascade._util.lru_cache import LRUCache
from agentcascade.memory.chunking import Line
from agentcascade.memory.dates import Period, named_periods
from agentcascade.memory.index import HistorySnapshot
from agentcascade.memory.tokenization import content_phrases, proper_names, term_set, terms
from agentcascade.messages import without_lone_surrogates
from agentcascade.models.embeddings import TextVectors
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.protocols import Embedder, TokenCounter
from agentcascade.types import ModuleName

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector


class MemoryItem(NamedTuple):
    """Item of a memory: a line of the history, or a fact that a model drew from lines."""

    text: str
    lines: tuple[int, ...]
    """Indices of the lines it rests on"""
    score: float
    """From 0 to 1, within the output of one module."""


@dataclass(frozen=True)
class Query:
    """Parsed question: its vector, terms, names, phrases and periods."""

    text: str
    vector: Vector
    terms: tuple[str, ...]
    names: frozenset[str]
    phrases: tuple[str, ...]
    periods: tuple[Period, ...]
    asked_at: datetime | None = None

    @classmethod
    def parse(cls, text: str, vector: Vector, asked_at: datetime | None = None) -> Query:
        plain = " ".join(text.split())
        return cls(
            plain,
            vector,
            terms(plain),
            proper_names(plain),
            tuple(content_phrases(plain)),
            tuple(named_periods(plain)),
            asked_at,
        )


class TokenVectors(Protocol):
    """Embeds the tokens of texts, for late interaction."""

    def __call__(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Of each text the unit vectors (tokens, d) of its tokens."""
        ...


def token_vectors_of(embedder: Embedder) -> TokenVectors:
    """Token vectors of an embedder; of one that has none, the vectors of the single words."""
    token_vectors: TokenVectors | None = getattr(embedder, "token_vectors", None)
    if token_vectors is not None:
        return token_vectors

    def words(texts: Sequence[str]) -> list[Vector]:
        split = [text.split() or [""] for text in texts]
        known = sorted({word for words in split for word in words})
        vectors = dict(zip(known, np.asarray(embedder.embed(without_lone_surrogates(known)), dtype=np.float32)))
        return [np.stack([vectors[word] for word in words]) for words in split]

    return words


class ColdCacheMeter:
    """Meter of the milliseconds that a question would cost from a cold cache, for benchmarks whose questions share one.

    Without `charging` it counts nothing. `fork` makes a meter for another module that shares what is paid already, so
    that what several modules need is charged to the first of them.
    """

    def __init__(self, charging: bool = False, paid: Iterable[tuple[str, str]] = ()) -> None:
        self.charging = charging
        self.paid: set[tuple[str, str]] = set(paid)
        self.milliseconds: float = 0.0
        self._lock = forking.lock()

    def fork(self) -> ColdCacheMeter:
        twin = ColdCacheMeter(self.charging)
        twin.paid = self.paid
        twin._lock = self._lock
        return twin

    def charge(self, what: tuple[str, str], milliseconds: float) -> None:
        """Add the milliseconds of `what` unless they are paid already."""
        if not self.charging:
            return
        with self._lock:
            new = what not in self.paid
            self.paid.add(what)
        self.milliseconds += milliseconds if new else 0.0


class SmallModels:
    """Small models (embedders of texts and of tokens) with a cache that all questions share. Thread-safe."""

    def __init__(
        self,
        vectors: TextVectors,
        tokens: TokenVectors,
        count: TokenCounter,
        cached: int = 4000,
        prompts: Prompts = DEFAULT,
    ) -> None:
        self.prompts = prompts
        self.vectors = vectors
        self._tokens = tokens
        self.count = count
        self._known: LRUCache[tuple[str, str], tuple[Any, float]] = LRUCache(cached)

    def token_vectors(self, texts: Sequence[str], meter: ColdCacheMeter) -> list[Vector]:
        return self.compute_cached("tokens", texts, self._tokens, meter)

    def sentence_vectors(self, texts: Sequence[str]) -> list[Vector]:
        """Unit vectors (d,) in the order of `texts`."""
        vectors = self.vectors.of(texts)
        return [vectors[text] for text in texts]

    def compute_milliseconds(self, what: tuple[str, str]) -> float:
        """Milliseconds that a cached result took to compute; 0.0 where it is no longer cached."""
        known = self._known.get(what)
        return known[1] if known else 0.0

    def compute_cached(
        self, kind: str, texts: Sequence[str], compute: Callable[[Sequence[str]], Sequence[Any]], meter: ColdCacheMeter
    ) -> list[Any]:
        """Results of `compute` in the order of `texts`; only those that are not cached are computed."""
        results = {text: self._known.get((kind, text)) for text in texts}
        missing = [text for text, known in results.items() if known is None]
        if missing:
            started = time.thread_time()
            computed = compute(missing)
            milliseconds = (time.thread_time() - started) * 1000 / len(missing)
            for text, value in zip(missing, computed):
                results[text] = value, milliseconds
                self._known.put((kind, text), (value, milliseconds))
                meter.charge((kind, text), 0.0)  # its time is in the module's own
        values: list[Any] = []
        for text in texts:
            value, milliseconds = results[text]  # type: ignore[misc]
            meter.charge((kind, text), milliseconds)
            values.append(value)
        return values


@dataclass(frozen=True)
class QuestionContext:
    """Context of a question: the history, the retrieved chunks, and the output of the modules that ran before."""

    query: Query
    history: HistorySnapshot
    retrieved: tuple[int, ...]
    """Chunks of raw retrieval, best first"""
    small_models: SmallModels
    filtered: tuple[int, ...] = ()
    """Chunks that the filter kept, best first"""
    relevance: Mapping[int, float] = field(default_factory=dict)
    """The filter's relevance of each line, from 0 to 1"""
    extracted: Mapping[ModuleName, Sequence[MemoryItem]] = field(default_factory=dict)
    """Items by module: entity, temporal, topic"""
    meter: ColdCacheMeter = field(default_factory=ColdCacheMeter)

    def lines_of(self, chunks: Sequence[int]) -> list[int]:
        """Indices of the lines of these chunks, in the order of the history."""
        return sorted(i for c in set(chunks) for i in range(self.history.chunks[c].start, self.history.chunks[c].end))

    def mean_of_chunks(self, chunks: Sequence[int]) -> Vector:
        """Mean vector (d,) of the lines of these chunks; zero where none is embedded."""
        return self._mean(self.lines_of(chunks))

    def mean_of_items(self, extracted: Mapping[ModuleName, Sequence[MemoryItem]]) -> Vector:
        """Mean vector (d,), over the modules, of the mean vectors of their items' lines."""
        means = [self._mean([i for item in items for i in item.lines]) for items in extracted.values()]
        return np.mean(means, axis=0, dtype=np.float32) if means else self._mean([])

    def _mean(self, lines: Sequence[int]) -> Vector:
        rows = [i for i in lines if i < len(self.history.vectors)]
        if not rows:
            return np.zeros(self.query.vector.shape, dtype=np.float32)
        mean: Vector = self.history.vectors[rows].mean(axis=0)
        return mean

    def dated_text(self, i: int) -> str:
        """Line `i` with its date in front."""
        return dated_line(self.history.lines[i])

    def cosines(self, lines: Sequence[int], vector: Vector | None = None) -> Vector:
        """Cosine (lines,) of each line with the question (or `vector`); 0 where a line is not embedded yet."""
        cosines = np.zeros(len(lines), dtype=np.float32)
        embedded = np.array([i < len(self.history.vectors) for i in lines], dtype=bool)
        if embedded.any():
            rows = self.history.vectors[[i for i in lines if i < len(self.history.vectors)]]
            cosines[embedded] = rows @ (self.query.vector if vector is None else vector)
        return cosines

    def term_shares(self, lines: Sequence[int]) -> Vector:
        """Share (lines,) of the question's terms that each line has, weighted by inverse document frequency."""
        idf = self.history.idf
        total_idf = sum(idf[t] for t in set(self.query.terms)) or 1.0
        question_terms = set(self.query.terms)
        shares = [sum(idf[t] for t in question_terms & term_set(self.history.lines[i].said)) / total_idf for i in lines]
        return np.array(shares, dtype=np.float32)

    def late_interaction(self, lines: Sequence[int]) -> Vector:
        """Late interaction (lines,): mean over the question's tokens of the best cosine with a token of the line."""
        if not lines:
            return np.zeros(0, dtype=np.float32)
        question_tokens = self.small_models.token_vectors([self.query.text], self.meter)[0]
        rows = self.small_models.token_vectors([self.history.lines[i].said for i in lines], self.meter)
        starts = np.cumsum([0, *(len(r) for r in rows[:-1])])
        best = np.maximum.reduceat(question_tokens @ np.concatenate(rows).T, starts, axis=1)
        return np.asarray(best.mean(axis=0), dtype=np.float32)


def dated_line(line: Line) -> str:
    """A line as memories show it: its date, or else its session, in front."""
    day = f"[{line.at:%d %B %Y}] " if line.at else f"[{line.session}] " if line.session else ""
    return day + line.said


def min_max_scaled(scores: Vector) -> Vector:
    """Min-max scaling to 0..1; all 1 where the scores are equal."""
    if len(scores) == 0:
        return scores
    low, high = float(scores.min()), float(scores.max())
    stretched = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    return stretched.astype(np.float32)
