"""Resources that cascades of one configuration share: database, bank, recorder, budgets, kill switch, retention."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from pydantic import BaseModel, SecretStr

from agentcascade.assembly import components
from agentcascade.billing.door import Door
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError
from agentcascade.lifetime import Lifetime
from agentcascade.protocols import ChatModel, Embedder, Guard, Observer, Recorder, TokenCounter

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.bank.failures import FailureShelf
    from agentcascade.bank.live_collection import LiveCollection
    from agentcascade.batches.run import Batches
    from agentcascade.billing.response_cache import ResponseCache
    from agentcascade.ledger.ledger import DatabaseRecorder
    from agentcascade.redaction.redactor import Redactor
    from agentcascade.storage import Database
    from agentcascade.storage.audit_rounds import AuditRoundStore
    from agentcascade.storage.budgets import DatabaseBudgets
    from agentcascade.storage.computed_cache import ComputedCache
    from agentcascade.storage.histories import Histories
    from agentcascade.storage.switch import Switch

batch_log = logging.getLogger("agentcascade.batches")

T = TypeVar("T")


class Closable(Protocol):
    def close(self) -> None: ...


P = TypeVar("P", bound=Closable)


def fingerprint(value: object) -> str:
    """A digest of configuration that tells secrets apart, which its text masks."""
    return blake2b(repr(_bare(value)).encode(errors="surrogatepass")).hexdigest()


def _bare(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: _bare(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return sorted((str(k), repr(_bare(v))) for k, v in value.items())
    return [_bare(v) for v in value] if isinstance(value, (list, tuple)) else value


class Resources:
    """Opens each resource once per configuration of it; `close` closes all of them, last in, first out."""

    def __init__(self) -> None:
        self._opened: dict[Hashable, Any] = {}
        self.life = Lifetime()

    def once(self, key: Hashable, open: Callable[[], T]) -> T:
        """What `open` returned when it was first called for `key`."""
        if key not in self._opened:
            self._opened[key] = open()
        return cast("T", self._opened[key])

    def closing(self, part: P) -> P:
        """`part`, which is closed with the resources."""
        self.life.add(part.close)
        return part

    def close(self) -> None:
        """A second call does nothing."""
        self.life.close()

    def database(self, config: CascadeConfig) -> Database:
        from agentcascade.storage import open_database

        url, migrate = config.bank.url, config.bank.migrate
        return self.once(("database", url), lambda: self.closing(open_database(url, migrate=migrate)))

    def embedder(self, name: str) -> Embedder:
        return self.once(("embedder", name), lambda: components.make_embedder(name))

    def redactor(self, config: CascadeConfig) -> Redactor:
        from agentcascade.redaction.redactor import Redactor

        settings = config.redaction
        return self.once(("redactor", settings.model_dump_json()), lambda: Redactor(**settings.model_dump()))

    def bank(self, config: CascadeConfig, embedder: Embedder) -> Bank:
        """One for all cascades that search it alike."""
        database, redact, failures = self.database(config), self.redactor(config).trajectory, self.failures(config)
        sections = config.retrieval.model_dump_json(), config.redaction.model_dump_json(), config.prompt.shortened
        key = ("bank", config.bank.url, *sections, config.contrast.model_dump_json())
        return self.once(
            key, lambda: self.closing(components.open_bank(config, database, embedder, redact, failures=failures))
        )

    def failures(self, config: CascadeConfig) -> FailureShelf | None:
        """The shelf of failures, where the configuration says what a failure is; one for all that see them alike."""
        if not config.contrast.failed:
            return None
        from agentcascade.bank.failures import FailureShelf

        database, redactor, settings = self.database(config), self.redactor(config), config.contrast
        writer = self._writer(config)
        key = ("failures", config.bank.url, settings.model_dump_json(), config.redaction.model_dump_json())

        def open_shelf() -> FailureShelf:
            quick = not config.redaction.presidio
            return FailureShelf(database, writer.record_outcome, settings, redact=redactor.text, quick=quick)

        return self.once(key, lambda: self.closing(open_shelf()))

    def collection(self, config: CascadeConfig, bank: Bank | None, teacher: ChatModel | None) -> LiveCollection | None:
        """What says which live episodes are wanted as demonstrations, where `collect.active` is on in mode cascade.

        Raises `ConfigError` without a bank, `UnknownPrice` for a teacher whose price is not known.
        """
        modes = {config.mode, config.rollout.otherwise if config.rollout.share < 1 else config.mode}
        if not config.collect.active or "cascade" not in modes:
            return None
        from agentcascade.bank.active import check_priced
        from agentcascade.bank.live_collection import LiveCollection

        if bank is None:
            raise ConfigError("collect.active collects demonstrations, and none are shown: set retrieval.k above 0")
        check_priced(teacher)
        settings, k, budgets = config.collect, config.retrieval.k, self.budgets(config)
        return self.once(
            ("collection", id(bank), settings.model_dump_json(), k),
            lambda: self.closing(LiveCollection(bank, budgets, settings, k)),
        )

    def _writer(self, config: CascadeConfig) -> DatabaseRecorder:
        from agentcascade.ledger.ledger import DatabaseRecorder

        database, url, journal = self.database(config), config.bank.url, config.bank.journal
        return self.once(("recorder", url), lambda: self.closing(DatabaseRecorder(database, folder=journal)))

    def recorder(self, config: CascadeConfig) -> Recorder:
        """Writes what happened to the database, redacted; old rows are removed as `retention` says."""
        from agentcascade.redaction.recorder import RedactingRecorder
        from agentcascade.storage.retention_thread import RetentionThread

        database, url = self.database(config), config.bank.url
        self.once(("upkeep", url), lambda: self.closing(RetentionThread(database, config.retention)))
        return RedactingRecorder(self._writer(config), self.redactor(config))

    def budgets(self, config: CascadeConfig) -> DatabaseBudgets:
        from agentcascade.storage.budgets import DatabaseBudgets

        database = self.database(config)
        return self.once(("budgets", config.bank.url), lambda: self.closing(DatabaseBudgets(database)))

    def switch(self, config: CascadeConfig) -> Switch:
        """The kill switch that stands in the database."""
        from agentcascade.storage.switch import Switch

        database = self.database(config)
        return self.once(("switch", config.bank.url), lambda: self.closing(Switch(database)))

    def observer(self, config: CascadeConfig) -> Observer | None:
        """OpenTelemetry, where it is on."""
        if not config.telemetry.opentelemetry:
            return None
        from agentcascade.telemetry.observer import Telemetry

        redactor, contents = self.redactor(config), config.telemetry.contents
        key = ("telemetry", contents, config.redaction.model_dump_json())
        return self.once(key, lambda: Telemetry(record_content=contents, redactor=redactor))

    def guard(self, config: CascadeConfig, name: str) -> Guard | None:
        """The drift guard of audited cascades of this name, where audits have a risk to keep: twins share its state."""
        settings = config.audit
        if not settings.rate or settings.risk is None:
            return None
        from agentcascade.routers.step.drift_guard import PREFIX, DriftGuard
        from agentcascade.storage.shared_value import SharedValue

        database = self.database(config)
        state = self.once(("guard", name), lambda: self.closing(SharedValue(database, PREFIX + name)))
        return DriftGuard(state, settings.risk, settings.delta, settings.promise, settings.when_alarmed, name)

    def door(self, config: CascadeConfig) -> Door:
        """For model calls that are no part of a step."""
        budgets, observer, cache = self.budgets(config), self.observer(config), self.response_cache(config)
        return Door(budgets=budgets, observer=observer, settings=config.budgets, cache=cache)

    def response_cache(self, config: CascadeConfig) -> ResponseCache | None:
        """The response cache in the database, where it is on."""
        settings = config.response_cache
        if not settings.enabled:
            return None
        from agentcascade.billing.response_cache import ResponseCache
        from agentcascade.storage.cached_responses import CachedResponses, Limits

        database = self.database(config)
        limits = Limits(settings.ttl_seconds, settings.max_entries, settings.max_bytes)
        key = ("response cache", config.bank.url, settings.model_dump_json())
        return self.once(key, lambda: self.closing(ResponseCache(CachedResponses(database, limits), settings)))

    def batches(self, config: CascadeConfig, count: TokenCounter, observer: Observer | None) -> Batches:
        """The batches of the database, billed and within its budgets."""
        from agentcascade.batches import run
        from agentcascade.batches.polling import BatchPoller
        from agentcascade.billing.batch_door import BatchDoor
        from agentcascade.storage.batches import BatchStore

        budgets = self.budgets(config)
        door = BatchDoor(count, budgets=budgets, observer=observer, settings=config.budgets)
        poller = BatchPoller(BatchStore(self.database(config)), door, tell=batch_log.info)
        return run.Batches(poller, seconds=run.POLL_SECONDS)

    def audit_rounds(self, config: CascadeConfig) -> AuditRoundStore:
        """Audits that wait for their batches, in the database."""
        from agentcascade.storage.audit_rounds import AuditRoundStore

        return AuditRoundStore(self.database(config), self.redactor(config))

    def histories(self, config: CascadeConfig) -> Histories:
        from agentcascade.storage.histories import Histories

        database = self.database(config)
        return self.once(("histories", config.bank.url), lambda: Histories(database))

    def computed(self, config: CascadeConfig) -> ComputedCache:
        from agentcascade.storage.computed_cache import ComputedCache

        return ComputedCache(self.database(config))
