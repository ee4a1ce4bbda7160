"""`agentcascade judge`: a judge checked on known outcomes, and stored episodes judged, against local providers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import func, select

from agentcascade import ScriptedModel, build
from agentcascade.bank.catalog import Catalog
from agentcascade.cli import main
from agentcascade.ledger.ledger import Ledger
from agentcascade.models.pricing import Price
from agentcascade.storage import Database, open_database
from agentcascade.storage.tables import calls, drafts, episodes
from agentcascade.types import Usage
from tests.batch_provider import BatchProvider, Json, completion
from tests.fake_openai import FakeOpenAI, Reply, Request

FREE = Price(input=Decimal(0), output=Decimal(0))
PRICE = Price(input=Decimal("0.15"), output=Decimal("0.6"))
EPISODE = re.compile(r"(?s)<episode ((?:\d+-)?[0-9a-f]{6,})>\n(.*?)\n</episode \1>")


def judged(prompt: str) -> tuple[str, bool]:
    """The judge's answer, and whether several share the call. It takes a mug for a success; where several do, a cup."""
    marks, texts = zip(*EPISODE.findall(prompt))
    codes = [code for code in marks if "-" in code]
    verdicts = ["yes" if "mug" in text or (codes and "cup" in text) else "no" for text in texts]
    if not codes:
        return verdicts[0], False
    return "\n".join(f"{code}: {verdict}" for code, verdict in zip(codes, verdicts)), True


class Provider(FakeOpenAI):
    """Judges at a price, and keeps its own bill."""

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.bill, self.sizes = Decimal(0), list[int]()

    def answer(self, request: Request) -> Reply:
        prompt = request.body["messages"][0]["content"]
        text, _ = judged(prompt)
        usage = Usage(input=len(prompt) // 4, output=len(text))
        self.bill += PRICE.dollars(usage)
        self.sizes.append(len(EPISODE.findall(prompt)))
        counts = {"prompt_tokens": usage.input, "completion_tokens": usage.output}
        return Reply(texts=[text], usage=counts)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


def configuration(folder: Path, url: str, **judge: Any) -> Path:
    model = {"name": "openai/gpt-4o-mini", "api_base": url, "api_key": "k", "price": {"input": 0.15, "output": 0.6}}
    sections = {
        "judge": {"model": model, **judge},
        "bank": {"url": f"sqlite:///{folder}/a.db"},
        "retrieval": {"embedder": "hashing:32", "index": "exact"},
    }
    (folder / "c.yaml").write_text(json.dumps(sections))
    return folder / "c.yaml"


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["judge", *arguments, "--config", str(config)])


def log_of(folder: Path, *goals: tuple[str, bool | None]) -> Path:
    rows = [
        {"id": f"t{i}", "goal": goal, "steps": [{"observation": "o", "action": "look"}], "success": success}
        for i, (goal, success) in enumerate(goals)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "log.jsonl"


KNOWN = [("take a mug", True), ("wash a mug", True), ("a cup", True), ("a mug, in vain", False), ("the book", False)]


def test_a_judge_is_checked_alone_and_together(tmp_path: Path, provider: Provider) -> None:
    log = log_of(tmp_path, *KNOWN, ("an open one", None))
    done = run(configuration(tmp_path, provider.url), "check", "--log", str(log), "--together", "5", "--parallel", "1")
    assert done.exit_code == 0, done.output
    assert provider.sizes == [1] * 5 + [5]
    rows = {line[:35].strip(): line[35:] for line in done.output.splitlines()}
    # alone: right on two mugs and the book; together on the cup, too. Intervals: Clopper and Pearson's of 3 and 4 of 5
    assert "0.600 [0.147, 0.947] (3 of 5)" in rows["accuracy"]
    assert "0.800 [0.284, 0.995] (4 of 5)" in rows["accuracy"]
    assert "0.667 [0.094, 0.992] (2 of 3)" in rows["sensitivity (successes called one)"]
    assert "1.000 [0.292, 1.000] (3 of 3)" in rows["sensitivity (successes called one)"]
    assert rows["specificity (failures called one)"].count("0.500 [0.013, 0.987] (1 of 2)") == 2
    assert rows["Cohen's kappa"].split() == ["0.167", "0.545"]
    assert rows["calls"].split() == ["5", "1"]
    alone, together = map(Decimal, rows["dollars"].split())
    assert abs(alone + together - provider.bill) < Decimal("0.000002")
    assert "alone and 5 together agree: 0.800 [0.284, 0.995] (4 of 5), kappa 0.545" in done.output
    assert "together right where alone is wrong: 1; wrong where alone is right: 0" in done.output


def test_a_check_keeps_within_its_budget(tmp_path: Path, provider: Provider) -> None:
    config = configuration(tmp_path, provider.url)
    done = run(config, "check", "--log", str(log_of(tmp_path, *KNOWN)), "--max-dollars", "0.0000001")
    assert done.exit_code == 0, done.output
    assert not provider.requests
    assert "0 of 5" in done.output
    assert "without a verdict: " in done.output


@pytest.mark.parametrize(("goals", "message"), [
    ([("a", None), ("b", None)], "holds 2 episodes that a judge can be shown, and the outcome of none of them"),
    ([("a", "won")], "line 1: success must be true, false or null"),
])  # fmt: skip
def test_a_log_without_outcomes_is_an_error_that_says_what_to_do(
    goals: list[Any], message: str, tmp_path: Path, provider: Provider
) -> None:
    done = run(configuration(tmp_path, provider.url), "check", "--log", str(log_of(tmp_path, *goals)))
    assert done.exit_code == 1
    assert message in " ".join(done.output.split())
    assert not provider.requests


def test_who_judges_must_be_said_and_an_effort_must_be_one(tmp_path: Path, provider: Provider) -> None:
    log = log_of(tmp_path, *KNOWN)
    (tmp_path / "empty.yaml").write_text("{}")
    assert "say who judges" in run(tmp_path / "empty.yaml", "check", "--log", str(log)).output
    config = configuration(tmp_path, provider.url)
    assert "an effort is one of" in run(config, "check", "--log", str(log), "--effort", "hard").output
    assert "a judge takes no steps" in run(config, "check", "--log", str(log), "--effort", "0.5x").output


def test_the_judge_thinks_as_it_is_told_and_what_an_endpoint_refuses_is_said(
    tmp_path: Path, provider: Provider
) -> None:
    log, config = log_of(tmp_path, *KNOWN), configuration(tmp_path, provider.url)
    asked = ("check", "--log", str(log), "--judge-model", "openai/o4-mini", "--api-base", provider.url)
    done = run(config, *asked, "--effort", "low", "--together", "5", "--parallel", "1")
    assert done.exit_code == 0, done.output
    assert "openai/o4-mini@low on 5 episodes" in done.output
    assert [request.body["reasoning_effort"] for request in provider.requests] == ["low"] * 6
    answer = provider.answer

    def refusing(request: Request) -> Reply:
        if "reasoning_effort" not in request.body:
            return answer(request)
        error = {"message": "Unsupported parameter: 'reasoning_effort'", "param": "reasoning_effort"}
        return Reply(status=400, body={"error": error})

    provider.script = refusing
    done = run(config, *asked, "--effort", "high", "--limit", "1")
    assert done.exit_code == 0, done.output
    assert "1 of 1" in done.output
    assert "openai/o4-mini@high refuses reasoning_effort: it was asked without its effort" in done.output


def record(folder: Path, *, mode: Any = "collect", goals: tuple[str, ...], finish: bool | None = None) -> None:
    """Episodes that nobody ended, unless `finish` says how."""

    async def play() -> None:
        cascade = build(
            teacher=ScriptedModel(["look"], price=FREE),
            student=ScriptedModel(["look"], price=FREE),
            mode=mode,
            bank={"url": f"sqlite:///{folder}/a.db"},
            retrieval={"embedder": "hashing:32", "index": "exact"},
        )
        for goal in goals:
            episode = cascade.episode(stateless=finish is None)
            await episode.complete([{"role": "user", "content": goal}])
            if finish is not None:
                await episode.finish(success=finish)
        await cascade.settle()
        await cascade.aclose()

    asyncio.run(play())


def outcomes(database: Database) -> dict[str, bool | None]:
    with database.begin() as connection:
        return {row.goal: row.success for row in connection.execute(select(episodes.c.goal, episodes.c.success))}


@pytest.mark.parametrize("mode", ["collect", "shadow"])
def test_episodes_without_an_outcome_are_judged_once_and_paid_once(
    mode: str, tmp_path: Path, provider: Provider
) -> None:
    record(tmp_path, mode=mode, goals=("take a mug", "the book", "wash a mug"))
    config = configuration(tmp_path, provider.url, together=2)
    assert "3 that may go on" in run(config, "episodes").output
    assert "3 episodes without an outcome, 2 calls" in run(config, "episodes", "--idle", "0", "--dry-run").output
    assert not provider.requests
    done = run(config, "episodes", "--idle", "0")
    assert done.exit_code == 0, done.output
    banked = 2 if mode == "collect" else 0
    assert f"judged 3 of 3 episodes for ${provider.bill:.6f}: 2 succeeded, {banked} banked" in done.output
    assert sorted(provider.sizes) == [1, 2]
    with closing(open_database(f"sqlite:///{tmp_path}/a.db")) as database:
        assert outcomes(database) == {"take a mug": True, "the book": False, "wash a mug": True}
        lines = [line for line in Ledger(database).spending() if line.model == "openai/gpt-4o-mini"]
        assert sum((line.dollars or Decimal(0) for line in lines), Decimal(0)) == provider.bill
        assert {t.goal for t in Catalog(database).all()} == ({"take a mug", "wash a mug"} if banked else set())
        with database.begin() as connection:
            assert connection.execute(select(func.count()).select_from(drafts)).scalar() == 0
            requests = select(func.sum(calls.c.requests)).where(calls.c.purpose == "judge")
            assert connection.execute(requests).scalar() == 2
    assert "0 episodes without an outcome" in run(config, "episodes", "--idle", "0").output
    assert len(provider.requests) == 2


def test_a_check_on_the_database_is_in_its_ledger(tmp_path: Path, provider: Provider) -> None:
    record(tmp_path, mode="shadow", goals=("take a mug", "wash a mug"), finish=True)
    record(tmp_path, mode="shadow", goals=("the book", "a mug, in vain"), finish=False)
    done = run(configuration(tmp_path, provider.url, together=4), "check")
    assert done.exit_code == 0, done.output
    assert done.output.count("0.750 [0.194, 0.994] (3 of 4)") == 2
    with closing(open_database(f"sqlite:///{tmp_path}/a.db")) as database:
        lines = [line for line in Ledger(database).spending() if line.model == "openai/gpt-4o-mini"]
        assert sum((line.dollars or Decimal(0) for line in lines), Decimal(0)) == provider.bill
        assert set(outcomes(database).values()) == {True, False}, "a check changes no outcome"


def test_stored_episodes_are_judged_by_batches(tmp_path: Path) -> None:
    """Two to a request; what is unreadable is asked once more, alone. Half the price, in the ledger as batch."""
    record(tmp_path, goals=("take a mug", "the book", "wash a mug", "the door", "open it"))

    def answer(body: Json) -> tuple[int, Any]:
        prompt = body["messages"][0]["content"]
        text, several = judged(prompt)
        return 200, completion(body, [text.replace("1-", "one-") if several and "the book" in prompt else text])

    with BatchProvider(answer) as provider:
        config = configuration(tmp_path, provider.url, together=2)
        done = run(config, "episodes", "--batch", "--poll", "0.01", "--idle", "0")
        assert done.exit_code == 0, done.output
        assert "judged 5 of 5 episodes: 2 succeeded, 2 banked" in done.output
        assert [len(held.requests) for held in provider.batches.values()] == [2, 2]
        with closing(open_database(f"sqlite:///{tmp_path}/a.db")) as database:
            found = outcomes(database)
            assert [found[goal] for goal in ("take a mug", "the book", "wash a mug")] == [True, False, True]
            spent = {line.group: line.dollars for line in Ledger(database).summary("mode")}
            assert float(spent["batch"] or 0) == pytest.approx(provider.dollars(0.075, 0.3))
            assert spent["collect"] == 0
