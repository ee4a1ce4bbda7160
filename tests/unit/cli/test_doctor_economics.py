"""What `agentcascade doctor` says of a cascade's dollars, by assumptions and by what its database holds."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import agentcascade
from agentcascade import ScriptedModel
from agentcascade.cli import main
from agentcascade.models.pricing import Price
from agentcascade.types import Mode

TEACHER = {"name": "openai/teacher", "api_key": "sk-1", "price": {"input": 2, "output": 8}}


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What doctor says of a configuration, without a network."""
    monkeypatch.chdir(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("doctor without --call asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    def ask(**config: Any) -> str:
        whole = {"teacher": TEACHER, "retrieval": {"embedder": "hashing"}, **config}
        Path("agentcascade.yaml").write_text(yaml.safe_dump(whole))
        result = CliRunner().invoke(main, ["doctor"])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    return ask


def student(price: Any, name: str = "openai/student", **more: Any) -> dict[str, Any]:
    return {"name": name, "api_key": "sk-1", **({"price": {"input": price, "output": price}} if price else {}), **more}


def test_a_cascade_that_saves_says_from_which_acceptance_on(doctor: Callable[..., str]) -> None:
    out = doctor(student=student("0.2"))
    # 1,000 tokens, 6 × 400 and 81 around them, and three answers of 100 at $0.20; 1,000 and 100 at $2 and $8
    assert "✓ cascade default saves where more than 0.27 of its steps are accepted" in out
    assert "an accepted step costs $0.000756, 0.27 of the teacher's $0.0028" in out
    assert "helps: retrieval.k 3 instead of 6 (then from 0.18)" in out
    assert "assumed: prompts of 1,000, teacher's answers of 100, student's answers of 100, no thinking" in out


def test_one_that_cannot_save_says_so_and_what_helps_most_first(doctor: Callable[..., str]) -> None:
    out = doctor(student=student(2))
    assert "! cascade default cannot save, by what is assumed below, whatever its students get right" in out
    assert "an accepted step costs $0.00756, 2.70 of the teacher's" in out
    helps = out[out.index("helps most: ") :]
    assert helps.startswith("helps most: retrieval.k 3 instead of 6 (still 1.84 of the teacher's)")
    assert "students at 0.19 of their price (break even at half the steps accepted)" in helps
    assert re.search(r"together \((then from 0\.\d\d|still 1\.\d\d of the teacher's)\)", helps)


def test_an_unknown_price_stays_unknown(doctor: Callable[..., str]) -> None:
    out = doctor(student=student(None))
    assert "! what cascade default saves cannot be said: the price of openai/student is not known" in out
    assert "saves where" not in out


def test_a_committee_costs_the_sum_of_those_who_are_asked(doctor: Callable[..., str]) -> None:
    out = doctor(
        retrieval={"k": 0, "embedder": "hashing"},
        student=student(1),
        students=[student("0.5", "openai/small"), student(3, "openai/big")],
        sampling={"across": "students"},
        router={"name": "threshold", "options": {"needed": 2}},
    )
    # two cheap ones that agree, $0.00165, or all three, $0.00495
    assert (
        "cascade default saves only where votes are settled early: an accepted step costs $0.00165 to $0.00495" in out
    )
    assert "0.59 to 1.77 of the teacher's $0.0028" in out


def test_without_a_student_nothing_is_said(doctor: Callable[..., str]) -> None:
    out = doctor(mode="teacher")
    assert "can be built" in out
    assert "accepted step" not in out


MESSAGES = [{"role": "system", "content": "Act in the house. " * 30}, {"role": "user", "content": "Put a mug away."}]


def record(url: str, steps: int, accepted: int, mode: Mode, price: Price | None = None) -> None:
    """Steps of models that are called like those of the configuration; shadows where the mode is shadow."""
    answers = iter("one" if i < accepted or n else "another" for i in range(steps) for n in range(2))
    cascade = agentcascade.build(
        teacher=ScriptedModel(["one"], name="openai/teacher", price=Price(input=2, output=8)),
        student=ScriptedModel(lambda messages, sample: next(answers), name="openai/student", price=price),
        mode=mode,
        retrieval={"k": 0},
        router={"name": "unanimity", "options": {"n": 2}},
        bank={"url": url},
    )

    async def run() -> None:
        async with cascade:
            for _ in range(steps):
                await cascade.episode().complete(MESSAGES)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("mode", "accepted", "said"),
    [
        ("cascade", 24, "✓ cascade default saves where more than 0.37"),
        ("cascade", 6, "! cascade default saves where more than 0.37"),
        ("shadow", 24, "measured: 0.80 of the shadowed steps would have been accepted, which saves"),
    ],
)
def test_what_the_database_holds_takes_the_place_of_assumptions(
    doctor: Callable[..., str], tmp_path: Path, mode: Mode, accepted: int, said: str
) -> None:
    record(f"sqlite:///{tmp_path}/own.db", 30, accepted, mode)
    out = doctor(
        student=student("0.8"),
        bank={"url": f"sqlite:///{tmp_path}/own.db"},
        retrieval={"k": 0, "embedder": "hashing"},
        router={"name": "unanimity", "options": {"n": 2}},
    )
    assert said in out, out
    assert re.search(
        r"tokens, measured: prompts of 165, teacher's answers of \d, student's answers of \d, 30 steps", out
    )
    assert "assumed" not in out
    if mode == "cascade" and accepted == 6:
        assert "measured: 0.20 of its steps were accepted, which costs 17% more than the teacher alone" in out


def test_the_ledger_says_which_acceptance_its_bills_needed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/own.db"
    record(url, 30, 24, "cascade")
    said = CliRunner().invoke(main, ["ledger", "--url", url])
    assert said.exit_code == 0
    assert "accepted step" not in said.output, "the student has no price"
    record(f"{url}2", 30, 24, "cascade", Price(input="0.8", output="0.8"))
    out = " ".join(CliRunner().invoke(main, ["ledger", "--url", f"{url}2"]).output.split())
    assert "of the newest steps of mode cascade, an accepted step cost 0.37 and a deferred one 1.37 of a step" in out
    assert "it pays off from 37.1% accepted, and 80.0% were" in out
