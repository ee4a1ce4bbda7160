"""Labels of a report: short names of models for a table's column, and who plays which role in a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from agentcascade.bench.policies import ALONE

WIDEST = 26
"""Characters of a model's name in a table"""
_DATE = re.compile(r"-(?:20\d\d-\d\d-\d\d|20\d{6}|\d{4})(?=-|$)")


def labels_of(policies: Collection[str]) -> dict[str, str]:
    """Labels of policies: that of a member by itself is its model's short name, which is no other policy's label.

    >>> list(labels_of(["teacher", "alone open-mistral-nemo-2407-FC-Auto", "alone gpt-4o-mini-2024-07-18"]).values())
    ['teacher', 'open-mistral-nemo-FC-Auto', 'gpt-4o-mini']
    """
    own = {policy: policy.removeprefix(ALONE) for policy in policies if policy.startswith(ALONE)}
    for shorter in (_without_dates, _without_middle):
        shortened = {policy: shorter(name) for policy, name in own.items()}
        taken = [*shortened.values(), *(policy for policy in policies if policy not in own)]
        own = {policy: name if taken.count(name) == 1 else own[policy] for policy, name in shortened.items()}
    return {policy: own.get(policy, policy) for policy in policies}


def _without_dates(name: str) -> str:
    return _DATE.sub("", name)


def _without_middle(name: str) -> str:
    if len(name) <= WIDEST:
        return name
    tail = WIDEST // 2
    return f"{name[: WIDEST - 1 - tail]}…{name[-tail:]}"


def roles_of(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Who is teacher, who are students, by whole names, in one line."""
    named: dict[str, list[str]] = {}
    for role, model in models.items():
        named.setdefault("student" if role.startswith("member") else role, []).append(str(model.get("name", "")))
    return "; ".join(f"{role}{'s' * (len(names) > 1)}: {', '.join(names)}" for role, names in named.items())
