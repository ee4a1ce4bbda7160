"""`agentcascade bench SUITE`: the command is made from the suite, ours or that of another package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.cli.bench import command
from tests.plugins import install_here

OPTIONS = Path(__file__).parents[1] / "data" / "bench_options.jsonl"
"""Suite, name, flags, default and type of every option, as they were before suites were registered"""

SUITE = '''
    """Counting, by another author."""

    from dataclasses import dataclass, field

    import tiny_suite
    from agentcascade.bench.suites.protocol import Defaults, Task

    @dataclass
    class CountingSuite(tiny_suite.Suite):
        """Count to three, as often as one likes.

        A suite of a second's size.
        """

        word: str = field(default="apples", metadata={"help": "What is counted."})
        upside_down: bool = False

        name = "counting"
        actions = {"format": "react"}
        dropped = ()
        packages = ()
        group = ""
        defaults = Defaults("tiny_suite:Teacher", "tiny_suite:Student", ("test", "more"), 3, 2, 2, training="lessons")

        def check(self):
            pass

        def goal(self, messages):
            assert self.word in str(messages), "workers make the suite with its options"
            return super().goal(messages)

        def tasks(self, split, count, seed, *, workers, on_progress):
            on_progress(count, count)
            return [Task(f"{split} {i}", f"count {i}{self.word}") for i in range(count)], "generated"

        def notes(self, source, models):
            return [f"{self.word} were counted"]
'''

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, ["bench", *arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return " ".join(result.output.split())

    return run


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"suites": {"counting": "counting:CountingSuite"}}
    install_here(monkeypatch, tmp_path / "site", "counting", SUITE, points)


CHEAP = ("--policy", "teacher", "--policy", "cascade", "--embedder", "hashing:64", "--workers", "1")


def test_a_suite_of_another_package_is_listed_played_and_resumed(run: Run, counting: None) -> None:
    assert "counting Count to three, as often as one likes." in run("--help")
    about = run("counting", "--help")
    assert "--word TEXT What is counted. [default: apples]" in about
    assert "--upside-down / --no-upside-down" in about
    assert "[default: tiny_suite:Student]" in about
    assert "--split [test|more]" in about

    assert "pears were counted" in run("counting", "--word", "pears", "--out", "run", *CHEAP)
    manifest = json.loads(Path("run/run.json").read_text())
    assert manifest["suite_options"] == {"word": "pears", "upside_down": False}
    assert manifest["versions"]["acme-counting"] == "1.2"
    lines = Path("run/episodes.jsonl").read_text().splitlines()
    assert len(lines) == 2 + 2 * 3, "demonstrations, then two policies"
    assert all(json.loads(line)["error"] is None for line in lines)

    Path("run/episodes.jsonl").write_text("\n".join(lines[:-2]) + "\n")
    assert "pears were counted" in run("counting", "--resume", "--out", "run", *CHEAP), "the run knows its options"
    assert len(Path("run/episodes.jsonl").read_text().splitlines()) == len(lines)
    other = run("counting", "--resume", "--out", "run", "--word", "plums", *CHEAP, code=1)
    assert 'was run with suite_options = {"word": "pears", "upside_down": false}' in other


def test_a_suite_that_is_none_leaves_the_others_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        from dataclasses import dataclass
        from agentcascade.bench.suites.protocol import Defaults

        class Plain: pass

        @dataclass
        class Greedy:
            seed: int = 3
            defaults = Defaults("t", "s", ("test",), 1, 1, 1)
    """
    points = {"plain": "lazy:Plain", "greedy": "lazy:Greedy", "gone": "nowhere:Suite"}
    install_here(monkeypatch, tmp_path / "site", "lazy", source, {"suites": points})
    about = run("--help")
    assert "alfworld Household tasks in text" in about
    assert "suite 'gone' cannot be loaded: acme-lazy 1.2 registers nowhere:Suite" in about
    assert "needs `defaults`" in run("plain", code=1)
    assert "suite 'greedy' has an option --seed, which every suite has: rename its field" in run("greedy", code=1)
    assert "No such command 'alfwrld': did you mean 'alfworld'?" in run("alfwrld", code=2)


def described(suite: str, option: click.Parameter) -> list[Any]:
    info: dict[str, Any] = option.to_info_dict()
    kind = info["type"]
    words = kind["name"]
    words += f":{'|'.join(kind['choices'])}" if "choices" in kind else ""
    words += f":{kind['min']}..{kind['max']}" if "min" in kind else ""
    flags = "/".join([*info["opts"], *info["secondary_opts"]])
    marks = [name for name in ("required", "multiple", "is_flag") if info[name]]
    return json.loads(json.dumps([suite, option.name, flags, info["default"], words, *marks]))  # type: ignore[no-any-return]


def admits(recorded: list[Any], option: list[Any]) -> bool:
    """Whether an option is as it was recorded, or takes more choices."""
    suite, name, flags, default, words, *marks = recorded
    if [suite, name, flags, default, *marks] != [*option[:4], *option[5:]]:
        return False
    known, now = (set(each.removeprefix("choice:").split("|")) for each in (words, option[4]))
    return bool(words == option[4]) or (words.startswith("choice:") and known <= now)


def test_commands_have_the_options_that_they_always_had_and_need_no_others() -> None:
    recorded = [json.loads(line) for line in OPTIONS.read_text().splitlines()]
    context = click.Context(command)
    suites = sorted({suite for suite, *_ in recorded})
    now = [
        described(suite, option)
        for suite in suites
        if (made := command.get_command(context, suite)) is not None
        for option in made.params
    ]
    assert [option for option in recorded if not any(admits(option, other) for other in now)] == []
    new = [option for option in now if not any(admits(other, option) for other in recorded)]
    assert all(default is None and "required" not in marks for _, _, _, default, _, *marks in new), new
