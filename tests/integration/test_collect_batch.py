"""`agentcascade bank collect --batch`: tasks answered and judged by batches, against a local provider."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentcascade.bank.catalog import Catalog
from agentcascade.cli import main
from agentcascade.ledger.ledger import Ledger
from agentcascade.storage import open_database
from tests.batch_provider import BatchProvider, Json, completion


def answer(body: Json) -> tuple[int, Any]:
    said = body["messages"][-1]["content"]
    if body["model"] == "gpt-4o-mini":
        return 200, completion(body, ["no" if "bad goal" in said else "yes"])
    return 200, completion(body, [f"do {said}"])


def test_tasks_are_answered_judged_and_banked_once(tmp_path: Path) -> None:
    tasks = [
        {"goal": "good goal"},
        {"goal": "bad goal"},
        {"messages": [{"role": "user", "content": "other"}], "id": "o"},
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    url = f"sqlite:///{tmp_path}/a.db"
    with BatchProvider(answer) as provider:
        common = f'api_base: "{provider.url}", api_key: k, price: {{input: 1, output: 2}}'
        (tmp_path / "c.yaml").write_text(
            f"teacher: {{name: openai/gpt-4o, {common}}}\njudge: {{model: {{name: openai/gpt-4o-mini, {common}}}}}\n"
            f"bank: {{url: '{url}'}}\nretrieval: {{embedder: 'hashing:32'}}\n"
        )
        arguments = ["bank", "collect", str(tmp_path / "tasks.jsonl"), "--batch", "--poll", "0.01", "--config"]
        done = CliRunner().invoke(main, [*arguments, str(tmp_path / "c.yaml")])
        assert done.exit_code == 0, done.output
        assert "3 of 3 tasks answered, 2 called a success, 2 banked" in done.output
        assert [len(held.requests) for held in provider.batches.values()] == [3, 3]
        database = open_database(url)
        (line,) = Ledger(database).summary("mode")
        assert (line.group, float(line.dollars or 0)) == ("batch", provider.dollars(0.5, 1))
        assert {e.goal for e in Catalog(database).list(None, limit=9)} == {"good goal", "other"}
        database.close()


def test_answers_without_an_action_are_neither_judged_nor_banked(tmp_path: Path) -> None:
    """As of an episode: what has nothing to show is no demonstration, whatever a judge would say of it."""
    said = {"empty": "", "blank": " \n ", "good": "Action: go"}
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps({"goal": goal, "id": goal}) + "\n" for goal in said))

    def answers(body: Json) -> tuple[int, Any]:
        is_judge = body["model"] == "gpt-4o-mini"
        return 200, completion(body, ["yes" if is_judge else said[body["messages"][-1]["content"]]])

    url = f"sqlite:///{tmp_path}/a.db"
    with BatchProvider(answers) as provider:
        common = f'api_base: "{provider.url}", api_key: k, price: {{input: 1, output: 2}}'
        (tmp_path / "c.yaml").write_text(
            f"teacher: {{name: openai/gpt-4o, {common}}}\njudge: {{model: {{name: openai/gpt-4o-mini, {common}}}}}\n"
            f"bank: {{url: '{url}'}}\nretrieval: {{embedder: 'hashing:32'}}\nactions: {{format: react}}\n"
        )
        arguments = ["bank", "collect", str(tmp_path / "tasks.jsonl"), "--batch", "--poll", "0.01", "--config"]
        done = CliRunner().invoke(main, [*arguments, str(tmp_path / "c.yaml")])
        assert done.exit_code == 0, done.output
        assert [len(held.requests) for held in provider.batches.values()] == [3, 1]
        assert "1 of 3 tasks answered, 1 called a success, 1 banked" in done.output
        assert "empty: an empty answer" in done.output
        assert "blank: the answer holds no action" in done.output
        database = open_database(url)
        assert [e.goal for e in Catalog(database).list(None, limit=9)] == ["good"]
        (line,) = Ledger(database).summary("mode")
        assert float(line.dollars or 0) == pytest.approx(provider.dollars(0.5, 1))  # what says nothing is paid for
        database.close()


def test_a_line_that_is_no_task_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"goal": "a"}\n{"messages": 3}\n')
    (tmp_path / "c.yaml").write_text(f"teacher: {{name: openai/gpt-4o}}\nbank: {{url: 'sqlite:///{tmp_path}/a.db'}}\n")
    arguments = ["bank", "collect", str(tmp_path / "tasks.jsonl"), "--batch", "--config", str(tmp_path / "c.yaml")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "line 2: give messages, or a goal" in done.output
