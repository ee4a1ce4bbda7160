"""Active collection from live traffic: is this episode wanted as a demonstration, so that the teacher plays it?

Asked once an episode, at its first step. The task is there to be done anyway, so a demonstration costs what the teacher
costs more than the cascade. Later steps of a caller that keeps no session are known by the drafts of the first.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import NamedTuple

from sqlalchemy import select

from agentcascade._util import forking
from agentcascade._util.lru_cache import LRUCache
from agentcascade._util.threads import apart
from agentcascade.bank.active import ActiveChooser, account_of, why_stop
from agentcascade.bank.bank import Bank
from agentcascade.bank.needs import GoalVectors, read_evidence
from agentcascade.config.sections import CollectConfig
from agentcascade.errors import AgentCascadeError, describe
from agentcascade.storage import thread_pool
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.tables import drafts
from agentcascade.types import DERIVED, Account, Situation

log = logging.getLogger("agentcascade.collect")
FRESH_SECONDS = 60.0
"""For which evidence is used before the records are read again."""
EPISODES = 10_000
"""Whose answers are remembered at once."""


class Wanted(NamedTuple):
    """An episode that the teacher plays as a demonstration: why, and what its calls are reserved on."""

    why: str
    accounts: tuple[Account, ...]


class LiveCollection:
    """Says which live episodes of a cascade are wanted. Thread-safe.

    Args:
        bank: Of the cascade.
        budgets: Where the collection's account is.
        settings: The configuration's ``collect``.
        k: Demonstrations of a step.
    """

    def __init__(self, bank: Bank, budgets: DatabaseBudgets, settings: CollectConfig, k: int) -> None:
        self._bank, self._budgets, self._settings, self._k = bank, budgets, settings, max(1, k)
        self._vectors = GoalVectors(bank.embedder)
        self._choosers: dict[str, tuple[float, ActiveChooser]] = {}
        self._known: LRUCache[tuple[str, str], str] = LRUCache(EPISODES)
        self._lock = forking.lock()
        self._idle = threading.Event()
        self._idle.set()
        self._said = ""

    async def consider(self, situation: Situation) -> Wanted | None:
        """Whether the teacher is to play the episode; the same answer at each of its steps.

        What goes wrong is logged, and the episode goes on as any other.
        """
        key = situation.namespace, situation.episode
        # An id that was derived from the first messages may be another run of the same task.
        begins_anew = not situation.history and situation.episode.startswith(DERIVED)
        why = None if begins_anew else self._known.get(key)
        if why is None:
            try:
                why = await apart(self._decide, situation)
            except (AgentCascadeError, OSError) as error:
                if (said := describe(error)) != self._said:
                    self._said = said
                    log.warning("active collection does not collect: %s", said)
                why = ""
            self._known.put(key, why)
        account = account_of(situation.namespace, self._settings.budget)
        return Wanted(why, () if account is None else (account,)) if why else None

    def give_up(self, situation: Situation) -> None:
        """The budget was used up within the episode: it is no demonstration any more."""
        self._known.put((situation.namespace, situation.episode), "")

    def _decide(self, situation: Situation) -> str:
        """Why the episode is wanted; empty where it is not. Blocks."""
        if situation.history:
            of_episode = drafts.c.namespace == situation.namespace, drafts.c.episode == situation.episode
            with self._bank.database.begin() as connection:
                drafted = connection.execute(select(drafts.c.position).where(*of_episode).limit(1)).first()
            return "wanted: chosen at its first step" if drafted is not None else ""
        if not situation.goal.strip():
            return ""  # it could not be banked: an image alone, say
        with self._lock:
            chooser = self._chooser(situation.namespace)
            candidate = chooser.appraise(situation.goal)
            account, remaining = account_of(situation.namespace, self._settings.budget), None
            if account is not None:
                balance = self._budgets.balance(account)
                remaining = account.limit - balance.spent - balance.reserved
            if why_stop(candidate, chooser.cold, chooser.banked, self._settings.cold_start, remaining) is not None:
                return ""
            chooser.take_goal(situation.goal)
        return f"wanted: {candidate}"

    def close(self, seconds: float = 5.0) -> None:
        """Wait for evidence that is being read."""
        self._idle.wait(seconds)

    def _chooser(self, namespace: str) -> ActiveChooser:
        """What is known of a namespace; older than `FRESH_SECONDS` it is read again, behind the caller."""
        read_at, chooser = self._choosers.get(namespace, (0.0, None))
        if chooser is None:
            chooser = self._read(namespace)
            self._choosers[namespace] = time.monotonic(), chooser
        elif time.monotonic() - read_at > FRESH_SECONDS and self._idle.is_set():
            self._idle.clear()
            try:
                thread_pool.submit(lambda: self._refresh(namespace))
            except RuntimeError:  # the interpreter ends
                self._idle.set()
        return chooser

    def _refresh(self, namespace: str) -> None:
        try:
            chooser = self._read(namespace)
            with self._lock:
                self._choosers[namespace] = time.monotonic(), chooser
        except Exception as error:
            log.warning("active collection goes on with older records: %s", describe(error))
        finally:
            self._idle.set()

    def _read(self, namespace: str) -> ActiveChooser:
        evidence = read_evidence(self._bank, namespace, self._k, self._vectors)
        return ActiveChooser(self._vectors, evidence, (), k=self._k, horizon=self._settings.horizon, live=True)
