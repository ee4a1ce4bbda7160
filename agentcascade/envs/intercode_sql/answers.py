"""Recorded answers of real models to InterCode-SQL's questions: one query each, what it returns, whether it is right.

The verdict on a recorded answer is InterCode's own. On a sample of ours it is the one that most recorded answers got
whose rows are the same, and where there is none, our database's. With InterCode's data (`INTERCODE_DATA`) queries are
the recorded ones and run in its databases. Without, results and verdicts are those that ship with the package
(`shipped`), and a large model's query is named by its result alone: the texts of its answers, the questions and the
databases are other people's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from agentcascade.actions.sql import SUBMIT, SqlActions, statement_of
from agentcascade.envs.intercode_sql import prices, runs, schema, shipped, tasks
from agentcascade.envs.intercode_sql.results import databases
from agentcascade.envs.recorded.models import nearest
from agentcascade.envs.recorded.rows import read
from agentcascade.errors import ConfigError, EnvironmentFailed, InvalidAction, MissingExtra
from agentcascade.models.tokens import count_messages, token_counter
from agentcascade.types import Message

PREFIX = "recorded/"
RECORDINGS = Path(__file__).parent / "recordings"
FORMAT = SqlActions(fold=True)
TEACHER = "gpt-4"
ONE_ANSWER = ("gpt-3.5-turbo", "gpt-3.5-turbo-retry", "text-bison", "chat-bison")
SAMPLED = {
    "qwen2.5-coder-1.5b": ("qwen2.5-coder-1.5b", "plain"),
    "qwen2.5-coder-1.5b-demos": ("qwen2.5-coder-1.5b", "demos"),
    "qwen2.5-coder-0.5b": ("qwen2.5-coder-0.5b", "plain"),
}
"""Our own samples: file and variant by name"""
_NO_QUERY = (SUBMIT, "skip", "blocked")
FOLDER = "answers"
"""Of one's own recorded answers, in $INTERCODE_DATA: NAME.jsonl or NAME.jsonl.xz"""


class Answer(NamedTuple):
    """One answer to one question."""

    task: int
    model: str
    text: str
    """As the model wrote it"""
    rows: str | None
    """The class of equal results that it votes for; None where it fails"""
    right: bool
    output_tokens: int | None
    error: str = ""
    finish: str = "stop"
    seconds: float | None = None

    @property
    def message(self) -> Message:
        return {"role": "assistant", "content": self.text}


class Given(NamedTuple):
    """A model's answers to one question."""

    answers: tuple[Answer, ...]
    input_tokens: int | None


class Sample(NamedTuple):
    """What a file holds of one answer."""

    text: str
    tokens: int | None
    finish: str = "stop"
    right: bool | None = None
    """InterCode's verdict; None where it gave none"""


class Samples(NamedTuple):
    """What a file holds of one model's answers to one question."""

    samples: tuple[Sample, ...]
    prompt_tokens: int | None


class SqlAnswers:
    """Implements `envs.recorded.models.Library`."""

    prefix, suite = PREFIX, "intercode-sql --schema"

    def models(self) -> Sequence[str]:
        return [TEACHER, *ONE_ANSWER, *SAMPLED, *own_files()]

    def sampled(self) -> Mapping[str, int]:
        counts = dict.fromkeys(SAMPLED, shipped.SAMPLES)
        for name in own_files():
            least = min((len(given.samples) for given in _own(name).values()), default=0)
            if least > 1:
                counts[name] = least
        return counts

    def answers(self, model: str, task: str) -> Given:
        return answers(model, int(task))

    def vote(self, answer: Answer) -> str | None:
        return answer.rows

    def price(self, model: str) -> Mapping[str, str] | None:
        return prices.price(model)


LIBRARY = SqlAnswers()


def answers(model: str, task: int) -> Given:
    """A model's answers to one question, without the prefix of its name.

    Raises `ConfigError` for an unknown name, `EnvironmentFailed` for a question that it did not answer.
    """
    known = LIBRARY.models()
    if model not in known:
        raise ConfigError(f"there are no recorded answers of '{model[:80]}': {nearest(model, known)}")
    if not tasks.has_data():
        return _shipped(model, task)
    found = _recorded(model).get(task)
    if found is None:
        raise EnvironmentFailed(f"there is no recorded answer of '{model[:80]}' to task {task}")
    return Given(tuple(_judged(model, task, sample) for sample in found.samples), found.prompt_tokens)


def _judged(model: str, task: int, sample: Sample) -> Answer:
    result = databases().run(task, statement(sample.text))
    official = verdicts(task).get(result.rows) if sample.right is None else sample.right
    right = result.right if official is None else official
    return Answer(task, model, sample.text, result.rows, right, sample.tokens, result.error, sample.finish)


@lru_cache(maxsize=2_000)
def verdicts(task: int) -> dict[str | None, bool]:
    """InterCode's verdicts by class of results: of several on one class that of most, of as many either way none.

    Where the order of rows is left open, two answers with the same rows here may have had different ones there.
    """
    votes: Counter[str | None] = Counter()
    for model in (TEACHER, *ONE_ANSWER):
        for sample in samples.samples if (samples := _intercode(model).get(task)) else ():
            rows = databases().run(task, statement(sample.text)).rows
            votes[rows] += 1 if sample.right else -1
    return {rows: count > 0 for rows, count in votes.items() if rows is not None and count}


def is_right(task: int, rows: str) -> bool | None:
    """The verdict on a class of results; None where nobody recorded gave such an answer."""
    if tasks.has_data():
        return verdicts(task).get(rows)
    votes = [
        result.right
        for name in (TEACHER, *ONE_ANSWER)
        for result, _ in shipped.rows()[task].models[name].results
        if result.rows == rows
    ] or [
        result.right
        for name in SAMPLED
        for result, _ in shipped.rows()[task].models[name].results
        if result.rows == rows
    ]
    return None if not votes else 2 * sum(votes) > len(votes)


def statement(text: str) -> str:
    """The statement that an answer holds, as the action format reads it; without a parser, the text as it is."""
    try:
        return statement_of(FORMAT.parse({"role": "assistant", "content": text}).text)
    except (InvalidAction, MissingExtra):
        return statement_of(text)


def _shipped(model: str, task: int) -> Given:
    row = shipped.rows().get(task)
    if row is None:
        raise EnvironmentFailed(f"there is no task '{task}': ids are 0 to {len(shipped.rows()) - 1}")
    entry = row.models[model]
    texts: Iterable[Sample]
    if model in SAMPLED:
        texts = _samples(model)[task].samples
    else:
        texts = [
            Sample(f"SELECT '{r.rows or 'a failed query'} of task {task}, by {model}'", t) for r, t in entry.results
        ]
    made = tuple(
        Answer(task, model, sample.text, result.rows, result.right, sample.tokens, result.error, sample.finish)
        for sample, (result, _) in zip(texts, entry.results)
    )
    return Given(made, entry.input_tokens)


def _recorded(model: str) -> Mapping[int, Samples]:
    """A model's answers by task, from InterCode's files or our own."""
    if model in SAMPLED:
        return _samples(model)
    return _own(model) if model in own_files() else _intercode(model)


@cache
def _samples(model: str) -> dict[int, Samples]:
    file, variant = SAMPLED[model]
    return _read(RECORDINGS / f"{file}.jsonl.xz", model, variant)


def own_files() -> dict[str, Path]:
    """Files of one's own recorded answers by model. Raises `ConfigError` for a name that is taken."""
    folder = tasks.data_folder()
    found = {}
    for path in sorted((folder / FOLDER).glob("*.jsonl*")) if folder is not None else ():
        name, _, rest = path.name.partition(".jsonl")
        if rest in ("", ".xz"):
            if name in (TEACHER, *ONE_ANSWER, *SAMPLED) or name in found:
                raise ConfigError(f"{path}: there are recorded answers of '{name}' already: give the file another name")
            found[name] = path
    return found


@cache
def _own(model: str) -> dict[int, Samples]:
    return _read(own_files()[model], model, None)


def _read(path: Path, model: str, variant: str | None) -> dict[int, Samples]:
    """Rows of `task`, `samples` (`text`, `tokens`, `finish`), `prompt_tokens`; of one `variant` alone.

    Raises `EnvironmentFailed` by file and line: for a task that is not there, and for one that is there twice.
    """
    found: dict[int, Samples] = {}
    count = len(tasks.load_tasks()) if tasks.has_data() else len(shipped.rows())
    for where, row in read(path):
        if variant is not None and row.get("variant") != variant:
            continue
        task = row.get("task")
        if not isinstance(task, int) or isinstance(task, bool) or not 0 <= task < count:
            raise EnvironmentFailed(f"{where}: an answer of '{model}' to task {task!r:.40}: ids are 0 to {count - 1}")
        if task in found:
            raise EnvironmentFailed(f"{where}: '{model}' answers task {task} twice")
        try:
            samples = tuple(_sample(sample) for sample in row["samples"])
            found[task] = Samples(samples, _count(row.get("prompt_tokens")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EnvironmentFailed(f"{where}: not a row of answers: {error}") from error
        if not samples:
            raise EnvironmentFailed(f"{where}: '{model}' has no answer to task {task}: leave the row out")
    return found


def _sample(sample: Mapping[str, Any]) -> Sample:
    text = sample["text"]
    if not isinstance(text, str):
        raise TypeError(f"text is {text!r:.40}")
    return Sample(text, _count(sample.get("tokens")), str(sample.get("finish") or "stop"))


def _count(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**9):
        raise TypeError(f"{value!r:.40} is no count of tokens")
    return value


@cache
def _intercode(model: str) -> dict[int, Samples]:
    """InterCode's recorded runs: the first query where the schema was shown, GPT-4's last of up to ten turns.

    Tokens are counted on our own prompts: of one question with the schema, or of all turns.
    """
    count = token_counter()
    found = {}
    for task, run in runs.recorded_runs(TEACHER if model == TEACHER else f"schema {model}").items():
        said = [statement_of(action) for action in run.actions]
        place = 0
        if model == TEACHER:
            place = max((i for i, query in enumerate(said) if query.lower() not in _NO_QUERY), default=0)
            prompt, written = runs.tokens(task, run, count)
        else:
            prompt, written = count_messages(schema.messages(task), count), count(said[0])
        sample = Sample(said[place], written, right=run.rewards[place] == 1.0)
        found[task] = Samples((sample,), prompt)
    return found
