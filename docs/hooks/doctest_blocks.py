"""Extension of griffe: examples in docstrings (``>>> …``) become blocks of code on the page of the Python API."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?!\s*$).*\n?)*)(?:\n(?=>>> )(?:^(?!\s*$).*\n?)+)*", re.MULTILINE)


class DoctestBlocks(griffe.Extension):
    """Fences around every run of lines that begins with a prompt."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(lambda m: f"```pycon\n{m[0].rstrip()}\n```\n", obj.docstring.value)
