"""Nothing that others wrote commands the terminal: every command over a database of hostile texts, and one door."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

import agentcascade
from agentcascade._util.control_characters import one_line, visible
from agentcascade.assembly.memory import build_memory
from agentcascade.cli import main
from agentcascade.storage import open_database, trajectories
from agentcascade.storage.keys import Keys
from agentcascade.storage.record_rows import write_records
from agentcascade.storage.switch import Switch
from agentcascade.storage.tables import keys
from agentcascade.types import Call, Decision, EpisodeEnd, LoggedSample, Shadow, Step, Trajectory, Turn, Usage, now

HOSTILE = (
    "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\x7f\u202eevil\u2066\r\b\x00[bold]b[/bold][link=x]:smile:[/]\u2028\U000e0041"
)
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff\U000e0020-\U000e007f]"
)
CLI = Path(agentcascade.__file__).parent / "cli"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose database holds hostile texts wherever texts may stand."""
    folder = tmp_path_factory.mktemp("hostile")
    url = f"sqlite:///{folder}/a.db"
    path = folder / "agentcascade.yaml"
    where = {"api_base": "http://127.0.0.1:9/v1", "api_key": "k"}
    model = {"name": f"openai/{HOSTILE}", "price": {"input": 1, "output": 1}, **where}
    path.write_text(json.dumps({
        "bank": {"url": url}, "retrieval": {"embedder": "hashing", "index": "exact"}, "mode": "cascade",
        "teacher": model, "student": model, "memory": {"history": HOSTILE},
    }))  # fmt: skip
    call = Call(role="student", purpose="sample", model=HOSTILE, usage=Usage(input=9), dollars=Decimal(1))
    step = Step(observation=HOSTILE, reasoning=HOSTILE, action=HOSTILE)
    sample = LoggedSample(action=HOSTILE, text=HOSTILE, invalid=HOSTILE)
    entries: list[Any] = []
    for i in range(3):
        own: dict[str, Any] = {"episode": f"e{i}{HOSTILE}", "namespace": f"n{HOSTILE}", "goal": HOSTILE}
        decision = Decision(
            id=f"de_{i}", step=i, mode="cascade", cascade="default", answered_by="student", reason=HOSTILE,
            agreement=1.0, votes={HOSTILE: 3}, samples=3, calls=(call,), action=HOSTILE, failures=(HOSTILE,),
            dollars=Decimal(1), teacher_dollars=None, overhead_ms=1.0, seconds=1.0,
            created_at=now() - timedelta(minutes=1), **own,
        )  # fmt: skip
        shadow = Shadow(
            decision=f"de_{i}", step=i, teacher_action=HOSTILE, samples=(sample,) * 3, accepted=True,
            observation=HOSTILE, category=HOSTILE, kind="audit" if i == 2 else "shadow", calls=(call,), **own,
        )  # fmt: skip
        entries += [decision, shadow]
    entries.append(EpisodeEnd(mode="cascade", success=True, steps=3, started_at=now(), plan=HOSTILE, **own))
    lesson = Trajectory(
        id="tr_hostile", namespace=f"n{HOSTILE}", goal=HOSTILE, plan=HOSTILE, steps=(step,), success=True,
        model=HOSTILE, metadata={HOSTILE: HOSTILE},
    )  # fmt: skip
    database = open_database(url)
    with database.begin(write=True) as connection:
        write_records(connection, entries)
        trajectories.insert_trajectories(connection, [lesson], {}, "hashing")
    Keys(database).create("k")
    with database.begin(write=True) as connection:  # `create` refuses such names; another program's may be there
        connection.execute(update(keys).values(name=HOSTILE, namespace=HOSTILE, cascades=[HOSTILE]))
    switch = Switch(database)
    switch.set(True, HOSTILE)
    switch.close()
    database.close()
    with build_memory(str(path)) as memory:
        asyncio.run(memory.append(f"h{HOSTILE}", [Turn(speaker=HOSTILE, text=f"my dog is called {HOSTILE}")]))
    return path


COMMANDS: list[tuple[str, ...]] = [
    ("bank", "list"),
    ("bank", "show", "tr_hostile"),
    ("bank", "show", "tr_hostile", "--json"),
    ("bank", "show", HOSTILE),
    ("bank", "export", "OUT/bank.jsonl"),
    ("bank", "shorten", "--dry-run"),
    ("bank", "remove", HOSTILE),
    *(("ledger", "--by", by) for by in ("all", "namespace", "mode", "episode")),
    ("ledger", "--json"),
    ("log", "export", "--out", "OUT/log.jsonl"),
    ("log", "show", "OUT/log.jsonl"),
    ("replay", "--log", "OUT/log.jsonl", "--n", "3"),
    ("replay", "--log", "OUT/log.jsonl", "--json"),
    ("tune", "--log", "OUT/log.jsonl", "--max-risk", "0.5", "--risk", "teacher-disagreement", "--out", "OUT/tuned"),
    ("report", "--out", "OUT/live.html"),
    ("keys", "list"),
    ("keys", "list", "--json"),
    ("keys", "revoke", HOSTILE),
    ("memory", "list"),
    ("memory", "ask", f"h{HOSTILE}", "what is the dog called?"),
    ("memory", "ask", f"h{HOSTILE}", "what is the dog called?", "--json"),
    ("memory", "ask", HOSTILE, "x"),
    ("audit",),
    ("audit", "--cascade", HOSTILE),
    ("switch", "show"),
    ("db", "info"),
    ("db", "info", "--json"),
    ("db", "prune", "--dry-run"),
    ("doctor",),
    ("students", "stop", HOSTILE),
    (HOSTILE,),
]
WITHOUT_CONFIG = ("replay", "tune", "students", HOSTILE)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: one_line(" ".join(c))[:40])
def test_no_command_passes_on_what_commands_a_terminal(config: Path, command: tuple[str, ...]) -> None:
    asked = [part.replace("OUT", str(config.parent)) if part.startswith("OUT/") else part for part in command]
    if command[0] not in WITHOUT_CONFIG and command[:2] != ("log", "show"):
        asked += ["--config", str(config)]
    done = CliRunner().invoke(main, asked)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    said = done.stdout + done.stderr
    assert said.strip()
    found = FORBIDDEN.search(said)
    assert found is None, repr(said[max(0, found.start() - 60) : found.end() + 20])
    if command[0] in ("bank", "ledger", "keys") and done.exit_code == 0 and command[1] in ("list", "show", "--by"):
        assert "[bold]" in said or "evil" not in said  # rich's markup is shown, not obeyed
    if "--json" in command and done.exit_code == 0:
        assert json.loads(done.stdout)


@given(st.text())
def test_what_is_made_visible_can_be_shown_and_read_back(text: str) -> None:
    assert FORBIDDEN.search(visible(text)) is None
    assert "\n" not in one_line(text)
    if "\\" not in text and '"' not in text:
        assert json.loads(f'"{one_line(text)}"') == text


def test_a_traceback_is_cleaned_too() -> None:
    code = f"""
import click, agentcascade.cli as c
def broken(): raise RuntimeError({HOSTILE!r} + ' k=sk-verysecret-0123456789')
c.LazyGroup.get_command = lambda self, ctx, name: click.Command(name, callback=broken)
c.main(['db'])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "RuntimeError" in done.stderr
    assert FORBIDDEN.search(done.stderr) is None
    assert "verysecret" not in done.stderr.rpartition("RuntimeError")[2]


def test_every_print_of_a_command_goes_through_the_one_door() -> None:
    """`say`, `console` and `marked` of `cli.terminal`; nothing else may write to a terminal."""
    wrong = []
    for path in [*CLI.glob("*.py"), *(CLI.parent / "bench").glob("*.py"), *(CLI.parent / "reports").glob("*.py")]:
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("print", "click.echo", "click.secho", "click.style", "Console", "sys.stdout.write"):
                    wrong.append(f"{path.name}:{node.lineno} {called}")
    assert wrong == []


def test_a_variables_name_is_written_out_in_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from agentcascade.config.load import CascadeConfig

    monkeypatch.setenv("AGENTCASCADE_QQQ\x1b[31m", "1")
    monkeypatch.setattr("agentcascade.config.load.log.propagate", True)
    CascadeConfig.load(teacher={"name": "openai/gpt-4.1"}, student={"name": "openai/gpt-4.1-mini"})
    assert "AGENTCASCADE_QQQ\\u001b[31m is passed over" in caplog.text
