"""The default templates say what was said before there were any, byte for byte: providers' prompt caches hang on it.

The recording is of d9fb81f, when prompts were constants in eight modules.
"""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path
from typing import Any

import pytest

from tests.prompt_recording import RECORDED, record

UNFILLED = "in at most {words} words"
"""What a memory's summary was asked for then: a field that nobody filled."""
AGAIN = re.compile(
    r"Now your own task, which is none of the examples\. Go on with it from here\."
    r"\\nIt is: (?:\\.|[^\"\\])*?(?=\"|\\n\\n)"
)
"""What follows demonstrations since: the task once more."""


@pytest.fixture(scope="module")
def before() -> Any:
    return json.loads(lzma.decompress(RECORDED.read_bytes()))


@pytest.mark.parametrize("quoting", ["fenced", "plain"])
async def test_every_prompt_reads_as_it_was_recorded(quoting: str, before: Any, tmp_path: Path) -> None:
    now = await record(tmp_path, quoting)
    assert now.keys() == before[quoting].keys()
    for model, requests in before[quoting].items():
        assert [AGAIN.sub("Continue your own task from here.", json.dumps(r)) for r in now[model]] == [
            json.dumps(r).replace(UNFILLED, "in at most 300 words") for r in requests
        ]
