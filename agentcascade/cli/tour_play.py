"""What the tour plays: recorded answers of real models through the real cascade, into a database of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from agentcascade.cascade import Cascade
from agentcascade.types import Decision, Demonstration

PREFIX = "recorded/"
TEACHER = "gpt-4"
MEMBERS = ("qwen2.5-coder-1.5b", "text-bison", "gpt-3.5-turbo")
AGREED, SPLIT = 6, 13
"""Questions: on the one two of the three return the same rows, on the other none do."""
PLAYED = 60
"""Questions, the first: few enough for a tour."""
TAUGHT = 40
"""Questions with their published calls in the bank that demonstrations are retrieved from."""
ASKED = "simple_python_24"


class Answered(NamedTuple):
    """A question that the cascade answered."""

    decision: Decision
    text: str
    right: bool
    returned: dict[str, str]
    """Model that was asked, the teacher too: the class of rows that its query returned, or that it failed"""


class Score(NamedTuple):
    """What came of a number of questions."""

    questions: int
    right: int
    teacher_right: int
    by_students: int


class Tour:
    """A cascade of recorded models: a committee of three before GPT-4.

    Args:
        url: Of its database.
    """

    def __init__(self, url: str) -> None:
        from agentcascade.actions.equivalence import DryRun
        from agentcascade.assembly.cascade import build
        from agentcascade.config.sections import ModelConfig
        from agentcascade.envs.intercode_sql.answers import Answer
        from agentcascade.envs.intercode_sql.models import RecordedModel
        from agentcascade.envs.intercode_sql.one_query import OneQueryEnvironment
        from agentcascade.protocols import TokenCounter
        from agentcascade.types import Action, Situation

        class World(OneQueryEnvironment):
            """It knows each answer by its text as it was given: to parse SQL an extra is needed."""

            def __init__(self) -> None:
                super().__init__()
                self.given: dict[str, Answer] = {}

            def add_recorded(self, given: Sequence[Answer]) -> None:
                self.given.update((answer.text.strip(), answer) for answer in given)

            def impossible(self, action: Action, situation: Situation) -> str | None:
                return self.given[action.text.strip()].error or None

            def dry_run(self, action: Action) -> str | None:
                return self.given[action.text.strip()].rows

        self._world = world = World()

        def recorded(config: ModelConfig, count: TokenCounter) -> RecordedModel:
            model = RecordedModel(config, count)
            model.bind(world)
            return model

        first, *others = (PREFIX + name for name in MEMBERS)
        self._cascade: Cascade = build(
            teacher=PREFIX + TEACHER,
            student=first,
            students=others,
            sampling={"across": "students"},
            router={"name": "threshold", "options": {"needed": 2}},
            actions={"format": "text"},
            retrieval={"k": 0},
            bank={"url": url},
            models=recorded,
            validators=[world.impossible],
            mergers=[DryRun(world.dry_run)],
        )

    def answer(self, question: int) -> Answered:
        """Put one question to the cascade."""
        self._world.reset(str(question))
        self._world.given.clear()
        episode = self._cascade.sync_episode(goal=f"question {question}", id=f"question-{question}")
        answer = episode.complete(self._world.messages())
        text = answer.choices[0].message.content or ""
        if self._cascade.context.recorder is not None:
            self._cascade.context.recorder.flush()
        given = self._world.given
        returned = {one.model: one.rows or "nothing: it fails" for one in given.values()}
        return Answered(answer.agentcascade, text, given[text.strip()].right, returned)

    def play(self, questions: Sequence[int]) -> Score:
        """Put several to it, and count what was right, and what GPT-4's recorded answers had right."""
        answered = [self.answer(question) for question in questions]
        return Score(
            questions=len(answered),
            right=sum(one.right for one in answered),
            teacher_right=sum(is_right(TEACHER, question) for question in questions),
            by_students=sum(one.decision.answered_by == "student" for one in answered),
        )

    def close(self) -> None:
        """Close the cascade; everything is in the database then."""
        self._cascade.close()


@contextmanager
def touring(folder: Path) -> Iterator[tuple[Tour, str]]:
    """A tour in a folder of its own, and the URL of its database."""
    url = f"sqlite:///{folder}/tour.db"
    tour = Tour(url)
    try:
        yield tour, url
    finally:
        tour.close()


def is_right(model: str, question: int) -> bool:
    """Whether a recorded model's first answer to a question was right."""
    from agentcascade.envs.intercode_sql import shipped

    return shipped.rows()[question].models[model].results[0][0].right


def recorded_dollars(questions: Iterable[int], model: str = TEACHER) -> Decimal | None:
    """What a recorded model's answers to some questions cost at the time; None where that is not known."""
    from agentcascade.envs.intercode_sql import prices, shipped
    from agentcascade.models.pricing import PriceTable
    from agentcascade.types import Usage

    price = PriceTable({model: prices.price(model) or {}}).lookup(model)
    total = Decimal(0)
    for question in questions:
        entry = shipped.rows()[question].models[model]
        output = entry.results[0][1]
        if price is None or entry.input_tokens is None or output is None:
            return None
        total += price.dollars(Usage(input=entry.input_tokens, output=output))
    return total


def nearest(question: str = ASKED) -> tuple[str, list[Demonstration]]:
    """A question of BFCL, and the demonstrations that a real bank finds for it among others' published answers."""
    import asyncio

    from agentcascade.assembly.cascade import build
    from agentcascade.models.scripted import ScriptedModel
    from agentcascade.types import Situation, Step, Trajectory

    texts = published(TAUGHT + 1)
    asked = texts[question][0]

    async def find() -> list[Demonstration]:
        retrieval = {"embedder": "hashing", "index": "exact", "k": 2}
        models = {"teacher": ScriptedModel(["-"]), "student": ScriptedModel(["-"], name="student")}
        async with build(**models, retrieval=retrieval, bank={"url": "sqlite:///:memory:"}) as cascade:  # type: ignore[arg-type]
            assert cascade.bank is not None
            for name, (text, call) in texts.items():
                if name != question:
                    steps = (Step(observation=text, action=call),)
                    await cascade.bank.add(Trajectory(id=name, goal=text, steps=steps, success=True))
            found = await cascade.bank.retrieve(Situation(goal=asked, observation=asked), 2)
            return list(found.demonstrations)

    return asked, asyncio.run(find())


def published(most: int) -> dict[str, tuple[str, str]]:
    """Questions of BFCL by id, the first so many that one call answers, with that call: as published, no model's."""
    import json

    from agentcascade.envs.bfcl.rows import DATA
    from agentcascade.envs.recorded.rows import read

    asked = {row["id"]: str(row["question"]) for _, row in read(DATA / "questions.jsonl.xz")}
    found: dict[str, tuple[str, str]] = {}
    for _, row in read(DATA / "possible_answers.jsonl.xz"):
        truth = row["ground_truth"]
        if isinstance(truth, dict) and len(truth) == 1:
            name, values = next(iter(truth.items()))
            arguments = {key: value[0] for key, value in values.items() if value and value[0] != ""}
            found[row["id"]] = asked[row["id"]], f"{name}({json.dumps(arguments)})"
        if len(found) == most:
            break
    return found
