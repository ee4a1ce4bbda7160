"""`agentcascade bench intercode-sql --schema`: recorded models without a download, the log, live models."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentcascade.bench.records import EpisodeJob
from agentcascade.bench.worker import Setup, Worker
from agentcascade.cli import main
from agentcascade.config.load import CascadeConfig
from agentcascade.envs.intercode_sql import answers, keep
from agentcascade.envs.recorded.models import shuffled
from agentcascade.errors import ConfigError, EnvironmentFailed
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.inline_pool import plays_here  # noqa: F401
from tests.intercode_data import clear_caches, data_folder

pytest.importorskip("sqlglot", reason="needs the extra `intercode-sql`")
pytestmark = pytest.mark.usefixtures("plays_here")
ONE = ("--workers", "1")


def bench(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["bench", "intercode-sql", "--schema", *arguments, *ONE])
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.split())


def rows(folder: str | Path) -> dict[str, Any]:
    found = json.loads((Path(folder) / "results.json").read_text())
    return {row["policy"]: row for row in found["policies"]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INTERCODE_DATA", raising=False)
    clear_caches()
    yield
    clear_caches()


@pytest.mark.processes
def test_without_any_download_a_committee_of_real_models_is_played_and_tuned() -> None:
    said = bench("--episodes", "12", "--out", "run", "--policy", "teacher", "--policy", "cascade", "--log", "log.jsonl")
    found = rows("run")
    assert found["cascade"]["relative_cost"] < 1
    assert "its last query counts" in said
    assert "results and verdicts are those that ship with the package" in said
    manifest = json.loads(Path("run/run.json").read_text())
    assert manifest["suite_options"]["schema"] is True
    assert [manifest["models"][role]["name"] for role in ("teacher", "student", "member 2", "member 3")] == [
        *("recorded/gpt-4", "recorded/qwen2.5-coder-1.5b", "recorded/text-bison", "recorded/gpt-3.5-turbo"),
    ]
    steps = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert len(steps) == 12
    keys = {sample["action"] for step in steps for drawn in step["students"] for sample in drawn["samples"]}
    assert keys - {None} <= {f"result {i}" for i in range(40)}, "votes are classes of equal rows"
    agreed = sum(
        max(Counter(a for d in step["students"] for s in d["samples"] if (a := s["action"])).values(), default=0) >= 2
        for step in steps
    )
    assert found["cascade"]["deferral_share"] == pytest.approx(1 - agreed / 12), "the cascade joins the same votes"

    lines = Path("run/episodes.jsonl").read_text().splitlines()
    Path("run/episodes.jsonl").write_text("\n".join(lines[:-7]) + "\n")
    bench("--resume", "--out", "run", "--policy", "teacher", "--policy", "cascade", "--log", "log.jsonl")
    assert rows("run") == found


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--student", "recorded/gpt-3.5"], 1, "did you mean 'gpt-3.5-turbo' or 'gpt-3.5-turbo-retry'?"),
        (["--member", "recorded/qwen2.5-coder-1.5b"], 2, "is a student already"),
        (["--policy", "2 of 4"], 1, "is a committee of 4, and there are 3 students"),
        (["--votes", "text"], 1, "git clone"),
        (["--votes", "words"], 1, "--votes 'words': "),
        (["--split", "test"], 1, "git clone"),
        (
            ["--samples", "2", "--episodes", "6", "--policy", "cascade"],
            1,
            "has one recorded answer of a task",
        ),
    ],
)
def test_what_cannot_be_played_is_refused(arguments: list[str], code: int, says: str) -> None:
    assert says in bench(*arguments, "--out", "run", code=code)


def test_a_live_student_is_asked_with_the_schema_and_goes_on_where_its_server_died(
    fake_openai: Callable[..., FakeOpenAI], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_folder(tmp_path / "data", monkeypatch, copies=5)
    gold = "SELECT Name FROM Animal ORDER BY ID"
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        gone = Reply(status=404, body={"error": {"message": "no model is loaded"}})
        return gone if dying and len(asked) > 4 else Reply((gold,))

    dying = True
    server = fake_openai(answer)
    live = ("--student", "openai/small", "--student-price", "0.1/0.2", "--api-base", server.url)
    first = (*live, "--teacher", "recorded/gpt-4", "--policy", "student", "--k", "0")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    said = bench(*first, "--out", "run", code=1)
    assert "student was stopped" in said
    assert "when it answers again: agentcascade bench intercode-sql --resume --out run" in said
    kept = [json.loads(line) for line in Path("run/episodes.jsonl").read_text().splitlines()]
    answered = [record["task"] for record in kept if record["error"] is None]
    assert len(answered) == 3, "the first request only asks whether it is there"
    assert "CREATE TABLE " in asked[1].body["messages"][0]["content"]
    assert asked[1].body["messages"][1]["content"].startswith("Your task is to: ")

    dying = False
    before = len(asked)
    bench("--resume", "--out", "run", "--policy", "student")
    assert len(asked) - before == 20 - 3 + 1, "what was answered is not asked again"
    assert rows("run")["student"]["episodes"] == 20


def test_a_live_students_samples_are_kept_and_played_again(
    fake_openai: Callable[..., FakeOpenAI], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data_folder(tmp_path / "data", monkeypatch)
    good, bad = "SELECT Name FROM Animal ORDER BY ID", "I cannot tell"
    server = fake_openai(
        [Reply(("yes",)), Reply((good, bad, good), usage={"prompt_tokens": 100, "completion_tokens": 8})]
    )
    live = ("--student", "openai/small", "--student-price", "1/1", "--api-base", server.url, "--samples", "3")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    three = ("--teacher", "recorded/gpt-4", "--episodes", "4", "--policy", "student")
    bench(*live, *three, "--log", "log.jsonl", "--log-samples", "3", "--out", "run", code=1)  # gpt-4 has three of four

    path = keep.keep(Path("run"), "small")
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["task"] for row in kept] == [0, 1, 2]
    assert kept[0]["prompt_tokens"] == 100
    assert [(s["text"], s["tokens"]) for s in kept[0]["samples"]] == [
        (f"execute[{good}]", 3),
        (bad, 3),
        (f"execute[{good}]", 2),
    ]
    assert answers.LIBRARY.sampled()["small"] == 3
    assert [answer.right for answer in answers.answers("small", 0).answers] == [True, False, True]
    for name, says in (("small", "already"), ("gpt-4", "already"), ("../x", "is no name of a file")):
        with pytest.raises(ConfigError, match=says):
            keep.keep(Path("run"), name)
    with pytest.raises(EnvironmentFailed, match="holds no samples of somebody: play it with --log"):
        keep.rows_of(Path("run"), "somebody")
    assert folder in path.parents


def test_a_random_mix_takes_what_cannot_run_or_the_teacher_had_more_than_its_share() -> None:
    drawn = (
        (task, shuffled(answers.answers("qwen2.5-coder-1.5b", task).answers, "qwen2.5-coder-1.5b", str(task))[0])
        for task in range(1034)
    )
    task = next(task for task, first in drawn if first.rows is None and "SELECT" in first.text)
    config = CascadeConfig.model_validate(
        {
            "mode": "cascade",
            "teacher": {"name": "recorded/gpt-4"},
            "student": {"name": "recorded/qwen2.5-coder-1.5b"},
            "retrieval": {"k": 0},
            "router": {"name": "unanimity", "options": {"n": 1}},
            "actions": {"format": "sql", "fold": True, "dry_run": True},
        }
    )
    suite = "agentcascade.bench.suites.intercode_sql:IntercodeSqlSuite"
    worker = Worker(Setup(suite, config, {}, options={"schema": True}))
    share = {
        policy: worker.play(EpisodeJob(policy, 0, 0, f"all/{task}", str(task), teacher_share=0.0)).teacher_steps
        for policy in ("random", "cascade")
    }
    assert share == {"random": 0, "cascade": 1}
