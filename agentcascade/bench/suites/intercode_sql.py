"""InterCode-SQL as a benchmark suite: which questions, which databases, one query or an agent's turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentcascade.bench.suites.protocol import Defaults, Outcome, Source, Task
from agentcascade.envs import react
from agentcascade.envs.intercode_sql import agent, answers, labels, one_query, shipped, tasks
from agentcascade.envs.intercode_sql.environment import IntercodeSqlEnvironment
from agentcascade.envs.recorded.models import price
from agentcascade.protocols import Environment
from agentcascade.steplog.types import LoggedStep
from agentcascade.types import Message

RECORDED = (
    "recorded/… models are runs that GPT-4 and GPT-3.5 made once, played again in our databases. They have one sample "
    "of each step, so that agreement says nothing: what a cascade defers here is what EXPLAIN rejects. Where models "
    "take turns, each goes on with its own run. GPT-4 was told its reward after every turn, GPT-3.5 was not: their "
    "accuracies do not compare. Dollars are list prices times tokens counted on our prompts."
)
STAND_IN = "offline/… models are programs, not language models: their figures are those of no paper or product."
ENGINE = "databases are InterCode's, in SQLite instead of MySQL"
ONE_QUERY = (
    "recorded/… models answered these questions once, with InterCode's verdicts on MySQL. They were not shown the "
    "same: all but gpt-4 saw the schema and answered at once; gpt-4 saw no schema, took up to ten turns, was told its "
    "reward after each, and pays for all of them; its last query counts"
)
PRICES = (
    "dollars are list prices of the summer of 2023 (text-bison and chat-bison: of January 2024, by characters) times "
    "tokens counted on our prompts"
)
OURS = (
    "recorded/qwen2.5-coder-… are our own samples at temperature 0.8; their dollars are seconds of two cores at $0.05 "
    "an hour. A sample has the verdict of the recorded answers with the same rows, else that of our database"
)
BY_ROWS = "queries that return the same rows are one vote"
SHIPPED = "no databases were at hand: results and verdicts are those that ship with the package"
TURNS = Defaults(
    teacher="recorded/gpt-4",
    student="recorded/gpt-3.5-turbo",
    splits=("test", "unseen_databases", "all"),
    episodes=400,
    demonstrations=400,
    k=3,
)
ANSWERS = Defaults(
    teacher="recorded/gpt-4",
    student="recorded/qwen2.5-coder-1.5b",
    members=("recorded/text-bison", "recorded/gpt-3.5-turbo"),
    splits=("all", "test", "unseen_databases"),
    episodes=1034,
    demonstrations=400,
    k=0,
    samples=1,
    policies=("teacher", "student", "cascade", "random", "oracle"),
)


@dataclass
class IntercodeSqlSuite:
    """Questions about twenty databases, answered in SQL (InterCode-SQL, after Spider).

    --schema asks for one query with the schema in the prompt; by default recorded answers of six real models are then
    played to all 1,034 questions, a committee of three before GPT-4: their results and verdicts ship with the package,
    so that it needs no key and no download. Without --schema an agent explores the databases turn by turn.

    Live models, texts and turns need InterCode's data: $INTERCODE_DATA names the folder. A model of your own is one
    flag away.
    """

    schema: bool | None = field(
        default=None, metadata={"is_flag": True, "help": "One query, with the schema in the prompt."}
    )
    votes: str | None = field(
        default=None,
        metadata={"help": "With --schema: queries agree by the `rows` they return, or by their `text`. Default: rows."},
    )

    name = "intercode-sql"
    dropped = ("Error executing query",)
    packages = ("sqlglot", "scipy")
    group = ""
    defaults = TURNS

    def __post_init__(self) -> None:
        from agentcascade.errors import BenchError, did_you_mean

        if self.votes not in (None, "rows", "text"):
            raise BenchError(f"--votes '{self.votes}': {did_you_mean(self.votes, ('rows', 'text'))}")
        if self.schema:
            self.defaults = ANSWERS

    @property
    def stop(self) -> Sequence[str]:
        return () if self.schema else react.STOP

    @property
    def actions(self) -> Mapping[str, Any]:
        return {"format": "sql", "fold": True, "dry_run": bool(self.schema) and self.votes != "text"}

    def check(self) -> None:
        from agentcascade.assembly.components import find_module
        from agentcascade.errors import MissingExtra

        for package in self.packages:
            if not find_module(package):
                raise MissingExtra(package, "intercode-sql", "agentcascade bench intercode-sql")
        if tasks.has_data() or not self.schema or self.votes == "text":
            tasks.check_data()

    def environment(self, *, expert: bool) -> Environment:
        return one_query.OneQueryEnvironment() if self.schema else IntercodeSqlEnvironment()

    def goal(self, messages: list[Message]) -> str:
        return agent.goal(messages)

    async def play(self, environment: Environment, path: str, complete: Callable[..., Any]) -> Outcome:
        if self.schema:
            return await one_query.play(environment, path, complete)
        return await agent.play(environment, path, complete)

    def tasks(
        self, split: str, count: int, seed: int, *, workers: int, on_progress: Callable[[int, int], None]
    ) -> tuple[list[Task], Source]:
        names: dict[int, str] = {}
        if split == "all":
            if tasks.has_data():  # a task to learn from is known as such
                names = dict.fromkeys(tasks.split_tasks(tasks.load_tasks(), seed)["train"], "train")
            found = list(range(len(tasks.load_tasks()) if tasks.has_data() else len(shipped.rows())))
            random.Random(f"all {seed}").shuffle(found)
            found = found[:count]
        elif split == self.defaults.training and not tasks.has_data():
            found = []  # without texts there is nothing to learn from
        else:
            found = tasks.choose_tasks(split, count, seed)
        on_progress(len(found), len(found))
        return [Task(f"{names.get(i, split)}/{i}", str(i), _hardness(i)) for i in found], "official"

    def price(self, model: str) -> Mapping[str, str] | None:
        """Dollars per million tokens of the time, of a recorded model that answers at once."""
        return price(model, answers.LIBRARY) if self.schema and model.startswith(answers.PREFIX) else None

    def label(self, step: LoggedStep, task: str) -> LoggedStep:
        """A step of the log with votes by rows, and `gold`; paraphrases of a question count as one episode.

        As it is where models take turns.
        """
        if not self.schema:
            return step
        names = dict.fromkeys((*(student.model for student in step.students), step.teacher_model))
        names |= {sample.member: None for student in step.students for sample in student.samples}
        number = int(task.rpartition("/")[2])
        judge = labels.Judge(number, names, by_rows=self.votes != "text")
        students = []
        for student in step.students:
            samples = (s.model_copy(update={"action": judge.vote(s.action, s.text)}) for s in student.samples)
            students.append(student.model_copy(update={"samples": tuple(samples)}))
        teacher = judge.vote(step.teacher, step.teacher or "")
        votes = [sample.action for student in students for sample in student.samples]
        gold = judge.gold(votes, teacher)
        told = {"students": tuple(students), "teacher": teacher, "gold": gold, "episode": labels.question_of(number)}
        return step.model_copy(update=told)

    def notes(self, source: Source, models: Sequence[str]) -> list[str]:
        recorded = [m for m in models if m.startswith(answers.PREFIX)]
        stand_ins = [STAND_IN] if any(m.startswith("offline/") for m in models) else []
        if not self.schema:
            return [ENGINE, *([RECORDED] if recorded else []), *stand_ins]
        lines = [BY_ROWS] if self.votes != "text" else []
        if any(m not in map(_prefixed, answers.SAMPLED) for m in recorded):
            lines += [ONE_QUERY, PRICES]
        if any("qwen" in m for m in recorded):
            lines.append(OURS)
        return [*lines, ENGINE if tasks.has_data() else SHIPPED, *stand_ins]


def _prefixed(name: str) -> str:
    return f"{answers.PREFIX}{name}"


def _hardness(task: int) -> str:
    return tasks.load_tasks()[task].hardness if tasks.has_data() else shipped.rows()[task].hardness
