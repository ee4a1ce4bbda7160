"""InterCode-SQL in one query behind the `Environment` protocol: a question with the schema, one answer, its verdict."""

from __future__ import annotations

from collections.abc import Sequence

from agentcascade.actions.sql import SUBMIT, statement_of
from agentcascade.envs.intercode_sql import answers, schema, shipped, tasks
from agentcascade.envs.intercode_sql.answers import Answer
from agentcascade.envs.intercode_sql.results import Result, databases
from agentcascade.envs.react import Complete, EpisodeResult
from agentcascade.errors import EnvironmentFailed
from agentcascade.protocols import Environment
from agentcascade.types import Action, Message, Situation

NEEDS_DATA = (
    "without InterCode's data there are recorded answers alone: git clone https://github.com/princeton-nlp/intercode, "
    "and set INTERCODE_DATA to that folder, to ask live models and to see texts"
)


class OneQueryEnvironment:
    """One task at a time, named by its id. Not thread-safe. Raises `EnvironmentFailed` for a task that is none."""

    def __init__(self) -> None:
        self.task = ""
        """Id of the task that is played"""
        self.plays = 0
        """How often a task was begun: a recorded model gives each its own samples"""
        self.success = False
        self._recorded: dict[str, Answer] = {}

    def reset(self, task: str) -> str:
        count = len(tasks.load_tasks()) if tasks.has_data() else len(shipped.rows())
        if not task.isdigit() or int(task) >= count:
            raise EnvironmentFailed(f"there is no task '{task}': ids are 0 to {count - 1}")
        self.task, self.success, self._recorded = task, False, {}
        self.plays += 1
        return str(self.messages()[-1]["content"])

    def messages(self) -> list[Message]:
        """The conversation that asks the question; without InterCode's data it only names the task."""
        if tasks.has_data():
            return schema.messages(int(self.task))
        database = shipped.rows()[int(self.task)].database
        text = f"Your task is to: answer question {self.task} of InterCode-SQL\nThe MySQL database is `{database}`."
        return [{"role": "system", "content": "You answer a question by writing one MySQL query."},
                {"role": "user", "content": text}]  # fmt: skip

    def add_recorded(self, given: Sequence[Answer]) -> None:
        """Answers that recorded models gave in this play, whose results and verdicts are known."""
        for answer in given:
            self._recorded.setdefault(answers.statement(answer.text), answer)

    def step(self, action: str) -> tuple[str, bool]:
        """Answer with a query, bare or in ``execute[…]``; (why it cannot run, done)."""
        result = self._result(statement_of(action))
        self.success = result.right
        return result.error, True

    def impossible(self, action: Action, situation: Situation) -> str | None:
        """Validator of samples: why a query cannot run here, or None."""
        return self._result(statement_of(action.text)).error or None

    def dry_run(self, action: Action) -> str | None:
        """The class of results that an action votes for; None where it is no query or fails."""
        return self._result(statement_of(action.text)).rows

    def close(self) -> None: ...

    def _result(self, statement: str) -> Result:
        if not self.task:
            raise EnvironmentFailed("no task is running: call reset first")
        if statement.lower() == SUBMIT:
            return Result(None, False, "a submission is no query")
        if known := self._recorded.get(statement):
            return Result(known.rows, known.right, known.error)
        if not tasks.has_data():
            raise EnvironmentFailed(NEEDS_DATA)
        return databases().run(int(self.task), statement)


async def play(environment: Environment, task: str, complete: Complete) -> EpisodeResult:
    """Answer one question with one query."""
    assert isinstance(environment, OneQueryEnvironment)
    environment.reset(task)
    statement = answers.statement(await complete(environment.messages()))
    error, _ = environment.step(statement)
    return EpisodeResult(environment.success, 1, [(statement, error)])
