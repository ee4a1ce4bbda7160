"""tune, replay and their files, as somebody uses them who has only a JSONL file; and what they say to a bad one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from agentcascade import build
from agentcascade.cli import main
from agentcascade.config.load import CascadeConfig
from agentcascade.models.scripted import ScriptedModel

RECORDED = Path(__file__).parents[2].parent / "shared" / "data" / "multi_sample" / "gsm8k_llama2_13b_pot2.jsonl"


def write(path: Path, number: int, seed: int = 0, hard: float = 0.3) -> Path:
    """A plain log: a share of the questions is hard."""
    rng = random.Random(seed)
    lines = []
    for i in range(number):
        right = 0.4 if rng.random() < hard else 0.99
        student = ["a" if rng.random() < right else rng.choice("bcd") for _ in range(6)]
        lines.append(json.dumps({"id": i, "gold": "a", "student": student, "teacher": "a"}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def held_out(rule: Path, lines: list[dict[str, Any]]) -> tuple[float, float]:
    """(share of steps that are accepted and wrong, share accepted), in ten lines of one's own."""
    router = yaml.safe_load(rule.read_text())["router"]
    if router["name"] == "teacher":
        return 0.0, 0.0
    n, threshold = router["options"]["n"], router["options"]["threshold"]
    accepted = wrong = 0
    for line in lines:
        top = Counter(line["student"][:n]).most_common(1)
        if top and top[0][1] >= threshold * n - 1e-9:
            accepted += 1
            wrong += top[0][0] != line["gold"]
    return wrong / len(lines), accepted / len(lines)


@pytest.mark.parametrize("risk", ["wrong", "teacher-disagreement", "episode-loss"])
def test_a_certified_rule_holds_on_new_questions(tmp_path: Path, risk: str) -> None:
    log = write(tmp_path / "log.jsonl", 800)
    command = [sys.executable, "-m", "agentcascade", "tune", "--log", str(log), "--max-risk", "0.1"]
    command += ["--confidence", "0.95", "--risk", risk, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert "With probability at least 0.95" in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"rule.yaml", "certificate.json", "report.html"}
    fresh = [json.loads(line) for line in write(tmp_path / "new.jsonl", 5000, seed=9).read_text().splitlines()]
    wrong, accepted = held_out(tmp_path / "out" / "rule.yaml", fresh)
    assert wrong <= 0.1
    assert accepted > 0.5


def test_a_rule_says_whether_it_was_tested_on_bounded_histories(tmp_path: Path) -> None:
    plain = [json.loads(line) for line in write(tmp_path / "plain.jsonl", 600).read_text().splitlines()]
    for setting in (None, "8/4/400/mid:openai/small"):
        lines = []
        for line in plain:
            student: dict[str, Any] = {"model": "s", "samples": [{"action": action} for action in line["student"]]}
            if setting:
                student["history"] = setting
            lines.append(json.dumps({"id": str(line["id"]), "gold": "a", "teacher": "a", "students": [student]}))
        log, out = tmp_path / "log.jsonl", tmp_path / "out"
        log.write_text("\n".join(lines), encoding="utf-8")
        done = run("tune", "--log", log, "--max-risk", "0.1", "--risk", "wrong", "--out", out)
        assert done.exit_code == 0, done.output
        rule = (out / "rule.yaml").read_text()
        section = {"keep": 8, "every": 4, "carry": 400, "tier": "mid", "model": {"name": "openai/small"}}
        assert yaml.safe_load(rule).get("history") == (section if setting else None)
        assumed = json.loads((out / "certificate.json").read_text())["assumptions"]
        said = f"bounded as in the log ({setting})" if setting else "students read whole histories"
        assert any(said in one for one in assumed)
        assert said in rule


async def test_the_rule_is_a_configuration_that_acts(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", 600)
    assert run("tune", "--log", log, "--max-risk", "0.1", "--risk", "wrong", "--out", tmp_path / "out").exit_code == 0
    rule = yaml.safe_load((tmp_path / "out" / "rule.yaml").read_text())
    config = CascadeConfig.load(tmp_path / "out" / "rule.yaml")
    n = rule["router"]["options"]["n"]
    async with build(
        teacher=ScriptedModel(["t"]),
        student=ScriptedModel(["s"]),
        router=config.router,
        sampling=config.sampling,
        retrieval={"k": 0},
        bank={"url": f"sqlite:///{tmp_path / 'b.db'}"},
    ) as cascade:
        answer = await cascade.episode("go").complete([{"role": "user", "content": "Task: go"}])
    assert answer.agentcascade.answered_by == "student"
    assert answer.agentcascade.samples <= n


def test_too_little_data_is_said(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", 20, hard=0.0)
    done = run("tune", "--log", log, "--max-risk", "0.02", "--risk", "wrong", "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "no rule is certified: collect about" in done.output
    assert yaml.safe_load((tmp_path / "out" / "rule.yaml").read_text()) == {"router": {"name": "teacher"}}
    made = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert made["certified"] is False
    assert made["more_episodes"] > 50


def test_the_certificate_can_be_printed(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", 400)
    done = run("tune", "--log", log, "--max-risk", "0.1", "--risk", "wrong", "--out", tmp_path / "out", "--json")
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "out" / "certificate.json").read_text())


def test_replay_compares_rules(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", 300)
    assert run("tune", "--log", log, "--max-risk", "0.1", "--risk", "wrong", "--out", tmp_path / "out").exit_code == 0
    made = json.loads((tmp_path / "out" / "certificate.json").read_text())
    done = run("replay", "--log", log, "--rule", tmp_path / "out" / "rule.yaml", "--json")
    (row,) = json.loads(done.output)
    assert row["acceptance"] == pytest.approx(made["observed"]["acceptance"])
    assert row["risks"]["wrong"] == pytest.approx(made["observed"]["risks"]["wrong"])
    table = run("replay", "--log", log).output
    assert "teacher" in table
    assert "3 of 5" in table
    assert "--sample-cost" in table


@pytest.mark.parametrize(("samples", "rules"), [(1, 2), (2, 4), (3, 5), (6, 10)])
def test_replay_tries_as_many_samples_as_the_log_has(tmp_path: Path, samples: int, rules: int) -> None:
    log = tmp_path / "log.jsonl"
    lines = [{"id": str(i), "student": ["a"] * samples, "teacher": "a"} for i in range(4)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("replay", "--log", log, "--json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.output)) == rules


def test_the_database_is_a_log_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"

    async def shadows() -> None:
        async with build(
            mode="shadow", teacher=ScriptedModel(["go"]), student=ScriptedModel(["go"]), bank={"url": url},
            retrieval={"k": 0}, shadow={"samples": 4, "max_pending": 500},
        ) as cascade:  # fmt: skip
            for _ in range(150):
                await cascade.episode("go").complete([{"role": "user", "content": "Task: go"}])

    import asyncio

    asyncio.run(shadows())
    done = run("tune", "--url", url, "--max-risk", "0.05", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "the risk is at most 0.05" in " ".join(done.output.split())
    assert "150 steps" in done.output
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    build(teacher=ScriptedModel(["a"]), student=ScriptedModel(["a"]), bank={"url": empty}, retrieval={"k": 0}).close()
    assert "holds no shadows" in run("tune", "--url", empty, "--max-risk", "0.05").output


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", (), "holds no steps"),
        ("{", (), "line 1: not JSON"),
        ('{"id": 1, "student": ["a"], "teacher": "a"}', ("--risk", "wrong"), "right answer (gold) is not known"),
        ('{"id": 1, "student": ["a"], "gold": "a"}', ("--risk", "teacher-disagreement"), "without a teacher's action"),
        ('{"id": 1, "student": ["a"], "gold": "a"}', ("--risk", "wrong", "--max-risk", "1"), "max_risk is 1"),
        ('{"id": 1, "student": ["a"], "gold": "a"}', ("--risk", "wrong", "--max-risk", "nan"), "no finite number"),
        ('{"id": 1, "student": ["a"], "gold": "a"}', ("--risk", "wrong", "--confidence", "1"), "confidence is 1"),
        ('{"id": 1, "student": ["a"], "gold": "a"}', ("--risk", "rong"), "'rong' is not one of"),
        (
            '{"id": 1, "student": ["a"], "gold": "a"}',
            ("--risk", "wrong", "--rules", "learned"),
            "a learned score needs",
        ),
        ('{"id": 1, "student": ["a"], "gold": "a"}', ("--risk", "wrong", "--rules", "logprob"), "no log-probabilities"),
        ('{"id": 1, "student": ["a"], "gold": "a"}', ("--risk", "wrong", "--rules", "chain"), "at least two students"),
    ],
)
def test_bad_input_is_told_in_a_sentence(tmp_path: Path, content: str, options: Any, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content, encoding="utf-8")
    given = ("--max-risk", "0.05") if "--max-risk" not in options else ()
    done = run("tune", "--log", path, *given, *options, "--out", tmp_path / "out")
    assert done.exit_code != 0
    assert message in " ".join(done.output.split())
    assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", ['{"id": 1, "student": [], "gold": "a"}', '{"id": 1, "student": [null], "gold": "a"}'])
def test_a_student_that_never_answered(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(line, encoding="utf-8")
    done = run("tune", "--log", path, "--max-risk", "0.05", "--risk", "wrong", "--out", tmp_path / "out")
    assert done.exit_code == 0, (done.output, done.exception)
    assert yaml.safe_load((tmp_path / "out" / "rule.yaml").read_text())["router"]["name"] == "teacher"


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded samples are not beside the checkout")
def test_recorded_samples_of_real_models(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    random.Random(1).shuffle(lines)
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps(line) for line in lines[:200]), encoding="utf-8")
    done = run("tune", "--log", log, "--max-risk", "0.1", "--risk", "wrong", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    wrong, accepted = held_out(tmp_path / "out" / "rule.yaml", lines[200:])
    assert wrong <= 0.1
    assert accepted > 0.1


def test_committees_of_a_log_with_several_students(tmp_path: Path) -> None:
    log, rng = tmp_path / "log.jsonl", random.Random(4)
    lines = []
    for i in range(700):
        answers = {name: [str(i) if rng.random() < 0.85 else str(rng.randrange(10**6))] for name in ("x", "y", "z")}
        lines.append(json.dumps({"id": i, "student": answers, "teacher": str(i)}))
    log.write_text("\n".join(lines))
    shown = json.loads(run("replay", "--log", log, "--json").output)
    rules = [row["rule"] for row in shown]
    assert rules[-5:] == [
        "2 of 2: x + y",
        "1 of 2: x + y",
        "3 of 3: x + y + z",
        "2 of 3: x + y + z",
        "1 of 3: x + y + z",
    ]
    run("tune", "--log", log, "--max-risk", "0.05", "--rules", "committee", "--out", tmp_path / "out")
    rule = yaml.safe_load((tmp_path / "out" / "rule.yaml").read_text())
    assert rule["sampling"]["across"] == "students"
    [row] = json.loads(run("replay", "--log", log, "--rule", tmp_path / "out" / "rule.yaml", "--json").output)
    certified = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert row["acceptance"] == certified["observed"]["acceptance"]
    (tmp_path / "out" / "rule.yaml").write_text(yaml.safe_dump(rule | {"student": {"name": "w"}}))
    refused = run("replay", "--log", log, "--rule", tmp_path / "out" / "rule.yaml")
    assert "the log has no samples of 'w'" in refused.output
