"""What is done when audits say that the certified risk no longer holds."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Literal, Protocol

from agentcascade.protocols import Router
from agentcascade.routers.step.consistency import AgreementThreshold
from agentcascade.routers.step.drift import Promise, Watch

log = logging.getLogger("agentcascade.audit")
WhenAlarmed = Literal["warn", "tighten", "teacher"]
PREFIX = "drift:"
"""Begins the names under which watches are kept."""


class SharedText(Protocol):
    """A text that outlives the process and is shared with others; see `storage.kept.Kept`."""

    def read(self) -> str | None: ...

    def change(self, make: Callable[[str | None], str]) -> str: ...

    @property
    def latest(self) -> str | None: ...


class DriftGuard:
    """A drift watch that all processes of one database share, and what its alarm does to the router.

    `when_alarmed`: ``teacher`` sends every step to the teacher, ``tighten`` asks for one vote more (and for the teacher
    where unanimity was not enough), ``warn`` only says so. An alarm stays until `agentcascade audit --reset`.
    """

    def __init__(
        self,
        kept: SharedText,
        risk: float,
        delta: float = 0.05,
        promise: Promise = "ever",
        when_alarmed: WhenAlarmed = "teacher",
        name: str = "",
    ) -> None:
        self.name: str = name
        self._kept, self.when_alarmed = kept, when_alarmed
        self._fresh = Watch(risk, delta, promise)
        self._parsed: tuple[str | None, Watch] = (None, self._fresh)
        kept.read()

    @property
    def watch(self) -> Watch:
        """As it was last seen."""
        text = self._kept.latest
        if text != self._parsed[0]:
            self._parsed = text, self._of(text)
        return self._parsed[1]

    @property
    def alarmed(self) -> bool:
        return self.watch.alarmed

    @property
    def evidence(self) -> float:
        return self.watch.evidence

    def observe(self, loss: float) -> bool:
        """Take one audited loss, durably; whether the alarm is on. Raises `StorageError`."""
        before = after = False

        def make(text: str | None) -> str:
            nonlocal before, after
            watch = self._of(text)
            before = watch.alarmed
            after = watch.observe(loss)
            return json.dumps(watch.state)

        self._kept.change(make)
        if after and not before:
            watch = self.watch
            log.error(
                "drift alarm of cascade '%s': %g losses in %d audits, certified %g; %s",
                *(self.name, watch.losses, watch.audits, watch.risk, DOES[self.when_alarmed]),
            )
        return after

    def instead(self, router: Router) -> Router | None:
        """The router during an alarm; None: the teacher."""
        if self.when_alarmed == "warn":
            return router
        if self.when_alarmed == "tighten" and isinstance(router, AgreementThreshold) and router.needed < router.n:
            return AgreementThreshold(router.n, (router.needed + 1) / router.n)
        return None

    def _of(self, text: str | None) -> Watch:
        """A watch that was kept for another risk or promise begins anew."""
        fresh = Watch(self._fresh.risk, self._fresh.delta, self._fresh.promise)
        if text is None:
            return fresh
        kept = Watch.restored(json.loads(text))
        same = (kept.risk, kept.delta, kept.promise) == (fresh.risk, fresh.delta, fresh.promise)
        return kept if same else fresh


DOES = {
    "warn": "nothing is changed (audit.when_alarmed: warn)",
    "tighten": "one vote more is needed until it is acknowledged",
    "teacher": "the teacher takes every step until it is acknowledged",
}
