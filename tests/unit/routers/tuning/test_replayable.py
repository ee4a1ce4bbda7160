"""A router carries what replay and tuning need of it: its rule, and the family of rules that it is one of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade import registry
from agentcascade.assembly.components import make_router
from agentcascade.config.sections import RouterConfig
from agentcascade.errors import InvalidRequest
from agentcascade.protocols import Verdict
from agentcascade.routers.tuning import Risk, Settings, fragment, tune
from agentcascade.routers.tuning.columns import columns
from agentcascade.routers.tuning.fragments import read, rule_of
from agentcascade.routers.tuning.rules import Replayable
from agentcascade.steplog import jsonl
from agentcascade.types import Situation, Tally
from tests.plugins import install_here

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "teacher": [{}],
    "student": [{}],
    "unanimity": [{"n": 2}, {"n": 3}],
    "threshold": [{"n": 3, "threshold": 0.6}, {"n": 3, "threshold": 0.9}],
    "scored": [{"score": "margin", "threshold": 0.3, "n": 3}, {"score": "entropy", "threshold": 0.5, "n": 2}],
    "grouped": [{"needed": {"go": 2}, "default": 3, "n": 3}],
}
"""Routers whose verdict hangs on votes alone"""

ANSWERS = st.lists(st.sampled_from(["go(1)", "go(2)", "take(1)", None]), min_size=3, max_size=3)


@given(ANSWERS)
def test_a_routers_rule_decides_as_the_router_does(answers: list[str | None]) -> None:
    step = jsonl.parse_line({"id": 1, "student": answers, "teacher": "go(1)"})
    for name, settings in OPTIONS.items():
        for options in settings:
            router = make_router(RouterConfig(name=name, options=options))
            n = router.samples(Situation(goal=""))
            drawn = answers[:n]
            counts: dict[str, int] = {}
            for answer in drawn:
                if answer is not None:
                    counts[answer] = counts.get(answer, 0) + 1
            verdict = router.judge(Situation(goal=""), Tally(counts=counts, total=n), 0)
            taken = rule_of(name, options).on(columns([step])).taken
            assert taken.tolist() == [verdict is Verdict.ACCEPT], (name, options)


def test_every_router_of_ours_has_a_rule_but_those_that_learn() -> None:
    without = {
        name
        for name, point in registry.registered("routers").items()
        if not hasattr(registry.load(point, "router.name"), "as_rule")
    }
    assert without == {"linucb", "thompson"}


OWN = """
    from agentcascade.routers.step.consistency import AgreementThreshold
    from agentcascade.routers.tuning.families import Family
    from agentcascade.routers.tuning.rules import Threshold

    class Majority(AgreementThreshold):
        family = Family(lambda log, sizes, kind, seed: [[Mine(n, n // 2 + 1) for n in sizes]])

        def __init__(self, n=3):
            super().__init__(n, (n // 2 + 1) / n)

        def as_rule(self):
            return Mine(self.n, self.needed)

    class Mine(Threshold):
        router = property(lambda self: {"name": "majority", "options": {"n": self.n}})
"""


def test_a_router_of_another_package_is_replayed_and_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_here(monkeypatch, tmp_path, "majority", OWN, {"routers": {"majority": "majority:Majority"}})
    assert isinstance(make_router(RouterConfig(name="majority")), Replayable)
    steps = [jsonl.parse_line({"id": i, "student": ["a", "a", "b"], "teacher": "a"}) for i in range(300)]
    settings = Settings(max_risk=0.05, risk=Risk("teacher-disagreement"), rules=("majority",), sizes=(3,))
    tuned = tune(steps, settings)
    assert tuned.chosen is not None
    sections = fragment(tuned.chosen.rule)
    assert sections["router"] == {"name": "majority", "options": {"n": 3}}
    path = tmp_path / "rule.yaml"
    path.write_text("router: {name: majority, options: {n: 3}}", encoding="utf-8")
    assert read(path) == tuned.chosen.rule


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("consistancy", r"rules 'consistancy' is unknown: did you mean 'consistency'\?"),
        ("linucb", "rules 'linucb' is a router without a family of rules"),
    ],
)
def test_a_family_that_is_none_is_named(name: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Settings(max_risk=0.05, rules=(name,))
