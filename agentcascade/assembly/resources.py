"""What several cascades of one configuration share: database, bank, records, budgets, kill switch, upkeep."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from pydantic import BaseModel, SecretStr

from agentcascade.billing.door import Door
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.lifetime import Lifetime
from agentcascade.protocols import Budgets, Embedder, Guard, Observer, Recorder

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.memory.memory import Memory
    from agentcascade.redaction.redactor import Redactor
    from agentcascade.storage import Database
    from agentcascade.storage.computed_cache import Computed
    from agentcascade.storage.histories import Histories

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


class Shared:
    """Opens each thing once; `close` closes all of them, last in, first out."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        self.life = Lifetime()

    def attach(self, cascade: Cascade, recorder: Recorder | None) -> None:
        """Give the cascade its bank, its recorder (unless it has one), its budgets and its kill switch."""
        from agentcascade.storage.switch import Switch

        config = cascade.config
        banked = config.retrieval.k or config.mode == "collect"
        embedder = self.embedder(config.retrieval.embedder) if banked else None  # what may be missing, before any file
        redactor = self.redactor(config)
        database = self.database(config)
        cascade.database = database
        if embedder is not None:
            cascade.bank = self._bank(config, database, embedder, redactor)
        cascade.recorder = recorder or self._recorder(config, database, redactor)
        cascade.budgets = self.budgets(config)
        cascade.switch = self._once(("switch", config.bank.url), lambda: self._closing(Switch(database)))
        if config.audit.rate and config.audit.risk is not None:
            cascade.guard = self._guard(cascade, database)
        if config.memory.enabled:
            from agentcascade.step.recall import Remembering

            cascade.remembering = Remembering(cascade, self.memory(config))
        observer = self._observer(config)
        if observer is not None:
            cascade.observer = observer

    def budgets(self, config: CascadeConfig) -> Budgets:
        from agentcascade.storage.budgets import DatabaseBudgets

        database = self.database(config)
        return self._once(("budgets", config.bank.url), lambda: self._closing(DatabaseBudgets(database)))

    def door(self, config: CascadeConfig) -> Door:
        """For model calls that are no part of a step."""
        return Door(budgets=self.budgets(config), observer=self._observer(config), settings=config.budgets)

    def _observer(self, config: CascadeConfig) -> Observer | None:
        if not config.telemetry.opentelemetry:
            return None
        from agentcascade.telemetry.observer import Telemetry

        redactor, contents = self.redactor(config), config.telemetry.contents
        what = ("telemetry", contents, config.redaction.model_dump_json())
        return self._once(what, lambda: Telemetry(record_content=contents, redactor=redactor))

    def _guard(self, cascade: Cascade, database: Database) -> Guard:
        """One for all cascades of a name: twins share it."""
        from agentcascade.routers.step.drift_guard import PREFIX, DriftGuard
        from agentcascade.storage.shared_value import Kept

        settings, name = cascade.config.audit, cascade.name
        assert settings.risk is not None
        kept = self._once(("kept", name), lambda: self._closing(Kept(database, PREFIX + name)))
        return DriftGuard(kept, settings.risk, settings.delta, settings.promise, settings.when_alarmed, name)

    def database(self, config: CascadeConfig) -> Database:
        from agentcascade.storage import open_database

        url = config.bank.url
        return self._once(("database", url), lambda: self._closing(open_database(url)))

    def _bank(self, config: CascadeConfig, database: Database, embedder: Embedder, redactor: Redactor) -> Bank:
        from agentcascade.assembly.cascade import open_bank

        sections = config.retrieval.model_dump_json(), config.redaction.model_dump_json(), config.prompt.shortened
        what = ("bank", config.bank.url, *sections)
        return self._once(what, lambda: self._closing(open_bank(config, database, embedder, redactor.trajectory)))

    def embedder(self, name: str) -> Embedder:
        from agentcascade.assembly.cascade import make_embedder

        return self._once(("embedder", name), lambda: make_embedder(name))

    def redactor(self, config: CascadeConfig) -> Redactor:
        from agentcascade.redaction.redactor import Redactor

        settings = config.redaction
        return self._once(("redactor", settings.model_dump_json()), lambda: Redactor(**settings.model_dump()))

    def recorder(self, config: CascadeConfig) -> Recorder:
        """Writes what happened to the database, redacted."""
        return self._recorder(config, self.database(config), self.redactor(config))

    def histories(self, config: CascadeConfig) -> Histories:
        from agentcascade.storage.histories import Histories

        database = self.database(config)
        return self._once(("histories", config.bank.url), lambda: Histories(database))

    def computed(self, config: CascadeConfig) -> Computed:
        from agentcascade.storage.computed_cache import Computed

        return Computed(self.database(config))

    def memory(self, config: CascadeConfig) -> Memory:
        from agentcascade.assembly.memory import make_memory

        parts = config.memory, config.redaction, config.retrieval.embedder, config.bank.url, config.seed
        return self._once(("memory", fingerprint(parts)), lambda: self._closing(make_memory(config, self)))

    def _recorder(self, config: CascadeConfig, database: Database, redactor: Redactor) -> Recorder:
        from agentcascade.ledger.ledger import DatabaseRecorder
        from agentcascade.redaction.redactor import RedactingRecorder
        from agentcascade.storage.retention_thread import Upkeep

        url, journal = config.bank.url, config.bank.journal
        self._once(("upkeep", url), lambda: self._closing(Upkeep(database, config.retention)))
        writer = self._once(("recorder", url), lambda: self._closing(DatabaseRecorder(database, folder=journal)))
        return RedactingRecorder(writer, redactor)

    def _once(self, what: Hashable, make: Callable[[], T]) -> T:
        if what not in self._made:
            self._made[what] = make()
        return cast("T", self._made[what])

    def _closing(self, part: P) -> P:
        self.life.add(part.close)
        return part

    def close(self) -> None:
        """A second call does nothing."""
        self.life.close()
