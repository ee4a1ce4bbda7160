"""``agentcascade init`` at a real terminal: every preset is answered for, loaded, and asked at a local provider."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import agentcascade
from agentcascade.cli import main
from agentcascade.cli.presets import ABOUT, PRESETS, Answers, configuration, scalar
from agentcascade.config.load import CascadeConfig
from agentcascade.config.schema import FILE, MODELINE
from tests.fake_openai import FakeOpenAI, Reply
from tests.terminal import Terminal, install_program

KEY = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789"
SHORT = [name for name in ABOUT if name != "full"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    return {**install_program(tmp_path / "bin"), "HOME": str(tmp_path / "home")}


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI([Reply(["billing"])], models=["acme/small-7b"]) as started:
        yield started


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command where there is no terminal, and no key."""
    monkeypatch.chdir(tmp_path)
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    return lambda *arguments: CliRunner().invoke(main, ["init", *arguments])


def loaded(path: Path) -> CascadeConfig:
    """The configuration of a file, which is commented, has the modeline, and is what its schema says."""
    text = path.read_text()
    assert text.startswith(MODELINE)
    assert text.count("#") > 10
    schema = json.loads(path.with_name(FILE).read_text())
    assert not list(Draft202012Validator(schema).iter_errors(yaml.safe_load(text)))
    return CascadeConfig.load(path)


@pytest.mark.parametrize("preset", SHORT)
def test_a_preset_is_answered_by_enter_and_takes_a_step(
    preset: str, environment: dict[str, str], tmp_path: Path, provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Terminal(["agentcascade", "init"], environment, tmp_path) as shell:
        shell.wait_for("Models [openai]:")
        shell.type(f"{preset}\r")
        if preset == "vllm":
            shell.wait_for("base URL")
            shell.type(f"{provider.url}\r")
            shell.wait_for("it serves acme/small-7b")
        for question in ("Teacher [", "Student ["):
            shell.wait_for(question)
            shell.type("\r")
        if preset == "vllm":
            shell.wait_for("What it costs")
            shell.type("0.05\r")
        shell.wait_for("Mode (collect, shadow, cascade) [collect]:")
        shell.type("\r")
        shell.wait_for("may cost")
        shell.type("0.50\r")
        shell.wait_for("wrote agentcascade.yaml")
        said = shell.wait_for("Run `agentcascade doctor` now?")
        key = PRESETS[preset].teacher.partition("/")[0].upper() + "_API_KEY"
        assert f"✗ {key} is not set: export {key}=…" in said
        shell.type("n\r")
        assert shell.end() == 0
    config = loaded(tmp_path / "agentcascade.yaml")
    assert config.mode == "collect"
    assert config.budgets.per_episode == Decimal("0.5")
    for role in ("TEACHER", "STUDENT"):
        base = provider.root if role == "TEACHER" and key.startswith("ANTHROPIC") else provider.url
        base = provider.root if preset == "anthropic" else base
        monkeypatch.setenv(f"AGENTCASCADE_{role}__API_BASE", base)
        monkeypatch.setenv(f"AGENTCASCADE_{role}__API_KEY", "a-key")
    monkeypatch.setenv("AGENTCASCADE_BANK__URL", f"sqlite:///{tmp_path}/played.db")
    for mode in ("collect", "student"):
        with agentcascade.build(
            tmp_path / "agentcascade.yaml", mode=mode, retrieval={"k": 0}, teacher={"price": {"input": 1, "output": 1}},
            student={"price": {"input": 1, "output": 1}},
        ) as cascade:  # fmt: skip
            answer = cascade.sync_episode(goal="sort").complete([{"role": "user", "content": "I was charged twice."}])
        assert answer.choices[0].message.content == "billing"
    asked = [request.body["model"] for request in provider.requests if "model" in request.body]
    student = "acme/small-7b" if preset == "vllm" else PRESETS[preset].student.partition("/")[2]
    assert asked == [PRESETS[preset].teacher.partition("/")[2], student]


def test_a_bad_answer_is_asked_again_and_a_key_is_never_written(environment: dict[str, str], tmp_path: Path) -> None:
    set_key = {**environment, "OPENAI_API_KEY": KEY, "AGENTCASCADE_RETRIEVAL__K": "0"}
    with Terminal(["agentcascade", "init", "--preset", "openai"], set_key, tmp_path) as shell:
        shell.wait_for("Teacher [openai/gpt-4.1]:")
        shell.type("gpt-4.1-nano\r")
        shell.wait_for("a model's name is PROVIDER/MODEL: 'openai/gpt-4.1-nano', say")
        shell.type(f"{KEY}\r")
        shell.wait_for("that looks like a key, which stays in the environment")
        shell.type("openai/gpt-4.1\r")
        shell.wait_for("Student [")
        shell.type("\r")
        shell.wait_for("Mode (")
        shell.type("\r")
        shell.wait_for("may cost")
        shell.type("much\r")
        shell.wait_for("a number of dollars from 0")
        shell.type("\r")
        said = shell.wait_for("now?")
        assert "✓ OPENAI_API_KEY is set, for openai/gpt-4.1 and openai/gpt-4.1-mini" in said
        assert KEY not in said
        shell.type("\r")
        shell.wait_for("the configuration: can be built")
        assert shell.end() == 0
    assert KEY not in (tmp_path / "agentcascade.yaml").read_text()


def test_a_file_is_not_overwritten_without_a_yes(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "agentcascade.yaml"
    file.write_text("mode: teacher\n")
    with Terminal(["agentcascade", "init"], environment, tmp_path) as shell:
        shell.wait_for("exists already. Overwrite it? [y/N]:")
        shell.type("\r")
        shell.wait_for("choose another path, or add --force")
        assert shell.end() == 1
    with Terminal(["agentcascade", "init"], environment, tmp_path) as shell:
        shell.wait_for("[y/N]:")
        shell.type("y\r")
        shell.wait_for("Models [")
        shell.type("\x04")  # the end of input, in the middle of the interview
        shell.wait_for("Aborted")
        assert shell.end() == 1
    assert file.read_text() == "mode: teacher\n"
    with Terminal(["agentcascade", "init", "--yes"], environment, tmp_path) as shell:
        shell.wait_for("exists already")
        assert shell.end() == 1
    assert file.read_text() == "mode: teacher\n"


def test_without_a_terminal_nothing_is_asked(init: Callable[..., Result], tmp_path: Path) -> None:
    assert init().exit_code == 0
    full = (tmp_path / "agentcascade.yaml").read_text()
    assert init("full.yaml", "--preset", "full").exit_code == 0
    assert (tmp_path / "full.yaml").read_text() == full
    done = init("own.yaml", "--preset", "mixed", "--student", "groq/llama-3.1-8b-instant", "--mode", "shadow")
    assert done.exit_code == 0, done.output
    assert "✗ GROQ_API_KEY is not set" in done.output
    assert "agentcascade doctor --config own.yaml" in done.output
    config = loaded(tmp_path / "own.yaml")
    assert config.student is not None
    assert (config.student.name, config.mode) == ("groq/llama-3.1-8b-instant", "shadow")
    assert init("yes.yaml", "--yes").exit_code == 0
    teacher = loaded(tmp_path / "yes.yaml").teacher
    assert teacher is not None
    assert teacher.name == "openai/gpt-4.1"
    for wrong, said in (
        (["--student", "gpt-4.1"], "'openai/gpt-4.1', say"),
        (["--preset", "vllm", "--api-base", "localhost:8000"], "begins with http://"),
        (["--preset", "vllm", "--api-base", "http://user:hidden-word@host/v1"], "holds a password or a key"),
        (["--preset", "full", "--mode", "shadow"], "full is a template"),
    ):
        refused = init("wrong.yaml", *wrong)
        assert (refused.exit_code, said in refused.output.replace("\n", " ")) == (2, True), refused.output
        assert "hidden-word" not in refused.output
    assert not (tmp_path / "wrong.yaml").exists()


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40), st.sampled_from(SHORT))
@settings(max_examples=30)
def test_any_name_is_written_so_that_it_is_read_again(name: str, preset: str) -> None:
    assert yaml.safe_load(f"key: {scalar(name)}") == {"key": name}
    made = Answers(preset, f"openai/{name}", f"hosted_vllm/{name}", api_base=name)
    read = CascadeConfig(**yaml.safe_load(configuration(made)))
    assert read.teacher is not None
    assert read.student is not None
    assert (read.teacher.name, read.student.name, read.student.api_base) == (made.teacher, made.student, name)
