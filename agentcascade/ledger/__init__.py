"""The ledger: decisions and their bills, recorded, summed up and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = ["DatabaseRecorder", "Ledger", "MemoryRecorder"]

if TYPE_CHECKING:
    from agentcascade.ledger.ledger import DatabaseRecorder as DatabaseRecorder
    from agentcascade.ledger.ledger import Ledger as Ledger
    from agentcascade.ledger.ledger import MemoryRecorder as MemoryRecorder
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "DatabaseRecorder": "ledger",
            "Ledger": "ledger",
            "MemoryRecorder": "ledger",
        },
    )
