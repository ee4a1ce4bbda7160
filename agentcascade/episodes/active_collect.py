"""Active collection: the teacher plays the tasks of a pool in the order of what they are expected to save, then stops.

Every task is an episode of mode ``collect`` whose id follows from namespace and task, and whose calls are answered from
the response cache where they were made before: a run that was killed is continued by another, and pays for nothing
twice. What is spent is reserved and booked on an account of the namespace's collection.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from hashlib import blake2b
from typing import NamedTuple

from sqlalchemy import select

from agentcascade._util.threads import apart
from agentcascade.bank.active import ActiveChooser, Candidate, account_of, check_priced, why_stop
from agentcascade.bank.bank import Bank
from agentcascade.bank.needs import GoalVectors, read_evidence
from agentcascade.episodes.batch_collect import Task
from agentcascade.episodes.episode import Episode
from agentcascade.errors import BankError, BudgetExceeded, ConfigError, describe
from agentcascade.messages import text_of
from agentcascade.protocols import Budgets
from agentcascade.step.engine import Engine
from agentcascade.storage import Database
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.exclusive import hold
from agentcascade.storage.tables import calls, decisions, episodes, trajectories
from agentcascade.storage.trajectories import chunks
from agentcascade.types import Account

log = logging.getLogger("agentcascade.collect")
MOST_FAILURES = 3
"""Episodes in a row that break, after which the run stops."""
FLUSH_SECONDS = 10.0
"""That an episode's records are waited for, so that its bill is known."""

Play = Callable[[Episode], Awaitable[bool | None]]
"""Plays a task's episode: whether it was won; None where the judge is to say."""


class PoolTask(NamedTuple):
    """A task that the teacher may demonstrate: a stable id, its goal, and how it is played."""

    id: str
    goal: str
    play: Play


class Choice(NamedTuple):
    """A task that was chosen, why, and what came of it.

    `dollars` is what its episode did cost, in all runs and with its judge; None where a price is not known.
    """

    task: str
    goal: str
    candidate: Candidate
    banked: bool
    dollars: Decimal | None
    problem: str = ""
    """Why it was not banked."""
    broke: bool = False
    """Whether an error ended it: it is tried again by the next run."""


class ActiveRun(NamedTuple):
    """Choices of a run in their order, and why it stopped."""

    choices: tuple[Choice, ...]
    stopped: str
    done_before: int
    """Tasks of the pool that earlier runs demonstrated, or tried."""
    spent: Decimal
    """Dollars of the namespace's collection, in all runs."""
    elsewhere: int = 0
    """Tasks that another run took meanwhile: each is paid for once."""

    @property
    def expected(self) -> Decimal:
        """Expected saving of what was banked, over the horizon."""
        return sum((c.candidate.saving or Decimal(0) for c in self.choices if c.banked), Decimal(0))


def episode_id(namespace: str, task: str) -> str:
    """Id of the episode in which the teacher plays a task, the same in every run."""
    return "active_" + blake2b(f"{namespace}\0{task}".encode(errors="replace"), digest_size=12).hexdigest()


def single_step(task: Task, *, judged: bool) -> PoolTask:
    """A task of one step, as files of tasks hold them; without a judge every answer is a success."""

    async def play(episode: Episode) -> bool | None:
        await episode.complete(list(task.messages), tools=list(task.tools) or None)
        if not any(step.action.strip() for step in episode.steps):
            return False  # nothing that could be shown
        return None if judged else True

    return PoolTask(task.id, next((text_of(m) for m in task.messages if m.get("role") == "user"), ""), play)


def chooser_of(
    bank: Bank, namespace: str, pool: Sequence[PoolTask], *, k: int, horizon: int, live: bool = False
) -> ActiveChooser:
    """What chooses of a pool, by the namespace's records so far. Blocks.

    Raises:
        UnknownPrice: What a deferral or an episode costs is not known.
        EmbeddingError: Goals cannot be embedded.
        StorageError: The database fails.
    """
    k = max(1, k)
    goals = [task.goal for task in pool]
    vectors = GoalVectors(bank.embedder)
    evidence = read_evidence(bank, namespace, k, vectors)
    return ActiveChooser(vectors, evidence, goals, k=k, horizon=horizon, live=live)


class Prepared(NamedTuple):
    """A pool without what earlier runs ended, and what chooses of it; no chooser where nothing is left."""

    left: Sequence[PoolTask]
    done_before: int
    chooser: ActiveChooser | None


async def prepare(engine: Engine, pool: Sequence[PoolTask], namespace: str) -> Prepared:
    """The tasks that are left, and what chooses of them. Raises what `collect_actively` raises before it asks."""
    context = engine.context
    bank, database, teacher, config = context.bank, context.database, context.teacher, context.config
    if bank is None or database is None or teacher is None:
        raise ConfigError("active collection needs a teacher and a bank: build the cascade with mode 'collect'")
    if not pool:
        raise BankError("the pool of active collection is empty: give tasks that the teacher may demonstrate")
    check_priced(teacher)
    ended = await apart(ended_tasks, database, namespace, [task.id for task in pool])
    left = [task for task in pool if task.id not in ended] if ended else list(pool)
    chooser = None
    if left:
        chooser = await apart(
            lambda: chooser_of(bank, namespace, left, k=config.retrieval.k, horizon=config.collect.horizon)
        )
    return Prepared(left, len(ended), chooser)


async def collect_actively(
    engine: Engine,
    pool: Sequence[PoolTask],
    *,
    namespace: str | None = None,
    tell: Callable[[Choice], None] = lambda choice: None,
) -> ActiveRun:
    """Have the teacher play what pays most, task by task, until nothing pays, or the budget or the pool is used up.

    Args:
        engine: Of a cascade with a bank, a teacher and a database; its response cache, where it has one, is what a run
            that was stopped is continued from. `collect` of its configuration has budget, horizon and the cold start.
        pool: Tasks to choose from; those that earlier runs ended are passed over.
        namespace: Whose; default: that of the configuration.
        tell: Gets each choice when its episode has ended.

    Returns:
        What was chosen and why it stopped. Whatever an episode raises is its choice's `problem`.

    Raises:
        BankError: The pool is empty.
        ConfigError: The cascade lacks a bank, a teacher or a database.
        UnknownPrice: The teacher's price is not known, or what a deferral costs is not.
        EmbeddingError: Goals cannot be embedded.
        StorageError: The database fails.
    """
    context, settings = engine.context, engine.context.config.collect
    space = namespace or context.config.bank.namespace
    account = account_of(space, settings.budget)
    left, done_before, chooser = await prepare(engine, pool, space)
    if chooser is None:
        all_done = "all tasks of the pool were demonstrated or tried before"
        return ActiveRun((), all_done, done_before, await spent_on(context.budgets, account))
    choices: list[Choice] = []
    broken = elsewhere = 0
    while True:
        candidate = await apart(chooser.best)
        remaining = None if account is None else account.limit - await spent_on(context.budgets, account)
        taken = len(choices) + done_before + elsewhere
        stopped = why_stop(candidate, chooser.cold, taken, settings.cold_start, remaining)
        if stopped is None and broken >= MOST_FAILURES:
            stopped = f"{broken} episodes in a row broke, the last with {choices[-1].problem}"
        if stopped is not None or candidate is None:
            break
        task = left[candidate.number]
        async with _claimed(engine, space, task.id) as is_ours:
            if not is_ours:
                elsewhere += 1
                chooser.take(candidate.number)  # it will be banked, or tried in vain
                continue
            choice, over_budget = await _demonstrate(engine, task, candidate, space, account)
        choices.append(choice)
        tell(choice)
        broken = broken + 1 if choice.broke else 0
        chooser.take(candidate.number, banked=choice.banked)
        if over_budget:
            stopped = f"the budget: {choice.problem}"
            break
    spent = await spent_on(context.budgets, account)
    if account is None:
        spent = sum((c.dollars or Decimal(0) for c in choices), Decimal(0))
    return ActiveRun(tuple(choices), stopped or "", done_before, spent, elsewhere)


@asynccontextmanager
async def _claimed(engine: Engine, namespace: str, task: str) -> AsyncIterator[bool]:
    """Whether a task is this run's alone, for as long as its episode takes: others may be at it, or have ended it."""
    database, id = engine.context.database, episode_id(namespace, task)
    assert database is not None
    release = await apart(hold, database, f"collection of {id}")
    if release is None:
        yield False
        return
    try:
        yield not await apart(_ended, database, namespace, [id])
    finally:
        release()


async def _demonstrate(
    engine: Engine, task: PoolTask, candidate: Candidate, namespace: str, account: Account | None
) -> tuple[Choice, bool]:
    """The teacher's episode of a task, banked where it was won; and whether the budget ended it."""
    episode = Episode(
        engine,
        id=episode_id(namespace, task.id),
        namespace=namespace,
        mode="collect",
        accounts=() if account is None else (account,),
        cache_use="use",
    )
    episode.why = f"wanted: {candidate}"
    episode.metadata = {"task": task.id, "wanted": str(candidate)}
    if candidate.saving is not None:
        episode.metadata |= {"expected_saving": str(candidate.saving), "expected_price": str(candidate.price)}
    banked, problem, over_budget, broke = False, "", False, True
    try:
        success = await task.play(episode)
        if engine.context.response_cache is not None:
            await apart(engine.context.response_cache.close)  # what was bought is written before the next task
        banked = await episode.finish(success)
        problem, broke = "" if banked else episode.not_banked, False
    except BudgetExceeded as error:
        problem, over_budget = str(error), error.scope in ("collection", "namespace")
    except Exception as error:
        problem = describe(error)
        log.warning("the teacher's episode of task %s broke: %s", task.id[:80], problem)
    if engine.context.recorder is not None:
        await apart(engine.context.recorder.flush, FLUSH_SECONDS)
    assert engine.context.database is not None
    dollars = await apart(_paid, engine.context.database, namespace, episode.id)
    return Choice(task.id, task.goal, candidate, banked, dollars, problem, broke), over_budget


def _paid(database: Database, namespace: str, episode: str) -> Decimal | None:
    """Dollars of an episode's calls, failed ones and its judge's too; None where one is not known. Blocks."""
    query = (
        select(calls.c.dollars)
        .join(decisions, decisions.c.id == calls.c.decision)
        .where(decisions.c.namespace == namespace, decisions.c.episode == episode)
    )
    with database.begin() as connection:
        dollars = list(connection.execute(query).scalars())
    known = [d for d in dollars if d is not None]
    return sum(known, Decimal(0)) if len(known) == len(dollars) else None


async def spent_on(budgets: Budgets | None, account: Account | None) -> Decimal:
    """Dollars on the account, set aside ones included."""
    if account is None or not isinstance(budgets, DatabaseBudgets):
        return Decimal(0)
    balance = await apart(budgets.balance, account)
    return balance.spent + balance.reserved


def ended_tasks(database: Database, namespace: str, tasks: Sequence[str]) -> set[str]:
    """Those of the tasks whose episode ended, or which are banked, by a batch too. Blocks."""
    by_episode = {episode_id(namespace, task): task for task in tasks}
    found = _ended(database, namespace, sorted(by_episode))
    with database.begin() as connection:
        query = select(trajectories.c.metadata).where(trajectories.c.namespace == namespace)
        banked = {noted.get("task") for noted in connection.execute(query).scalars() if isinstance(noted, dict)}
    return {by_episode[id] for id in found} | (set(tasks) & banked)


def _ended(database: Database, namespace: str, ids: Sequence[str]) -> set[str]:
    """Those of the episodes that ended, or are banked. Blocks."""
    found = set[str]()
    with database.begin() as connection:
        for part in chunks(ids):
            for id, space in (
                (episodes.c.id, episodes.c.namespace),
                (trajectories.c.episode, trajectories.c.namespace),
            ):
                found |= set(connection.execute(select(id).where(space == namespace, id.in_(part))).scalars())
    return found
