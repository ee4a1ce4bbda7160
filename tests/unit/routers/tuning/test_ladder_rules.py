"""A configuration's ladder as a rule of replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcascade.errors import ConfigError
from agentcascade.routers.tuning.fragments import read
from agentcascade.routers.tuning.rules import Chain, Threshold
from agentcascade.routers.tuning.unless_stuck import UnlessStuck


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
