"""Banked reasoning in fewer words: rewritten once, billed, resumable, reversible; on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentcascade import ScriptedModel
from agentcascade.bank.bank import Bank
from agentcascade.bank.catalog import Catalog
from agentcascade.bank.shortening import Shortener, WordLimits
from agentcascade.cli import main
from agentcascade.envs.offline.editor import Editor, shorter
from agentcascade.errors import BankError, InvalidRequest, UnknownPrice
from agentcascade.ledger.ledger import Ledger
from agentcascade.models.pricing import Price
from agentcascade.models.tokens import token_counter
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import Database, open_database
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Decision, LoggedSample, Shadow, Situation, Step, Trajectory
from tests.fake_openai import FakeOpenAI, Reply

LONG = "I need the cup. It may be in the drawer. The drawer is closed, so before anything else I open it and look."
COUNT = token_counter()
PRICE = Price(input="3", output="15")


def make_bank(database, **options):
    return Bank(database, HashEmbedder(32), ExactRetriever(96), **options)


def trajectory(name, *thoughts, goal="find the cup", **values):
    steps = tuple(
        Step(observation=f"{name} room {i}", reasoning=thought, action=f"open {name} {i}")
        for i, thought in enumerate(thoughts)
    )
    return Trajectory(**{"id": name, "goal": goal, "steps": steps, "success": True} | values)


def editor():
    return Editor(COUNT, PRICE.dollars)


async def shorten(bank, model=None, **options):
    shortener = Shortener(bank, model or editor(), COUNT, WordLimits(easy=4, hard=8))
    return await shortener.run(await shortener.tasks(), **options)


async def shown(bank, name="a"):
    await bank.refresh()
    found = (await bank.retrieve(Situation(goal="find the cup", observation=f"{name} room 0"), 1)).demonstrations
    return [s.reasoning for s in found[0].steps]


async def test_reasoning_is_shown_shorter_where_that_is_asked_for_and_comes_back(database: Database) -> None:
    plain, short = make_bank(database), make_bank(database, shortened=True)
    await plain.add(trajectory("a", LONG, "so be it", LONG))
    assert await shown(short) == await shown(plain) == [LONG, "so be it", LONG]
    report = await shorten(plain)
    assert (report.trajectories, report.easy, report.hard, report.left, report.failures) == (1, 0, 2, 0, ())
    assert (report.before, report.after) == (2 * COUNT(LONG), 2 * COUNT("I need the cup."))
    assert await shown(short) == ["I need the cup.", "so be it", "I need the cup."]
    assert await shown(plain) == [LONG, "so be it", LONG]
    assert Catalog(database).get("a").steps[0].reasoning == LONG, "exports hold the originals"
    assert Catalog(database).restore() == 2
    assert await shown(short) == [LONG, "so be it", LONG]


async def test_it_is_billed_beside_the_steps(database: Database) -> None:
    bank = make_bank(database)
    await bank.add_many([trajectory("a", LONG), trajectory("b", LONG, namespace="other")])
    report = await shorten(bank)
    ledger = Ledger(database)
    (spent,) = ledger.spending()
    assert (spent.calls, spent.model, spent.dollars) == (2, "offline/editor", report.dollars)
    assert report.dollars > 0
    (whole,) = ledger.summary()
    assert (whole.steps, whole.dollars, whole.saved_dollars) == (0, report.dollars, -report.dollars)
    assert {s.group: s.steps for s in ledger.summary("mode")} == {"bank shorten": 0}
    assert {s.group for s in ledger.summary("namespace")} == {"default", "other"}


async def test_what_is_done_is_passed_over_and_a_limit_leaves_the_rest(database: Database) -> None:
    bank = make_bank(database)
    await bank.add_many([trajectory(name, LONG) for name in "abcde"])
    first = await shorten(bank, parallel=1, max_dollars=Decimal("0.0000001"))
    assert (first.trajectories, first.left) == (1, 4)
    second = await shorten(bank)
    assert (second.trajectories, second.left) == (4, 0)
    assert (await shorten(bank)).trajectories == 0
    with pytest.raises(UnknownPrice, match="leave it out"):
        await shorten(bank, ScriptedModel(["x"]), max_dollars=Decimal(1))


async def test_an_unusable_answer_is_paid_for_and_left_for_the_next_run(database: Database) -> None:
    bank = make_bank(database, shortened=True)
    await bank.add(trajectory("a", LONG, LONG))
    answers: list[tuple[str | Exception, str]] = [
        ("I would rather not", "no JSON object"),
        ("{broken", "no JSON object"),
        ('{"1": "", "2": 7, "3": "x"}', "no thought became shorter"),
        (json.dumps({"1": LONG + " And more."}), "no thought became shorter"),
        (ConnectionError("gone"), "ConnectionError: gone"),
    ]
    for answer, said in answers:
        report = await shorten(bank, ScriptedModel([answer], price=PRICE))
        assert (report.trajectories, len(report.failures)) == (0, 1)
        assert said in report.failures[0]
    assert await shown(bank) == [LONG, LONG]
    assert sum(s.calls for s in Ledger(database).spending()) == 4, "all but the one that never came"
    half = await shorten(bank, ScriptedModel(['Here: {"2": "the drawer\\n is closed"}'], price=PRICE))
    assert half.trajectories == 1
    assert await shown(bank) == [LONG, "the drawer is closed"]


async def test_a_trajectory_that_is_removed_meanwhile_is_no_error(database: Database) -> None:
    bank = make_bank(database)
    await bank.add(trajectory("a", LONG))
    shortener = Shortener(bank, editor(), COUNT, WordLimits(4, 8))
    tasks = await shortener.tasks()
    Catalog(database).remove("a")
    assert (await shortener.run(tasks)).failures == ()
    assert Catalog(database).restore() == 0


async def test_embedding_anew_keeps_what_was_shortened(database: Database) -> None:
    bank = make_bank(database)
    await bank.add(trajectory("a", LONG))
    await shorten(bank)
    Bank(database, HashEmbedder(16), ExactRetriever(48)).reembed()
    anew = Bank(database, HashEmbedder(16), ExactRetriever(48), shortened=True)
    assert await shown(anew) == ["I need the cup."]


async def test_what_is_answered_after_the_bank_was_embedded_anew_is_kept(database: Database) -> None:
    """A batch takes up to a day."""
    bank = make_bank(database, shortened=True)
    await bank.add(trajectory("a", LONG))
    shortener = Shortener(bank, editor(), COUNT, WordLimits(4, 8))
    tasks = await shortener.tasks()
    bank.reembed()
    await shortener.run(tasks)
    assert await shown(bank) == ["I need the cup."]


def seen(database, episode, observation, teacher, *samples):
    decision = Decision(episode=episode, step=0, mode="shadow", answered_by="teacher", reason="so")
    shadow = Shadow(
        decision=decision.id,
        episode=episode,
        step=0,
        observation=observation,
        teacher_action=teacher,
        samples=tuple(LoggedSample(action=s) for s in samples),
    )
    with database.begin(write=True) as connection:
        write_records(connection, [decision, shadow])


async def test_a_step_is_easy_where_both_models_agreed_on_it(database: Database) -> None:
    bank = make_bank(database)
    await bank.add(trajectory("a", LONG, LONG, LONG, LONG, metadata={"episode": "ep_1"}))
    seen(database, "ep_1", "a room 0", "open it", "open it", "open it")
    seen(database, "ep_1", "a room 1", "open it", "shut it", "shut it")
    seen(database, "ep_1", "a room 2", "open it", "open it", "shut it")
    seen(database, "ep_2", "a room 3", "open it", "open it", "open it")
    (task,) = await Shortener(bank, editor(), COUNT, WordLimits(4, 8)).tasks()
    assert task.words == {0: 4, 1: 8, 2: 8, 3: 8}


async def test_without_such_records_a_step_is_easy_where_three_others_are_like_it(database: Database) -> None:
    bank = make_bank(database)

    def alike(name, action):
        step = Step(observation="a closed drawer", reasoning=LONG, action=action)
        return Trajectory(id=name, goal="find the cup", steps=(step,), success=True)

    await bank.add_many([alike(f"t{i}", f"open drawer {i}") for i in range(3)])
    shortener = Shortener(bank, editor(), COUNT, WordLimits(4, 8))
    assert {m for t in await shortener.tasks() for m in t.words.values()} == {8}, "two others are too few"
    await bank.add(alike("t3", "open drawer 3"))
    assert {m for t in await shortener.tasks() for m in t.words.values()} == {4}
    await bank.add(alike("t4", "leave"))
    words = {t.trajectory.id: t.words[0] for t in await shortener.tasks()}
    assert words["t4"] == 8, "the others do something else there"


async def test_the_estimate_says_what_a_run_would(database: Database) -> None:
    bank = make_bank(database)
    await bank.add_many([trajectory(name, LONG, LONG) for name in "ab"])
    shortener = Shortener(bank, editor(), COUNT, WordLimits(4, 8))
    tasks = await shortener.tasks()
    guessed, done = shortener.estimate(tasks), await shortener.run(tasks)
    assert guessed[:4] == done[:4]
    assert done.after <= guessed.after < guessed.before
    assert guessed.dollars == pytest.approx(done.dollars, rel=Decimal("0.3"))
    with pytest.raises(BankError, match="at least one word"):
        Shortener(bank, editor(), COUNT, WordLimits(0, 8))


def test_the_editor_keeps_the_first_sentences_that_fit() -> None:
    assert shorter("One two. Three four. Five.", 4) == "One two. Three four."
    assert shorter("One two three four five six.", 3) == "One two three"
    with pytest.raises(InvalidRequest, match="bank shorten"):
        asyncio.run(editor().complete([{"role": "user", "content": "hello {"}]))


def test_the_command_line_over_a_server(url: str, tmp_path: Path) -> None:
    def answer(request):
        data = request.body["messages"][0]["content"]
        steps = json.loads(data[data.index('{"goal"') :])["steps"]
        text = json.dumps({str(s["step"]): "the cup is here" for s in steps})
        return Reply(texts=(text,), usage={"prompt_tokens": 1000, "completion_tokens": 100})

    database = open_database(url)
    asyncio.run(make_bank(database).add_many([trajectory("a", LONG, LONG), trajectory("b", LONG)]))
    settings = {
        "bank": {"url": url},
        "retrieval": {"embedder": "hashing:32", "index": "exact"},
        "redaction": {"keys": False},
    }

    def run(*arguments, **teacher):
        path = tmp_path / "agentcascade.yaml"
        path.write_text(json.dumps(settings | ({"teacher": teacher} if teacher else {})))
        return CliRunner().invoke(main, ["bank", "shorten", "--config", str(path), *arguments])

    missing = run("--dry-run")
    assert missing.exit_code == 2
    assert "--model NAME" in missing.output
    by_rule = run("--dry-run", "--model", "offline/editor", "--hard-words", "15")
    assert "3 other steps of 2 trajectories" in by_rule.output
    assert "of unknown price" in by_rule.output
    refused = run("--model", "offline/editor", "--hard-words", "15", "--max-dollars", "1")
    assert refused.exit_code == 1
    assert "leave it out" in refused.output + str(refused.exception)
    with FakeOpenAI(answer) as server:
        teacher = {"name": "openai/m", "api_base": server.url, "api_key": "x", "price": {"input": 3, "output": 15}}
        dry = run("--dry-run", **teacher)
        assert dry.exit_code == 0, dry.output
        assert "would rewrite 0 easy and 0 other steps of 0 trajectories" in dry.output
        dry = run("--dry-run", "--hard-words", "15", **teacher)
        assert "would rewrite 0 easy and 3 other steps of 2 trajectories" in dry.output
        assert server.requests == []
        done = run("--hard-words", "15", **teacher)
        assert done.exit_code == 0, done.output
        assert f"{3 * COUNT(LONG)} tokens of reasoning became 12, for $0.0090" in done.output
    (spent,) = Ledger(database).spending()
    assert (spent.calls, spent.usage.input, spent.dollars) == (2, 2000, Decimal("0.009"))
    assert "3 steps have their own reasoning again" in run("--undo").output
    database.close()


async def test_cascades_of_one_configuration_show_what_each_of_them_is_told_to(tmp_path: Path) -> None:
    from agentcascade import CascadeConfig
    from agentcascade.assembly.cascade import build_all

    url = f"sqlite:///{tmp_path}/cascade.db"
    config = CascadeConfig.model_validate(
        {
            "bank": {"url": url},
            "mode": "student",
            "student": {"name": "offline/imitator"},
            "retrieval": {"embedder": "hashing:32", "index": "exact"},
            "cascades": {"plain": {}, "short": {"prompt": {"shortened": True}}},
        }
    )
    database = open_database(url)
    bank = make_bank(database)
    await bank.add(trajectory("a", LONG))
    await shorten(bank)
    made, shared = build_all(config)
    try:
        for name, cascade in made.items():
            assert await shown(cascade.bank) == (["I need the cup."] if name == "short" else [LONG])
    finally:
        shared.close()
        database.close()
