"""Made what lies in this folder, with the code of f4b833a. See README.md.

It is a record, and runs against that commit alone: its imports are those of then, and are not to be brought up to date.

    git worktree add --detach ../old f4b833a
    PYTHONPATH=../old:../old/tests python tests/data/f4b833a/make.py ../made    # ../made/made is then copied here
"""

from __future__ import annotations

import asyncio
import json
import lzma
import os
import random
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COLOURS = ("red", "blue", "green", "amber")
PROBES = ("red", "amber", "pink")
QUESTIONS = (
    "When did Ann adopt her dog?",
    "What does Bob paint?",
    "How much was the painting?",
)
BY_HAND = (
    "home/agentcascade.yaml",
    "home/costly.yaml",
    "configurations/everything.yaml",
    "configurations/scripted.yaml",
    "bench/intercode/ic_spider_dbs.sql",
)
FIGURES: dict[str, Any] = {}
"""What was true when it was made: `figures.json`."""


def run(*arguments: object) -> str:
    from click.testing import CliRunner

    from agentcascade.cli import main

    result = CliRunner().invoke(main, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    print("$ agentcascade", *arguments)
    return result.stdout


def told(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json"))


async def play(cascade: str, colours: Any, success: bool | None = True, **options: Any) -> list[Any]:
    """Episodes of a configured cascade; returns their decisions."""
    from players import Room

    import agentcascade

    made: list[Any] = []
    async with agentcascade.build("agentcascade.yaml", cascade=cascade, **options) as built:
        for number, colour in enumerate(colours):
            room = Room(colour)
            episode = built.episode(
                goal=f"fetch the {colour} key",
                category="fetch",
                id=f"{cascade}-{colour}-{number}",
            )
            messages, done = room.messages, False
            while not done and len(messages) < 9:
                answer = await episode.complete(messages)
                text = answer.choices[0].message.content
                made.append(answer.agentcascade)
                observation, done = room.act(text)
                messages += [
                    {"role": "assistant", "content": text},
                    {"role": "user", "content": observation},
                ]
            await episode.finish(success)
        if cascade == "learning":
            await built.audits.settle()
            built.router.save("step_router.json")
    return made


def home() -> None:
    """A database with everything in it that somebody's had, and one whose last records are spilled."""
    import agentcascade

    for colour in (*COLOURS, "violet"):
        asyncio.run(play("collecting", [colour]))
    asyncio.run(play("collecting", ["black"], success=False))
    asyncio.run(play("judged", ["white"], success=None))
    listed = run("bank", "list")
    violet = next(line.split()[0] for line in listed.splitlines() if "violet" in line)
    run("bank", "remove", violet)
    run(
        "bank",
        "shorten",
        "--model",
        "offline/editor",
        "--easy-words",
        6,
        "--hard-words",
        10,
        "--limit",
        2,
    )
    asyncio.run(play("shadowing", ["red", "green", "pink", "blue"]))
    asyncio.run(play("acting", ["red", "blue", "pink", "amber"]))
    asyncio.run(play("acting", ["green"], success=False))
    asyncio.run(play("unpriced", ["red"]))
    asyncio.run(play("remembering", ["red"]))
    asyncio.run(play("learning", ["red", "blue", "amber"] * 4))
    run("memory", "add", "user-42", "turns.jsonl")
    recall = told("memory", "ask", "user-42", QUESTIONS[0])
    run("memory", "score", recall["id"], 0.75)
    told("memory", "ask", "user-42", QUESTIONS[1], "--config", "costly.yaml")
    keys_and_server()
    unfinished()
    student()
    FIGURES["step_routers"] = dict.fromkeys(("linucb", "thompson"))

    async def probe() -> None:
        recorder = type("Recorder", (), {"__getattr__": lambda self, name: lambda *a, **k: None})()
        async with agentcascade.build("agentcascade.yaml", cascade="acting", recorder=recorder) as built:
            FIGURES["retrieval"] = {c: [d.answered_by, list(d.demonstrations)] for c, d in (await asked(built)).items()}
        for name in FIGURES["step_routers"]:
            router = {
                "name": name,
                "options": {"n": 3, "budget": 5, "path": "step_router.json"},
            }
            async with agentcascade.build("agentcascade.yaml", router=router, recorder=recorder) as built:
                FIGURES["step_routers"][name] = {c: d.answered_by for c, d in (await asked(built)).items()}

    async def asked(built: Any) -> dict[str, Any]:
        decisions = {}
        for colour in PROBES:
            goal = f"fetch the {colour} key"
            messages = [{"role": "user", "content": f"Your task is to: {goal}"}]
            answer = await built.episode(goal=goal, category="fetch", id=f"probe-{colour}").complete(messages)
            decisions[colour] = answer.agentcascade
        return decisions

    FIGURES["audit"] = told("audit", "--cascade", "acting")
    FIGURES["ledger"] = {by: told("ledger", "--by", by) for by in ("namespace", "mode")}
    FIGURES["keys"] = told("keys", "list")
    FIGURES["rows"] = told("db", "info")["rows"]
    FIGURES["bank"] = run("bank", "list").splitlines()[-1]
    FIGURES["histories"] = run("memory", "list").split()
    FIGURES["recall"] = {"text": recall["text"], "sources": recall["sources"]}
    run("bank", "export", "bank.jsonl")
    run("log", "export", "--out", "steps.jsonl")
    run("log", "export", "--out", "steps.parquet")
    shutil.copy("agentcascade.db", "before.db")
    asyncio.run(probe())
    os.replace("before.db", "agentcascade.db")
    spilled()


def keys_and_server() -> None:
    """Two keys, one of them revoked, and an agent on the proxy that was not told yet how its episode ended."""
    from starlette.testclient import TestClient

    from agentcascade.config import CascadeConfig
    from agentcascade.server.app import create_app

    token = run(
        "keys",
        "create",
        "ann",
        "--namespace",
        "ann",
        "--budget",
        3,
        "--period",
        "total",
        "--rpm",
        60,
        "--quiet",
    )
    run("keys", "create", "bob", "--namespace", "bob", "--admin", "--quiet")
    bob = next(k["id"] for k in told("keys", "list") if k["name"] == "bob")
    run("keys", "revoke", bob)
    FIGURES["key"] = token.strip()
    from players import Room

    room = Room("red")
    with TestClient(create_app(CascadeConfig.load("agentcascade.yaml"))) as client:
        messages = room.messages
        for _ in range(2):
            body = {
                "model": "collecting",
                "messages": messages,
                "metadata": {"agentcascade_episode": "served-1"},
            }
            answer = client.post(
                "/v1/chat/completions",
                json=body,
                headers={"authorization": f"Bearer {token.strip()}"},
            )
            assert answer.status_code == 200, answer.text
            text = answer.json()["choices"][0]["message"]["content"]
            observation, _ = room.act(text)
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": observation},
            ]
    FIGURES["served"] = {"episode": "served-1", "messages": messages}


def student() -> None:
    """The list of served students, with one whose process is gone."""
    from agentcascade.students.registry import Registry, Replica, Student

    replica = Replica(api_base="http://127.0.0.1:8000/v1", pid=999_999_999, log="vllm.log", started=1)
    served = Student(
        name="some-model",
        model="some/some-model",
        replicas=(replica,),
        hour_dollars="2.5",
    )
    Registry(Path("cache/students/running.json")).put(served)
    Path("cache/students/running.lock").unlink()


def unfinished() -> None:
    """An agent on the OpenAI SDK, in the middle of a task; nobody named its episode."""
    import openai
    from fake_openai import FakeOpenAI, Reply
    from players import Room

    import agentcascade

    room = Room("silver")
    said = (
        "1. Open it.\n2. Take it.",
        "Thought: Open.\nAction: open silver drawer",
        "Thought: Take.\nAction: take silver key",
    )
    with FakeOpenAI([Reply(texts=(text,)) for text in said]) as fake:
        client = openai.OpenAI(base_url=fake.url, api_key="none", max_retries=0)
        wrapped = agentcascade.wrap(client, "agentcascade.yaml", cascade="collecting", student="players:Student")
        messages = room.messages
        for _ in range(2):
            answer = wrapped.chat.completions.create(model="gpt-4.1", messages=messages)
            text = answer.choices[0].message.content
            observation, _ = room.act(text)
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": observation},
            ]
        wrapped.agentcascade.close()
    FIGURES["wrapped"] = {"episode": answer.agentcascade.episode, "messages": messages}


def spilled() -> None:
    """A database that was locked by somebody else when the last records came; and the kill switch is on."""
    import agentcascade
    from agentcascade.storage import database

    database.BUSY_SECONDS = 0.2
    url = "sqlite:///spilled.db"
    run("db", "upgrade", "--url", url)
    run("switch", "teacher", "--reason", "the student raves", "--url", url)

    async def steps() -> None:
        from players import Room

        built = agentcascade.build(
            teacher={"name": "players:Teacher"},
            mode="teacher",
            bank={"url": url},
            retrieval={"k": 0},
        )
        other = sqlite3.connect("spilled.db")
        await built.episode(goal="fetch the red key", id="whole").complete(Room("red").messages)
        await asyncio.to_thread(built.recorder.flush)
        other.execute("BEGIN IMMEDIATE")
        episode = built.episode(goal="fetch the blue key", id="spilled")
        await episode.complete(Room("blue").messages)
        await episode.finish(True)
        await built.aclose()
        other.rollback()
        other.close()

    asyncio.run(steps())
    FIGURES["spilled"] = {"before": told("ledger", "--by", "episode", "--url", url)["groups"]}
    assert Path("spilled.db.spill.jsonl").read_text().count("\n") == 2


def turns() -> None:
    said = (
        ("Ann", "Hey Bob, good to see you!"),
        ("Bob", "You too. What have you been up to?"),
        ("Ann", "I adopted a dog from the shelter yesterday. His name is Rex."),
        ("Bob", "Wonderful! I have been painting a lot, mostly sunsets over the sea."),
        ("Ann", "Nice. Have you sold any painting yet?"),
        ("Bob", "Yes, one at the market last Saturday, for 200 dollars."),
    )
    lines = [
        {
            "id": f"t{i}",
            "speaker": who,
            "text": text,
            "session": "first",
            "at": "2023-05-08T13:56:00Z",
        }
        for i, (who, text) in enumerate(said)
    ]
    Path("turns.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def tuning() -> None:
    """A log in the plain format, as JSON lines and as Parquet of ours, and what `tune` made of it."""
    rng = random.Random(0)
    with open("plain.jsonl", "w") as file:
        for i in range(240):
            good = 0.4 if rng.random() < 0.3 else 0.99
            student = ["a" if rng.random() < good else rng.choice("bcd") for _ in range(6)]
            file.write(json.dumps({"id": i, "gold": "a", "student": student, "teacher": "a"}) + "\n")
    run("log", "import", "plain.jsonl", "--out", "log.jsonl")
    run("log", "import", "plain.jsonl", "--out", "log.parquet")
    run(
        "tune",
        "--log",
        "log.jsonl",
        "--max-risk",
        0.15,
        "--risk",
        "wrong",
        "--out",
        "tuned",
    )
    (Path("tuned") / "report.html").unlink()
    FIGURES["tuned"] = {"rule": told("replay", "--log", "log.jsonl", "--rule", "tuned/rule.yaml")}
    FIGURES["tuned"]["all"] = told("replay", "--log", "log.parquet", "--n", 3)
    FIGURES["shadows"] = run("log", "show", "../home/steps.parquet")


def memory() -> None:
    """A sweep that was stopped, routers trained on the whole one, and what each chose for some questions."""
    import numpy as np
    from agentcascade.routers.bandits import LinearThompson, LinUCB

    from agentcascade.memory.types import MODULES, TIERS, State
    from agentcascade.routers import network

    data = [conversation(name, things) for name, things in TALKS.items()]
    Path("talks.json").write_text(json.dumps(data, indent=1))
    os.environ["AGENTCASCADE_RETRIEVAL__EMBEDDER"] = "hashing:16"
    run(
        "memory",
        "train",
        "--data",
        "talks.json",
        "--questions",
        1,
        "--out",
        "trained",
        "--workers",
        1,
    )
    network.Network.__init__.__kwdefaults__["width"], network.HEAD = (
        24,
        12,
    )  # a policy of 4 MB is not for a repository
    run(
        "memory",
        "train",
        "--offline",
        "trained/log.npz",
        "--router",
        "policy",
        "--passes",
        2,
        "--out",
        "policy",
    )
    rng = np.random.default_rng(0)
    for kind in (LinUCB, LinearThompson):
        bandit = kind(dimension=6, encoder="hashing-16")
        rows = []
        for i in range(60):
            query, read = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 16)).astype(np.float32))
            place = int(rng.integers(3))
            rows.append(
                (
                    MODULES[i % 5],
                    State("?", query, read),
                    TIERS[place],
                    0.3 + 0.2 * float(query[place]),
                    0.001 * (1 + place),
                )
            )
        bandit.fit(rows)
        bandit.save(f"{bandit.name}.safetensors")
    del os.environ["AGENTCASCADE_RETRIEVAL__EMBEDDER"]
    FIGURES["tiers"] = {name: choices(name, path) for name, path in ROUTERS.items()}
    asked = (
        "--router",
        "trained/values.safetensors",
        "--embedder",
        "hashing:16",
        "--tradeoff",
        0.1,
    )
    FIGURES["estimate"] = told("memory", "estimate", "--offline", "trained/log.npz", *asked)
    bench = (
        "bench",
        "locomo",
        "--data",
        "talks.json",
        "--config",
        "bench.yaml",
        "--concurrency",
        1,
    )
    Path("bench.yaml").write_text("memory: {embedder: hashing:16}\n")
    run(
        *bench,
        "--policy",
        "all-low",
        "--policy",
        "top-k",
        "--questions",
        2,
        "--out",
        "locomo",
    )
    for extra in ("results.json", "frontier.png"):
        (Path("locomo") / extra).unlink()
    rows_ = Path("locomo/rows.jsonl")
    FIGURES["locomo"] = [
        [r["policy"], r["question"], r["score"]] for r in map(json.loads, rows_.read_text().splitlines())
    ]
    cut(rows_, 9)
    for path in [
        *Path("trained").glob("*.png"),
        *Path("policy").glob("*.png"),
        *Path("policy").glob("training.pt"),
    ]:
        path.unlink()
    FIGURES["sweep"] = sorted(p.name for p in Path("trained/sweep").glob("*.npz"))


ROUTERS = {
    "values": "trained/values.safetensors",
    "policy": "policy/policy.safetensors",
    "linucb": "linucb.safetensors",
    "thompson": "thompson.safetensors",
}


def choices(name: str, path: str) -> dict[str, Any]:
    """Tiers by λ and question."""
    import agentcascade

    made: dict[str, Any] = {}
    settings = {
        "embedder": "hashing:16",
        "router": {"name": name, "options": {"path": path}},
    }
    with agentcascade.build_memory(memory=settings, stored=False) as built:
        turns = [agentcascade.Turn(**json.loads(line)) for line in Path("../home/turns.jsonl").read_text().splitlines()]
        built.append_sync("user-42", turns)
        for tradeoff in (0.0, 0.3, 0.9):
            asked = {q: dict(built.recall_sync(q, "user-42", tradeoff=tradeoff).tiers) for q in QUESTIONS}
            made[str(tradeoff)] = asked
    return made


TALKS = {
    "garden": ["roses", "the pond"],
    "music": ["a violin", "an old piano"],
    "travel": ["Lisbon", "a ferry"],
}


def conversation(name: str, things: list[str]) -> dict[str, Any]:
    """In LoCoMo's format: a session of six turns, two of which are asked about."""
    session, asked = [], []
    for i in range(6):
        text = f"Nothing much happened with the {name}, it was quiet all week number {i}."
        if i in (1, 4):
            text = f"Last Saturday I spent the whole day with {things[i == 4]}, and it cost me {10 + i} dollars."
            question = f"When did somebody spend a day with {things[i == 4]}?"
            asked.append(
                {
                    "question": question,
                    "answer": f"{10 + i} dollars",
                    "evidence": [f"D1:{i + 1}"],
                    "category": 4,
                }
            )
        session.append(
            {
                "speaker": "Ann" if i % 2 else "Bob",
                "dia_id": f"D1:{i + 1}",
                "text": text,
            }
        )
    spoken = {
        "speaker_a": "Ann",
        "speaker_b": "Bob",
        "session_1": session,
        "session_1_date_time": "1:56 pm on 8 May, 2023",
    }
    return {"sample_id": name, "conversation": spoken, "qa": asked}


SQL = (
    ("zoo", "How many animals are there?", "SELECT count(*) FROM animal", 1),
    (
        "zoo",
        "Which names have animals with four legs?",
        "SELECT Name FROM animal WHERE Legs = 4",
        0,
    ),
    ("zoo", "What is the largest number of legs?", "SELECT max(Legs) FROM animal", 1),
    ("zoo", "Who are the keepers?", "SELECT Name FROM keeper", 1),
    ("zoo", "How many keepers are there?", "SELECT count(*) FROM keeper", 0),
    ("zoo", "Which animal has no legs?", "SELECT Name FROM animal WHERE Legs = 0", 1),
)


def bench() -> None:
    """A run of `bench intercode-sql` that was killed while it wrote a line."""
    tasks = [{"db": db, "query": q, "gold": gold, "hardness": "easy"} for db, q, gold, _ in SQL]
    dear, cheap = {}, {}
    for i, (_, query, gold, known) in enumerate(SQL):
        for runs, actions in (
            (dear, ["SHOW TABLES", gold]),
            (
                cheap,
                [f"execute[{gold if known else 'SELECT x FROM nowhere'}]", "submit"],
            ),
        ):
            many = len(actions)
            runs[str(i)] = {
                "query": query,
                "turn_history": {
                    "actions": actions,
                    "observations": ["[]"] * many,
                    "rewards": [1.0] * many,
                },
                "summary": {"max_reward": 1.0},
            }
        cheap[str(i)]["turn_history"]["thoughts"] = ["I think.", "That is it."]
    files = {
        "ic_spider_dev": tasks,
        "ic_sql_multiturn_gpt-4_10_turns": dear,
        "ic_sql_react_10_turns": cheap,
    }
    for name, content in files.items():
        Path(f"intercode/{name}.json").write_text(json.dumps(content, indent=1))
    os.environ["INTERCODE_DATA"] = "intercode"
    os.environ["AGENTCASCADE_CACHE"] = str(Path("../../cache").resolve())
    options = (
        "--episodes",
        3,
        "--demos",
        3,
        "--k",
        2,
        "--embedder",
        "hashing:32",
        "--workers",
        1,
    )
    policies = ("--policy", "teacher", "--policy", "student", "--policy", "cascade")
    run("bench", "intercode-sql", *options, *policies, "--out", "run")
    episodes = Path("run/episodes.jsonl")
    FIGURES["bench"] = [
        {
            k: r[k]
            for k in (
                "policy",
                "seed",
                "task",
                "success",
                "steps",
                "teacher_steps",
                "dollars",
            )
        }
        | {"decisions": [d["id"] for d in r["decisions"]]}
        for r in map(json.loads, episodes.read_text().splitlines())
    ]
    print(FIGURES["bench"])
    cut(episodes, 8)
    for path in Path("run").iterdir():
        if path.name not in ("run.json", "episodes.jsonl", "bank-0.db"):
            path.unlink()


def configurations() -> None:
    """They were good ones: each was built."""
    import agentcascade

    for name in ("everything.yaml", "scripted.yaml"):
        agentcascade.build(name).close()
    for path in Path().glob("*.db*"):
        path.unlink()


def cut(path: Path, lines: int) -> None:
    """What a kill leaves: so many lines, and half of the next."""
    all_lines = path.read_text().splitlines(keepends=True)
    assert len(all_lines) > lines + 1, (path, len(all_lines))
    path.write_text("".join(all_lines[:lines]) + all_lines[lines][: len(all_lines[lines]) // 2])


def main() -> None:
    target = Path(sys.argv[1]).resolve()
    made = target / "made"
    shutil.rmtree(target, ignore_errors=True)
    for name in BY_HAND:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / name, made / name)
    for name in ("tiers", "tuning"):
        (made / name).mkdir(parents=True)
    sys.path.insert(0, str(HERE))
    for name, steps in (
        ("home", (turns, home)),
        ("tuning", (tuning,)),
        ("tiers", (memory,)),
        ("bench", (bench,)),
        ("configurations", (configurations,)),
    ):
        os.chdir(made / name)
        for step in steps:
            step()
    os.chdir(made)
    for path in sorted(made.rglob("*")):
        if path.is_file() and (
            path.suffix in (".db", ".npz", ".safetensors", ".parquet") or path.stat().st_size > 20_000
        ):
            path.with_name(path.name + ".xz").write_bytes(
                lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
            )
            path.unlink()
    (made / "figures.json").write_text(json.dumps(FIGURES, indent=1) + "\n")


if __name__ == "__main__":
    main()
