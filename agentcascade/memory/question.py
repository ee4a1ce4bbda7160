"""What the modules share while one question is answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from agentcascade._util import forking
from agentcascade._util.lru_cache import Cache
from agentcascade.memory.chunking import Line
from agentcascade.memory.dates import Span, periods
from agentcascade.memory.index import View
from agentcascade.memory.tokenization import names, phrases, term_set, terms
from agentcascade.models.embeddings import TextVectors
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.protocols import Embedder, TokenCounter
from agentcascade.types import ModuleName

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector


class Item(NamedTuple):
    """One piece of memory: a line of the history, or a fact that a model drew from some."""

    text: str
    lines: tuple[int, ...]
    """Indices of the lines it rests on."""
    score: float
    """From 0 to 1, within the output of one module."""


@dataclass(frozen=True)
class Query:
    """A question, read."""

    text: str
    vector: Vector
    terms: tuple[str, ...]
    names: frozenset[str]
    phrases: tuple[str, ...]
    periods: tuple[Span, ...]
    asked_at: datetime | None = None

    @classmethod
    def read(cls, text: str, vector: Vector, asked_at: datetime | None = None) -> Query:
        plain = " ".join(text.split())
        return cls(plain, vector, terms(plain), names(plain), tuple(phrases(plain)), tuple(periods(plain)), asked_at)


class TokenVectors(Protocol):
    def __call__(self, texts: Sequence[str]) -> Sequence[Vector]:
        """For each text (tokens, d), rows of unit length."""
        ...


def tokens_of(embedder: Embedder) -> TokenVectors:
    """The embedder's own vectors of tokens; of one that has none, the vectors of the single words."""
    own: TokenVectors | None = getattr(embedder, "token_vectors", None)
    if own is not None:
        return own

    def words(texts: Sequence[str]) -> list[Vector]:
        split = [text.split() or [""] for text in texts]
        known = sorted({word for words in split for word in words})
        vectors = dict(zip(known, np.asarray(embedder.embed(known), dtype=np.float32)))
        return [np.stack([vectors[word] for word in words]) for words in split]

    return words


class Meter:
    """What a question would have cost from a cold cache: for benchmarks, whose questions share one.

    Without `charging` it counts nothing. `fork` makes one that shares what is paid already: whatever several modules
    need is charged to the first of them.
    """

    def __init__(self, charging: bool = False, paid: Iterable[tuple[str, str]] = ()) -> None:
        self.charging, self.paid, self.milliseconds = charging, set(paid), 0.0
        self._lock = forking.lock()

    def fork(self) -> Meter:
        twin = Meter(self.charging)
        twin.paid, twin._lock = self.paid, self._lock
        return twin

    def owe(self, what: tuple[str, str], milliseconds: float) -> None:
        """Charge for `what` if it is not paid for yet."""
        if not self.charging:
            return
        with self._lock:
            new = what not in self.paid
            self.paid.add(what)
        self.milliseconds += milliseconds if new else 0.0


class Tools:
    """The small models, and what they said before, keyed by content. Shared by all questions; thread-safe."""

    def __init__(
        self,
        vectors: TextVectors,
        tokens: TokenVectors,
        count: TokenCounter,
        cached: int = 4000,
        prompts: Prompts = DEFAULT,
    ) -> None:
        self.prompts = prompts
        self.vectors, self._tokens, self.count = vectors, tokens, count
        self._known: Cache[tuple[str, str], tuple[Any, float]] = Cache(cached)

    def token_vectors(self, texts: Sequence[str], meter: Meter) -> list[Vector]:
        return self.once("tokens", texts, self._tokens, meter)

    def sentence_vectors(self, texts: Sequence[str]) -> list[Vector]:
        """In the order of `texts`."""
        found = self.vectors.of(texts)
        return [found[text] for text in texts]

    def cost(self, what: tuple[str, str]) -> float:
        """Milliseconds that it took to make; 0.0 where it is not known any more."""
        known = self._known.get(what)
        return known[1] if known else 0.0

    def once(
        self, kind: str, texts: Sequence[str], compute: Callable[[Sequence[str]], Sequence[Any]], meter: Meter
    ) -> list[Any]:
        """`compute(texts)`, asked only for what is not known yet."""
        found = {text: self._known.get((kind, text)) for text in texts}
        missing = [text for text, known in found.items() if known is None]
        if missing:
            started = time.thread_time()
            made = compute(missing)
            each = (time.thread_time() - started) * 1000 / len(missing)
            for text, value in zip(missing, made):
                found[text] = value, each
                self._known.put((kind, text), (value, each))
                meter.owe((kind, text), 0.0)  # its time is in the module's own
        known_now: list[Any] = []
        for text in texts:
            value, each = found[text]  # type: ignore[misc]
            meter.owe((kind, text), each)
            known_now.append(value)
        return known_now


@dataclass(frozen=True)
class Work:
    """A question, what was retrieved for it, and what the modules before have made of that."""

    query: Query
    view: View
    raw: tuple[int, ...]
    """Chunks retrieved, best first."""
    tools: Tools
    kept: tuple[int, ...] = ()
    """Chunks that the filter let through, best first."""
    relevance: Mapping[int, float] = field(default_factory=dict)
    """By line, from 0 to 1: what the filter thought of it."""
    found: Mapping[ModuleName, Sequence[Item]] = field(default_factory=dict)
    """By module: entity, temporal, topic."""
    meter: Meter = field(default_factory=Meter)

    def but(self, **changes: Any) -> Work:
        return replace(self, **changes)

    def lines(self, chunks: Sequence[int]) -> list[int]:
        """Indices of the lines of these chunks, in the order of the history."""
        return sorted(i for c in set(chunks) for i in range(self.view.chunks[c].start, self.view.chunks[c].end))

    def mean_of_chunks(self, chunks: Sequence[int]) -> Vector:
        """Mean vector (d,) of their lines; zero where there are none, or none is embedded."""
        return self._mean(self.lines(chunks))

    def mean_of_items(self, found: Mapping[ModuleName, Sequence[Item]]) -> Vector:
        """Mean vector (d,), over the modules, of the lines that each found."""
        means = [self._mean([i for item in items for i in item.lines]) for items in found.values()]
        return np.mean(means, axis=0, dtype=np.float32) if means else self._mean([])

    def _mean(self, lines: Sequence[int]) -> Vector:
        rows = [i for i in lines if i < len(self.view.vectors)]
        if not rows:
            return np.zeros(self.query.vector.shape, dtype=np.float32)
        mean: Vector = self.view.vectors[rows].mean(axis=0)
        return mean

    def text(self, i: int) -> str:
        """Line `i` as memory shows it, with its day."""
        return shown(self.view.lines[i])

    def cosines(self, lines: Sequence[int], vector: Vector | None = None) -> Vector:
        """Of each line with the question (or `vector`); 0 where a line is not embedded yet."""
        found = np.zeros(len(lines), dtype=np.float32)
        known = np.array([i < len(self.view.vectors) for i in lines], dtype=bool)
        if known.any():
            rows = self.view.vectors[[i for i in lines if i < len(self.view.vectors)]]
            found[known] = rows @ (self.query.vector if vector is None else vector)
        return found

    def shares(self, lines: Sequence[int]) -> Vector:
        """Of each line: the share of the question's terms that it has, rare ones counting more."""
        rarity = self.view.rarity
        whole = sum(rarity[t] for t in set(self.query.terms)) or 1.0
        asked = set(self.query.terms)
        found = [sum(rarity[t] for t in asked & term_set(self.view.lines[i].said)) / whole for i in lines]
        return np.array(found, dtype=np.float32)

    def late(self, lines: Sequence[int]) -> Vector:
        """Late interaction: of each line the mean, over the question's tokens, of the best cosine with one of its."""
        if not lines:
            return np.zeros(0, dtype=np.float32)
        asked = self.tools.token_vectors([self.query.text], self.meter)[0]
        rows = self.tools.token_vectors([self.view.lines[i].said for i in lines], self.meter)
        starts = np.cumsum([0, *(len(r) for r in rows[:-1])])
        best = np.maximum.reduceat(asked @ np.concatenate(rows).T, starts, axis=1)
        return np.asarray(best.mean(axis=0), dtype=np.float32)


def shown(line: Line) -> str:
    day = f"[{line.at:%d %B %Y}] " if line.at else f"[{line.session}] " if line.session else ""
    return day + line.said


def spread(scores: Vector) -> Vector:
    """Scores stretched over 0 to 1; all 1 where they are equal."""
    if len(scores) == 0:
        return scores
    low, high = float(scores.min()), float(scores.max())
    stretched = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    return stretched.astype(np.float32)
