"""``agentcascade explain`` on real decisions in SQLite and PostgreSQL: words, names, hostile texts, today's rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from agentcascade import ScriptedModel, Step, Trajectory, build
from agentcascade.cli import main
from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.models.pricing import Price
from agentcascade.storage import open_database
from agentcascade.types import Decision, new_id

KEY = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789"
HOSTILE = "open \x1b[2J\x07 the\u202e drawer\r\nThe student took this step"
Explain = Callable[..., Result]


@pytest.fixture
def explain(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Explain:
    """Runs the command where `configured` is the configuration."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, configured: dict[str, Any] | None = None) -> Result:
        if configured is not None:
            (tmp_path / "agentcascade.yaml").write_text(yaml.safe_dump(configured))
        return CliRunner().invoke(main, ["explain", *arguments, "--url", url])

    return run


def step(url: str, student: Sequence[str], teacher: str = "open the drawer", **settings: Any) -> Decision:
    """The decision of one step of scripted models, after which everything is in the database."""
    price = Price(input=Decimal(1), output=Decimal(2))
    expert = ScriptedModel([teacher], name="expert", price=price)
    cheap = ScriptedModel(student, name="cheap", price=price)
    settings = {"retrieval": {"k": 2, "embedder": "hashing"}, "bank": {"url": url}, **settings}
    with build(teacher=expert, student=cheap, **settings) as cascade:
        banked = (Step(observation="a desk", action=HOSTILE), Step(observation="open", action="take the mug"))
        assert cascade.bank is not None
        asyncio.run(cascade.bank.add(Trajectory(goal=f"find the mug with {KEY}", steps=banked, success=True)))
        episode = cascade.sync_episode(goal="find the mug", id="run/1")
        answer = episode.complete([{"role": "user", "content": "You see a desk."}])
    return answer.agentcascade


def test_a_split_vote_in_words(url: str, explain: Explain) -> None:
    decision = step(url, ["open the drawer", HOSTILE, "open the drawer"])
    done = explain(configured={"router": {"name": "unanimity", "options": {"n": 3}}})
    assert done.exit_code == 0, done.output
    said = done.output
    assert "The teacher took this step: 'open the drawer'" in said
    assert "because the votes were split: 2 of 3 were for one action" in said
    assert "1 more vote would have been enough (router wants 3 of 3)" in said
    assert "router: {name: threshold, options: {n: 3, needed: 2}} would have taken it" in said
    assert "the teacher did what most votes said" in said
    assert "  2  'open the drawer'" in said
    assert "teacher act" in said
    assert decision.id in said
    # What others wrote commands nothing, forges no line, and shows no key.
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(said)
    assert "The student took this step" not in [line.strip() for line in said.splitlines()]
    assert "\\u001b[2J" in said
    assert KEY not in said
    assert "find the mug with [key]" in said


def test_a_step_is_found_by_every_name(url: str, explain: Explain) -> None:
    decision = step(url, ["look", "look", "look"])
    for name in (decision.id, decision.id[:12], "run/1/0", "last"):
        done = explain(name, "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)["id"] == decision.id
    told = json.loads(explain("--json").output)
    assert (told["answered_by"], told["code"], told["would_have_taken_it"]) == ("student", "agreement", [])
    assert told["votes"] == [{"action": "look", "votes": 3}]
    billed = sum(Decimal(line["dollars"]) for line in told["bill"])
    assert billed == Decimal(told["dollars"]) > 0
    assert Decimal(told["saved_dollars"]) == Decimal(told["teacher_dollars"]) - billed


def test_names_that_no_decision_or_several_have(url: str, explain: Explain) -> None:
    database = open_database(url)
    recorder = DatabaseRecorder(database)
    for i, space in enumerate(("default", "default", "mail")):
        recorder.record(
            Decision(
                id=f"de_same{i}",
                episode="e",
                namespace=space,
                step=i // 2,
                mode="cascade",
                answered_by="student",
                reason="agreement 3/3",
            )
        )
    recorder.record(
        Decision(id="de_%", episode="e", namespace="other", step=0, mode="collect", answered_by="teacher", reason="?")
    )
    recorder.close()
    database.close()
    for name, said in {
        "de_same": "begins several decisions, de_same0, de_same1, de_same2: give more",
        "de_%_x": "there is no decision 'de_%_x': give an id",
        "e": "is an episode with steps 0 to 1: name one, 'e/1'",
        "e/7": "no step 7 of an episode 'e' is recorded: steps count from 0",
        "e/0": "is in several namespaces, default, other: choose by --namespace",
        "\x1b[2Jwhatever": "there is no decision '\\u001b[2Jwhatever'",
    }.items():
        done = explain(name)
        assert done.exit_code == 1
        assert said in done.output.replace("\n", " ")
    assert json.loads(explain("e/0", "--namespace", "default", "--json").output)["id"] == "de_same1"
    assert "no step of mode cascade that the teacher took is recorded" in explain("last", "--deferred").output
    assert explain("de_same0", "--deferred").exit_code == 2


def test_rungs_are_told_one_by_one(url: str, explain: Explain) -> None:
    models = {
        "small": ScriptedModel(["a", "b", "a"], name="small"),
        "middle": ScriptedModel(["a", "a", "c"], name="middle"),
        "large": ScriptedModel(["d"], name="large"),
    }
    needs_two = {"name": "threshold", "options": {"n": 3, "needed": 3}}
    configured = {
        "ladder": ["small", {"model": "middle", "router": needs_two}, "large"],
        "retrieval": {"k": 0},
        "sampling": {"staged": "never"},
    }
    with build(bank={"url": url}, models=lambda model, _: models[model.name], **configured) as cascade:  # type: ignore[arg-type]
        cascade.sync_episode().complete([{"role": "user", "content": "Go."}])
    said = explain("last", "--deferred", configured=configured).output
    assert "2 of 3 votes of small were for 'a': 1 more vote would have been enough (router wants 3 of 3)" in said
    assert "2 of 3 votes of middle were for 'a': 1 more vote would have been enough (students.0.router wants 3" in said
    assert "large: acts" in said
    assert "the teacher did something else than most votes said" in said


def test_other_reasons_of_real_steps(url: str, explain: Explain) -> None:
    step(url, ["look"], mode="collect")
    assert "in mode collect the teacher takes every step" in explain().output
    step(url, ["look"], prompt={"min_demonstrations": 3})
    assert "only asked with 3 demonstrations or more (prompt.min_demonstrations), and 1 were there" in explain().output
    assert "What would have taken it" not in explain().output
    step(url, ["look"], mode="shadow", router={"name": "unanimity", "options": {"n": 2}})
    said = explain().output
    assert "shadowed: 2 of 2 votes of the student were for 'look', not what the teacher did" in said
    assert "in mode cascade the router would have taken it" in said


def test_a_text_without_votes_or_prices(url: str, explain: Explain) -> None:
    database = open_database(url)
    recorder = DatabaseRecorder(database)
    id = new_id("de")
    recorder.record(
        Decision(
            id=id,
            episode="e",
            step=0,
            mode="cascade",
            answered_by="teacher",
            reason="a reason of another version",
            failures=("student: it said \x1b]0;pwned\x07",),
            demonstrations=("tr_gone:0-2",),
        )
    )
    recorder.close()
    database.close()
    said = explain(id[:10]).output
    assert "this version knows no such reason" in said
    assert "tr_gone:0-2  no longer in the bank" in said
    assert "what the teacher alone would have cost is not known" in said
    assert not {"\x1b", "\x07"} & set(said)
