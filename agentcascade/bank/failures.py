"""Shelf of failures: actions that failed in a situation, so that they are not voted for in the same one again.

Contrast with mistakes teaches what successes do not: REDI (arXiv 2505.24850) learns from wrong traces
beside right ones, QCRD (arXiv 2405.13014) from contrasting rationales. Here nothing is trained. An action is known to
fail where it failed `contrast.times` times and never worked in the same situation: that repeats itself in .99 of the
cases on ALFWorld, by 510 recorded episodes of Llama-2-13B. What works after all is noted and clears the action.

What failed is told by the next observation, which every surface shows: nobody has to finish an episode.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from agentcascade._util import forking
from agentcascade._util.lru_cache import LRUCache
from agentcascade._util.threads import apart
from agentcascade.actions.base import canonical_text
from agentcascade.errors import describe
from agentcascade.storage import Database, outcomes
from agentcascade.types import Action, Outcome, Situation, Step, Trajectory, Tried

if TYPE_CHECKING:
    from agentcascade.config.sections import ContrastConfig

log = logging.getLogger("agentcascade.bank")

LONGEST = 8_000
"""Characters of a situation and its action together; what is longer is not kept, and nothing is known of it."""
RESULT = 300
"""Characters of an observation that are kept as the result of an action."""
SHOWN = 160
"""Characters of an action or a result in a demonstration."""
MOST_TRIED = 2
"""Failures shown with one step of a demonstration."""
REFRESH_SECONDS = 10.0
RECENT, RECENT_SECONDS = 200, 5.0
ENOUGH = 20
"""Outcomes of one action in one situation; more of them say nothing new, and are not written."""
NAMESPACES = 64
"""That are held in memory at once."""
NOTED = 50_000
"""Steps that are remembered as noted: a caller who sends one again has not failed again."""
FAILED_EPISODE = "the episode failed"
"""The result of the only step of an episode that failed."""

Key = bytes
"""Digest of a situation: equal where the same is the case."""


@dataclass
class Record:
    """What is known of one action in one situation."""

    failed: int = 0
    worked: int = 0
    action: str = ""
    result: str = ""


@dataclass
class Known:
    """What is known of one namespace."""

    actions: dict[Key, dict[str, Record]] = field(default_factory=dict)
    """Situation → action → its record."""
    ids: set[str] = field(default_factory=set)
    stored: int = 0
    """Rows that were read, up to `watermark`."""
    watermark: int = 0
    recent: deque[tuple[float, Key, Outcome]] = field(default_factory=lambda: deque(maxlen=RECENT))
    """What this process noted last, which may not be written yet."""
    read_at: float = float("-inf")

    def add(self, key: Key, outcome: Outcome) -> None:
        self.ids.add(outcome.id)
        record = self.actions.setdefault(key, {}).setdefault(canonical_text(outcome.action), Record())
        if outcome.failed:
            record.failed += 1
            record.action, record.result = outcome.action, outcome.result
        else:
            record.worked += 1


class Place(NamedTuple):
    """What can make a situation another one."""

    goal: str
    category: str
    observation: str
    before: str


class FailureShelf:
    """Keeps outcomes of actions and says which are known to fail. Thread-safe; nothing that it does can fail a step.

    Args:
        database: Where outcomes are. It stays open: it is its owner's.
        write: Takes an outcome, redacted, into that database, off the hot path.
        settings: What a failure is, and what makes two situations the same.
        redact: Applied to every text before it is compared or stored, so that both meet.
        quick: Whether `redact` may be called in the event loop.
    """

    def __init__(
        self,
        database: Database,
        write: Callable[[Outcome], None],
        settings: ContrastConfig,
        *,
        redact: Callable[[str], str] = lambda text: text,
        quick: bool = True,
    ) -> None:
        self._database, self._write, self._settings = database, write, settings
        self._redact, self._quick = redact, quick
        self._known: LRUCache[str, Known] = LRUCache(NAMESPACES)
        self._noted: LRUCache[tuple[str, str, int, str], bool] = LRUCache(NOTED)
        self._redacted: LRUCache[str, str] = LRUCache(2_000)
        self._lock = forking.lock()
        self._reading = forking.lock()
        self._thread: threading.Thread | None = None

    @property
    def strikes(self) -> bool:
        """Whether samples that repeat a known failure are denied their votes."""
        return self._settings.strike

    async def note(self, situation: Situation) -> None:
        """Learn from the observation of a step what became of the step before it.

        Args:
            situation: Of the step that begins; its history's last step is the one that is judged.
        """
        try:
            await self._loaded(situation.namespace)
            if situation.history and self._is_new(situation):
                failed = any(mark in situation.observation for mark in self._settings.failed)
                await self._add(situation, situation.history, situation.observation, failed)
        except Exception as error:
            log.warning("the outcome of a step is not kept: %s", describe(error))

    async def note_end(self, situation: Situation, success: bool) -> None:
        """Learn from the outcome of an episode of one step what became of that step."""
        try:
            if len(situation.history) == 1 and self._is_new(situation):
                await self._loaded(situation.namespace)
                await self._add(situation, situation.history, "" if success else FAILED_EPISODE, not success)
        except Exception as error:
            log.warning("the outcome of an episode is not kept: %s", describe(error))

    async def complaint(self, action: Action, situation: Situation) -> str | None:
        """Why an action votes for nothing in a situation; None where it is not known to fail."""
        try:
            known = self._known.get(situation.namespace)
            if not self.strikes or known is None or not known.actions:
                return None
            place = _place(situation, situation.history, situation.observation)
            if _length(place) + len(action.text) > LONGEST:
                return None
            texts = [*place, action.text, action.key]
            redacted = self._texts(texts) if self._quick else await apart(self._texts, texts)
            records = known.actions.get(self._key(Place(*redacted[:4])), {})
            record = next((r for text in redacted[4:] if (r := records.get(canonical_text(text)))), None)
        except Exception as error:
            log.warning("whether an action is known to fail cannot be told: %s", describe(error))
            return None
        if record is None or not self._fails(record):
            return None
        return f"known to fail here, {record.failed} times: {record.result[:80]}"

    def tried(self, trajectory: Trajectory, start: int, end: int) -> tuple[Tried, ...]:
        """What is known to fail in the situations of a banked trajectory's steps from `start` to `end`."""
        known = self._known.get(trajectory.namespace)
        if not self._settings.show or known is None or not known.actions:
            return ()
        shown = []
        for index in range(start, min(end, len(trajectory.steps))):
            step, before = trajectory.steps[index], trajectory.steps[index - 1].action if index else ""
            key = self._key(Place(trajectory.goal, trajectory.category, step.observation, before))
            failing = [
                r for r in list(known.actions.get(key, {}).values()) if self._fails(r) and r.action != step.action
            ]
            failing.sort(key=lambda r: (-r.failed, r.action))
            shown += [Tried(step=index, action=_cut(r.action), result=_cut(r.result)) for r in failing[:MOST_TRIED]]
        return tuple(shown)

    def close(self) -> None:
        """Wait for a reading that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _fails(self, record: Record) -> bool:
        return record.failed >= self._settings.times and not record.worked

    def _is_new(self, situation: Situation) -> bool:
        """Whether nobody said before what became of the last step; an episode without an id is always another one."""
        if not situation.episode:
            return True
        noted = situation.namespace, situation.episode, situation.step, situation.history[-1].action[:LONGEST]
        if self._noted.get(noted):
            return False
        self._noted.put(noted, True)
        return True

    async def _add(self, situation: Situation, history: Sequence[Step], result: str, failed: bool) -> None:
        known = self._known.get(situation.namespace)
        place = _place(situation, history[:-1], history[-1].observation)
        action = history[-1].action
        if known is None or not action.strip() or _length(place) + len(action) > LONGEST:
            return
        if not failed and not known.actions:
            return
        texts = [*place, action, result[:RESULT]]
        redacted = self._texts(texts) if self._quick else await apart(self._texts, texts)
        key = self._key(Place(*redacted[:4]))
        record = known.actions.get(key, {}).get(canonical_text(redacted[4]))
        if record is None and not failed:
            return
        if record is not None and (record.failed if failed else record.worked) >= ENOUGH:
            return
        outcome = Outcome(
            namespace=situation.namespace,
            episode=situation.episode,
            step=len(history) - 1,
            goal=redacted[0],
            category=redacted[1],
            observation=redacted[2],
            before=redacted[3],
            action=redacted[4],
            result=redacted[5],
            failed=failed,
        )
        with self._lock:
            known.add(key, outcome)
            known.recent.append((time.monotonic(), key, outcome))
        self._write(outcome)

    def _texts(self, texts: Iterable[str]) -> list[str]:
        """The texts, redacted; those of one step are asked for again at the next."""
        redacted = []
        for text in texts:
            cached = self._redacted.get(text)
            if cached is None:
                cached = self._redact(text) if text else text
                self._redacted.put(text, cached)
            redacted.append(cached)
        return redacted

    def _key(self, place: Place) -> Key:
        parts = [getattr(place, name) for name in sorted(self._settings.same)]
        text = "\0".join(f"{len(part)}:{part}" for part in parts)
        return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()

    async def _loaded(self, namespace: str) -> None:
        """Have what is known of a namespace: waits the first time, and is read again in the background."""
        known = self._known.get(namespace)
        if known is None:
            await apart(self._read, namespace)
        elif time.monotonic() - known.read_at > REFRESH_SECONDS and self._reading.acquire(blocking=False):
            self._thread = threading.Thread(
                target=self._read_again, args=(namespace,), name="agentcascade-failures", daemon=True
            )
            self._thread.start()

    def _read_again(self, namespace: str) -> None:
        try:
            self._read(namespace)
        except Exception as error:
            log.warning("the shelf of failures cannot be read, what was last known counts: %s", describe(error))
            if (known := self._known.get(namespace)) is not None:
                known.read_at = time.monotonic()
        finally:
            self._reading.release()

    def _read(self, namespace: str) -> None:
        """Take in what others wrote since; all anew where rows are gone, or came late. Deletes what is over `keep`."""
        known, keep = self._known.get(namespace), self._settings.keep
        with self._database.begin() as connection:
            rows = outcomes.read_outcomes(connection, namespace, known.watermark if known else 0)
            count = outcomes.count_of(connection, namespace)
            if known is None or known.stored + len(rows) != count:
                rows, known = outcomes.read_outcomes(connection, namespace), None
        if count > keep + keep // 10:
            with self._database.begin(write=True) as connection:
                outcomes.prune_outcomes(connection, namespace, keep=keep)
        with self._lock:
            taken = known or self._anew(namespace)
            for pk, outcome in rows:
                taken.watermark, taken.stored = max(taken.watermark, pk), taken.stored + 1
                if outcome.id not in taken.ids:
                    place = Place(outcome.goal, outcome.category, outcome.observation, outcome.before)
                    taken.add(self._key(place), outcome)
            taken.read_at = time.monotonic()
            self._known.put(namespace, taken)

    def _anew(self, namespace: str) -> Known:
        """Nothing but what was noted here so lately that it may not be written yet."""
        anew, before = Known(), self._known.get(namespace)
        for at, key, outcome in before.recent if before else ():
            if time.monotonic() - at < RECENT_SECONDS:
                anew.add(key, outcome)
                anew.recent.append((at, key, outcome))
        return anew


def _place(situation: Situation, history: Sequence[Step], observation: str) -> Place:
    return Place(situation.goal, situation.category, observation, history[-1].action if history else "")


def _length(place: Place) -> int:
    return sum(map(len, place))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
