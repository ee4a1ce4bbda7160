"""Demonstrations by dollars: of several that a log holds the cheapest that is certified, of others the cost alone."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.errors import InvalidRequest
from agentcascade.models.pricing import Price
from agentcascade.routers.tuning.columns import arms
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.fragments import fragment
from agentcascade.routers.tuning.other_k import at_other_k, single_k
from agentcascade.routers.tuning.risks import Risk
from agentcascade.routers.tuning.rules import Threshold
from agentcascade.routers.tuning.tuner import Settings, tune
from agentcascade.steplog.jsonl import read_jsonl, write_jsonl
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample, Usage
from tests.cascades import known

STUDENT, TEACHER = Price(input=Decimal("0.4"), output=Decimal("1.6")), Price(input=3, output=15)


def log(steps: int, *settings: tuple[int, str | None, float], seed: int = 0, cached: int = 0) -> list[LoggedStep]:
    """Steps, each sampled at one of `settings`: (k, window, share that agrees). 20 tokens a shown step."""
    rng, made = random.Random(seed), []
    for i in range(steps):
        k, window, agree = settings[i % len(settings)]
        before, after = map(int, (window or "2/2").split("/"))
        same = rng.random() < agree
        samples = tuple(LoggedSample(action="go" if same else f"look {j}", tokens=30) for j in range(3))
        shown = 20 * (before + 1 + after) * k
        drawn = StudentSamples(
            model="s", samples=samples, n=3, k=k, window=window, price=STUDENT,
            demonstrations=tuple(f"t{j}:0-3" for j in range(k)),
            prompt=Usage(input=800 + shown - cached, cached_input=cached),
        )  # fmt: skip
        made.append(
            LoggedStep(
                id=str(i),
                students=(drawn,),
                teacher="go",
                teacher_model="t",
                teacher_usage=Usage(input=800, output=40),
                teacher_price=TEACHER,
            )
        )
    return made


def test_of_several_settings_the_cheapest_that_is_certified_is_chosen():
    steps = log(3000, (6, "2/2", 0.8), (3, "2/2", 0.8), (3, "0/1", 0.8), (1, "0/0", 0.2))
    tuned = tune(steps, Settings(max_risk=0.05, sizes=(3,), risk=Risk("teacher-disagreement")))
    assert tuned.chosen is not None
    arm = tuned.chosen.replayed.arm
    assert (arm.k, arm.window) == (3, "0/1")  # k=1 is cheaper a sample, and defers four steps of five
    assert fragment(tuned.chosen.rule, arm)["retrieval"] == {"k": 3, "window_before": 0, "window_after": 1}
    assert str(arm) == "s k=3 window=0/1"


@pytest.mark.parametrize(("k", "cached"), [(3, 0), (1, 700), (12, 0), (0, 0)])
def test_what_is_reckoned_is_what_a_log_at_that_k_costs(k: int, cached: int) -> None:
    logged, real = log(200, (6, "2/2", 0.7), cached=cached), log(200, (k, "2/2", 0.7), cached=min(cached, 700))
    assert single_k(logged) == 6
    assert single_k(log(4, (6, None, 1), (3, None, 1))) is None
    rule, bill = Threshold(3, 3), Bill()
    other = at_other_k(logged, arms(logged)[0], rule, bill, k)
    if k:
        same = at_other_k(real, arms(real)[0], rule, bill, k)
        assert (other.cost, other.saving, other.acceptance) == pytest.approx(
            (same.cost, same.saving, same.acceptance), rel=1e-12
        )
        prompt, sample = STUDENT.dollars(known(real[0].student.prompt)), STUDENT.dollars(Usage(output=30))
        assert other.log_dollars == pytest.approx(200 * float(prompt + 3 * sample))


def test_a_log_that_does_not_know_what_its_demonstrations_cost_says_so():
    steps = [step.model_copy(update={"teacher_usage": None}) for step in log(50, (6, "2/2", 0.7))]
    with pytest.raises(InvalidRequest, match="the log does not tell what its demonstrations cost"):
        at_other_k(steps, arms(steps)[0], Threshold(3, 3), Bill(), 3)


def test_the_command_says_that_agreement_at_another_k_was_not_observed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_jsonl(path, log(600, (6, "2/2", 0.8)))
    assert [step.student.window for step in read_jsonl(path)][:1] == ["2/2"]
    arguments = ["tune", "--log", str(path), "--max-risk", "0.05", "--n", "3", "--out", str(tmp_path / "tuned")]

    def said(*more: str) -> str:
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert "k=3 was not observed: were agreement what it is at k=6" in said()
    out = said("--k", "2")
    assert "k=2 was not observed" in out
    assert "that certifies nothing. To know, log about 600 episodes with shadow.ks: [2, 6]" in out
    assert "k=2" not in json.dumps(json.loads((tmp_path / "tuned" / "certificate.json").read_text()))
    write_jsonl(path, log(600, (6, "2/2", 0.8), (3, "2/2", 0.8)))
    assert "not observed" not in said()
    assert "--k is for a log of one number of demonstrations: this one holds [3, 6]" in said("--k", "2")


@pytest.mark.parametrize("window", ["2", "a/b", "2/2/2", "99999/1"])
def test_a_window_that_is_none_is_refused(window: str) -> None:
    with pytest.raises(ValueError, match="window"):
        StudentSamples(window=window)
