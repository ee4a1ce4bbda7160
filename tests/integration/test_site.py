"""The documentation's site: built without a warning, links and anchors checked, generated pages whole."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agentcascade
from agentcascade.config.load import CascadeConfig
from agentcascade.storage.tables import metadata

pytest.importorskip("mkdocs", reason="needs the extra `docs`")
pytest.importorskip("mkdocstrings", reason="needs the extra `docs`")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr[-3000:]
    assert "not included in the" not in built.stderr, "a page stands in no menu: add it to nav in mkdocs.yml"
    return folder


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_key_command_name_and_table_is_on_the_site(site: Path) -> None:
    configuration = text_of(site / "reference/configuration.html")
    assert [name for name in CascadeConfig.model_fields if name not in configuration] == []
    python = (site / "reference/python.html").read_text() + (site / "reference/errors.html").read_text()
    assert [
        name for name in agentcascade.__all__ if f">{name}<" not in python and f'id="{name.lower()}"' not in python
    ] == []
    database = (site / "reference/database.html").read_text()
    assert [name for name in metadata.tables if f'id="{name}"' not in database] == []
    commands = text_of(site / "reference/cli.html")
    assert "agentcascade students serve" in commands
    assert "--max-risk" in commands
    assert "/v1/episodes/{episode}/feedback" in text_of(site / "reference/http.html")
    assert "agentcascade.drift.alarm" in text_of(site / "reference/telemetry.html")


def test_no_table_was_left_as_text(site: Path) -> None:
    """A table without an empty line before it is a paragraph of pipes."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 45
    assert [
        str(page) for page in pages if "| --- |" in re.sub(r"(?s)<pre.*?</pre>|<code.*?</code>", "", page.read_text())
    ] == []
