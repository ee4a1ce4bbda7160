"""One tree of errors. Every message names the value at fault and says what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from agentcascade._util import known_secrets, secret_patterns
from agentcascade._util.control_characters import one_line

if TYPE_CHECKING:
    from agentcascade.types import Completion

__all__ = [
    "AgentCascadeError",
    "BankError",
    "BatchFailed",
    "BenchError",
    "BrokenStream",
    "BudgetExceeded",
    "CascadeClosed",
    "ConfigError",
    "CorruptDatabase",
    "EmbeddingError",
    "EmbeddingModelChanged",
    "EmptyCompletion",
    "EnvironmentFailed",
    "EpisodeClosed",
    "InvalidAction",
    "InvalidKey",
    "InvalidRequest",
    "MissingExtra",
    "NewerDatabase",
    "NoBatches",
    "ProviderError",
    "RateLimited",
    "StorageError",
    "UnknownEpisode",
    "UnknownPrice",
    "UnknownTrajectory",
    "bill_of",
]


class AgentCascadeError(Exception):
    """Base of every error that agentcascade raises itself."""


class ConfigError(AgentCascadeError):
    """A configuration value is missing, unknown or impossible."""


class MissingExtra(AgentCascadeError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs {package}: pip install "agentcascade[{extra}]"')
        self.package: str = package
        self.extra: str = extra
        self.purpose: str = purpose

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str, str]]:
        """Errors come back pickled from worker processes."""
        return type(self), (self.package, self.extra, self.purpose)


class InvalidRequest(AgentCascadeError, ValueError):
    """The caller's messages or arguments cannot be used."""


class InvalidAction(AgentCascadeError, ValueError):
    """A model's answer holds no usable action."""


class EmptyCompletion(AgentCascadeError):
    """A model returned no message. `completion` holds what the attempt cost, where that is known: see `bill_of`."""

    completion: Completion | None = None


class ProviderError(AgentCascadeError):
    """A model's server answered with what is no answer: an error inside a 200, a page, a stream that breaks off.

    `status_code` is the HTTP status that it amounts to; `completion` what the attempt may have cost (see `bill_of`).
    """

    def __init__(self, message: str, status_code: int = 502) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.completion: Completion | None = None

    def __reduce__(self) -> tuple[type[ProviderError], tuple[str, int]]:
        return type(self), (str(self), self.status_code)


class BrokenStream(ProviderError, ConnectionError):
    """A stream that ended before its answer did. `completion` holds what came of it."""


class NoBatches(ConfigError):
    """A model's provider has no batch interface that is spoken here."""


class BatchFailed(ProviderError):
    """A provider's batch cannot be sent or read: what it said, and what became of its requests."""


class EpisodeClosed(AgentCascadeError):
    """The episode was finished already."""


class CascadeClosed(EpisodeClosed):
    """The cascade was closed: nothing that it answers would be recorded."""


class UnknownPrice(AgentCascadeError):
    """Dollars were demanded for a model whose price is not known."""


class BudgetExceeded(AgentCascadeError):
    """A call would spend more than its key, namespace or episode may. `scope` says which of them."""

    def __init__(self, message: str, scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope

    def __reduce__(self) -> tuple[type[BudgetExceeded], tuple[str, str]]:
        return type(self), (str(self), self.scope)


class RateLimited(AgentCascadeError):
    """A key made more requests than it may. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[RateLimited], tuple[str, float]]:
        return type(self), (str(self), self.retry_after)


class InvalidKey(AgentCascadeError):
    """The API key is unknown, revoked or expired, or may not do this."""


class UnknownEpisode(AgentCascadeError, KeyError):
    """No episode has that id in the caller's namespace."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StorageError(AgentCascadeError):
    """The database cannot be used as it is."""


class CorruptDatabase(StorageError):
    """The file is not a readable database."""


class NewerDatabase(StorageError):
    """The database was written by a newer agentcascade."""


class BankError(AgentCascadeError):
    """The bank cannot do what was asked."""


class UnknownTrajectory(BankError, KeyError):
    """No trajectory has that id."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class EmbeddingError(BankError):
    """The embedder gave vectors that cannot be used (wrong shape, NaN, infinite)."""


class EmbeddingModelChanged(BankError):
    """The bank was embedded with another model."""


class EnvironmentFailed(AgentCascadeError):
    """A benchmark environment broke or cannot start."""


class BenchError(AgentCascadeError):
    """A benchmark run cannot start or resume."""


def bill_of(error: BaseException) -> Completion | None:
    """What a failed or cancelled model call has cost so far, as a `Completion`; None when nothing was sent.

    Adapters attach it as ``error.completion``, to cancellations too. Followed through `raise … from …`, which is how
    `asyncio.timeout` makes a `TimeoutError` of a cancellation; the first bill that is found is the only one.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        bill: Completion | None = getattr(found, "completion", None)
        if bill is not None:
            return bill
        seen.add(id(found))
        found = found.__cause__
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known names, or lists them all."""
    options = sorted(known)
    if not options:
        return "there is none."
    near = get_close_matches(name, options, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(options)}."


_SECRET = re.compile(
    r"(?i)\b(?:sk|pk|rk|xai|gsk|hf|ghp)[-_][\w*-]{6,}|bearer\s+(?!ac-…)\S+|(?<=key[=:])\s*\S+|//[^/\s:@]*:[^/\s@]+@"
    r"|(?<=[?&;])[\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|key|signature|sig|credential|auth)[\w.-]*=[^&\s#\"']+"
    r"|\b(?:ssl)?password\s*=\s*(?:'[^']*'|[^\s&;]+)|[\w.-]{0,24}\*{4,}[\w.-]{0,24}"
)


def without_secrets(text: str) -> str:
    """`text` without known keys, and without what looks like a key or a password, in URLs too."""
    return secret_patterns.replace_secrets(_SECRET.sub("[redacted]", known_secrets.hide(text)), secret_patterns.KEYS)


def describe(error: BaseException) -> str:
    """Class and first words of an error, without secrets and control characters: safe to record and to show."""
    text = one_line(without_secrets(" ".join(str(error)[:100_000].split())))
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
