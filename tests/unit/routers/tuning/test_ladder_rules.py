"""A configuration's ladder as a rule of replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError
from agentcascade.routers.tuning.families import chains
from agentcascade.routers.tuning.fragments import dump, fragment, read
from agentcascade.routers.tuning.risks import Risk
from agentcascade.routers.tuning.rules import Chain, Threshold
from agentcascade.routers.tuning.tuner import Settings, tune
from agentcascade.routers.tuning.unless_stuck import UnlessStuck
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample


def test_a_configurations_ladder_is_read_as_the_chain_that_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "router: {name: threshold, options: {n: 3, threshold: 1}}\n"
        "ladder: [{model: s, effort: none}, {model: s, effort: high}, {model: t, effort: low, router: "
        "{name: threshold, options: {n: 5, threshold: 0.6}}}, {model: t, effort: high}]\n"
    )
    assert read(path) == Chain((Threshold(3, 3), Threshold(3, 3), Threshold(5, 3)))
    path.write_text("ladder: [{model: s, effort: high}, {model: s, effort: low}]\n")
    with pytest.raises(ConfigError, match=r"ladder: .*thinks no more than rung 0"):
        read(path)


@pytest.mark.parametrize("where", ["router", "rung"])
def test_a_ladder_leaves_a_stuck_run_to_the_teacher_in_replay_as_it_does_live(where: str, tmp_path: Path) -> None:
    path, router = tmp_path / "ladder.yaml", "router: {name: threshold, options: {n: 2, needed: 2}, stuck: {errors: 5}}"
    own, others = (f", {router}", "") if where == "rung" else ("", router)
    path.write_text(f"ladder: [{{model: s, effort: none{own}}}, {{model: s, effort: high}}, {{model: t}}]\n{others}\n")
    rule = read(path)
    assert isinstance(rule, UnlessStuck)
    assert (rule.settings.errors, rule.rule.samples) == (5, (2, 2))


def test_each_rung_has_a_threshold_of_its_own_and_the_rule_names_it(tmp_path: Path) -> None:
    """The lower rung is right where it is unanimous alone; the one above by a majority, too."""
    steps = []
    for i in range(400):
        low = ("a", "a", "a") if i % 2 else ("b", "b", "a")
        samples = [tuple(LoggedSample(action=action) for action in said) for said in (low, ("a", "a", "b"))]
        students = tuple(StudentSamples(model=f"s@{e}", samples=said) for e, said in zip(("none", "high"), samples))
        steps.append(LoggedStep(id=str(i), students=students, teacher="a", gold="a"))
    tuned = tune(steps, Settings(max_risk=0.05, risk=Risk("wrong"), rules=("chain",), sizes=(3,)))
    assert tuned.chosen is not None
    rule = tuned.chosen.rule
    assert isinstance(rule, Chain)
    assert [(link.n, link.needed) for link in rule.links] == [(3, 3), (3, 2)]
    assert tuned.chosen.replayed.acceptance == 1
    sections = fragment(rule)
    config = CascadeConfig(**sections, teacher={"name": "t"})
    assert config.student is not None
    named = [(one.name, one.effort) for one in (config.student, *config.students)]
    assert named == [("s", "none"), ("s", "high")]
    path = tmp_path / "rule.yaml"
    path.write_text(dump(sections, "made by tune"))
    assert read(path) == rule


@pytest.mark.parametrize("students", [2, 3, 4, 5, 8])
def test_thresholds_of_rungs_fall_as_the_ladder_climbs_and_are_not_too_many(students: int) -> None:
    [rules] = chains((2, 3, 4, 5, 6, 8, 10), [str(i) for i in range(students)])
    assert len(rules) == len(set(rules)) < 700
    for rule in rules:
        assert isinstance(rule, Chain)
        needed = [link.needed for link in rule.links]
        assert len({link.n for link in rule.links}) == 1
        assert needed == sorted(needed, reverse=True)
    for n in (2, 3, 4, 5, 6, 8, 10):
        assert {Chain((Threshold(n, k),) * students) for k in range(1, n + 1)} <= set(rules)
