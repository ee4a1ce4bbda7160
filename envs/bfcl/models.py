"""`recorded/bfcl/NAME`: what a real model answered to BFCL's tasks, played again with its tokens, verdicts and price.

A model of BFCL's own recordings (`BFCL_DATA`) has one answer to a task. Our own Qwen2.5-Coder ships with the package
and has ten samples, shuffled for each task: `recorded/bfcl/qwen2.5-coder-1.5b` draws them from the first on; with `*7`
behind it, it is asked seven times, gives the last seven and answers what most of them say, so that the two share no
sample up to three.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from agentcascade.envs.bfcl import keys, prices, recorded, tasks
from agentcascade.envs.bfcl.recorded import Answer
from agentcascade.errors import ConfigError, EnvironmentFailed, UnknownPrice
from agentcascade.models.pricing import PriceTable
from agentcascade.protocols import TokenCounter
from agentcascade.types import Completion, Message, Tool, Usage

if TYPE_CHECKING:
    from typing import Self

    from agentcascade.config.sections import ModelConfig

PREFIX = "recorded/bfcl/"
_VOTED = re.compile(r"(.+)\*([1-9]\d?)")
_CALLED, _SAID = "tool_calls", "stop"


class World(Protocol):
    task: str
    plays: int

    def add_recorded(self, answers: Sequence[Answer]) -> None: ...


class Given(NamedTuple):
    """A model's answers to one task, in the order in which they are drawn."""

    answers: tuple[Answer, ...]
    input_tokens: int | None


class RecordedModel:
    """Implements `ChatModel` in the world that it is bound to.

    Args:
        name: with the prefix; `*N` behind the name of one of our own: the plurality of its last N samples.
        dollars: of usage.

    Raises:
        ConfigError: for a name without recordings (the nearest are named), and for more samples than there are.
    """

    supports_n = True

    def __init__(self, name: str, dollars: Callable[[Usage], Decimal | None]) -> None:
        self.name, self._dollars = name, dollars
        self._model, self._votes = split(name)
        self._world: World | None = None
        self._drawn = (-1, 0)
        """Play, and how many samples of it were given"""

    @classmethod
    def from_config(cls, config: ModelConfig, count: TokenCounter) -> Self:
        """As the entry-point group ``agentcascade.models`` makes it, at the price of the time, or the one given.

        Raises `UnknownPrice` for a model without either.
        """
        split(config.name)  # a name without recordings is told before its price
        settings = dict(config.price) if config.price else price(config.name)
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
            raise ConfigError(f"{self.name} plays recorded answers: it works only in `agentcascade bench bfcl`")
        given = answers(self._model, self._world.task)
        drawn = given.answers[-self._votes :] if self._votes else self._next(given, n, self._world)
        counts = [answer.output_tokens for answer in drawn]
        if given.input_tokens is None or None in counts:
            raise UnknownPrice(f"the tokens of {self.name} on '{self._world.task}' were not recorded: no price fits")
        chosen = [plurality(drawn)] * n if self._votes else list(drawn)
        self._world.add_recorded(chosen)
        usage = Usage(input=given.input_tokens, output=sum(count for count in counts if count is not None))
        return Completion(
            model=self.name,
            messages=tuple(answer.message for answer in chosen),
            finish_reasons=tuple(_CALLED if answer.calls else _SAID for answer in chosen),
            usage=usage,
            dollars=self.dollars(usage),
            seconds=chosen[0].seconds or 0.0,
            tokens=() if self._votes else tuple(counts),
        )

    def _next(self, given: Given, n: int, world: World) -> tuple[Answer, ...]:
        before = self._drawn[1] if self._drawn[0] == world.plays else 0
        if before + n > len(given.answers):
            has = "one recorded answer" if len(given.answers) == 1 else f"{len(given.answers)} recorded samples"
            raise ConfigError(
                f"{self.name} has {has} of a task, and {before + n} were asked for: --samples {len(given.answers)}, or "
                "further models that vote with it (--member)"
            )
        self._drawn = world.plays, before + n
        return given.answers[before : before + n]


def split(name: str) -> tuple[str, int]:
    """A model's name without the prefix, and of how many samples it answers the plurality; 0: it just answers.

    Raises `ConfigError` for a model without recordings, and for more samples than it has.
    """
    model, votes = name.removeprefix(PREFIX), 0
    if found := _VOTED.fullmatch(model):
        model, votes = found.group(1), int(found.group(2))
    if model in recorded.sampled():
        most = min(len(samples.answers) for samples in recorded.samples(model, lenient=True).values())
        if votes > most:
            raise ConfigError(f"{name}: there are {most} samples of each task, so *{most} is the most")
        return model, votes
    if votes:
        raise ConfigError(f"{name}: only models with samples can vote with themselves: {', '.join(recorded.sampled())}")
    recorded.answers(model)
    return model, 0


def answers(model: str, task: str) -> Given:
    """A model's answers to a task. Raises `EnvironmentFailed` where it has none."""
    if model not in recorded.sampled():
        one = recorded.answer(model, task)
        return Given((one,), one.input_tokens)
    found = recorded.samples(model, lenient=True).get(tasks.canonical(task))
    if found is None:
        raise EnvironmentFailed(f"there is no recorded sample of '{model}' of '{task[:80]}': see --split shipped")
    order = list(found.answers)
    random.Random(f"{model} {task}").shuffle(order)
    return Given(tuple(order), found.prompt_tokens)


def plurality(drawn: Sequence[Answer]) -> Answer:
    """The first answer of the largest class; the first of all where none can vote."""
    tools = tasks.task(drawn[0].task).tools
    votes = [keys.key(answer, tools) for answer in drawn]
    counted = Counter(vote for vote in votes if vote is not None)
    best = counted.most_common(1)[0][0] if counted else votes[0]
    return drawn[votes.index(best)]


def price(name: str) -> dict[str, str] | None:
    """Dollars per million tokens of the time, as the configuration holds a price; None where nobody told one."""
    found = _VOTED.fullmatch(name)
    known = prices.price((found.group(1) if found else name).removeprefix(PREFIX))
    return None if known is None else {"input": str(known.input), "output": str(known.output)}
