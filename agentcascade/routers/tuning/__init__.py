"""Offline tuning: choose the cheapest acceptance rule whose risk a log of steps certifies.

`tune` replays rules on a log and tests their risk, `certificate` says what was proved, `fragment` gives the sections
of a configuration that act by the chosen rule. `Settings` and `Risk` say what to certify.

    >>> from agentcascade.routers.tuning import Risk, Settings, certificate, fragment, tune
    >>> from agentcascade.steplog.jsonl import parse_line
    >>> lines = [{"id": i, "student": ["a", "a", "a"], "teacher": "a"} for i in range(300)]
    >>> tuned = tune([parse_line(line) for line in lines], Settings(max_risk=0.05, risk=Risk("teacher-disagreement")))
    >>> certificate(tuned)["certified"], tuned.chosen.rule.name
    (True, '1 of 1')
    >>> fragment(tuned.chosen.rule)["router"]
    {'name': 'threshold', 'options': {'n': 1, 'threshold': 1.0}}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = ["Risk", "Settings", "certificate", "fragment", "tune"]

if TYPE_CHECKING:
    from agentcascade.routers.tuning.certification import certificate as certificate
    from agentcascade.routers.tuning.fragments import fragment as fragment
    from agentcascade.routers.tuning.risks import Risk as Risk
    from agentcascade.routers.tuning.tuner import Settings as Settings
    from agentcascade.routers.tuning.tuner import tune as tune
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "Risk": "risks",
            "Settings": "tuner",
            "certificate": "certification",
            "fragment": "fragments",
            "tune": "tuner",
        },
    )
