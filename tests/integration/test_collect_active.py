"""`agentcascade bank collect --active`: where it pays, to the cent of its budget, and never twice after a kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny_suite import Suite, Teacher

from agentcascade import build
from agentcascade.bank.active import account_of
from agentcascade.bank.catalog import Catalog
from agentcascade.bench.active_pool import suite_pool
from agentcascade.bench.suites.protocol import Task
from agentcascade.cli import main
from agentcascade.episodes.active_collect import collect_actively, single_step
from agentcascade.episodes.batch_collect import Task as TaskOfOneStep
from agentcascade.episodes.batch_collect import read_tasks
from agentcascade.errors import BankError, InvalidRequest
from agentcascade.ledger.ledger import Ledger
from agentcascade.storage import open_database
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Call, Decision, Usage
from tests.batch_provider import BatchProvider, completion
from tests.fake_openai import FakeOpenAI, Reply, Request

COOL, HEAT = "cool an apple in the fridge", "heat some bread"
POOL = [f"{COOL} {n}" for n in range(3)] + [f"{HEAT} {n}" for n in range(3)]
PER_CALL = Decimal("0.00010") * 10 + Decimal("0.00020") * 2
"""Of a reply's ten prompt and two output tokens, at the prices below."""


def goal_of(request: Request) -> str:
    return str(request.body["messages"][-1]["content"])


def written(
    tmp_path: Path,
    provider: FakeOpenAI | BatchProvider,
    *,
    model: str = "my-teacher",
    price: str = "{input: 100, output: 200}",
    more: str = "",
) -> str:
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps({"goal": goal}) + "\n" for goal in POOL))
    common = f'api_base: "{provider.url}", api_key: k' + (f", price: {price}" if price else "")
    (tmp_path / "c.yaml").write_text(
        f"teacher: {{name: openai/{model}, max_tokens: 2, {common}}}\n{more}"
        f"bank: {{url: 'sqlite:///{tmp_path}/a.db'}}\nretrieval: {{embedder: 'hashing:128', k: 3}}\n"
    )
    return f"sqlite:///{tmp_path}/a.db"


def seen_live(url: str, dollars: str = "0.02") -> None:
    """Four episodes each: the student always defers on cooling, and never on heating."""
    call = Call(role="teacher", model="t", usage=Usage(), dollars=Decimal(dollars))
    decisions = [
        Decision(
            episode=f"{goal} {n}",
            step=0,
            goal=goal,
            mode="cascade",
            answered_by=by,
            reason="",
            samples=3,
            calls=(call,) if by == "teacher" else (),
            dollars=Decimal("0.001"),
            teacher_dollars=Decimal("0.0014"),
        )
        for goal, by in ((COOL, "teacher"), (HEAT, "student"))
        for n in range(4)
    ]
    with closing(open_database(url)) as database, database.begin(write=True) as connection:
        write_records(connection, decisions)


def collect(tmp_path: Path, *arguments: str) -> Any:
    return CliRunner().invoke(
        main,
        ["bank", "collect", str(tmp_path / "tasks.jsonl"), "--config", str(tmp_path / "c.yaml"), *arguments],
    )


def spent(url: str) -> tuple[Decimal, Decimal]:
    with closing(open_database(url)) as database:
        account = account_of("default", Decimal(5))
        assert account is not None
        balance = DatabaseBudgets(database).balance(account)
    return balance.spent, balance.reserved


def test_the_teacher_is_sent_where_the_student_defers_until_nothing_pays(tmp_path: Path) -> None:
    with FakeOpenAI([Reply(["look"])]) as provider:
        url = written(tmp_path, provider, more="collect: {active: true, budget: 5, horizon: 2}\n")
        seen_live(url)
        plan = collect(tmp_path, "--dry-run")
        assert plan.exit_code == 0, plan.output
        assert not provider.requests
        assert "Nothing was asked" in plan.output
        done = collect(tmp_path)
        assert done.exit_code == 0, done.output
        asked = [goal_of(request) for request in provider.requests]
    assert asked
    assert all(goal.startswith(COOL) for goal in asked)
    assert len(asked) < len(POOL)
    said = " ".join(done.output.split())
    assert "stopped: the best task that is left is expected to save" in said
    assert "need the teacher" in said
    assert spent(url) == (PER_CALL * len(asked), Decimal(0))
    with closing(open_database(url)) as database:
        banked = list(Catalog(database).all())
        assert {t.goal for t in banked} == set(asked)
        for trajectory in banked:
            assert Decimal(trajectory.metadata["expected_saving"]) >= Decimal(trajectory.metadata["expected_price"])
        by_mode = {line.group: line.dollars for line in Ledger(database).summary("mode")}
    assert by_mode["collect"] == PER_CALL * len(asked)


def test_a_budget_is_kept_to_the_cent_over_runs_and_a_cold_start_says_so(tmp_path: Path) -> None:
    with FakeOpenAI([Reply(["look"])]) as provider:
        url = written(tmp_path, provider, more="budgets: {output_tokens: 2}\n")
        for _ in range(2):  # the second run finds the budget used up
            done = collect(tmp_path, "--active", "--budget", str(PER_CALL * 5 / 2))
            assert done.exit_code == 0, done.output
            assert "the budget" in done.output
        assert 1 <= len(provider.requests) <= 2
        assert spent(url) == (PER_CALL * len(provider.requests), Decimal(0))
        more = collect(tmp_path, "--active", "--budget", "5")
        assert "cold start, by diversity" in more.output
        assert "the pool is used up" in more.output
        assert Counter(map(goal_of, provider.requests)) == Counter(POOL)


@pytest.mark.parametrize("moment", ["teacher", "judge"])
def test_a_run_that_is_killed_is_continued_and_pays_for_nothing_twice(tmp_path: Path, moment: str) -> None:
    """Killed while the teacher is asked a third time, or while the judge is: what was answered is not asked again."""
    killing: list[int] = []

    def reply(request: Request) -> Reply:
        judges = "judge" in request.body["model"]
        if killing and judges == (moment == "judge") and len(provider.requests) >= 5:
            os.kill(killing.pop(), signal.SIGKILL)
            return Reply(["too late"], delay=0.1)
        return Reply(["yes" if judges else "look"])

    with FakeOpenAI(reply) as provider:
        priced = "price: {input: 100, output: 200}"
        judge = f'judge: {{model: {{name: openai/my-judge, api_base: "{provider.url}", api_key: k, {priced}}}}}\n'
        url = written(tmp_path, provider, more=judge)
        tasks, config = str(tmp_path / "tasks.jsonl"), str(tmp_path / "c.yaml")
        command = [sys.executable, "-m", "agentcascade", "bank", "collect", tasks, "--active", "--config", config]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        killing.append(process.pid)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        before = [goal_of(r) for r in provider.requests if "teacher" in r.body["model"]]
        done = collect(tmp_path, "--active")
        assert done.exit_code == 0, done.output
        asked = Counter(goal_of(r) for r in provider.requests if "teacher" in r.body["model"])
    twice = {goal for goal, times in asked.items() if times > 1}
    assert set(asked) == set(POOL)
    assert twice == ({before[-1]} if moment == "teacher" else set())  # one that was never answered
    with closing(open_database(url)) as database:
        assert {entry.goal for entry in Catalog(database).list()} == set(POOL)


def test_without_a_budget_what_was_spent_is_the_ledgers_with_the_judge_and_what_failed(tmp_path: Path) -> None:
    def reply(request: Request) -> Reply:
        if "judge" in request.body["model"]:
            return Reply(["no" if HEAT in goal_of(request) else "yes"])
        return Reply([None] if COOL in goal_of(request) else ["look"])  # billed, and no answer

    with FakeOpenAI(reply) as provider:
        priced = "price: {input: 100, output: 200}"
        judge = f'judge: {{model: {{name: openai/my-judge, api_base: "{provider.url}", api_key: k, {priced}}}}}\n'
        url = written(tmp_path, provider, more=judge + "collect: {cold_start: 6}\n")
        done = collect(tmp_path, "--active")
        calls = len(provider.requests)
    with closing(open_database(url)) as database:
        total = sum((line.dollars or Decimal(0) for line in Ledger(database).summary("mode")), Decimal(0))
    assert total >= PER_CALL * calls  # what came of an empty answer is in doubt: more is booked
    assert f"spent ${total:.4f}" in done.output, done.output
    assert "0 of 6 tasks banked" in done.output


def test_by_batch_what_pays_is_chosen_before_it_is_sent(tmp_path: Path) -> None:
    with BatchProvider(lambda body: (200, completion(body, ["look"]))) as provider:
        more = "collect: {active: true, horizon: 2, budget: 5}\n"
        url = written(tmp_path, provider, more=more, model="gpt-4o")
        seen_live(url)
        done = collect(tmp_path, "--batch", "--poll", "0.01")
        assert done.exit_code == 0, done.output
        (held,) = provider.batches.values()
        assert f"{len(held.requests)} of 6 tasks are sent; the best task that is left is expected" in done.output
        assert 0 < len(held.requests) < 6
        with closing(open_database(url)) as database:
            banked = {entry.goal for entry in Catalog(database).list()}
        assert len(banked) == len(held.requests)
        assert all(goal.startswith(COOL) for goal in banked)
        assert spent(url) == (Decimal(str(provider.dollars(50, 100))), Decimal(0))
        again = collect(tmp_path, "--batch", "--poll", "0.01")
        assert again.exit_code == 0, again.output
        assert len(provider.batches) == 1  # the rest does not pay, and what is banked is not bought again


def test_what_cannot_be_weighed_or_has_nothing_to_choose_from_is_an_error(tmp_path: Path) -> None:
    with FakeOpenAI() as provider:
        written(tmp_path, provider, price="")
        unpriced = collect(tmp_path, "--active")
        assert unpriced.exit_code == 1
        assert "set teacher.price" in " ".join(unpriced.output.split())
        (tmp_path / "tasks.jsonl").write_text("\n")
        written(tmp_path, provider)
        (tmp_path / "tasks.jsonl").write_text("\n")
        empty = collect(tmp_path, "--active")
        assert empty.exit_code == 1
        assert "the pool of active collection is empty" in " ".join(empty.output.split())
        assert collect(tmp_path, "--active", "--budget", "0").exit_code == 2
        neither = collect(tmp_path)
        assert neither.exit_code == 2
        assert "--active" in neither.output
        (tmp_path / "c.yaml").write_text("teacher: {name: openai/x}\ncollect: {active: true, budget: 0}\n")
        none = collect(tmp_path)
        assert none.exit_code == 1
        assert "collect.budget" in none.output
        assert not provider.requests


def test_a_provider_that_breaks_ends_the_run_after_three_in_a_row(tmp_path: Path) -> None:
    with FakeOpenAI([Reply(status=400)]) as provider:
        written(tmp_path, provider)
        done = collect(tmp_path, "--active")
        assert done.exit_code == 0, done.output
        assert "3 episodes in a row broke" in done.output
        assert "0 of 6 tasks banked" in done.output
        provider.script = [Reply(["look"])]
        assert "6 of 6 tasks banked" in collect(tmp_path, "--active").output  # what broke is tried again


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_two_runs_at_once_pay_for_each_task_once(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/a.db" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    with FakeOpenAI([Reply(["look"], delay=0.03)]) as provider:
        settings: dict[str, Any] = {
            "mode": "collect",
            "bank": {"url": url},
            "retrieval": {"embedder": "hashing:64", "k": 2},
            "collect": {"active": True, "budget": 5, "cold_start": 6},
            "teacher": {
                "name": "openai/my-teacher", "max_tokens": 2, "api_base": provider.url, "api_key": "k",
                "price": {"input": 100, "output": 200},
            },
        }  # fmt: skip
        tasks = [single_step(TaskOfOneStep(g, [{"role": "user", "content": g}]), judged=False) for g in POOL]
        async with build(**settings) as one, build(**settings) as other:
            runs = await asyncio.gather(*(collect_actively(cascade.engine, tasks) for cascade in (one, other)))
        assert Counter(goal_of(r) for r in provider.requests) == Counter(POOL)
    banked = [choice.task for run in runs for choice in run.choices if choice.banked]
    assert sorted(banked) == sorted(POOL)
    assert [len(run.choices) + run.elsewhere for run in runs] == [6, 6]
    assert sum(choice.dollars or 0 for run in runs for choice in run.choices) == 6 * PER_CALL
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".lock")]


def test_a_suites_tasks_are_played_in_its_world(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    teacher = Teacher()
    settings: dict[str, Any] = {
        "mode": "collect",
        "bank": {"url": url},
        "retrieval": {"embedder": "hashing:64", "k": 2},
        "actions": {"format": "react"},
        "collect": {"active": True, "budget": 5, "cold_start": 2},
    }

    async def run() -> Any:
        suite: Any = Suite()
        tasks = [Task(f"t{n}", f"count {name}") for n, name in enumerate(("to three", "sheep", "stars", "break"))]
        async with build(teacher=teacher, **settings) as cascade:
            pool = await suite_pool(suite, suite.environment(expert=False), tasks, cascade)
            assert pool[1].goal == "count to three (sheep)."
            ran = await collect_actively(cascade.engine, pool)
            with pytest.raises(BankError, match="empty"):
                await collect_actively(cascade.engine, [])
            return ran

    done = asyncio.run(run())
    assert [choice.banked for choice in done.choices] == [True, True]
    assert "the cold start is over (2 tasks by diversity" in done.stopped
    assert done.spent == sum(choice.dollars for choice in done.choices)
    with closing(open_database(url)) as database:
        assert [len(t.steps) for t in Catalog(database).all()] == [3, 3]


@pytest.mark.parametrize("line", [{"messages": [{"role": "user", "content": []}]}, {"goal": "  "}])
def test_a_task_without_a_goal_is_refused_before_anything_is_paid(tmp_path: Path, line: dict[str, Any]) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"goal": "make tea"}\n' + json.dumps(line) + "\n")
    with pytest.raises(InvalidRequest, match="line 2: its first user message has no text"):
        read_tasks(path)
