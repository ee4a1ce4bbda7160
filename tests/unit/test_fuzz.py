"""Hostile texts through every parser: an answer or the parser's own refusal, never another error.

The long form, with counts and times: `python tests/fuzz/hostile.py`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("hostile", Path(__file__).parents[1] / "fuzz" / "hostile.py")
assert spec is not None
assert spec.loader is not None
hostile = sys.modules["hostile"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hostile)


@pytest.mark.parametrize("name", sorted(hostile.parsers()))
def test_a_hostile_text_is_parsed_or_refused_and_nothing_else(name: str) -> None:
    found = hostile.run(name, inputs=40, seed=1, longest=3_000)
    assert found.raised == []
    assert found.parsed + found.refused == 40
