"""What a part must do to be a part. The core knows its parts by these promises alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

from agentcascade.types import (
    Account,
    Action,
    Completion,
    Decision,
    Delta,
    Draft,
    EpisodeEnd,
    Judgement,
    Message,
    Mode,
    Purpose,
    Role,
    Shadow,
    Situation,
    Tally,
    Tool,
    Trajectory,
    Usage,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentcascade.types import Recall

    Vectors = NDArray[np.float32]
    IdArray = NDArray[np.int64]

__all__ = [
    "Ask",
    "Budgets",
    "ChatModel",
    "DeferringRecorder",
    "Embedder",
    "Environment",
    "Guard",
    "Judge",
    "LearningRouter",
    "Merger",
    "Observer",
    "Recorder",
    "Retriever",
    "Router",
    "SharedRetriever",
    "StreamingModel",
    "Switch",
    "TokenCounter",
    "Verdict",
]


@runtime_checkable
class ChatModel(Protocol):
    """A chat model. (A cascade is none: its episodes are asked.)"""

    name: str
    supports_n: bool
    """True where one request can return n samples and bills the prompt once."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """`n` samples of the next assistant message; raises the provider's own errors.

        An error or a cancellation after something was sent carries what it cost so far: see `errors.bill_of`.
        """
        ...

    def dollars(self, usage: Usage) -> Decimal | None:
        """What such usage costs with this model; None when the price is not known."""
        ...


@runtime_checkable
class StreamingModel(ChatModel, Protocol):
    """A chat model that can also hand out its answer while it is made."""

    async def stream(
        self,
        messages: Sequence[Message],
        on_delta: Callable[[Delta], None],
        *,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """One answer, as `complete` would give it; every part of it goes to `on_delta` as soon as it is there.

        A failure before the first part may be tried again; after it, it is raised, with a bill of what came (see
        `errors.bill_of`). Cancelling closes the request.
        """
        ...


def can_stream(model: object) -> TypeGuard[StreamingModel]:
    """Whether a chat model streams, also where a wrapper's `__getattr__` says so.

    `isinstance` with a protocol looks past `__getattr__` since Python 3.12.
    """
    return callable(getattr(model, "stream", None))


class Embedder(Protocol):
    """Texts to unit vectors."""

    name: str
    """Identity of the vector space: two embedders with one name are interchangeable."""
    dimension: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 array (len(texts), dimension), rows of unit length."""
        ...


class Retriever(Protocol):
    """An index over steps, grouped by trajectory, one partition per namespace. Thread-safe; never the only copy."""

    def add(self, namespace: str, rows: IdArray, groups: IdArray, keys: Vectors) -> None:
        """Add steps `rows` (n,) of trajectories `groups` (n,) under `keys` (n, d)."""
        ...

    def remove(self, namespace: str, groups: Collection[int]) -> None:
        """Forget every step of these trajectories; unknown ones are ignored."""
        ...

    def search(
        self, namespace: str, key: Vectors, k: int, exclude: Collection[int] = ()
    ) -> list[tuple[int, int, float]]:
        """The best row of each of the k best groups, as (row, group, inner product), best first.

        `key` is (d,). Groups in `exclude` are left out. Fewer than k when the namespace holds fewer.
        """
        ...

    def settle(self) -> None:
        """Return when all that `add` left for later is done."""
        ...

    def __len__(self) -> int:
        """Steps held, over all namespaces."""
        ...


@runtime_checkable
class SharedRetriever(Retriever, Protocol):
    """A retriever whose index many processes share, so that what one has added is there for all.

    Made with `database` and `space` besides `dimension`: where the bank is, and what made the keys. `search` may wait
    for a server; what is removed from the bank is gone from the index by itself.
    """

    shared: bool
    """True, on the class itself: by that it is given `database` and `space` where `retrieval.index` names it."""

    @property
    def watermark(self) -> int:
        """The last trajectory that `reached` named, whoever called it; 0 for a new index."""
        ...

    def reached(self, watermark: int) -> None:
        """Every trajectory up to this one is in the index: nobody needs to add it again."""
        ...


def is_shared(retriever: object) -> TypeGuard[SharedRetriever]:
    """Whether a retriever's index is shared, also where a wrapper's `__getattr__` says so."""
    return callable(getattr(retriever, "reached", None))


class Verdict(Enum):
    """What a router says of a step's votes: the student's action is taken, or the teacher is asked."""

    ACCEPT = "accept"
    DEFER = "defer"


class Router(Protocol):
    """Who takes this step."""

    name: str

    def samples(self, situation: Situation) -> int:
        """How many student samples to draw at most; 0 sends the step straight to the teacher."""
        ...

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        """Accept or defer given the votes so far; None while `remaining` samples could change the verdict.

        Never None when `remaining` is 0.
        """
        ...


@runtime_checkable
class LearningRouter(Router, Protocol):
    """A router that learns from steps which both models answered: shadows and audits."""

    def update(self, situation: Situation, tally: Tally, teacher: str | None) -> None:
        """The student's votes at a step, and the teacher's action key there. Returns at once."""
        ...


def can_learn(router: object) -> TypeGuard[LearningRouter]:
    """Whether a router learns, also where a wrapper's `__getattr__` says so."""
    return callable(getattr(router, "update", None))


Ask = Callable[["ChatModel", Sequence[Message]], Awaitable[Completion]]
"""Asks a model on the bill of the step."""


class Merger(Protocol):
    """Finds actions that mean the same though their keys differ."""

    name: str

    async def merge(self, situation: Situation, actions: Sequence[Action], ask: Ask) -> Mapping[str, str]:
        """Key of an action → the key that it goes by: the same for actions that mean the same. Others are left out."""
        ...


Judge: TypeAlias = "Callable[[Trajectory], bool | Awaitable[bool] | Judgement | Awaitable[Judgement]]"
"""Whether the trajectory reached its goal."""


class Recorder(Protocol):
    """Where decisions go. `record` returns at once; `flush` returns when all is durable."""

    def record(self, decision: Decision) -> None:
        """Take the decision of one step."""
        ...

    def record_shadow(self, shadow: Shadow) -> None:
        """Take what the student would have done at one step of the teacher's."""
        ...

    def record_draft(self, draft: Draft) -> None:
        """Take one step of an episode that may be banked later."""
        ...

    def record_end(self, end: EpisodeEnd) -> None:
        """Take the end of an episode: its outcome, if it is known."""
        ...

    def record_recall(self, recall: Recall) -> None:
        """Take what a memory gave for one question, and its bill."""
        ...

    def flush(self, seconds: float | None = None) -> bool:
        """False when it is not all durable after so many seconds."""
        ...

    def close(self, seconds: float | None = None) -> None:
        """Write what is left, for at most so many seconds, and free what is held."""
        ...


@runtime_checkable
class DeferringRecorder(Protocol):
    """A recorder that makes records in the background, where redacting them takes long."""

    def defer(self, make: Callable[[], Any], meanwhile: Any) -> None:
        """Take what `make` gives; `meanwhile`, if not None, stands for it should the process die before."""
        ...


def can_defer(recorder: object) -> TypeGuard[DeferringRecorder]:
    """Whether a recorder makes records in the background, also where a wrapper's `__getattr__` says so."""
    return callable(getattr(recorder, "defer", None))


class Switch(Protocol):
    """The kill switch: while it is on, the teacher takes every step."""

    @property
    def on(self) -> bool:
        """The last known position; never waits."""
        ...


class Guard(Protocol):
    """Watches audited steps, and says by which router to go on while the certified risk does not hold."""

    @property
    def alarmed(self) -> bool:
        """The last known state; never waits."""
        ...

    @property
    def evidence(self) -> float:
        """Against the certified risk; an alarm when it is large enough."""
        ...

    def observe(self, loss: float) -> bool:
        """Take the loss, 0 to 1, of one audited step; whether the alarm is on. May wait for a database."""
        ...

    def instead(self, router: Router) -> Router | None:
        """The router during an alarm; None: the teacher."""
        ...


class Budgets(Protocol):
    """Who may spend how much. Shared by all that work on one database."""

    async def reserve(self, accounts: Sequence[Account], dollars: Decimal, seconds: float) -> str:
        """Set `dollars` aside for a call of at most so many seconds, on every account or on none; returns its id.

        Raises `BudgetExceeded` when one of them has not enough left. A wait that is cancelled leaves nothing reserved.
        """
        ...

    def settle(self, reservation: str, dollars: Decimal) -> Awaitable[None]:
        """Book what the call did cost and release the reservation, whether or not the result is awaited.

        A second time does nothing.
        """
        ...

    def book(self, accounts: Sequence[Account], dollars: Decimal) -> Awaitable[None]:
        """Book what was spent without a reservation, likewise."""
        ...


class Observer(Protocol):
    """Watches steps and model calls: traces, metrics. It never fails what it watches."""

    def step(self, situation: Situation, mode: Mode) -> AbstractContextManager[Callable[[Decision], None]]:
        """Around one step; the function takes its decision."""
        ...

    def call(
        self, role: Role, purpose: Purpose, model: str, **request: Any
    ) -> AbstractContextManager[Callable[[Completion], None]]:
        """Around one model call; the function takes its completion. `request` holds n, temperature, stream ...."""
        ...

    def on_audit(self, cascade: str, loss: float, evidence: float | None, alarmed: bool) -> None:
        """One audit; `evidence` is that of the drift watch, if there is one."""
        ...


class Environment(Protocol):
    """A benchmark world that plays one task at a time."""

    def reset(self, task: str) -> str:
        """Start the task; returns the first observation, which holds the goal."""
        ...

    def step(self, action: str) -> tuple[str, bool]:
        """Act; returns (observation, done)."""
        ...

    @property
    def success(self) -> bool:
        """Whether the task is solved."""
        ...

    def close(self) -> None:
        """Free what the world holds; nothing is asked of it afterwards."""
        ...


class TokenCounter(Protocol):
    """Counts the tokens of a text with a real tokenizer."""

    def __call__(self, text: str, /) -> int: ...
