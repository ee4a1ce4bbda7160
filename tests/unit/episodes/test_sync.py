"""The blocking face: the same steps from any thread, with or without a loop, and nothing left behind."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentcascade import Cascade, ScriptedModel, build
from agentcascade.episodes.episode import Episode
from agentcascade.episodes.sync import SyncEpisode
from agentcascade.errors import ConfigError, EpisodeClosed, InvalidRequest
from agentcascade.types import Completion, Message

TASK: list[Message] = [{"role": "user", "content": "put a mug on the desk"}]


class Slow(ScriptedModel):
    """Answers after a while; knows how many calls it works on at once, and whether one was cancelled."""

    def __init__(self, seconds: float) -> None:
        super().__init__(["look"], delay=seconds)
        self.working = self.most = self.cancelled = 0
        self.asked = threading.Event()

    async def complete(self, *arguments: Any, **options: Any) -> Completion:
        self.working += 1
        self.most = max(self.most, self.working)
        self.asked.set()
        try:
            return await super().complete(*arguments, **options)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.working -= 1


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Cascade]]:
    """Makes cascades of a teacher alone over one bank; all are closed with the test."""
    made: list[Cascade] = []

    def start(teacher: ScriptedModel | None = None, **changed: Any) -> Cascade:
        options: dict[str, Any] = {
            "teacher": teacher or ScriptedModel(["look"]),
            "mode": "collect",
            "bank": {"url": f"sqlite:///{tmp_path}/bank.db"},
            "retrieval": {"embedder": "hashing", "index": "exact"},
        }
        made.append(build(**options | changed))
        return made[-1]

    yield start
    for cascade in made:
        cascade.close()


def test_an_episode_runs_without_a_loop_and_is_banked(make: Callable[..., Cascade]) -> None:
    cascade = make()
    episode = cascade.sync_episode("a goal", id="e1", namespace="mine")
    answer = episode.complete(TASK)
    assert (answer.choices[0].message.content, answer.agentcascade.episode) == ("look", "e1")
    assert answer.agentcascade.namespace == "mine"
    assert episode.finish(success=True) is True
    assert cascade.bank is not None
    assert len(cascade.bank.retriever) == 1
    assert episode.episode.goal == "a goal"


async def test_an_episode_runs_inside_a_running_loop_too(make: Callable[..., Cascade]) -> None:
    cascade = make()
    asynchronous, blocking = cascade.episode(), cascade.sync_episode()
    assert (await asynchronous.complete(TASK)).choices[0].message.content == "look"
    assert blocking.complete(TASK).choices[0].message.content == "look"
    assert await asynchronous.finish(success=True)
    assert not blocking.finish(success=True), "the same trajectory is there already"


def test_errors_are_the_same_as_those_of_the_asynchronous_face(make: Callable[..., Cascade]) -> None:
    class ProvidersOwn(Exception):
        pass

    failure = ProvidersOwn("overloaded")
    episode = make(ScriptedModel([failure, "look"])).sync_episode()
    with pytest.raises(ProvidersOwn) as caught:
        episode.complete(TASK)
    assert caught.value is failure
    with pytest.raises(InvalidRequest, match="messages is empty"):
        episode.complete([])
    with pytest.raises(InvalidRequest, match="stream=True"):
        episode.complete(TASK, stream=True)
    assert episode.complete(TASK).choices[0].message.content == "look"
    episode.finish(success=False)
    with pytest.raises(EpisodeClosed):
        episode.complete(TASK)
    with pytest.raises(EpisodeClosed):
        episode.finish(success=False)
    with pytest.raises(ConfigError, match="needs a student"):
        make().sync_episode(mode="student")


def test_close_leaves_no_thread_behind_and_can_be_called_again(make: Callable[..., Cascade]) -> None:
    before = set(threading.enumerate())
    cascade = make()
    episode = cascade.sync_episode()
    episode.complete(TASK)
    episode.finish(success=True)  # banking goes through the loop's own pool of threads
    assert any(t.name == "agentcascade-sync" for t in set(threading.enumerate()) - before)
    cascade.close()
    cascade.close()
    assert set(threading.enumerate()) - before == set()


def test_episodes_of_a_cascade_share_a_thread_and_other_cascades_have_their_own(make: Callable[..., Cascade]) -> None:
    before = set(threading.enumerate())
    one, other = make(), make()
    episodes = [one.sync_episode(), one.sync_episode(), other.sync_episode()]
    assert [t.name for t in set(threading.enumerate()) - before].count("agentcascade-sync") == 2
    one.close()
    assert episodes[2].complete(TASK).choices[0].message.content == "look"


def test_threads_wait_for_their_own_steps_at_the_same_time(make: Callable[..., Cascade]) -> None:
    model = Slow(0.2)
    cascade = make(model)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda i: cascade.sync_episode(id=f"e{i}").complete(TASK), range(6)))
    assert [a.agentcascade.episode for a in answers] == [f"e{i}" for i in range(6)]
    assert model.most > 1


def test_an_interrupt_cancels_the_step_and_leaves_the_cascade_usable(make: Callable[..., Cascade]) -> None:
    model = Slow(30)
    cascade = make(model)
    episode, main = cascade.sync_episode(), threading.main_thread().ident
    assert main == threading.get_ident()

    def interrupt() -> None:
        assert model.asked.wait(60)
        time.sleep(0.3)  # until the main thread waits for the answer
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        episode.complete(TASK)
    interrupting.join()
    model.delay = 0.0
    assert episode.complete(TASK).choices[0].message.content == "look"
    assert (model.cancelled, model.working) == (1, 0)


def test_close_ends_a_step_that_another_thread_waits_for(make: Callable[..., Cascade]) -> None:
    model = Slow(30)
    cascade = make(model)
    episode, ended = cascade.sync_episode(), list[BaseException]()

    def step() -> None:
        try:
            episode.complete(TASK)
        except BaseException as error:
            ended.append(error)

    waiting = threading.Thread(target=step, daemon=True)
    waiting.start()
    assert model.asked.wait(60)
    cascade.close()
    waiting.join(20)
    assert not waiting.is_alive()
    assert (len(ended), model.cancelled) == (1, 1)


def test_the_blocking_face_has_every_method_of_the_asynchronous_one(make: Callable[..., Cascade]) -> None:
    public = {name for name in vars(Episode) if not name.startswith("_") and callable(vars(Episode)[name])}
    assert {name for name in public if not hasattr(SyncEpisode, name)} == set()
    cascade = make()
    cascade = cascade.twin(judge=lambda trajectory: True)
    episode = cascade.sync_episode("a goal")
    parts = list(episode.stream(TASK))
    assert "".join(p["choices"][0]["delta"].get("content") or "" for p in parts if p["choices"]) == "look"
    assert episode.answer(TASK).decision.answered_by == "teacher"
    assert len(episode.trajectory(True).steps) == 2
    assert episode.finish() is True


def test_a_stream_that_is_left_early_is_closed(make: Callable[..., Cascade]) -> None:
    stream = make().sync_episode("a goal").stream(TASK)
    assert next(iter(stream))
    stream.close()  # type: ignore[attr-defined]
