"""BFCL as a benchmark suite: single-turn tool calls, with recorded answers of real models or live ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast

from agentcascade.bench.suites.protocol import Defaults, Outcome, Source, Task
from agentcascade.envs.bfcl import environment, labels, models, recorded, tasks
from agentcascade.envs.bfcl.text_calls import TextCalls
from agentcascade.envs.recorded.models import price
from agentcascade.messages import text_of
from agentcascade.protocols import ChatModel, Environment
from agentcascade.steplog.types import LoggedStep
from agentcascade.types import Message

PYTHON = ("simple_python", "multiple", "parallel", "parallel_multiple")
QWEN = ("qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b")
RECORDED = (
    "recorded/bfcl/… models are answers that real models gave once, with their tokens, and the official verdicts on "
    "them (August 2024); dollars are prices of that time or those given. Each has one answer to a task, whatever is in "
    "the prompt"
)
OURS = (
    "recorded/bfcl/qwen2.5-coder-… are our own samples at temperature 0.8, judged by BFCL's check re-implemented; "
    "their dollars are seconds of two cores at $0.05 an hour"
)
VOTED = "…*7 answers what most of seven samples say, and pays for all; the student's, up to three, are other ones"
LIVE = (
    "answers of live models are judged by BFCL's check re-implemented (the official verdict on 27,799 of 27,800); a "
    "call that one writes into its text, in a Markdown fence or in <tool_call> tags, is read as a call"
)


class BfclSuite:
    """Single-turn tool calls with official verdicts (Berkeley Function-Calling Leaderboard).

    Questions and samples of two small models ship with the package: the default needs no key and no download. With
    BFCL's recorded answers in $BFCL_DATA (python -m agentcascade.envs.bfcl.gather) twenty models and more can be played
    by name as recorded/bfcl/NAME; live models, too, with --split test where they are shown demonstrations.
    """

    name = "bfcl"
    actions: Mapping[str, Any] = {"format": "tools"}
    stop: Sequence[str] = ()
    dropped: Sequence[str] = ()
    packages: Sequence[str] = ()
    group = ""
    defaults = Defaults(
        teacher="recorded/bfcl/qwen2.5-coder-1.5b*7",
        student="recorded/bfcl/qwen2.5-coder-1.5b",
        splits=("shipped", "python", "test", "all"),
        episodes=1390,
        demonstrations=200,
        k=0,
        samples=2,
        policies=("teacher", "student", "cascade", "random", "oracle"),
    )

    def check(self) -> None:
        """Raises `EnvironmentFailed` for files that cannot be read."""
        tasks.tasks()

    def environment(self, *, expert: bool) -> Environment:
        return environment.BfclEnvironment()

    def goal(self, messages: list[Message]) -> str:
        return text_of(messages[-1])

    async def play(self, world: Environment, path: str, complete: Callable[..., Any]) -> Outcome:
        return await environment.play(world, path, complete)  # type: ignore[arg-type]  # bench.worker's has `message`

    def tasks(
        self, split: str, count: int, seed: int, *, workers: int, on_progress: Callable[[int, int], None]
    ) -> tuple[list[Task], Source]:
        """`train` and `test` share no first function of a task; `shipped`: what both of our own models answered."""
        ids = [id for id, task in tasks.tasks().items() if _belongs(task, split)]
        random.Random(f"{split} {seed}").shuffle(ids)
        found = [Task(id, id, tasks.tasks()[id].category) for id in ids[:count]]
        on_progress(len(found), len(found))
        return found, "official"

    def adapt(self, model: ChatModel) -> ChatModel:
        """Of a live model, the calls that it writes into its text are read."""
        return model if model.name.startswith(models.PREFIX) else cast("ChatModel", TextCalls(model))

    def price(self, model: str) -> Mapping[str, str] | None:
        """Dollars per million tokens of the time, of a recorded model."""
        return price(model, models.LIBRARY) if model.startswith(models.PREFIX) else None

    def label(self, step: LoggedStep, task: str) -> LoggedStep:
        """A step of the log with `gold`, an answer that is right, and the others that are."""
        names = dict.fromkeys((*(student.model for student in step.students), step.teacher_model))
        names |= {sample.member: None for student in step.students for sample in student.samples}
        votes = [sample.action for student in step.students for sample in student.samples]
        gold, *others = labels.right(task, votes, step.teacher, names)
        return step.model_copy(update={"gold": gold, "also_right": tuple(others)})

    def notes(self, source: Source, models_: Sequence[str]) -> list[str]:
        lines = []
        played = [m for m in models_ if m.startswith(models.PREFIX)]
        own = [m for m in played if any(name in m for name in QWEN)]
        if len(own) < len(played):
            lines.append(RECORDED)
        if own:
            lines.append(OURS)
        if any("*" in m for m in own):
            lines.append(VOTED)
        return [*lines, LIVE] if len(played) < len(models_) else lines


def _belongs(task: tasks.Task, split: str) -> bool:
    if split in ("train", "test"):
        return task.category in PYTHON and (_draw(task) < 0.25) == (split == "train")
    if split == "shipped":
        return all(task.id in recorded.samples(name, lenient=True) for name in QWEN)
    return split == "all" or task.category in PYTHON


def _draw(task: tasks.Task) -> float:
    """Uniform in [0, 1), alike for tasks whose first functions have one name."""
    name = tasks.mangled(task.functions[0]["name"]).encode(errors="replace")
    return int.from_bytes(blake2b(name, digest_size=4).digest()) / 2**32
