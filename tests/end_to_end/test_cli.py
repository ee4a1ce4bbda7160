"""The command line on real databases, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

import agentcascade
from agentcascade.bench import worker
from agentcascade.cli import main
from agentcascade.types import Mode

ANSWERS = ["Thought: It is shut.\nAction: open door 1", "Thought: Now in.\nAction: go in"]
PRICE = agentcascade.Price(input=3, output=15)


def run(*arguments: str, ok: bool = True) -> Result:
    result = CliRunner().invoke(main, arguments, env={"COLUMNS": "200"})
    assert (result.exit_code == 0) == ok, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with two banked episodes in two namespaces, and one of the cascade; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/run.db"
    with agentcascade.build(
        teacher=agentcascade.ScriptedModel(ANSWERS, name="teacher-1", price=PRICE),
        student=agentcascade.ScriptedModel(["Action: open door 1"], name="student-1"),
        bank={"url": url},
        retrieval={"embedder": "hashing:32", "index": "exact"},
        actions={"format": "react"},
    ) as cascade:

        async def play() -> None:
            episodes: tuple[tuple[Mode, str, str], ...] = (
                ("collect", "a", "enter the house"),
                ("collect", "b", "enter the barn"),
                ("cascade", "a", "enter the house"),
            )
            for mode, namespace, goal in episodes:
                episode = cascade.episode(goal=goal, mode=mode, namespace=namespace)
                messages = [{"role": "user", "content": f"{goal}: a door 1 is here"}]
                await episode.complete(messages)
                await episode.finish(success=True)

        asyncio.run(play())
    return url


def test_bank_list_and_show(url: str) -> None:
    out = run("bank", "list", "--url", url).output
    assert "enter the house" in out
    assert "a: 1 trajectories, 1 steps; b: 1 trajectories, 1 steps" in out
    out = run("bank", "list", "--url", url, "--namespace", "b").output
    assert "enter the house" not in out
    id = next(word for word in out.split() if word.startswith("tr_"))
    shown = run("bank", "show", id, "--url", url).output
    assert "Goal: enter the barn" in shown
    assert "Thought: Now in." in shown
    assert json.loads(run("bank", "show", id, "--json", "--url", url).output)["namespace"] == "b"


def test_an_export_is_imported_once_and_can_change_its_namespace(url: str, tmp_path: Path) -> None:
    assert "wrote 2 trajectories" in run("bank", "export", "bank.jsonl", "--url", url).output
    (tmp_path / "c.yaml").write_text("retrieval: {embedder: 'hashing:32'}\n")
    fresh = ["--url", f"sqlite:///{tmp_path}/fresh.db", "--config", "c.yaml"]
    assert "added 2 trajectories; 0" in run("bank", "import", "bank.jsonl", *fresh).output
    assert "added 0 trajectories; 2" in run("bank", "import", "bank.jsonl", *fresh).output
    elsewhere = ["--url", f"sqlite:///{tmp_path}/other.db", "--config", "c.yaml", "--namespace", "z"]
    run("bank", "import", "bank.jsonl", *elsewhere)
    assert "z: 2 trajectories" in run("bank", "list", "--url", f"sqlite:///{tmp_path}/other.db").output


def test_a_bad_line_imports_nothing(url: str, tmp_path: Path) -> None:
    run("bank", "export", "bank.jsonl", "--url", url)
    with Path("bank.jsonl").open("a") as file:
        file.write('{"goal": "half a rec')
    (tmp_path / "c.yaml").write_text("retrieval: {embedder: 'hashing:32'}\n")
    fresh = ["--url", f"sqlite:///{tmp_path}/fresh.db", "--config", "c.yaml"]
    assert "bank.jsonl line 3" in run("bank", "import", "bank.jsonl", *fresh, ok=False).output
    assert "The bank is empty." in run("bank", "list", *fresh).output


def test_prune_remove_and_reembed(url: str, tmp_path: Path) -> None:
    assert "say what to prune" in run("bank", "prune", "--yes", "--url", url, ok=False).output
    assert "removed 1 trajectories" in run("bank", "prune", "--keep", "1", "--yes", "--url", url).output
    (tmp_path / "c.yaml").write_text("retrieval: {embedder: 'hashing:16'}\n")
    assert "hashing-16" in run("bank", "reembed", "--url", url, "--config", "c.yaml").output
    id = next(word for word in run("bank", "list", "--url", url).output.split() if word.startswith("tr_"))
    assert f"removed {id}" in run("bank", "remove", id, "--url", url).output
    assert f"there is no trajectory '{id}'" in run("bank", "remove", id, "--url", url, ok=False).output


def test_the_ledger_says_unknown_never_zero(url: str) -> None:
    out = run("ledger", "--url", url).output
    assert "collect" in out
    assert "unknown" in next(line for line in out.splitlines() if line.startswith("cascade"))
    data = json.loads(run("ledger", "--url", url, "--json", "--by", "mode").output)
    groups = {group["group"]: group for group in data["groups"]}
    assert groups["cascade"]["dollars"] is None
    assert float(groups["collect"]["dollars"]) == float(groups["collect"]["teacher_dollars"]) > 0
    models = {model["model"]: model for model in data["models"]}
    assert models["student-1"]["dollars"] is None
    assert models["teacher-1"]["calls"] == 2


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    for command in (["bank", "list"], ["ledger"]):
        assert "there is no database" in run(*command, "--url", f"sqlite:///{missing}", ok=False).output
    assert not missing.exists()


def test_a_database_is_named_by_its_path_too(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_path = ["--url", "run.db"]
    assert run("ledger", *by_path).output == run("ledger", "--url", url).output
    assert "there is no database other.db" in run("ledger", "--url", "other.db", ok=False).output
    assert "bytes in copy.db" in run("db", "backup", *by_path, "copy.db").output
    monkeypatch.setenv("AGENTCASCADE_BANK__URL", "run.db")
    Path("agentcascade.yaml").write_text(
        "teacher: {name: agentcascade:ScriptedModel, options: {script: [go]}}\nmode: teacher\n"
    )
    assert "run.db: opens" in run("doctor").output
    for wrong, says in (("mysql://h/d", "only sqlite and postgresql"), ("sqlite:/run.db://", "not a database URL")):
        assert says in run("ledger", "--url", wrong, ok=False).output


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    said = " ".join(run("init", "--yes", "file/agentcascade.yaml", ok=False).output.split())
    assert "file: File exists. Check the path and its permissions" in said
    monkeypatch.chdir("/proc")
    assert "/proc/" in (said := run("init", "--yes", ok=False).output)
    assert "Check the path and its permissions" in said


def test_init_writes_what_doctor_and_load_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    run("init")
    assert Path("agentcascade.yaml").stat().st_mode & 0o777 == 0o600  # it may be given keys
    written = agentcascade.CascadeConfig.load("agentcascade.yaml")
    assert written == agentcascade.CascadeConfig.load(
        teacher={"name": "anthropic/claude-sonnet-4-5"},
        student={"name": "openai/gpt-4.1-mini"},
        router={"options": {"n": 3}},
    )
    assert "exists already" in run("init", ok=False).output
    out = run("doctor", ok=False).output
    assert "set ANTHROPIC_API_KEY" in out
    assert "all-MiniLM-L6-v2, 384 dimensions" in out
    Path("agentcascade.yaml").write_text("retrieval: {kk: 3}\n")
    assert "unknown key 'retrieval.kk': did you mean 'k'?" in run("doctor", ok=False).output


@pytest.mark.parametrize(("changed", "said"), [
    ("router: {name: unanimty}", "did you mean 'unanimity'"),
    ("router: {name: threshold, options: {tresh: 1}}", "does not take"),
    ("actions: {format: reac}", "did you mean 'react'"),
    ("cascades: {a: {router: {name: nobody}}}", "router.name 'nobody' is unknown"),
    ("judge: {model: {name: gpt-4.1-mni}}", "no provider is known for it: did you mean 'gpt-4.1-mini'"),
    ("mode: cascade", "needs a student"),
])  # fmt: skip
def test_doctor_refuses_what_build_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = {"mode": "teacher", "teacher": {"name": "offline/expert"}, "retrieval": {"embedder": "hashing"}}
    Path("agentcascade.yaml").write_text(yaml.safe_dump(whole | yaml.safe_load(changed)))
    assert said in " ".join(run("doctor", ok=False).output.split())
    Path("agentcascade.yaml").write_text(yaml.safe_dump(whole))
    assert "can be built" in run("doctor").output


def test_doctor_shows_a_committee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cheap, dear = (
        {"name": f"openai/{name}", "api_key": "sk-1", "price": {"input": price, "output": price}}
        for name, price in (("cheap", "1"), ("dear", "9"))
    )
    whole = {"teacher": {"name": "offline/expert"}, "retrieval": {"k": 0}, "sampling": {"across": "students"}}
    Path("agentcascade.yaml").write_text(
        yaml.safe_dump(whole | {"student": dear, "students": [{**cheap, "weight": 2}]})
    )
    out = " ".join(run("doctor").output.split())
    assert "committee, 3 of 3 votes must agree; asked in this order" in out
    assert "openai/cheap (2 votes, $0.0011), openai/dear (1 vote, $0.0099)" in out


def test_doctor_says_what_a_missing_extra_would_bring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "faiss", None)
    out = run("doctor").output
    assert "faiss-cpu is missing: fast retrieval from large banks" in out
    assert 'pip install "agentcascade[faiss]"' in out


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (["alfworld"], 'agentcascade bench alfworld needs alfworld: pip install "agentcascade[alfworld]"'),
        (["matplotlib"], 'needs matplotlib: pip install "agentcascade[bench]"'),
        (
            ["onnxruntime", "sentence_transformers"],
            'the default embedder needs onnxruntime: pip install "agentcascade[onnx]"',
        ),
    ],
)
def test_a_bench_without_an_extra_says_what_to_install_before_it_plays(
    missing: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    worker.embedder.cache_clear()  # an earlier test in this process may have made one
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    assert says in " ".join(run("bench", "alfworld", ok=False).output.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bnk"], "did you mean 'bank'?"),
        (["bank", "lst"], "did you mean 'list'?"),
        (["completion", "bash"], "did you mean 'show'?"),
        (["bench", "alfworld", "--policy", "cascde"], "did you mean 'cascade'?"),
        (["bench", "alfworld", "--policy", "random"], "run 'cascade' too"),
        (["bench", "alfworld", "--teacher-price", "3"], "IN/OUT"),
        (["bench", "alfworld", "--resume"], "--resume needs --out"),
        (["bench", "alfworld", "--student", "offline/imitater"], "did you mean 'offline/imitator'?"),
        (["bench", "alfworld", "--embedder", "minilmm"], "retrieval.embedder 'minilmm' is unknown"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in run(*arguments, ok=False).output
    assert not list(tmp_path.iterdir()), "nothing is left of a run that could not start"


def test_help_of_every_command() -> None:
    for command in ([], ["bank"], ["bench"], ["bench", "alfworld"], ["doctor"], ["init"], ["ledger"]):
        assert "Usage:" in run(*command, "--help").output


def test_a_port_that_is_taken_is_named_before_anything_is_promised(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="needs the extra `server`")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        shown = run("serve", "--port", str(port), ok=False).output
    assert f"http://127.0.0.1:{port} cannot be served" in shown
    assert "serves default" not in shown


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("which", ["the server's", "a cascade's", "older"])
def test_a_database_that_is_missing_is_named_before_anything_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, workers: str
) -> None:
    pytest.importorskip("fastapi", reason="needs the extra `server`")
    monkeypatch.chdir(tmp_path)
    free, gone = {"url": f"sqlite:///{tmp_path}/a.db"}, {"url": f"sqlite:///{tmp_path}/no/folder/b.db"}
    config: dict[str, object] = {
        "mode": "teacher",
        "teacher": "openai/m",
        "bank": gone if which == "the server's" else free,
    }
    if which == "a cascade's":
        config["cascades"] = {"mail": {"bank": gone}, "other": {}}
    elif which == "older":
        config["bank"] = {**free, "migrate": False}
    Path("agentcascade.yaml").write_text(yaml.safe_dump(config))
    shown = run("serve", "--port", "0", "--workers", workers, ok=False).output
    assert "has no tables yet" in shown if which == "older" else "no/folder of the database does not exist" in shown
    assert "agentcascade serves" not in shown
    assert "Traceback" not in shown
