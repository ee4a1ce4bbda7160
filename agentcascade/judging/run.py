"""Judging of many stored episodes at once or by batches; what a call did cost is kept as soon as it is known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from agentcascade.batches.run import Batches
from agentcascade.billing.door import SECONDS, Door, Tab
from agentcascade.episodes.judge import JudgeQuestion, ModelJudge
from agentcascade.episodes.judge_batch import judge_by_batch
from agentcascade.judging.stored import StoredEpisode
from agentcascade.types import Account, Call, Judgement, Usage, total

Keep = Callable[[StoredEpisode, bool | None, Sequence[Call]], Awaitable[None]]
"""Keeps a verdict, None where there is none, and an episode's part of the judge's calls."""


class Verdicts(NamedTuple):
    """A judge's verdicts on episodes, asked about in one way.

    Args:
        said: Of each episode; None where there is no verdict.
        problems: Why there is none, in the judge's or the provider's words.
        bills: Of each episode, its part of the calls.
    """

    said: tuple[bool | None, ...]
    problems: tuple[str, ...]
    bills: tuple[tuple[Call, ...], ...]

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(call for bill in self.bills for call in bill)

    @property
    def dollars(self) -> Decimal | None:
        """Of all calls; None where a price is unknown."""
        return total(self.calls)

    @property
    def usage(self) -> Usage:
        return sum((call.usage for call in self.calls), Usage())

    @property
    def readable(self) -> int:
        return sum(verdict is not None for verdict in self.said)


async def judge_all(
    judge: ModelJudge,
    episodes: Sequence[StoredEpisode],
    door: Door,
    accounts: Callable[[str], Sequence[Account]],
    keep: Keep,
    *,
    seconds: float = SECONDS,
    at_once: int = 4,
) -> Verdicts:
    """Have a judge say of every episode whether it succeeded; those that do not fit into a budget have no verdict.

    Args:
        judge: Is asked, as many together as it is made for.
        episodes: What it is shown.
        door: Through which.
        accounts: Budgets of a namespace's episodes.
        keep: Gets every verdict, and every bill, also where the run is cut off.
        seconds: Within which each call ends.
        at_once: Calls that are under way at a time.
    """
    said: list[bool | None] = []
    problems: list[str] = []
    bills: list[tuple[Call, ...]] = []
    size = at_once * judge.together
    for start in range(0, len(episodes), size):
        part = episodes[start : start + size]
        tabs = [Tab() for _ in part]
        questions = [
            JudgeQuestion(e.trajectory, tuple(accounts(e.trajectory.namespace)), tab) for e, tab in zip(part, tabs)
        ]
        found: Sequence[Judgement | Exception | None] = [None] * len(part)
        try:
            found = await judge.ask_all(questions, door, seconds, at_once=at_once)
        finally:
            for episode, answer, tab in zip(part, found, tabs):
                success = answer.success if isinstance(answer, Judgement) else None
                if success is not None or tab.calls:
                    await keep(episode, success, tab.calls)
        said += [answer.success if isinstance(answer, Judgement) else None for answer in found]
        problems += [str(answer) for answer in found if isinstance(answer, Exception)]
        bills += [tuple(tab.calls) for tab in tabs]
    return Verdicts(tuple(said), tuple(problems), tuple(bills))


async def judge_all_by_batch(
    judge: ModelJudge,
    episodes: Sequence[StoredEpisode],
    batches: Batches,
    accounts: Callable[[str], Sequence[Account]],
    keep: Keep,
) -> Verdicts:
    """The same by batches, whose bill is theirs: `keep` gets no calls, and the verdicts have no bills."""
    asked = [episode.trajectory for episode in episodes]
    found = await judge_by_batch(judge, asked, batches, job="judge episodes", accounts=accounts)
    for episode, verdict in zip(episodes, found.verdicts):
        if isinstance(verdict, bool):
            await keep(episode, verdict, ())
    await batches.take(found.answers)
    said = tuple(verdict if isinstance(verdict, bool) else None for verdict in found.verdicts)
    return Verdicts(said, tuple(str(v) for v in found.verdicts if not isinstance(v, bool)), ())
