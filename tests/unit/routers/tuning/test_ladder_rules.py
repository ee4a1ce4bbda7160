"""A configuration's ladder as a rule of replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcascade.errors import ConfigError
from agentcascade.routers.tuning.fragments import read
from agentcascade.routers.tuning.rules import Chain, Threshold


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
