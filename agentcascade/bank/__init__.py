"""The bank of demonstrations: trajectories of the teacher, found again by goal, plan and observation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = ["Bank"]

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank as Bank
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "Bank": "bank",
        },
    )
