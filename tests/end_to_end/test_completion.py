"""Completion by the Tab key in real shells: installed twice, used, taken away; quick, and safe with anybody's names."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agentcascade.storage import open_database
from agentcascade.storage.tables import trajectories
from agentcascade.types import now
from tests.terminal import Terminal, install_program

MARK = "# agentcascade completion"
HEAVY = ("litellm", "pydantic", "sqlalchemy", "numpy", "rich", "openai")
CONFIGURATION = {
    "teacher": "anthropic/claude-sonnet-4-5",
    "students": [{"name": "mistral/open-mistral-nemo"}, "openai/gpt-4.1-nano"],
    "student": {"name": "openai/gpt-4.1-mini", "options": {"model": "not-a-model"}},
    "cascades": {"mail": {"bank": {"namespace": "post"}}, "mail-collect": {"mode": "collect"}, "$(touch pwned)": {}},
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a user with a home of their own, in a folder with a configuration."""
    (tmp_path / "home").mkdir()
    (tmp_path / "agentcascade.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    return {**install_program(tmp_path / "bin"), "HOME": str(tmp_path / "home")}


def run(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["agentcascade", *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


def offered(environment: dict[str, str], folder: Path, *words: str) -> list[str]:
    """What bash is told to offer for the last of `words`."""
    asked = {"_AGENTCASCADE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["agentcascade", *words])}
    done = subprocess.run(
        ["agentcascade"],
        env={**environment, **asked, "COMP_CWORD": str(len(words))},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("start", ["", "alias ll='ls -l'", "export A=1\n# a comment \udcff\n"])
def test_installing_twice_writes_once_and_is_undone(start: str, environment: dict[str, str], tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir()
    rc, real = tmp_path / "home" / ".bashrc", dotfiles / "bashrc"
    real.write_bytes(start.encode("utf-8", "surrogateescape"))
    real.chmod(0o640)
    rc.symlink_to(real)
    said = run(environment, tmp_path, "completion", "install", "--shell", "bash")
    assert "installed completion for bash" in said
    first = real.read_bytes()
    assert "is installed already" in run(environment, tmp_path, "completion", "install", "--shell", "bash")
    assert real.read_bytes() == first
    assert first.count(MARK.encode()) == 1
    assert rc.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert "is taken away" in run(environment, tmp_path, "completion", "uninstall", "--shell", "bash")
    kept = start.encode("utf-8", "surrogateescape")
    assert real.read_bytes() == (kept if not kept or kept.endswith(b"\n") else kept + b"\n")
    assert "was not installed" in run(environment, tmp_path, "completion", "uninstall", "--shell", "bash")
    assert not list((tmp_path / "home").rglob("completion.*"))


def test_a_start_file_that_cannot_be_written(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "home" / ".bashrc").mkdir()
    done = subprocess.run(
        ["agentcascade", "completion", "install", "--shell", "bash"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "add this line yourself: [ -r " in done.stderr
    assert "Traceback" not in done.stderr


def test_bash(environment: dict[str, str], tmp_path: Path) -> None:
    bash = needs("bash")
    (tmp_path / "home" / ".bashrc").write_text("PS1='$ '\n")
    run({**environment, "SHELL": bash}, tmp_path, "completion", "install")
    with Terminal([bash, "--noprofile", "-i"], environment, tmp_path) as shell:
        shell.wait_for("$ ")
        shell.type("agentcascade comp\t")
        shell.wait_for("agentcascade completion ")
        shell.type("unin\t")
        shell.wait_for("uninstall ")
        shell.type("\x15agentcascade log export --cascade mail-\t")
        shell.wait_for("--cascade mail-collect ")
        shell.type("\x15agentcascade log export --cascade $\t\t\x15")
        shell.type("echo done $((40+2))\r")
        assert "touch" not in shell.wait_for("done 42")


def test_zsh(environment: dict[str, str], tmp_path: Path) -> None:
    zsh = needs("zsh")
    run({**environment, "SHELL": zsh}, tmp_path, "completion", "install")
    with Terminal([zsh, "-d", "-i"], {**environment, "PS1": "%% "}, tmp_path) as shell:
        shell.wait_for("% ")
        shell.type("agentcascade comp\t")
        shell.wait_for("agentcascade completion ")
        shell.type("\x15agentcascade log export --cascade mail-\t")
        shell.wait_for("mail-collect ")


def test_fish(environment: dict[str, str], tmp_path: Path) -> None:
    fish = needs("fish")
    run({**environment, "SHELL": fish}, tmp_path, "completion", "install")

    def complete(line: str) -> list[str]:
        asked = [fish, "-c", f"complete -C '{line}'"]
        done = subprocess.run(asked, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        return [offer.partition("\t")[0] for offer in done.stdout.splitlines()]

    assert complete("agentcascade comp") == ["completion"]
    assert complete("agentcascade log export --cascade mail") == ["mail", "mail-collect"]


def test_names_of_the_configuration_and_of_the_database(environment: dict[str, str], tmp_path: Path) -> None:
    assert offered(environment, tmp_path, "ledg") == ["ledger"]
    assert offered(environment, tmp_path, "log", "export", "--cascade", "") == ["mail", "mail-collect"]
    models = offered(environment, tmp_path, "launch", "--student", "")
    named = ["anthropic/claude-sonnet-4-5", "mistral/open-mistral-nemo", "openai/gpt-4.1-mini", "openai/gpt-4.1-nano"]
    assert sorted(models) == named
    opened = open_database(f"sqlite:///{tmp_path}/agentcascade.db")
    row = {"goal": "", "plan": "", "category": "", "model": "", "success": True, "length": 0, "metadata": {}}
    row |= {"created_at": now(), "goal_key": "", "plan_key": ""}
    with opened.begin(write=True) as connection:
        names = ("notes", "notes", "`reboot`", "a b", "\x1b[2J", "-rf")
        rows = [row | {"id": f"tr_{i}", "namespace": n, "digest": str(i)} for i, n in enumerate(names)]
        connection.execute(trajectories.insert(), rows)
    opened.close()
    assert offered(environment, tmp_path, "ledger", "--namespace", "") == ["post", "notes"]
    assert offered(environment, tmp_path, "bank", "show", "tr_1") == ["tr_1"]
    assert offered(environment, tmp_path, "explain", "") == ["last"]


@pytest.mark.parametrize("broken", ["teacher: [", "- a list", "cascades: 3\nbank: text", "\x00\xff"])
def test_what_is_broken_completes_nothing_and_says_nothing(
    broken: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "agentcascade.yaml").write_text(broken, encoding="latin-1")
    (tmp_path / "agentcascade.db").write_bytes(b"no database")
    assert offered(environment, tmp_path, "ledger", "--namespace", "") == []
    assert set(offered(environment, tmp_path, "log", "export", "--cascade", "")) <= {"default"}


def test_a_database_that_somebody_writes_is_not_waited_for(environment: dict[str, str], tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "agentcascade.db", isolation_level=None) as busy:
        busy.execute("CREATE TABLE decisions (id TEXT)")
        busy.execute("BEGIN EXCLUSIVE")
        assert offered(environment, tmp_path, "explain", "") == ["last"]
        busy.execute("ROLLBACK")


@pytest.mark.parametrize("words", [[""], ["explain", ""], ["completion", ""]])
def test_nothing_heavy_is_imported_at_the_tab_key(
    words: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    code = "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
    code += "from agentcascade.cli import main; main(prog_name='agentcascade')"
    asked = {"_AGENTCASCADE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["agentcascade", *words])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **asked, "COMP_CWORD": str(len(words))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout
    assert {*done.stderr.split()} & {*HEAVY} == set()
