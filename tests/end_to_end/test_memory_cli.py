"""``agentcascade memory`` and ``bench locomo`` from beginning to end on a small file in LoCoMo's format."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from agentcascade.assembly.components import find_module
from agentcascade.bench.pools import local
from agentcascade.cli import main
from tests.fake_openai import Reply
from tests.inline_pool import InlinePool, plays_here  # noqa: F401

pytestmark = pytest.mark.usefixtures("plays_here")

TALKS = {
    "garden": ["roses", "a fence", "the pond", "apple trees"],
    "music": ["a violin", "the choir", "an old piano", "a concert"],
    "travel": ["Lisbon", "a ferry", "the mountains", "a lost suitcase"],
    "kitchen": ["sourdough", "a new oven", "pasta", "the market"],
}


def conversation(name: str, things: list[str]) -> dict[str, Any]:
    """Two sessions of six turns; each thing is told in one of them and asked for later."""
    spoken: dict[str, Any] = {"speaker_a": "Ann", "speaker_b": "Bob"}
    asked = []
    for number in (1, 2):
        turns = []
        for i in range(6):
            mark = f"D{number}:{i + 1}"
            text = f"Nothing much happened with the {name}, it was quiet all week number {i}."
            if i in (1, 4):
                thing = things[2 * (number - 1) + (i == 4)]
                text = f"Last Saturday I spent the whole day with {thing}, and it cost me {10 * number + i} dollars."
                asked.append((f"When did somebody spend a day with {thing}?", f"{10 * number + i} dollars", mark))
            turns.append({"speaker": "Ann" if i % 2 else "Bob", "dia_id": mark, "text": text})
        spoken[f"session_{number}"] = turns
        spoken[f"session_{number}_date_time"] = f"1:56 pm on {7 + number} May, 2023"
    qa = [
        {"question": q, "answer": a, "evidence": [e], "category": 2 if i % 2 else 4}
        for i, (q, a, e) in enumerate(asked)
    ]
    qa.append({"question": "What did Ann say of the moon?", "adversarial_answer": "x", "evidence": [], "category": 5})
    return {"sample_id": name, "conversation": spoken, "qa": qa}


def run(*arguments: object, ok: bool = True) -> Result:
    result = CliRunner().invoke(main, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert (result.exit_code == 0) == ok, result.output
    assert "Traceback" not in result.output
    if not ok:
        assert isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def written(path: Path) -> Path:
    path.write_text(json.dumps([conversation(name, things) for name, things in TALKS.items()]))
    return path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file; the working directory is empty but for it, and questions are hashed, not embedded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTCASCADE_RETRIEVAL__EMBEDDER", "hashing:32")
    return written(tmp_path / "tiny.json")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one sweep over the file leaves behind."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "ProcessPool", InlinePool)
        patch.setenv("AGENTCASCADE_RETRIEVAL__EMBEDDER", "hashing:32")
        train = run("memory", "train", "--data", written(folder / "tiny.json"), "--out", folder / "out", "--workers", 1)
    (folder / "printed").write_text(train.output)
    return folder / "out"


RANDOM = ("--collect", "random", "--rollouts", 3)


@pytest.fixture(scope="module")
def rolled_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three rollouts of random tiers over the file leave behind."""
    folder = tmp_path_factory.mktemp("rolled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "ProcessPool", InlinePool)
        patch.setenv("AGENTCASCADE_RETRIEVAL__EMBEDDER", "hashing:32")
        train = run("memory", "train", "--data", written(folder / "tiny.json"), *RANDOM, "--out", folder / "out")
    (folder / "printed").write_text(train.output)
    return folder / "out"


@pytest.fixture
def trained(data: Path, once: Path) -> Path:
    """The same in the working directory."""
    return shutil.copytree(once, Path("trained"))


def test_a_router_is_trained_on_a_sweep_and_again_from_its_log(data: Path, once: Path) -> None:
    out = (once.parent / "printed").read_text()
    shutil.copytree(once, Path("first"))
    assert "oracle" in out
    assert "values λ=0.1" in out
    log, card = Path("first/log.npz"), json.loads(Path("first/values.json").read_text())
    assert card["questions"] == {"train": 8, "validation": 4, "test": 4}
    assert card["encoder"] == "hashing-32"
    assert set(card["test_groups"]) < set(TALKS)
    assert Path("first/frontier.png").stat().st_size > 1000
    results = json.loads(Path("first/results.json").read_text())
    assert 0 < results["oracle"] <= 1

    run("memory", "train", "--offline", log, "--out", "second")
    assert Path("second/values.safetensors").read_bytes() == Path("first/values.safetensors").read_bytes()
    assert np.load(log)["score"].shape == (16 * 243,)
    assert "log.npz" in out


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a Ray cluster on this machine."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield made.address
    made.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(not find_module("ray"), reason="needs ray: pip install 'agentcascade[ray]'")
def test_sweeps_and_rollouts_on_ray_are_those_of_one_process(
    data: Path, once: Path, rolled_out: Path, cluster: str
) -> None:
    def same(one: Path, other: Path) -> None:
        ours, theirs = np.load(one), np.load(other)
        for name in ("question", "tiers", "score", "query", "reads", "vectors"):
            assert np.array_equal(ours[name], theirs[name]), name

    train = "memory", "train", "--data", data
    run(*train, "--out", "ray", "--ray", cluster)
    same(Path("ray/log.npz"), once / "log.npz")
    run(*train, *RANDOM, "--out", "together", "--ray", cluster)
    same(Path("together/log.npz"), rolled_out / "log.npz")


def test_ray_is_for_what_can_be_split(data: Path, trained: Path) -> None:
    pytest.importorskip("ray", reason="needs ray: pip install 'agentcascade[ray]'")
    on_policy = "--data", data, "--collect", "on-policy", "--router", "policy"
    out = run("memory", "train", *on_policy, "--out", "out", "--ray", "local", ok=False).output
    assert "--ray is for --collect sweep and random" in out
    out = run("memory", "train", "--offline", trained / "log.npz", "--out", "out", "--ray", "local", ok=False).output
    assert "a log that is there is trained on here" in out


@pytest.mark.processes
def test_a_killed_sweep_goes_on_where_it_was(trained: Path, data: Path) -> None:
    parts = sorted(Path("trained/sweep").glob("*.npz"))
    assert len(parts) == len(TALKS)
    parts[0].unlink()
    kept = {path: path.stat().st_mtime_ns for path in parts[1:]}
    Path("trained/log.npz").unlink()
    run("memory", "train", "--data", data, "--out", "trained", "--resume")
    assert {path: path.stat().st_mtime_ns for path in parts[1:]} == kept
    assert parts[0].exists()
    assert Path("trained/log.npz").exists()


def test_a_sweep_of_other_settings_is_not_gone_on_with(
    trained: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTCASCADE_MEMORY__TOKEN_BUDGET", "50")
    out = run("memory", "train", "--data", data, "--out", "trained", "--resume", ok=False).output
    assert "trained/sweep holds another sweep: choose another --out" in out


def test_the_policy_is_trained_in_passes_and_resumed(trained: Path) -> None:
    options = ("--offline", trained / "log.npz", "--router", "policy", "--passes", 2, "--out", "out")
    out = run("memory", "train", *options).output
    assert "policy λ=0.1" in out
    card = json.loads(Path("out/policy.json").read_text())
    assert len(card["passes"]) == 2
    assert Path("out/curves.png").exists()
    first = Path("out/policy.safetensors").read_bytes()
    run("memory", "train", *options, "--resume")
    assert Path("out/policy.safetensors").read_bytes() == first, "there was nothing left to do"


def test_a_log_of_random_tiers_is_estimated_on_and_trained_from(data: Path, rolled_out: Path) -> None:
    options = ("--data", data, *RANDOM, "--out", "out")
    out = (rolled_out.parent / "printed").read_text()
    shutil.copytree(rolled_out, Path("out"))
    assert "agentcascade memory estimate" in out, "a log with gaps compares nothing"
    assert "oracle" not in out
    log = np.load("out/log.npz")
    assert log["score"].shape == (3 * 16,)
    assert np.allclose(log["propensity"], 3.0**-5)

    written = Path("out/log.npz").stat().st_mtime_ns
    run("memory", "train", *options, "--resume")
    assert Path("out/log.npz").stat().st_mtime_ns == written, "resumed, it plays nothing again"
    out = run("memory", "train", *options[:-3], 2, "--out", "out", "--resume", ok=False).output
    assert "out/log.npz was collected with other settings" in out

    out = run("memory", "estimate", "--offline", "out/log.npz", "--tiers", "all-low").output
    assert out.startswith("ips")
    assert "effective rows" in out
    found = run("memory", "estimate", "--offline", "out/log.npz", "--router", "out/values.safetensors", "--json")
    estimated = json.loads(found.stdout)
    assert estimated["n"] == 48
    assert estimated["dr"]["low"] <= estimated["dr"]["mean"] <= estimated["dr"]["high"]


def test_the_policy_learns_from_questions_played_for_it(data: Path) -> None:
    options = ("--collect", "on-policy", "--router", "policy", "--passes", 1, "--questions", 2)
    out = run("memory", "train", "--data", data, *options, "--out", "out").output
    assert "policy λ=0.9" in out
    assert "oracle" not in out, "nobody knows it without a sweep"
    assert json.loads(Path("out/results.json").read_text())["oracle"] is None
    card = json.loads(Path("out/policy.json").read_text())
    assert sum(card["questions"].values()) == 8
    assert np.load("out/log.npz")["score"].size > 8


def test_fixed_tiers_are_estimated_as_what_they_did_in_the_sweep(trained: Path, data: Path) -> None:
    log = np.load("trained/log.npz")
    truth = float(log["score"][(log["tiers"] == 0).all(axis=1)].mean())
    for named in ("low", "all-low", "low-low-low-low-low", "filter=low, summary=low"):
        found = json.loads(run("memory", "estimate", "--offline", "trained/log.npz", "--tiers", named, "--json").stdout)
        assert found["snips"]["mean"] == pytest.approx(truth)
    cost = run("memory", "estimate", "--offline", "trained/log.npz", "--tiers", "low", "--value", "cost").output
    truth = float(log["cost"][(log["tiers"] == 0).all(axis=1)].mean())
    assert f"snips  {truth:.4f}" in cost


POLICIES = ("--policy", "all-low", "--policy", "all-high", "--policy", "top-k")


def test_the_benchmark_compares_policies_and_plays_nothing_twice(trained: Path, data: Path) -> None:
    router = ("--router", "trained/values.safetensors", "--tradeoff", 0, "--tradeoff", 0.3)
    command = ("bench", "locomo", "--data", data, *POLICIES, *router, "--out", "out")
    out = run(*command).output
    for name in ("all-low", "all-high", "top-k", "values λ=0", "values λ=0.3"):
        assert name in out
    assert "memories are scored by the labelled evidence in them, without any language model" in out
    rows = [json.loads(line) for line in Path("out/rows.jsonl").read_text().splitlines()]
    assert len(rows) == 5 * 16
    results = json.loads(Path("out/results.json").read_text())
    low = next(line for line in results["lines"] if line["point"]["name"] == "all-low")
    assert low["point"]["score"] == pytest.approx(np.mean([r["score"] for r in rows if r["policy"] == "all-low"]))
    assert set(low["by_category"]) == {"temporal", "single-hop"}
    assert Path("out/frontier.png").exists()

    assert "out holds a run already: add --resume" in run(*command, ok=False).output
    whole = Path("out/rows.jsonl").read_text()
    run(*command, "--resume")
    assert Path("out/rows.jsonl").read_text() == whole
    Path("out/rows.jsonl").write_text("\n".join(whole.splitlines()[:30]) + '\n{"policy": "all-h')
    run(*command, "--resume")
    again = [json.loads(line) for line in Path("out/rows.jsonl").read_text().splitlines()]
    played = [sorted((r["policy"], r["tradeoff"], r["question"], r["score"]) for r in some) for some in (rows, again)]
    assert played[0] == played[1]


def test_a_run_is_resumed_with_its_own_settings_only(data: Path) -> None:
    command = ("bench", "locomo", "--data", data, "--policy", "all-low", "--out", "out")
    run(*command)
    changes: list[tuple[tuple[object, ...], str]] = [
        (("--policy", "random"), "policies"),
        (("--tradeoff", 0.7), "tradeoffs"),
        (("--questions", 1), "questions"),
        (("--cost", "tokens"), "cost"),
        (("--conversations", "garden"), "conversations"),
    ]
    for change, named in changes:
        out = run(*command, *change, "--resume", ok=False).output
        assert "out was run with another" in out
        assert named in out


def test_a_run_is_not_resumed_on_other_data_or_with_a_router_trained_anew(trained: Path, data: Path) -> None:
    router = ("--router", "trained/values.safetensors", "--tradeoff", 0)
    command = ("bench", "locomo", "--data", data, "--policy", "all-low", *router, "--out", "out")
    run(*command)
    data.write_text(data.read_text().replace("sourdough", "rye bread"))
    assert "another data_digest" in run(*command, "--resume", ok=False).output
    data.write_text(data.read_text().replace("rye bread", "sourdough"))
    run("memory", "train", "--offline", "trained/log.npz", "--seed", 2, "--out", "trained")
    assert "another routers" in run(*command, "--resume", ok=False).output


def test_a_router_of_another_encoder_is_refused(trained: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "the tier router was trained on vectors of hashing-32 (32 dimensions)"
    router = ("--router", "trained/values.safetensors")
    Path("own.jsonl").write_text(json.dumps(row()) + "\n")
    out = run("memory", "estimate", "--offline", "own.jsonl", "--embedder", "hashing:16", *router, ok=False).output
    assert message in out
    monkeypatch.setenv("AGENTCASCADE_RETRIEVAL__EMBEDDER", "hashing:64")
    assert message in run("bench", "locomo", "--data", data, *router, ok=False).output
    out = run("memory", "train", "--offline", "trained/log.npz", "--router", "policy", "--out", "p", ok=False).output
    assert "the log was embedded with hashing-32, the configuration names hashing-64" in out
    monkeypatch.setenv("AGENTCASCADE_MEMORY__ROUTER__NAME", "values")
    monkeypatch.setenv("AGENTCASCADE_MEMORY__ROUTER__OPTIONS", json.dumps({"path": "trained/values.safetensors"}))
    Path("said.txt").write_text("Rex is a dog.\n")
    assert message in run("memory", "add", "ann", "said.txt", ok=False).output


def row(**changes: Any) -> dict[str, Any]:
    """One line of a log from elsewhere."""
    tiers = dict.fromkeys(("filter", "entity", "temporal", "topic", "summary"), "low")
    return {"question": "Who?", "group": "g", "tiers": tiers, "score": 0.5, "cost": 1.0} | changes


def test_a_log_of_ones_own_is_checked_and_trained_from(data: Path) -> None:
    path = Path("own.jsonl")
    rows = [row(question=f"What of {i}?", group=f"g{i % 4}", score=i / 12) for i in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)))
    run("memory", "train", "--offline", path, "--out", "out")
    assert Path("out/values.safetensors").exists()
    out = run("memory", "estimate", "--offline", path, "--tiers", "low", ok=False).output
    assert "the log lacks propensities" in out
    path.write_text("\n".join(json.dumps(r | {"propensity": 1 / 243}) for r in rows))
    nowhere = run("memory", "estimate", "--offline", path, "--tiers", "high")
    assert "snips  unknown" in nowhere.stdout, "never logged: there is nothing to weigh"
    found = run("memory", "estimate", "--offline", path, "--tiers", "high", "--json").stdout
    assert json.loads(found)["snips"]["mean"] is None
    assert "NaN" not in found

    path.write_text("\n".join(json.dumps(r) for r in [*rows, row(score=float("nan"))]))
    out = run("memory", "train", "--offline", path, "--out", "out", ok=False).output
    assert "own.jsonl line 13: score is nan" in out


def test_logs_that_cannot_be_learned_from_are_refused(trained: Path, data: Path) -> None:
    arrays = dict(np.load("trained/log.npz"))
    arrays["score"] = np.where(np.arange(len(arrays["score"])) == 7, np.nan, arrays["score"])
    np.savez("nan.npz", **arrays)
    Path("empty.jsonl").touch()
    Path("empty.npz").touch()
    for name, message in {
        "nan.npz": "row 7: score nan is no number",
        "empty.jsonl": "the log is empty",
        "empty.npz": "empty.npz is no log of tier choices",
        "gone.npz": "there is no log gone.npz",
        "gone.jsonl": "gone.jsonl",
        "tiny.json": "tiny.json is no log of tier choices",
    }.items():
        assert message in run("memory", "train", "--offline", name, "--out", "new", ok=False).output
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "bad.json is not JSON"),
        ('{"a"', "bad.json is not JSON"),
        ('{"a": 1}', "bad.json must hold a list"),
        ("[]", "no question"),
        ('[{"qa": []}]', "bad.json entry 0 lacks 'conversation'"),
    ],
)
def test_files_that_are_no_benchmark_are_named(data: Path, content: str, message: str) -> None:
    Path("bad.json").write_text(content)
    assert message in run("memory", "train", "--data", "bad.json", "--out", "out", ok=False).output
    message = message if content != "[]" else "the file has no conversations"
    assert message in run("bench", "locomo", "--data", "bad.json", "--out", "out", ok=False).output
    assert not Path("out/rows.jsonl").exists()


def test_odd_conversations_are_refused_or_mended(data: Path) -> None:
    talks = json.loads(data.read_text())
    Path("two.json").write_text(json.dumps(talks[:2]))
    out = run("memory", "train", "--data", "two.json", "--out", "two", ok=False).output
    assert "the log has 2 conversation(s): training, validation and test need one each" in out
    Path("twice.json").write_text(json.dumps([*talks, talks[0] | {"qa": talks[1]["qa"]}]))
    for command in (("memory", "train"), ("bench", "locomo")):
        out = run(*command, "--data", "twice.json", "--out", "twice", ok=False).output
        assert "two conversations called 'garden'" in out
    talks[0]["conversation"]["session_1_date_time"] = "the day of days"
    talks[1]["conversation"]["session_1"][0]["text"] = "half a character: \ud800"
    talks[2]["qa"][0]["question"] = " "
    Path("odd.json").write_text(json.dumps(talks))
    run("memory", "train", "--data", "odd.json", "--out", "odd")
    assert np.load("odd/log.npz")["score"].shape == (15 * 243,)
    out = run("bench", "locomo", "--data", "odd.json", "--policy", "all-low", "--out", "run").output
    assert "2 oddities in the file were mended, see run.json" in out
    problems = json.loads(Path("run/run.json").read_text())["problems"]
    assert "garden: session_1: the time 'the day of days' does not parse: left open" in problems


SAID = """\
{"text": "I adopted a dog from the shelter. His name is Rex.", "speaker": "Ann", "at": "8 May 2023"}
{"text": "The weather was dull.", "speaker": "Bob", "at": "the day of days"}

I sold a painting of the sea for 200 dollars.
"""


def test_a_history_is_kept_grown_and_asked(data: Path) -> None:
    Path("said.jsonl").write_text(SAID)
    place = ("--url", "sqlite:///kept.db")
    added = run("memory", "add", *place, "ann", "said.jsonl")
    assert added.stdout == "3 new turns in ann, 3 in all\n"
    assert "said.jsonl line 2: the time 'the day of days' does not parse: left open" in added.stderr
    assert run("memory", "add", *place, "ann", "said.jsonl").stdout == "0 new turns in ann, 3 in all\n"
    Path("said.jsonl").write_text(SAID + "I moved to Lisbon.\n")
    assert run("memory", "add", *place, "ann", "said.jsonl").stdout == "1 new turns in ann, 4 in all\n"
    assert run("memory", "list", *place).stdout == "       4  ann\n"

    found = run("memory", "ask", *place, "ann", "What is the name of the dog?")
    assert "[08 May 2023] Ann: I adopted a dog from the shelter. His name is Rex." in found.stdout
    assert "tokens" in found.stderr
    assert "$0.000000; filter mid, entity mid" in found.stderr
    recall = json.loads(run("memory", "ask", *place, "ann", "Which painting was sold?", "--json").stdout)
    assert recall["sources"][0] == "said.jsonl:4"
    assert recall["tokens"] > 0
    nothing = run("memory", "ask", *place, "ann", "What is the name of the dog?", "--budget", 0)
    assert "(nothing)" in nothing.stdout
    assert "left out: token budget of 0" in nothing.stderr

    run("memory", "remove", *place, "ann", "--yes")
    assert "There is no history." in run("memory", "list", *place).output
    assert "there is no history 'ann'" in run("memory", "remove", *place, "ann", "--yes", ok=False).output


def test_what_is_piped_in_twice_is_said_twice(data: Path) -> None:
    for size in (1, 2):
        arguments = ["memory", "add", "ann", "-", "--url", "sqlite:///kept.db"]
        result = CliRunner().invoke(main, arguments, input=f"It is day {size}.\n")
        assert result.output == f"1 new turns in ann, {size} in all\n"


def test_histories_of_other_namespaces_are_not_seen(data: Path) -> None:
    Path("said.txt").write_text("Rex is a dog.\n")
    place = ("--url", "sqlite:///kept.db")
    run("memory", "add", *place, "--namespace", "a", "ann", "said.txt")
    assert "There is no history." in run("memory", "list", *place).output
    assert "ann" in run("memory", "list", *place, "--namespace", "a").output
    out = run("memory", "ask", *place, "ann", "Who is Rex?", ok=False).output
    assert "there is no history 'ann': add one with `agentcascade memory add`" in out
    assert "did you mean 'ann'?" in run("memory", "ask", *place, "--namespace", "a", "anm", "Who?", ok=False).output


def test_questions_to_no_database_make_none(data: Path) -> None:
    for command in (("list",), ("ask", "ann", "Who is Rex?"), ("train", "--live", "--out", "out")):
        out = run("memory", *command, "--url", "sqlite:///gone.db", ok=False).output
        assert "there is no database gone.db" in out
    assert not Path("gone.db").exists()


def test_recalls_that_nobody_scored_teach_nothing_and_those_scored_do(data: Path) -> None:
    from agentcascade.storage import open_database
    from agentcascade.storage.histories import read_recalls

    place = ("--url", "sqlite:///kept.db")
    for i in range(4):
        Path("said.txt").write_text(f"Rex {i} is a dog.\nIt rained.\n")
        run("memory", "add", *place, f"talk-{i}", "said.txt")
        run("memory", "ask", *place, f"talk-{i}", f"Who is Rex {i}?")
    out = run("memory", "train", "--live", *place, "--out", "out", ok=False).output
    assert "none of the 4 recalls in the database was scored" in out
    database = open_database("sqlite:///kept.db")
    ids = [recall.id for recall, _ in read_recalls(database)]
    database.close()
    for recall in ids:
        assert recall in run("memory", "score", *place, recall, 1).output
    assert "there is no recall 're_x'" in run("memory", "score", *place, "re_x", 1, ok=False).output
    run("memory", "train", "--live", *place, "--out", "out")
    assert json.loads(Path("out/values.json").read_text())["encoder"] == "hashing-32"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"txt": "x"}', "bad.jsonl line 1 is no turn: the field 'txt' is unknown: did you mean 'text'?"),
        (b'fine\n{"speaker": "x"}', "bad.jsonl line 2 is no turn: it needs a 'text'"),
        (b'{"text"', "bad.jsonl line 1 is not JSON"),
        (b"fine\n\xff\xfe", "bad.jsonl is no text in UTF-8"),
    ],
)
def test_files_that_hold_no_turns_are_named_and_nothing_is_kept(data: Path, content: bytes, message: str) -> None:
    Path("bad.jsonl").write_bytes(content)
    assert message in run("memory", "add", "--url", "sqlite:///kept.db", "ann", "bad.jsonl", ok=False).output
    assert not Path("kept.db").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--out", "out"), "give one of --data FILE, --offline LOG and --live"),
        (("train", "--data", "tiny.json", "--live", "--out", "out"), "give one of --data FILE"),
        (("train", "--data", "gone.json", "--out", "out"), "there is no file gone.json"),
        (("train", "--data", "tiny.json", "--suite", "loco", "--out", "out"), "'loco' is not one of 'locomo'"),
        (("train", "--data", "tiny.json", "--reward", "f1", "--out", "out"), "use --collect random"),
        (("train", "--data", "tiny.json", "--collect", "on-policy", "--out", "out"), "add --router policy"),
        (
            ("train", "--data", "tiny.json", "--collect", "random", "--reward", "f1", "--out", "out"),
            "reward f1 needs answers: give --answer-model, e.g. offline/reader",
        ),
        (("estimate", "--offline", "gone.npz", "--tiers", "low"), "gone.npz"),
        (("add", "", "tiny.json", "--url", "sqlite:///kept.db"), "a history needs a name"),
        (("add", "ann", "gone.txt"), "gone.txt"),
    ],
)
def test_what_cannot_be_done_is_said_before_it_is_begun(data: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in run("memory", *arguments, ok=False).output
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ("lo", "did you mean 'low'?"),
        ("filtr=low", "did you mean 'filter'?"),
        ("filter=lo", "did you mean 'low'?"),
        ("filter,entity=low", "the tier '' is unknown"),
        ("low-low", "low-low"),
    ],
)
def test_tiers_that_there_are_not_are_named(trained: Path, tiers: str, message: str) -> None:
    out = run("memory", "estimate", "--offline", "trained/log.npz", "--tiers", tiers, ok=False).output
    assert message in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--router", "gone.safetensors"), "there is no file gone.safetensors: train one"),
        (("--router", "tiny.json"), "tiny.json is not the card of a tier router"),
        (("--conversations", "garden,musik"), "there is no conversation 'musik' in the file: did you mean 'music'?"),
        (("--reward", "f1"), "--reward f1 needs answers: give --answer-model, e.g. offline/reader"),
        (("--resume",), "--resume needs --out"),
        (("--policy", "al-low"), "'al-low' is not one of"),
        (("--config", "gone.yaml"), "there is no file gone.yaml"),
    ],
)
def test_a_benchmark_that_cannot_be_run_is_refused(data: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in run("bench", "locomo", "--data", data, *arguments, ok=False).output
    assert not Path("runs").exists()


BREAKS = """\
from agentcascade import Price, ScriptedModel

class Model(ScriptedModel):
    def __init__(self, *_, **__):
        script = ["11 dollars"] * 5 + [RuntimeError("the line is dead")]
        super().__init__(script, name="breaks", price=Price(input=3, output=15))
"""


def test_an_answer_model_that_fails_loses_nothing_that_was_played(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaking.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)
    command = ("bench", "locomo", "--data", data, "--policy", "all-low", "--answer-model", "breaking:Model")
    out = run(*command, "--concurrency", 1, "--out", "out", ok=False).output
    assert "the answer model breaks failed (RuntimeError: the line is dead)" in out
    assert "Continue with: --resume --out out" in out
    assert len(Path("out/rows.jsonl").read_text().splitlines()) == 5
    (tmp_path / "breaking.py").write_text(BREAKS.replace(' * 5 + [RuntimeError("the line is dead")]', "  # mended"))
    monkeypatch.delitem(sys.modules, "breaking")
    run(*command, "--resume", "--out", "out")
    rows = [json.loads(line) for line in Path("out/rows.jsonl").read_text().splitlines()]
    assert len({row["question"] for row in rows}) == len(rows) == 16
    assert all(float(row["answer_dollars"]) > 0 for row in rows)


def test_answers_are_scored_and_the_stand_in_is_called_one(data: Path) -> None:
    options = ("--policy", "all-low", "--policy", "full-context", "--policy", "top-k", "--all-questions")
    command = ("bench", "locomo", "--data", data, *options, "--answer-model", "offline/reader", "--out", "out")
    out = run(*command, ok=False).output
    assert "every policy scores 0 on all 20 questions" in out, "the stand-in cannot answer these"
    assert "offline/reader is no language model" in out
    rows = [json.loads(line) for line in Path("out/rows.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 20, "the adversarial ones too"
    assert all({"f1", "em"} <= row["metrics"].keys() and row["answer"] for row in rows)
    tokens = {(r["policy"], r["question"]): r["tokens"] for r in rows}
    assert all(size <= tokens["full-context", question] for (_, question), size in tokens.items())
    collect = ("--collect", "random", "--rollouts", 1, "--reward", "f1", "--answer-model", "offline/reader")
    run("memory", "train", "--data", data, *collect, "--out", "trained")
    assert set(np.load("trained/log.npz").files) >= {"metric:f1", "metric:em", "metric:evidence"}


HOTPOT = {
    "_id": "h1",
    "question": "Through which city does the river of Ann flow?",
    "answer": "Lisbon",
    "type": "bridge",
    "level": "easy",
    "supporting_facts": [["Ann", 0], ["Tagus", 1]],
    "context": [["Ann", ["Ann lives at the Tagus."]], ["Tagus", ["A river.", " It flows through Lisbon."]]],
}
LONGMEMEVAL = {
    "question_id": "q1",
    "question_type": "single-session-user",
    "question": "What is the name of my dog?",
    "answer": "Rex",
    "question_date": "2023/05/30 (Tue) 23:40",
    "haystack_session_ids": ["a", "answer_b"],
    "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 02:21"],
    "answer_session_ids": ["answer_b"],
    "haystack_sessions": [
        [{"role": "user", "content": "It rained."}, {"role": "assistant", "content": "I see."}],
        [{"role": "user", "content": "My dog is called Rex.", "has_answer": True}],
    ],
}


@pytest.mark.parametrize(("name", "entry"), [("hotpotqa", HOTPOT), ("longmemeval", LONGMEMEVAL)])
def test_the_other_suites_are_played_and_refuse_each_others_files(data: Path, name: str, entry: dict[str, Any]) -> None:
    Path("own.json").write_text(json.dumps([entry]))
    out = run("bench", name, "--data", "own.json", "--policy", "all-low", "--policy", "top-k", "--out", "out").output
    assert "1 questions of 1 conversations" in out
    rows = [json.loads(line) for line in Path("out/rows.jsonl").read_text().splitlines()]
    assert [row["metrics"]["recall"] for row in rows] == [1.0, 1.0]
    assert "tiny.json entry 0 lacks '" in run("bench", name, "--data", data, "--out", "no", ok=False).output
    assert "own.json entry 0 lacks '" in run("bench", "locomo", "--data", "own.json", "--out", "no", ok=False).output


def hotpots(count: int) -> list[dict[str, Any]]:
    cities = ["Lisbon", "Vienna", "Cairo", "Paris", "Rome", "London", "Prague"]
    text = json.dumps(HOTPOT)
    return [json.loads(text.replace("Lisbon", city).replace("h1", f"h{i}")) for i, city in enumerate(cities[:count])]


def test_more_histories_than_a_memory_holds_score_as_well(data: Path) -> None:
    """Without a database, only the latest `max_histories` were there to be asked, and the rest scored 0."""
    Path("own.json").write_text(json.dumps(hotpots(7)))
    tables = []
    for held in (2, 64):
        Path("own.yaml").write_text(f"memory: {{max_histories: {held}, embedder: 'hashing:64'}}\n")
        command = ("bench", "hotpotqa", "--data", "own.json", "--config", "own.yaml", "--out", f"out{held}")
        run(*command)
        rows = [json.loads(line) for line in Path(f"out{held}/rows.jsonl").read_text().splitlines()]
        tables.append({(r["policy"], r["question"]): (r["score"], r["metrics"], r["tokens"]) for r in rows})
    assert tables[0] == tables[1]
    assert len(tables[0]) == 6 * 7
    assert all(score > 0 for (policy, _), (score, *_) in tables[0].items() if policy in ("top-k", "full-context"))


def test_a_table_of_zeros_is_an_error(data: Path) -> None:
    Path("own.json").write_text(json.dumps(hotpots(2)))
    Path("own.yaml").write_text("memory: {token_budget: 0, embedder: 'hashing:64'}\n")
    policies = ("--policy", "all-low", "--policy", "top-k")
    command = ("bench", "hotpotqa", "--data", "own.json", "--config", "own.yaml", *policies, "--out", "out")
    said = run(*command, ok=False).output
    assert "every policy scores 0 on all 2 questions, which is a fault and no result" in " ".join(said.split())


def test_an_answer_model_is_tried_before_anything_is_played(data: Path, fake_openai: Any) -> None:
    denied = fake_openai([Reply(status=401, body={"error": {"message": "no such key"}})])
    options = ("--answer-model", "openai/mine", "--api-base", denied.url, "--timeout", 20)
    said = run("bench", "locomo", "--data", data, "--policy", "all-low", *options, "--out", "out", ok=False).output
    assert "the answer model openai/mine does not answer (AuthenticationError" in " ".join(said.split())
    assert not Path("out").exists()
    collect = ("--collect", "random", "--reward", "f1")
    said = run("memory", "train", "--data", data, *collect, *options, "--out", "trained", ok=False).output
    assert "the answer model openai/mine does not answer (AuthenticationError" in " ".join(said.split())
    assert len(denied.requests) == 2

    good = fake_openai([Reply(texts=("11 dollars",))])
    priced = ("--answer-model", "openai/mine", "--api-base", good.url, "--answer-price", "1/2")
    run("bench", "locomo", "--data", data, "--policy", "all-low", *priced, "--out", "out")
    assert len(good.requests) > 10


def test_tiers_that_fall_again_and_again_are_no_measurement(data: Path, fake_openai: Any) -> None:
    """A model that answers once and then never: the lower tiers would have been measured under its name."""
    replies = iter([Reply(texts=("yes",))])
    fake = fake_openai(lambda request: next(replies, Reply(status=400, body={"error": {"message": "out of credit"}})))
    model = f"{{name: openai/tier, api_base: '{fake.url}', retries: 0, price: {{input: 1, output: 2}}}}"
    Path("own.yaml").write_text(f"memory: {{axis: reasoning, embedder: 'hashing:64', models: {{large: {model}}}}}\n")
    command = ("bench", "locomo", "--data", data, "--config", "own.yaml", "--policy", "all-high", "--out", "out")
    one_by_one = (*command, "--concurrency", "1")
    said = " ".join(run(*one_by_one, ok=False).output.split())
    assert "5 memories in a row were made by lower tiers than asked for: " in said
    assert "out of credit" in said
