"""Redaction of secrets and personal data, before anything is stored or traced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = ["RedactingRecorder", "Redactor", "presidio_hook"]

if TYPE_CHECKING:
    from agentcascade.redaction.presidio import presidio_hook as presidio_hook
    from agentcascade.redaction.recorder import RedactingRecorder as RedactingRecorder
    from agentcascade.redaction.redactor import Redactor as Redactor
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "RedactingRecorder": "recorder",
            "Redactor": "redactor",
            "presidio_hook": "presidio",
        },
    )
