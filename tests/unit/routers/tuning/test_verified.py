"""Rules with a verifier: a replay decides as a step does, `tune` certifies scores beside votes, dollars are counted."""

from __future__ import annotations

import itertools
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.actions import voting
from agentcascade.cli import main
from agentcascade.config.verifier import VerifierConfig
from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.protocols import Verdict
from agentcascade.routers.step.consistency import AgreementThreshold
from agentcascade.routers.tuning import Risk, Settings, tune
from agentcascade.routers.tuning.certification import certificate
from agentcascade.routers.tuning.columns import columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.fragments import dump, fragment, read
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.rules import Threshold
from agentcascade.routers.tuning.verified import Verified, verified
from agentcascade.step.verification import SoftVerifier
from agentcascade.steplog import jsonl
from agentcascade.steplog.types import LoggedStep
from agentcascade.types import Action, Sample, Situation, Usage

ANSWERS = ("pay(1)", "look(1)", "look(2)")
SCORES = st.sampled_from([None, 0.0, 0.3, 0.5, 0.9, 1.0])


def sample(key: str | None, score: float | None) -> Sample:
    if key is None:
        return Sample(message={"role": "assistant", "content": ""}, invalid="nothing")
    function = {"name": key.split("(")[0], "arguments": "{}"}
    message = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    return Sample(message=message, action=Action(key=key, text=key), score=score)


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from([*ANSWERS, None]), min_size=3, max_size=3),
    st.fixed_dictionaries(dict.fromkeys(ANSWERS, SCORES)),
    st.sets(st.sampled_from(["split", "stakes", "always"]), min_size=1),
    st.tuples(st.sampled_from([0.0, 0.4, 0.7]), st.sampled_from([0.7, 1.0])),
    st.sampled_from([0.3, 0.5, 0.9]),
    st.sampled_from([0.3, 0.5, 0.9]),
    st.integers(1, 3),
)
def test_a_replay_decides_and_asks_as_a_step_does(
    said: list[str | None],
    scores: dict[str, float | None],
    ask: set[str],
    band: tuple[float, float],
    accept: float,
    reject: float,
    needed: int,
) -> None:
    config = VerifierConfig(name="v", ask=tuple(sorted(ask)), agreement=band, accept=accept, reject=reject)
    verifier = SoftVerifier(ScriptedModel(["yes"]), config, ("pay",))
    samples = [sample(key, scores.get(key or "")) for key in said]
    router = verifier.patient(AgreementThreshold(3, needed=needed))
    for size in range(1, 4):  # as many as are drawn until there is a verdict
        votes = voting.tally(samples[:size])
        verdict = router.judge(Situation(goal=""), votes, 3 - size)
        if verdict is not None:
            break
    accepted = verdict is Verdict.ACCEPT
    chosen = voting.winner(samples[:size], votes)
    why = None if chosen is None else verifier.why(accepted, chosen, votes)
    taken = accepted if chosen is None or why is None else config.takes(accepted, chosen.score)
    answers = [None if key is None else {"action": key, "score": scores[key]} for key in said]
    log = columns([jsonl.parse_line({"id": 1, "student": answers, "teacher": "look(1)"})])
    outcome = Verified(Threshold(3, needed), config, frozenset({"pay"})).on(log)
    assert outcome.taken.tolist() == [taken]
    assert np.asarray(outcome.verified).tolist() == [float(why is not None)]


def logged(count: int, seed: int = 1, informed: bool = True, dollars: str | None = None) -> list[LoggedStep]:
    """Steps at which two of three samples are often wrong; scores know, or do not."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        right = 0.95 - 0.6 * draw.random()
        said = ["a" if draw.random() < right else draw.choice("bcd") for _ in range(3)]
        scores = {
            key: round(min(1, max(0, (0.75 if informed and key == "a" else 0.25) + draw.gauss(0, 0.1))), 4)
            for key in sorted({*said})
        }
        line = {"id": i, "gold": "a", "teacher": "a", "student": [{"action": k, "score": scores[k]} for k in said]}
        step = jsonl.parse_line(line)
        if dollars is not None:
            own = {"verifier": "v", "verifier_dollars": Decimal(dollars)}
            step = step.model_copy(update={"students": (step.student.model_copy(update=own),)})
        made.append(step)
    return made


def chosen(steps: list[LoggedStep], *rules: str) -> Any:
    return tune(steps, Settings(max_risk=0.05, risk=Risk("wrong"), rules=rules, sizes=(3,)))


def test_a_score_that_knows_certifies_more_steps_than_the_vote_and_one_that_does_not_no_more() -> None:
    steps = logged(600)
    vote, scored = chosen(steps, "consistency"), chosen(steps, "verified")
    assert vote.chosen.rule == Threshold(3, 3)
    assert scored.chosen.replayed.acceptance > vote.chosen.replayed.acceptance + 0.2
    assert scored.chosen.replayed.risk < 0.05
    blind = chosen(logged(600, informed=False), "verified")
    assert blind.chosen is None or blind.chosen.replayed.acceptance < 0.45


def test_chains_only_grow() -> None:
    log = columns(logged(200))
    for chain in verified(log, [2, 3]):
        accepted = [rule.on(log).taken for rule in chain]
        assert all((more | less == more).all() for less, more in itertools.pairwise(accepted))


def test_the_certificate_says_who_gave_the_scores_and_its_rule_is_read_back(tmp_path: Path) -> None:
    tuned = chosen(logged(600, dollars="0.00001"), "verified")
    proof = certificate(tuned)
    assert proof["rule"]["verifier"]["name"] == "v"
    assert any("by v at the same effort" in line for line in proof["assumptions"])
    path = tmp_path / "rule.yaml"
    path.write_text(dump(fragment(tuned.chosen.rule), "tuned"), encoding="utf-8")
    assert read(path) == tuned.chosen.rule
    path.write_text("router: {name: scored, options: {score: margin, threshold: 0.3, n: 3}}\nverifier: v", "utf-8")
    with pytest.raises(ConfigError, match="beside the votes of one student alone"):
        read(path)


def test_each_verification_is_paid_for_and_an_unknown_price_is_an_error() -> None:
    price = Price.model_validate({"input": 1, "output": 2})
    steps = []
    for step in logged(60, dollars="0.25"):
        samples = tuple(one.model_copy(update={"tokens": 5}) for one in step.student.samples)
        student = step.student.model_copy(update={"prompt": Usage(input=10), "price": price, "samples": samples})
        taught = {"teacher_usage": Usage(input=1000), "teacher_price": price, "students": (student,)}
        steps.append(step.model_copy(update=taught))
    log = columns(steps)
    base = Threshold(3, 3)
    rule = Verified(base, VerifierConfig(name="v", agreement=(0.6, 1), accept=1.0))  # asks, and accepts next to nothing
    asked = float(np.sum(rule.on(log).verified))
    assert asked > 10
    bill = Bill()
    more = float(np.sum(bill.steps(log, rule.on(log)) - bill.steps(log, base.on(log))))
    assert more == pytest.approx(0.25 * asked)
    unpriced = columns([s.model_copy(update={"students": (s.student.model_copy(update={"verifier_dollars": None}),)})
                        for s in steps])  # fmt: skip
    with pytest.raises(InvalidRequest, match=r"verifier\.price"):
        replay(unpriced, rule)


def test_a_log_without_scores_says_so() -> None:
    steps = [jsonl.parse_line({"id": i, "gold": "a", "teacher": "a", "student": ["a", "a", "b"]}) for i in range(9)]
    with pytest.raises(InvalidRequest, match="no score of a verifier"):
        chosen(steps, "verified")


def test_the_commands_know_the_rule(tmp_path: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "tuned"
    jsonl.write_jsonl(log, logged(400))
    runner = CliRunner()
    tuned = runner.invoke(
        main, ["tune", "--log", str(log), "--max-risk", "0.05", "--risk", "wrong", "--rules", "verified", "--n", "3",
               "--out", str(out), "--json"]
    )  # fmt: skip
    assert tuned.exit_code == 0, tuned.output
    assert json.loads((out / "certificate.json").read_text())["rule"]["verifier"]["ask"] == ["split"]
    replayed = runner.invoke(main, ["replay", "--log", str(log), "--rule", str(out / "rule.yaml"), "--json"])
    assert replayed.exit_code == 0, replayed.output
    assert "with score" in json.loads(replayed.stdout)[0]["rule"]
