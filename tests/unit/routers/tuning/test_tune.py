"""What is certified is certified rightly, cheaply, and said plainly when it cannot be."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.routers.tuning.certification import certificate, statement
from agentcascade.routers.tuning.columns import Arm, columns
from agentcascade.routers.tuning.families import FAMILIES, consistency
from agentcascade.routers.tuning.fragments import dump, fragment, read
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.risks import Risk, losses
from agentcascade.routers.tuning.rules import Chain, TeacherAlone, Threshold
from agentcascade.routers.tuning.tuner import Settings, Tuned, tune
from agentcascade.steplog import jsonl
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample
from tests.cascades import known


def log(
    steps: int,
    seed: int = 0,
    *,
    n: int = 5,
    hard: float = 0.3,
    episode: int = 1,
    tool: bool = False,
    sure: bool = False,
) -> list[LoggedStep]:
    """A share of the steps is `hard`: samples are right half the time, else nearly always."""
    rng = random.Random(seed)
    made = []
    for i in range(steps):
        is_hard = rng.random() < hard
        right = 0.5 if is_hard else 0.99
        verb = ("guess" if is_hard else "go") if tool else "go"
        said = [f"{verb} right" if rng.random() < right else f"{verb} {rng.choice('xyz')}" for _ in range(n)]
        answers: list[Any] = said
        if sure:
            told = {True: {"logprob": -0.01, "score": 0.9}, False: {"logprob": -1.5, "score": 0.2}}
            answers = [{"action": a, **told[a.endswith("right")]} for a in said]
        line = {"id": i, "student": answers, "teacher": f"{verb} right", "gold": f"{verb} right"}
        made.append(jsonl.parse_line(line | {"episode": str(i // episode), "step": i % episode}))
    return made


def test_the_cheapest_certified_rule_is_chosen() -> None:
    tuned = tune(log(1000), Settings(max_risk=0.05))
    assert tuned.chosen is not None
    assert tuned.chosen.p is not None
    assert tuned.chosen.p <= tuned.chosen.level
    assert all(c.replayed.cost >= tuned.chosen.replayed.cost for c in tuned.certified)
    assert tuned.chosen.upper is not None
    assert known(tuned.chosen.replayed.risks["wrong"]) < tuned.chosen.upper < 0.05
    assert tuned.test == "binomial"


def test_certified_rules_hold_on_steps_that_were_not_seen() -> None:
    fresh = columns(log(20_000, seed=99))
    broken = 0
    for seed in range(40):
        tuned = tune(log(150, seed=seed), Settings(max_risk=0.08, sizes=(3, 5)))
        true = [losses(fresh, c.rule.on(fresh), Risk()).risk for c in tuned.certified]
        broken += any(risk > 0.08 for risk in true)
    assert broken <= 6  # 2 are expected at most; more than 6 of 40 at a rate of 0.05 has a chance below 0.005


def test_too_few_episodes_say_how_many_are_missing() -> None:
    tuned = tune(log(30, hard=0.0), Settings(max_risk=0.02, sizes=(3,)))
    assert tuned.chosen is None
    assert tuned.more_episodes is not None
    assert statement(tuned) == f"no rule is certified: collect about {tuned.more_episodes} more episodes"
    again = tune(log(30 + tuned.more_episodes, hard=0.0), Settings(max_risk=0.02, sizes=(3,)))
    assert again.certified or (again.more_episodes or 0) <= 30 + tuned.more_episodes


def test_a_risk_that_no_rule_has_is_not_promised_by_more_data() -> None:
    steps = [jsonl.parse_line({"id": i, "student": ["b"] * 3, "gold": "a" if i % 2 else "b"}) for i in range(200)]
    tuned = tune(steps, Settings(max_risk=0.05))
    assert tuned.more_episodes is None
    assert "more episodes will not help" in statement(tuned)


def test_steps_of_one_episode_are_no_independent_evidence() -> None:
    """The same 1,000 steps, as 1,000 episodes and as 20."""
    single, few = log(1000, hard=0.0), log(1000, hard=0.0, episode=50)
    assert tune(single, Settings(max_risk=0.02)).chosen is not None
    tuned = tune(few, Settings(max_risk=0.02))
    assert tuned.chosen is None
    assert tuned.test == "betting"
    with pytest.raises(InvalidRequest, match="one step an episode"):
        tune(few, Settings(max_risk=0.02, test="binomial"))


def uneven(rng: random.Random, episodes: int) -> list[Any]:
    """Most episodes are short and go well; every tenth is in a loop: long, and wrong at every fourth step."""
    made = []
    for e in range(episodes):
        long = rng.random() < 0.1
        for i in range(30 if long else 3):
            answer = "b" if long and rng.random() < 0.25 else "a"
            made.append(jsonl.parse_line({"id": f"{e}-{i}", "episode": f"e{e}", "student": [answer] * 3, "gold": "a"}))
    return made  # of all steps, .1 * 30 * .25 / (.1 * 30 + .9 * 3) = .132 are wrong; of an episode's, on average, .025


def test_a_share_of_all_steps_is_what_is_promised() -> None:
    rng = random.Random(3)
    promised = broken = 0
    for _ in range(40):
        steps = uneven(rng, 150)
        by_step = tune(steps, Settings(max_risk=0.1, sizes=(3,)))
        assert "as a share of all steps" in str(by_step.settings.risk)
        broken += by_step.chosen is not None
        by_episode = tune(steps, Settings(max_risk=0.1, sizes=(3,), risk=Risk(weigh="episodes")))
        promised += by_episode.chosen is not None and "averaged over episodes" in statement(by_episode)
    assert broken <= 6  # .132 of all steps are wrong: never to be certified, but with a chance of .05
    assert promised >= 30  # .025 of an episode's are


def test_how_long_an_episode_can_be_is_said_and_may_be_given() -> None:
    steps = uneven(random.Random(4), 400)
    tuned = tune(steps, Settings(max_risk=0.3, sizes=(3,)))
    made = certificate(tuned)
    assert tuned.chosen is not None
    assert made["risk"]["longest_episode"] == 30
    assert any("more than 30 steps" in line for line in made["assumptions"])
    longer = tune(steps, Settings(max_risk=0.3, sizes=(3,), risk=Risk(longest=300)))
    assert max(c.p or 0 for c in longer.candidates) > max(c.p or 0 for c in tuned.candidates)
    with pytest.raises(InvalidRequest, match="an episode of 30 steps, longer than longest 20"):
        tune(steps, Settings(max_risk=0.3, risk=Risk(longest=20)))
    single = certificate(tune(log(200), Settings(max_risk=0.3)))
    assert not any("no episode has more" in line for line in single["assumptions"])


@pytest.mark.parametrize("weigh", ["steps", "episodes"])
def test_conformal_control_of_long_episodes(weigh: Any) -> None:
    """Of 40 logs the mean risk of what is chosen stays below the bound, though every rule is certified alone."""
    rng, found = random.Random(8), []
    for _ in range(40):
        steps = uneven(rng, 200)
        tuned = tune(steps, Settings(max_risk=0.1, sizes=(3,), method="conformal", risk=Risk(weigh=weigh)))
        found.append(0.0 if tuned.chosen is None else {"steps": 0.132, "episodes": 0.025}[weigh])
    assert sum(found) / len(found) <= 0.1
    assert weigh == "steps" or max(found) > 0


def test_parts_of_episodes_do_not_pass_for_whole_ones() -> None:
    """Where each step is sampled in a way of its own, or logged by lot, an episode is not all there."""
    steps = [step.model_copy(update={"teacher": step.gold}) for step in log(600, episode=20)]
    two = [
        step.model_copy(update={"students": (step.students[0].model_copy(update={"temperature": t}),)})
        for step, t in zip(steps, [0.1, 0.7] * 300)
    ]
    some = [step.model_copy(update={"propensity": 0.5}) for step in steps]
    for risk in (Risk("episode-loss"), Risk(weigh="episodes")):
        tune(steps, Settings(max_risk=0.5, risk=risk))
        with pytest.raises(InvalidRequest, match=r"sampled alike, but .* has steps at T=0.7 and at T=0.1"):
            tune(two, Settings(max_risk=0.5, risk=risk))
        with pytest.raises(InvalidRequest, match=r"shadow.rate 1"):
            tune(some, Settings(max_risk=0.5, risk=risk))
    assert tune(two, Settings(max_risk=0.5)).candidates
    made = certificate(tune(some, Settings(max_risk=0.5)))
    assert any("smaller chance of being logged than 0.5" in line for line in made["assumptions"])


def test_rarely_logged_steps_count_for_those_that_were_not_logged() -> None:
    """Of six steps of an episode one is logged once in ten times, and goes wrong in six of ten: .1 of all steps do."""
    rng, certified = random.Random(2), 0
    for _ in range(20):
        steps = []
        for e in range(400):
            for i in range(6):
                risky = i == 5
                if not risky or rng.random() < 0.1:
                    answer = "b" if risky and rng.random() < 0.6 else "a"
                    line = {"id": f"{e}-{i}", "episode": f"e{e}", "student": [answer] * 3, "gold": "a"}
                    steps.append(jsonl.parse_line(line | {"propensity": 0.1 if risky else 1.0}))
        certified += tune(steps, Settings(max_risk=0.07, sizes=(3,))).chosen is not None
    assert certified <= 4  # a rule with a risk of .1 must not be, but with a chance of .05


def test_a_rule_is_judged_on_steps_with_the_samples_that_it_asks_for() -> None:
    """Nine of ten steps have three samples: a vote of ten would accept them less often than it will live."""
    rng = random.Random(6)
    steps = []
    for i in range(1000):
        answers = tuple(LoggedSample(action="a" if rng.random() < 0.7 else "b") for _ in range(10))
        kept = answers if i % 10 == 0 else answers[:3]
        steps.append(
            LoggedStep(id=str(i), students=(StudentSamples(samples=kept, n=len(kept)),), gold="a" if i % 3 else "b")
        )
    tuned = tune(steps, Settings(max_risk=0.5, sizes=(3, 10)))
    assert {(c.rule.samples[0], c.replayed.steps) for c in tuned.candidates} == {(1, 1000), (3, 1000), (10, 100)}
    with pytest.raises(InvalidRequest, match="needs 12 samples"):
        replay(columns(steps), Threshold(12, 12))
    plain = [jsonl.parse_line({"id": i, "student": ["a"] * (3 if i else 10), "gold": "a"}) for i in range(100)]
    row = replay(columns(plain), Threshold(10, 10))
    assert row.steps == 100  # answers that lack in a plain line could not be used
    assert row.acceptance == pytest.approx(0.01)


def test_one_step_episodes_are_tested_exactly_beside_longer_ones() -> None:
    one = tune(log(300), Settings(max_risk=0.2, risk=Risk(longest=5)))
    assert one.test == "binomial"
    mixed = [
        step.model_copy(update={"students": (step.students[0].model_copy(update={"temperature": t}),)})
        for t, steps in ((0.1, log(300)), (0.7, log(300, seed=5, episode=2)))
        for step in steps
    ]
    mixed = [
        step.model_copy(update={"id": f"{i}", "episode": f"{i >= 300}{step.episode}"}) for i, step in enumerate(mixed)
    ]
    assert tune(mixed, Settings(max_risk=0.2)).test == "betting and binomial"


def test_a_chain_is_split_with_all_its_students() -> None:
    """The second student is sure and wrong: whatever half of the log is looked at, no chain is safe."""
    rng = random.Random(7)
    steps = []
    for i in range(400):
        first = ["a" if rng.random() < 0.6 else rng.choice("bcd") for _ in range(3)]
        steps.append(jsonl.parse_line({"id": i, "student": {"s": first, "l": ["z"] * 3}, "teacher": "a"}))
    settings = Settings(max_risk=0.1, risk=Risk("teacher-disagreement"), rules=("chain",), method="conformal")
    tuned = tune(steps, settings)
    assert tuned.chosen is None or (tuned.chosen.replayed.risks["teacher-disagreement"] or 0) <= 0.1


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("chain", "committee", "category")])
def test_every_family_of_rules_is_found_and_can_be_configured(family: Any, tmp_path: Path) -> None:
    steps = log(1200, tool=True, sure=True)
    tuned = tune(steps, Settings(max_risk=0.08, rules=(family,), sizes=(3, 5)))
    assert tuned.chosen is not None, [(c.rule.name, c.p) for c in tuned.candidates]
    path = tmp_path / "rule.yaml"
    path.write_text(dump(fragment(tuned.chosen.rule), "why"), encoding="utf-8")
    config = CascadeConfig.load(path)
    assert config.router.name == tuned.chosen.rule.router["name"]
    assert config.sampling.logprobs is (family in ("logprob", "learned"))
    whole = columns(steps)
    assert replay(whole, read(path)).acceptance == pytest.approx(replay(whole, tuned.chosen.rule).acceptance)


def test_types_of_actions_get_the_threshold_that_they_deserve() -> None:
    tuned = tune(log(3000, tool=True, hard=0.4), Settings(max_risk=0.03, rules=("tool",), sizes=(5,)))
    assert tuned.chosen is not None
    needed = tuned.chosen.rule.router["options"]["needed"]
    assert needed["go"] < needed["guess"]


def test_fitted_rules_are_tested_on_other_episodes_than_they_are_fitted_to() -> None:
    """Answers are right by chance alone: a rule that saw its test would look good."""
    rng = random.Random(5)
    steps = [
        jsonl.parse_line({"id": i, "student": [f"t{rng.randrange(40)} a"] * 2, "gold": f"t{rng.randrange(40)} a"})
        for i in range(1500)
    ]
    tuned = tune(steps, Settings(max_risk=0.05, rules=("tool",), sizes=(2,)))
    assert tuned.steps == 1500
    assert {c.replayed.steps for c in tuned.candidates} == {750}
    assert not tuned.certified


def test_a_chain_of_students() -> None:
    rng = random.Random(1)
    steps = []
    for i in range(800):
        small = ["a" if rng.random() < 0.7 else rng.choice("bcd") for _ in range(3)]
        large = ["a" if rng.random() < 0.97 else rng.choice("bcd") for _ in range(3)]
        steps.append(jsonl.parse_line({"id": i, "student": {"small": small, "large": large}, "teacher": "a"}))
    risk = Risk("teacher-disagreement")
    tuned = tune(steps, Settings(max_risk=0.05, risk=risk, rules=("consistency", "chain")))
    assert tuned.chosen is not None
    assert isinstance(tuned.chosen.rule, Chain)
    found = fragment(tuned.chosen.rule)
    assert found["students"][0]["router"]["name"] == "threshold"


def test_conformal_control_bounds_the_expected_risk() -> None:
    tuned = tune(log(600), Settings(max_risk=0.05, method="conformal"))
    assert tuned.chosen is not None
    assert len(tuned.certified) == 1
    assert statement(tuned).startswith("In expectation")
    assert certificate(tuned)["risk"]["confidence"] is None
    with pytest.raises(InvalidRequest, match="marginal"):
        tune(log(600), Settings(max_risk=0.05, method="conformal", risk=Risk(count="selective")))


def test_a_rule_dearer_than_the_teacher_is_not_chosen() -> None:
    tuned = tune(log(800), Settings(max_risk=0.1, sample_cost=2.0))
    assert tuned.certified
    assert tuned.chosen is None
    assert statement(tuned) == "Rules are certified, but none is cheaper than the teacher alone."
    assert certificate(tuned)["rule"] == {"router": {"name": "teacher"}}


def test_what_mistakes_cost_later_makes_the_choice_careful() -> None:
    careless, careful = (tune(log(2000), Settings(max_risk=0.15, error_cost=cost)) for cost in (0.0, 20.0))
    assert careless.chosen is not None
    assert careful.chosen is not None
    assert known(careful.chosen.replayed.risks["wrong"]) < known(careless.chosen.replayed.risks["wrong"])
    assert [c.certified for c in careful.candidates] == [c.certified for c in careless.candidates]


def test_audits_and_steps_without_labels_are_left_out_and_counted() -> None:
    steps = log(300)
    steps[0] = steps[0].model_copy(update={"kind": "audit"})
    steps[1] = steps[1].model_copy(update={"gold": None})
    tuned = tune(steps, Settings(max_risk=0.1))
    assert tuned.steps == 298
    assert sum(tuned.left_out.values()) == 2
    with pytest.raises(InvalidRequest, match="2 steps whose right answer"):
        tune([s.model_copy(update={"gold": None}) for s in steps[2:4]], Settings(max_risk=0.1))


def test_a_certificate_is_complete_and_plain(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    jsonl.write_jsonl(path, log(500))
    tuned = tune(jsonl.read_jsonl(path), Settings(max_risk=0.1, seed=7))
    made = json.loads(json.dumps(certificate(tuned, [path])))
    assert made["certified"] is True
    assert made["seed"] == 7
    assert len(made["data"]["files"][0]["sha256"]) == 64
    assert made["versions"]["agentcascade"]
    assert made["method"]["rules_tried"] == len(tuned.candidates)
    assert "With probability at least 0.95" in made["statement"]
    assert made["observed"]["unit"] == "teacher answers"
    assert any("dollars are not known" in line for line in made["assumptions"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_risk": 0}, "max_risk is 0"),
        ({"max_risk": 1.5}, "max_risk is 1.5"),
        ({"confidence": 95}, "confidence is 95"),
        ({"rules": ("consistensy",)}, "did you mean 'consistency'"),
        ({"rules": ()}, "rules is empty"),
        ({"test": "clopper"}, "test 'clopper' is unknown"),
        ({"sizes": (0,)}, "sizes has 0"),
        ({"sample_cost": -1}, "sample_cost is -1"),
        ({"error_cost": -1}, "error_cost is -1"),
        ({"fit_share": 1}, "fit_share is 1"),
    ],
)
def test_impossible_settings_say_what_to_change(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Settings(**{"max_risk": 0.05, **changes})
    with pytest.raises(InvalidRequest, match="did you mean 'wrong'"):
        Risk("wrongs")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="did you mean 'steps'"):
        Risk(weigh="step")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="at least 1 step"):
        Risk(longest=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("router: [", "cannot be read"),
        ("sampling: {}", "holds no rule"),
        ("router: {name: treshold}", "did you mean 'threshold'"),
        (
            "router: {name: linucb, options: {budget: 10}}",
            "'linucb' cannot be replayed: StepLinUCB has no",
        ),
        ("router: {name: threshold, options: {votes: 3}}", "router.name 'threshold' does not take"),
        ("router: {name: unanimity, options: {n: 0}}", "at least 1"),
        ("router: {name: scored, options: {score: learned, threshold: 0.9}}", "router.model needs"),
    ],
)
def test_a_broken_rule_file_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read(path)


def test_a_fragment_says_how_the_student_was_asked() -> None:
    found = fragment(Threshold(5, 4), Arm("openai/small", 0.7, 3), "staged")
    assert yaml.safe_load(dump(found, "a\nb")) == {
        "router": {"name": "threshold", "options": {"n": 5, "threshold": 0.8}},
        "sampling": {"staged": "always", "temperature": 0.7},
        "retrieval": {"k": 3},
    }
    assert fragment(TeacherAlone()) == {"router": {"name": "teacher"}}


@given(st.sets(st.integers(1, 12), min_size=1, max_size=5))
@settings(max_examples=30)
def test_a_threshold_survives_its_configuration(sizes: set[int]) -> None:
    from agentcascade.routers.step.consistency import AgreementThreshold

    chain = consistency(sorted(sizes))
    assert len(chain) == len(set(chain))
    assert chain[-1] == Threshold(1, 1)
    for rule in chain:
        options = rule.router["options"]
        made = AgreementThreshold(options["n"], options.get("threshold", 1.0))
        assert (made.n, made.needed) == (rule.n, rule.needed)  # type: ignore[attr-defined]


def test_nothing_is_chosen_by_accident() -> None:
    one: Tuned = tune(log(400, seed=3), Settings(max_risk=0.1, seed=1))
    two: Tuned = tune(log(400, seed=3), Settings(max_risk=0.1, seed=1))
    assert one.chosen == two.chosen
