"""`recorded/…` chat models: what a real model answered to a benchmark's tasks, its tokens, the price of its time.

Samples of a model that has several are drawn without replacement, in an order shuffled for each task; `NAME*N` is asked
N times, gives its last N and answers what most of them say, so that student and plurality share no sample while there
are enough. A model with one answer to a task gives no second: it would agree with itself.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agentcascade.errors import ConfigError, UnknownPrice, did_you_mean
from agentcascade.models.pricing import PriceTable
from agentcascade.protocols import TokenCounter
from agentcascade.types import Completion, Message, Tool, Usage

if TYPE_CHECKING:
    from typing import Self

    from agentcascade.config.sections import ModelConfig

A = TypeVar("A")
_VOTED = re.compile(r"(.+)\*([1-9]\d?)")


class Answer(Protocol):
    """One answer of one model to one task."""

    @property
    def message(self) -> Message: ...
    @property
    def finish(self) -> str: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def seconds(self) -> float | None: ...


class Given(Protocol):
    """A model's answers to one task, in the order in which they were recorded."""

    @property
    def answers(self) -> Sequence[Answer]: ...
    @property
    def input_tokens(self) -> int | None: ...


class Library(Protocol):
    """A benchmark's recorded answers by model and task."""

    prefix: str
    """Of the models' names"""
    suite: str

    def models(self) -> Sequence[str]:
        """Names, without the prefix."""
        ...

    def sampled(self) -> Mapping[str, int]:
        """Names of those that have several samples of a task → how many."""
        ...

    def answers(self, model: str, task: str) -> Given:
        """Raises `EnvironmentFailed` for a task that the model did not answer."""
        ...

    def vote(self, answer: Any) -> str | None:
        """What an answer votes for; None for nothing."""
        ...

    def price(self, model: str) -> Mapping[str, str] | None:
        """Dollars per million tokens of the time, as the configuration holds a price; None where it is unknown."""
        ...


class World(Protocol):
    task: str
    plays: int
    """How often a task was begun: each play has its own samples"""

    def add_recorded(self, answers: Sequence[Any]) -> None:
        """Answers that a recorded model gives in this play."""
        ...


class RecordedModel:
    """Implements `ChatModel` in the world that it is bound to.

    Args:
        name: with the prefix; `*N` behind the name of a model with samples: the plurality of its last N.
        dollars: of usage.

    Raises:
        ConfigError: for a name without recordings (the nearest are named), and for more samples than there are.
    """

    supports_n = True
    library: Library

    def __init__(self, name: str, dollars: Callable[[Usage], Decimal | None]) -> None:
        self.name, self._dollars = name, dollars
        self._model, self._votes = split(name, self.library)
        self._world: World | None = None
        self._drawn = (-1, 0)
        """Play, and how many samples of it were given"""

    @classmethod
    def from_config(cls, config: ModelConfig, count: TokenCounter) -> Self:
        """As the entry-point group ``agentcascade.models`` makes it, at the price of the time, or the one given.

        Raises `UnknownPrice` for a model without either.
        """
        split(config.name, cls.library)  # a name without recordings is told before its price
        settings = dict(config.price) if config.price else price(config.name, cls.library)
        if settings is None:
            raise UnknownPrice(
                f"{config.name} has no price of its time: give one in dollars per million tokens, IN/OUT"
                " (--price NAME=IN/OUT, or `price` in the configuration)"
            )
        known = PriceTable({config.name: settings}).lookup(config.name)
        assert known is not None
        return cls(config.name, known.dollars)

    def bind(self, world: World) -> None:
        """Play in this world from now on."""
        self._world, self._drawn = world, (-1, 0)

    def dollars(self, usage: Usage) -> Decimal | None:
        return self._dollars(usage)

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
        """Its next `n` answers to the world's task, whatever the conversation: billed as they were.

        Raises:
            ConfigError: outside a bound world, and where `n` more were not recorded.
            EnvironmentFailed: for a task that it did not answer.
            UnknownPrice: where the tokens of its answer were not recorded.
        """
        if self._world is None or not self._world.task:
            raise ConfigError(
                f"{self.name} plays recorded answers: it works only in `agentcascade bench {self.library.suite}`"
            )
        given = self.library.answers(self._model, self._world.task)
        order = shuffled(given.answers, self._model, self._world.task)
        drawn = order[-self._votes :] if self._votes else self._next(order, n, self._world)
        counts = [answer.output_tokens for answer in drawn]
        if given.input_tokens is None or None in counts:
            raise UnknownPrice(f"the tokens of {self.name} on '{self._world.task}' were not recorded: no price fits")
        chosen = [plurality(drawn, self.library)] * n if self._votes else drawn
        self._world.add_recorded(chosen)
        usage = Usage(input=given.input_tokens, output=sum(count for count in counts if count is not None))
        return Completion(
            model=self.name,
            messages=tuple(answer.message for answer in chosen),
            finish_reasons=tuple(answer.finish for answer in chosen),
            usage=usage,
            dollars=self.dollars(usage),
            seconds=chosen[0].seconds or 0.0,
            tokens=() if self._votes else tuple(counts),
        )

    def _next(self, order: Sequence[Answer], n: int, world: World) -> list[Answer]:
        before = self._drawn[1] if self._drawn[0] == world.plays else 0
        if before + n > len(order):
            has = "one recorded answer" if len(order) == 1 else f"{len(order)} recorded samples"
            raise ConfigError(
                f"{self.name} has {has} of a task, and {before + n} were asked for: --samples {len(order)}, or "
                "further models that vote with it (--member)"
            )
        self._drawn = world.plays, before + n
        return list(order[before : before + n])


def shuffled(answers: Sequence[A], model: str, task: str) -> list[A]:
    """A model's answers to a task in the order in which they are drawn."""
    order = list(answers)
    random.Random(f"{model} {task}").shuffle(order)
    return order


def split(name: str, library: Library) -> tuple[str, int]:
    """A model's name without the prefix, and of how many samples it answers the plurality; 0: it just answers.

    Raises `ConfigError` for a model without recordings, and for more samples than it has.
    """
    model, votes = name.removeprefix(library.prefix), 0
    if found := _VOTED.fullmatch(model):
        model, votes = found.group(1), int(found.group(2))
    several = library.sampled()
    if votes and model not in several:
        raise ConfigError(f"{name}: only models with samples can vote with themselves: {', '.join(several)}")
    if votes > several.get(model, 0):
        most = several[model]
        raise ConfigError(f"{name}: there are {most} samples of each task, so *{most} is the most")
    if model not in several and model not in (known := library.models()):
        raise ConfigError(f"there are no recorded answers of '{model[:80]}': {nearest(model, known)}")
    return model, votes


def nearest(name: str, known: Sequence[str]) -> str:
    """The names that a wrong one may mean: those that hold it, else the most alike."""
    longer = [f"'{other}'" for other in known if name and name.lower() in other.lower()]
    return f"did you mean {' or '.join(longer[:4])}?" if longer else did_you_mean(name, known)


def price(name: str, library: Library) -> dict[str, str] | None:
    """Dollars per million tokens of a model's time; None where nobody told one."""
    found = _VOTED.fullmatch(name)
    known = library.price((found.group(1) if found else name).removeprefix(library.prefix))
    return None if known is None else dict(known)


def plurality(drawn: Sequence[A], library: Library) -> A:
    """The first answer of the largest class; the first of all where none can vote."""
    votes = [library.vote(answer) for answer in drawn]
    counted = Counter(vote for vote in votes if vote is not None)
    best = counted.most_common(1)[0][0] if counted else votes[0]
    return drawn[votes.index(best)]
