"""`agentcascade bench bfcl`: committees of recorded models, the log that `tune` reads, what ships with the package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.envs.bfcl.models import PREFIX
from tests.bfcl_rows import ALL, RECORDED, RIGHT, STUDENTS, TEACHER, Write, answers, data_folder, said
from tests.inline_pool import plays_here  # noqa: F401

pytestmark = pytest.mark.usefixtures("plays_here")

STUDENT, MEMBER, JUDGE = PREFIX + STUDENTS[0], PREFIX + STUDENTS[1], PREFIX + TEACHER
COMMITTEE = ("--teacher", JUDGE, "--student", STUDENT, "--member", MEMBER, "--split", "all", "--workers", "1")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    yield from data_folder(tmp_path, monkeypatch)


def bench(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["bench", "bfcl", *arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.split())


def rows(folder: str | Path) -> dict[str, Any]:
    found = json.loads((Path(folder) / "results.json").read_text())
    return {row["policy"]: row for row in found["policies"]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.processes
def test_a_committee_of_recorded_models_is_played_logged_and_resumed(data: Write) -> None:
    policies = [f"--policy={p}" for p in ("teacher", "student", "alone " + STUDENTS[1], "cascade", "random", "oracle")]
    bench(*COMMITTEE, *policies, "--out", "run", "--log", "log.jsonl")
    found = rows("run")
    assert {name: row["accuracy"] for name, row in found.items() if name != "random"} == {
        "shadow": 1, "teacher": 1, "student": 0.75, f"alone {STUDENTS[1]}": 0.75, "cascade": 1, "oracle": 1,
    }  # fmt: skip
    assert found["cascade"]["deferral_share"] == 0.5, "the two differ on two of four tasks"
    alone = (0.15 * 100 + 0.6 * 10) / 1e6
    other, teacher = (0.3 * 50 + 0.3 * 10) / 1e6, (10 * 100 + 30 * 10) / 1e6
    assert found["cascade"]["dollars_per_episode"] == pytest.approx(alone + other + teacher / 2)
    assert found["oracle"]["dollars_per_episode"] == pytest.approx(alone + teacher / 4)
    assert (found["student"]["difference"], found["teacher"]["difference"]) == (-0.25, None)

    steps = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert len(steps) == 4
    assert all(step["gold"] and step["teacher_price"] == {"input": "10", "output": "30"} for step in steps)
    assert all(sum(len(drawn["samples"]) for drawn in step["students"]) == 2 for step in steps), "of all members"

    lines = Path("run/episodes.jsonl").read_text().splitlines()
    Path("run/episodes.jsonl").write_text("\n".join(lines[:-3]) + "\n")
    bench("--resume", "--out", "run", "--log", "log.jsonl", "--workers", "1", *policies)
    assert rows("run") == found, "the run knows its members"


def test_every_committee_of_the_first_members_is_played_by_default(data: Write) -> None:
    third = "gpt-3.5-turbo-0125-FC"
    data(answers=[*RECORDED, *answers(third, ALL | {"parallel_3": said("Rome")}, RIGHT | {"parallel_3": False})])
    said_ = bench(*COMMITTEE, "--member", PREFIX + third, "--out", "run", "--episodes", "2")
    assert list(rows("run")) == [
        "teacher", "student", f"alone {STUDENTS[1]}", f"alone {third}",
        "2 of 2", "3 of 3", "cascade", "random", "oracle",
    ]  # fmt: skip
    assert "against the teacher, task by task, at" in said_
    assert "official verdicts" in said_
    assert f"teacher: {JUDGE}; students: {STUDENT}, {MEMBER}, {PREFIX}{third}" in said_
    assert " gpt-3.5-turbo-FC " in said_, "a row of the table"


def test_members_that_abstain_or_call_other_tools_vote_for_nothing(data: Write) -> None:
    other = [{"weather_of": json.dumps({"city": "Rome"})}]
    wrong = dict.fromkeys(ALL, False)
    data(
        answers=[
            *answers(STUDENTS[0], dict.fromkeys(ALL, ""), wrong | {"relevance_0": True}),
            *answers(STUDENTS[1], dict.fromkeys(ALL, other), wrong),
            *answers(TEACHER, ALL, RIGHT),
        ]
    )
    bench(*COMMITTEE, "--policy", "teacher", "--policy", "cascade", "--out", "run")
    cascade = rows("run")["cascade"]
    assert (cascade["accuracy"], cascade["deferral_share"]) == (1, 1)
    assert cascade["relative_cost"] > 1, "who abstained was paid"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--member", STUDENT], 2, f"'{STUDENT}' is a student already"),
        (["--policy", "2 of 1"], 1, "'2 of 1' is a committee of 1, and there are 2 students"),
        (["--policy", "3 of 2"], 1, "2 votes or more must agree, and no more than the 2 it has"),
        (["--policy", "2 of 4"], 1, "is a committee of 4, and there are 2 students"),
        (["--needed", "3"], 2, "--needed 3: the committee has 2 votes"),
        (["--member", PREFIX + "gpt-4-1106"], 1, "no recorded answers of 'gpt-4-1106': did you mean"),
        (["--member", PREFIX + "nameless"], 1, "nameless has no price of its time"),
        (["--price", "nemo=1/2"], 2, "'nemo' is no model of this run: "),
        (["--price", f"{MEMBER}=1"], 2, "'1' is not IN/OUT"),
        (["--k", "2", "--embedder", "hashing:64"], 2, "of the tasks that demonstrations are taken from"),
        (["--policy", "oracle"], 1, "'oracle' is reckoned from those of teacher and student"),
    ],
)
def test_what_is_no_committee_is_refused_before_anything_is_played(
    data: Write,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    data(answers=[*RECORDED, *answers("nameless", ALL, RIGHT)])
    assert says in bench(*COMMITTEE, *arguments, "--out", "run", code=code)
    assert not Path("run/episodes.jsonl").exists() or not Path("run/episodes.jsonl").read_text()


def test_a_tuned_committee_is_played(data: Write) -> None:
    """From the log to the rule to the table, without naming its members again; and a run that was stopped goes on."""
    bench(*COMMITTEE, "--log", "log.jsonl", "--out", "logged")
    tune = ["tune", "--log", "log.jsonl", "--rules", "committee", "--risk", "wrong", "--max-risk", "0.6"]
    result = CliRunner().invoke(main, [*tune, "--out", "tuned"])
    assert result.exit_code == 0, result.output
    rule = yaml.safe_load(Path("tuned/rule.yaml").read_text())
    assert rule["sampling"]["across"] == "students"
    policies = [f"--policy={name}" for name in ("teacher", "2 of 2")]
    play = ["--teacher", JUDGE, "--split", "all", "--workers", "1", "--rule", "tuned/rule.yaml", *policies]
    bench(*play, "--out", "run")
    found = rows("run")
    assert rule["router"]["options"]["needed"] == 2
    assert found["tuned"] == found["2 of 2"] | {"policy": "tuned"}
    assert (found["tuned"]["deferral_share"], found["tuned"]["accuracy"]) == (0.5, 1)
    lines = Path("run/episodes.jsonl").read_text().splitlines()
    Path("run/episodes.jsonl").write_text("\n".join(lines[:-3]) + "\n")
    bench("--resume", "--out", "run", "--workers", "1", *policies)
    assert rows("run") == found


def test_a_rules_weights_and_order_are_those_that_are_played(data: Write) -> None:
    third = "gpt-3.5-turbo-0125-FC"
    data(answers=[*RECORDED, *answers(third, ALL | {"parallel_3": said("Rome")}, RIGHT | {"parallel_3": False})])
    rule = {
        "router": {"name": "threshold", "options": {"needed": 3}},
        "student": {"name": third, "weight": 2},  # as a hand writes it, without the provider
        "students": [{"name": PREFIX + STUDENTS[1]}, {"name": PREFIX + STUDENTS[0]}],
        "sampling": {"across": "students", "staged": "never"},
    }
    Path("rule.yaml").write_text(yaml.safe_dump(rule))
    bench(*COMMITTEE, "--member", PREFIX + third, "--rule", "rule.yaml", "--policy", "teacher", "--out", "run")
    played = [json.loads(line) for line in Path("run/episodes.jsonl").read_text().splitlines()]
    votes = {r["decisions"][0]["goal"]: r["decisions"][0]["votes"] for r in played if r["policy"] == "tuned"}
    assert sorted(votes["Weather in Rome?"].values()) == [1, 3]
    assert sorted(votes["Rome and Oslo?"].values()) == [2, 2]
    assert rows("run")["tuned"]["deferral_share"] == 0.25


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"students": [{"name": "open-mistral-nem"}]}, "'open-mistral-nem' is no student of this run, --student or"),
        ({"students": []}, "needs `student` and `students`, each by name"),
        ({"students": [{"weight": 2}]}, "needs `student` and `students`, each by name"),
        ({"students": [{"name": STUDENTS[1], "weight": 0}]}, f"weight of '{STUDENTS[1]}': Input should be greater"),
        ({"router": {"name": "threshold", "options": {"needed": 3}}}, "a number of votes, 1 to 2"),
        ({"sampling": {"staged": "never"}}, "a chain's, whose students it does not name"),
        ({"sampling": {"staged": "never"}, "students": None}, "it is one student's, and this run has several"),
        ({"students": 3}, "holds no rule"),
    ],
)
def test_a_rule_of_other_students_says_so(data: Write, changes: dict[str, Any], says: str) -> None:
    rule = {
        "router": {"name": "threshold", "options": {"needed": 2}},
        "student": {"name": STUDENT},
        "students": [{"name": MEMBER}],
        "sampling": {"across": "students"},
    } | changes
    Path("rule.yaml").write_text(
        yaml.safe_dump({name: section for name, section in rule.items() if section is not None})
    )
    assert says in bench(*COMMITTEE, "--rule", "rule.yaml", "--out", "run", code=1)


def test_each_member_has_its_own_price_in_replay_and_tune(data: Write) -> None:
    bench(*COMMITTEE, "--log", "log.jsonl", "--out", "logged")
    for command in (["replay"], ["tune", "--max-risk", "0.6", "--risk", "wrong", "--rules", "committee"]):
        run = [*command, "--log", "log.jsonl", "--json"]

        def said(*prices: str, run: list[str] = run, code: int = 0) -> str:
            result = CliRunner().invoke(main, [*run, *prices])
            assert result.exit_code == code, result.output
            return result.output

        alike = " ".join(said("--student-price", "1/2", code=2).split())
        assert "the log has 2 students: say each one's price" in alike
        assert f"--price {MEMBER}=IN/OUT" in alike
        assert "'nemo' is no model of the log" in said("--price", "nemo=1/2", code=2)
        assert "'1' is not IN/OUT" in said("--price", f"{MEMBER}=1", code=2)
    names = [f"--price={name}={rate}/0" for name, rate in ((STUDENT, 10), (STUDENTS[1], 20), (TEACHER, 1000))]
    replayed = json.loads(CliRunner().invoke(main, ["replay", "--log", "log.jsonl", "--json", *names]).output)
    both = next(r for r in replayed if r["rule"].startswith("2 of 2"))
    per_token = {"student": 10 * 100, "member": 20 * 50, "teacher": 1000 * 100}  # prompts of 100, 50 and 100 tokens
    expected = (per_token["student"] + per_token["member"] + per_token["teacher"] / 2) / 1e6
    assert both["cost"] == pytest.approx(expected)


def test_one_student_has_no_votes_to_count_and_no_chain(data: Write) -> None:
    alone = COMMITTEE[:4] + COMMITTEE[6:]
    assert "name further students, --member NAME" in bench(*alone, "--needed", "2", code=2)
    assert "'chain' asks several students in turn" in bench(*alone, "--policy", "chain", code=1)


def test_a_recorded_answer_that_is_missing_is_named(data: Write) -> None:
    data(answers=RECORDED[:-1])
    said_ = bench(*COMMITTEE, "--policy", "teacher", "--out", "run", code=1)
    assert "no recorded answer of 'gpt-4-1106-preview-FC' to 'parallel_3'" in said_


def test_without_any_download_real_models_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BFCL_DATA", raising=False)
    said_ = bench("--episodes", "12", "--workers", "1", "--out", "run")
    found = rows("run")
    assert list(found) == ["teacher", "student", "cascade", "random", "oracle"]
    assert found["cascade"]["episodes"] == 12
    assert 0 < found["cascade"]["relative_cost"] < 1
    assert "our own samples" in said_
