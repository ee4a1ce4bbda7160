"""What somebody made with an earlier version opens with this one: databases, configurations, checkpoints, run folders.

The files were made by the code of f4b833a (`tests/data/f4b833a/README.md`); `figures.json` says what was true then.
They are opened through public doors alone, so that these tests survive any move of modules.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import yaml
from click.testing import CliRunner

import agentcascade
from agentcascade.cli import main
from agentcascade.config.keywords import MemoryKeywords, RouterKeywords
from agentcascade.episodes.responses import CascadeCompletion
from agentcascade.integrations.openai import Wrapped
from agentcascade.storage import open_database
from tests.fake_openai import FakeOpenAI, Reply

MADE = Path(__file__).parents[1] / "data" / "f4b833a"
FIGURES: dict[str, Any] = json.loads((MADE / "figures.json").read_text(encoding="utf-8"))
QUESTIONS = ("When did Ann adopt her dog?", "What does Bob paint?", "How much was the painting?")
SILVER = "Thought: It is mine.\nAction: finish"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("made")
    for path in MADE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            packed, place = path.suffix == ".xz", target / path.relative_to(MADE)
            place.parent.mkdir(parents=True, exist_ok=True)
            (place.with_suffix("") if packed else place).write_bytes(
                lzma.decompress(path.read_bytes()) if packed else path.read_bytes()
            )
    return target


@pytest.fixture
def folder(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a copy of one of the folders the working directory; `players` can be imported."""
    monkeypatch.syspath_prepend(str(MADE))
    for name in [n for n in os.environ if n.startswith("AGENTCASCADE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path / "cache"))

    def go(name: str) -> Path:
        shutil.copytree(unpacked, tmp_path / "made")
        monkeypatch.chdir(tmp_path / "made" / name)
        return Path.cwd()

    return go


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.stdout


def told(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json"))


def lines(path: str | Path) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def holds(new: Any, old: Any, where: str = "") -> None:
    """`new` says all that `old` said, and may say more."""
    if isinstance(old, dict):
        assert isinstance(new, dict), where
        for key, value in old.items():
            assert key in new, f"{where}.{key}"
            holds(new[key], value, f"{where}.{key}")
    elif isinstance(old, list):
        assert isinstance(new, list), where
        assert len(new) == len(old), where
        for i, (one, other) in enumerate(zip(new, old)):
            holds(one, other, f"{where}[{i}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=1e-6, abs=1e-9), where
    else:
        assert new == old, where


def revision(path: str) -> str:
    """Of the tables, as the file says."""
    connection = sqlite3.connect(path)
    try:
        found: str = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    finally:
        connection.close()
    return found


def test_a_database_is_migrated_and_says_what_it_said(folder: Callable[[str], Path]) -> None:
    folder("home")
    assert revision("agentcascade.db") == "0005"
    database = open_database("sqlite:///agentcascade.db")
    try:
        (whole,) = agentcascade.Ledger(database).summary()
    finally:
        database.close()
    assert revision("agentcascade.db") > "0005"
    assert whole.known_dollars == sum(Decimal(g["known_dollars"]) for g in FIGURES["ledger"]["mode"]["groups"])
    rows = told("db", "info")["rows"]
    assert {name: rows[name] for name in FIGURES["rows"]} == FIGURES["rows"]
    for by, before in FIGURES["ledger"].items():
        holds(told("ledger", "--by", by), before, by)
    holds(told("keys", "list"), FIGURES["keys"])
    holds(told("audit", "--cascade", "acting"), FIGURES["audit"])
    assert run("bank", "list").splitlines()[-1] == FIGURES["bank"]
    assert run("memory", "list").split() == FIGURES["histories"]
    run("bank", "export", "again.jsonl")
    holds(lines("again.jsonl"), lines("bank.jsonl"))
    run("log", "export", "--out", "again_steps.jsonl")
    holds(lines("again_steps.jsonl"), lines("steps.jsonl"))
    for form in ("jsonl", "parquet"):
        assert run("log", "show", f"steps.{form}") == FIGURES["shadows"]
    run("bank", "import", "bank.jsonl", "--url", "sqlite:///fresh.db")
    counted = run("bank", "list", "--url", "sqlite:///fresh.db").splitlines()[-1]
    assert counted == FIGURES["bank"]


async def probed(cascade: agentcascade.Cascade) -> dict[str, agentcascade.Decision]:
    decisions = {}
    for colour in FIGURES["retrieval"]:
        goal = f"fetch the {colour} key"
        episode = cascade.episode(goal=goal, category="fetch", id=f"probe-{colour}")
        answer = await episode.complete([{"role": "user", "content": f"Your task is to: {goal}"}])
        decisions[colour] = answer.agentcascade
    return decisions


async def test_its_bank_shows_the_same_demonstrations(folder: Callable[[str], Path]) -> None:
    folder("home")
    async with agentcascade.build("agentcascade.yaml", cascade="acting") as cascade:
        found = {c: [d.answered_by, list(d.demonstrations)] for c, d in (await probed(cascade)).items()}
    assert found == FIGURES["retrieval"]
    before = next(g for g in FIGURES["ledger"]["mode"]["groups"] if g["group"] == "cascade")
    after = next(g for g in told("ledger", "--by", "mode")["groups"] if g["group"] == "cascade")
    assert after["steps"] == before["steps"] + len(found)
    assert Decimal(after["dollars"]) > Decimal(before["dollars"])
    assert told("audit", "--cascade", "acting")["watch"]["audits"] > FIGURES["audit"]["watch"]["audits"]


@pytest.mark.parametrize("name", ["linucb", "thompson"])
async def test_a_step_router_remembers_what_it_learned(folder: Callable[[str], Path], name: str) -> None:
    folder("home")
    options = {"n": 3, "budget": 5}
    learned: RouterKeywords = {"name": name, "options": {**options, "path": "step_router.json"}}
    async with agentcascade.build("agentcascade.yaml", router=learned) as cascade:
        assert {c: d.answered_by for c, d in (await probed(cascade)).items()} == FIGURES["step_routers"][name]
    if name == "linucb":  # one that knows nothing would choose otherwise; the other one draws
        async with agentcascade.build("agentcascade.yaml", router={"name": name, "options": options}) as cascade:
            assert {c: d.answered_by for c, d in (await probed(cascade)).items()} != FIGURES["step_routers"][name]


def test_an_unfinished_episode_of_a_wrapped_client_goes_on(
    folder: Callable[[str], Path], fake_openai: Callable[..., FakeOpenAI]
) -> None:
    folder("home")
    fake = fake_openai([Reply(texts=(SILVER,))])
    client = openai.OpenAI(base_url=fake.url, api_key="none", max_retries=0)
    wrapped = agentcascade.wrap(client, "agentcascade.yaml", cascade="collecting", student="players:Student")
    before = FIGURES["wrapped"]
    with Wrapped.of(wrapped) as control:
        answer = wrapped.chat.completions.create(model="gpt-4.1", messages=before["messages"])
        assert isinstance(answer, CascadeCompletion)
        assert answer.agentcascade.episode == before["episode"]
        assert answer.agentcascade.step == 2
        assert len(fake.requests) == 1, "it is not planned again"
        assert control.finish(before["episode"], success=True)
    run("bank", "export", "after.jsonl")
    (silver,) = (t for t in lines("after.jsonl") if "silver" in t["goal"])
    assert [s["action"] for s in silver["steps"]] == ["open silver drawer", "take silver key", "finish"]
    assert silver["plan"] == "1. Open it.\n2. Take it."


def test_the_proxy_knows_its_keys_and_its_unfinished_episodes(folder: Callable[[str], Path]) -> None:
    pytest.importorskip("fastapi", reason="needs the extra `server`")
    from starlette.testclient import TestClient

    from agentcascade.server.app import create_app

    folder("home")
    before = FIGURES["served"]
    body = {"model": "collecting", "messages": before["messages"]}
    body["metadata"] = {"agentcascade_episode": before["episode"]}
    config = agentcascade.CascadeConfig.load("agentcascade.yaml")
    with TestClient(create_app(config)) as http:
        key = {"authorization": f"Bearer {FIGURES['key']}"}
        assert http.post("/v1/chat/completions", json=body).status_code == 401
        answer = http.post("/v1/chat/completions", json=body, headers=key)
        assert answer.status_code == 200, answer.text
        assert answer.json()["agentcascade"]["step"] == 2
        place = f"/v1/episodes/{before['episode']}/feedback"
        told_it = http.post(place, json={"success": True}, headers=key)
        assert told_it.json() == {"episode": before["episode"], "banked": True}
    spent = {k["name"]: k["spent"] for k in FIGURES["keys"]}
    now = {k["name"]: k["spent"] for k in told("keys", "list")}
    assert Decimal(now["ann"]) > Decimal(spent["ann"]) > 0
    run("bank", "export", "after.jsonl", "--namespace", "ann")
    (banked,) = lines("after.jsonl")
    assert [s["action"] for s in banked["steps"]] == ["open red drawer", "take red key", "finish"]


def test_what_was_spilled_is_taken_in_and_the_kill_switch_is_still_on(folder: Callable[[str], Path]) -> None:
    folder("home")
    url = "sqlite:///spilled.db"
    assert "the student raves" in run("switch", "show", "--url", url)
    holds(told("ledger", "--by", "episode", "--url", url)["groups"], FIGURES["spilled"]["before"])
    settings: dict[str, Any] = {"mode": "teacher", "bank": {"url": url}, "retrieval": {"k": 0}}
    settings["retention"] = dict.fromkeys(("decisions", "episodes", "drafts", "recalls", "max_decisions"))
    agentcascade.build(teacher="players:Teacher", **settings).close()
    groups = {g["group"]: g for g in told("ledger", "--by", "episode", "--url", url)["groups"]}
    assert groups.keys() == {"whole", "spilled"}
    assert all(g["steps"] == 1 and Decimal(g["dollars"]) > 0 for g in groups.values())
    assert told("db", "info", "--url", url)["rows"]["episodes"] == 1
    assert not Path("spilled.db.spill.jsonl").exists()


@pytest.mark.parametrize("name", ["everything.yaml", "../home/agentcascade.yaml", "../tuning/tuned/rule.yaml"])
def test_a_configuration_means_what_it_meant(folder: Callable[[str], Path], name: str) -> None:
    folder("configurations")
    written = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    config = agentcascade.CascadeConfig.load(name)
    holds(plain(config.model_dump(mode="json")), plain(written), name)
    own: dict[str, Any] = {}
    if "teacher" not in written:  # the part of a configuration that `tune` writes
        own = {"teacher": "players:Teacher", "student": "players:Student"}
        own |= {"bank": {"url": "sqlite:///own.db"}, "retrieval": {"k": 0}}
    for cascade in written.get("cascades", {None: {}}):
        agentcascade.build(name, cascade=cascade, **own).close()


def plain(value: Any) -> Any:
    """Dollars are text in a dump and numbers in YAML."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value


async def test_a_configuration_may_name_a_model_of_ours_as_it_was_called(folder: Callable[[str], Path]) -> None:
    folder("configurations")
    async with agentcascade.build("scripted.yaml") as cascade:
        answer = await cascade.episode("look").complete([{"role": "user", "content": "Task: look"}])
        assert answer.agentcascade.answered_by == "student"
        answer = await cascade.episode("look", mode="teacher").complete([{"role": "user", "content": "Task: look"}])
    assert answer.choices[0].message.content == "Action: look"
    assert answer.model == "from-a-file"


def test_rules_on_a_log_come_to_the_same(folder: Callable[[str], Path]) -> None:
    folder("tuning")
    before = FIGURES["tuned"]
    for form in ("log.jsonl", "log.parquet", "plain.jsonl"):
        holds(told("replay", "--log", form, "--rule", "tuned/rule.yaml"), before["rule"], form)
    holds(told("replay", "--log", "log.parquet", "--n", 3), before["all"])
    certified = json.loads(Path("tuned/certificate.json").read_text(encoding="utf-8"))
    (again,) = told("replay", "--log", "log.jsonl", "--rule", "tuned/rule.yaml")
    assert again["risks"]["wrong"] == pytest.approx(certified["observed"]["risks"]["wrong"])


@pytest.mark.parametrize("name", ["values", "policy", "linucb", "thompson"])
def test_a_tier_router_chooses_what_it_chose(folder: Callable[[str], Path], name: str) -> None:
    folder("tiers")
    path = {"values": "trained/values", "policy": "policy/policy"}.get(name, name) + ".safetensors"
    settings: MemoryKeywords = {"embedder": "hashing:16", "router": {"name": name, "options": {"path": path}}}
    found: dict[str, Any] = {}
    with agentcascade.build_memory(memory=settings, stored=False) as memory:
        memory.append_sync("user-42", [agentcascade.Turn(**line) for line in lines("../home/turns.jsonl")])
        for tradeoff in FIGURES["tiers"][name]:
            recalls = {q: memory.recall_sync(q, "user-42", tradeoff=float(tradeoff)) for q in QUESTIONS}
            found[tradeoff] = {q: dict(recall.tiers) for q, recall in recalls.items()}
    assert found == FIGURES["tiers"][name]


def test_a_history_is_still_remembered(folder: Callable[[str], Path]) -> None:
    folder("home")
    recall = told("memory", "ask", "user-42", QUESTIONS[0])
    holds(recall, FIGURES["recall"])
    assert "0 new turns in user-42, 6 in all" in run("memory", "add", "user-42", "turns.jsonl")


def test_a_sweep_is_resumed_and_its_log_is_read(folder: Callable[[str], Path]) -> None:
    folder("tiers")
    asked = ("--router", "trained/values.safetensors", "--embedder", "hashing:16", "--tradeoff", 0.1)
    holds(told("memory", "estimate", "--offline", "trained/log.npz", *asked), FIGURES["estimate"])
    with np.load("trained/log.npz") as log:
        scores = log["score"]
    Path("trained/log.npz").unlink()
    parts = sorted(Path("trained/sweep").glob("*.npz"))
    assert [p.name for p in parts] == FIGURES["sweep"]
    parts[0].unlink()
    kept = {path: path.stat().st_mtime_ns for path in parts[1:]}
    os.environ["AGENTCASCADE_RETRIEVAL__EMBEDDER"] = "hashing:16"
    try:
        run("memory", "train", "--data", "talks.json", "--questions", 1, "--out", "trained", "--workers", 1, "--resume")
    finally:
        del os.environ["AGENTCASCADE_RETRIEVAL__EMBEDDER"]
    assert {path: path.stat().st_mtime_ns for path in parts[1:]} == kept
    with np.load("trained/log.npz") as log:
        assert log["score"] == pytest.approx(scores)


def test_a_memory_benchmark_is_resumed(folder: Callable[[str], Path]) -> None:
    folder("tiers")
    played = Path("locomo/rows.jsonl").read_bytes().rpartition(b"\n")[0]
    command = ("bench", "locomo", "--data", "talks.json", "--config", "bench.yaml", "--concurrency", 1)
    run(*command, "--policy", "all-low", "--policy", "top-k", "--questions", 2, "--out", "locomo", "--resume")
    assert Path("locomo/rows.jsonl").read_bytes().startswith(played)
    rows = [[r["policy"], r["question"], r["score"]] for r in lines("locomo/rows.jsonl")]
    holds(sorted(rows), sorted(FIGURES["locomo"]))


def test_a_benchmark_of_agents_is_resumed(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlglot", reason="needs the extra `intercode-sql`")
    folder("bench")
    monkeypatch.setenv("INTERCODE_DATA", "intercode")
    episodes = Path("run/episodes.jsonl")
    played = episodes.read_bytes().rpartition(b"\n")[0]
    policies = ("--policy", "teacher", "--policy", "student", "--policy", "cascade")
    run("bench", "intercode-sql", "--resume", "--out", "run", "--workers", 1, *policies)
    assert episodes.read_bytes().startswith(played), "what was played is not played again"
    kept = played.count(b"\n") + 1
    before, after = FIGURES["bench"], lines(episodes)
    assert 0 < kept < len(before) == len(after)
    assert [[d["id"] for d in r["decisions"]] for r in after[:kept]] == [r["decisions"] for r in before[:kept]]
    told_of = ("policy", "seed", "task", "success", "steps", "teacher_steps")
    assert sorted([r[k] for k in told_of] for r in after) == sorted([r[k] for k in told_of] for r in before)
    bills = ({(r["policy"], r["task"]): Decimal(r["dollars"]) for r in some} for some in (before, after))
    one, other = ({k: v for k, v in bill.items() if k[0] in ("teacher", "student")} for bill in bills)
    assert one == other, "prompts without demonstrations cost what they cost"


def test_the_list_of_served_students_is_read(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder("home")
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(home / "cache"))
    assert "some-model" in run("students", "list")
