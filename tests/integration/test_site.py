"""The documentation's site: built without a warning, links and anchors checked, generated pages whole."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import agentcascade
from agentcascade.config.load import CascadeConfig
from agentcascade.storage.tables import metadata
from tests.chromium import chromium, complaints, requested
from tests.waiting import until

pytest.importorskip("mkdocs", reason="needs the extra `docs`")
pytest.importorskip("mkdocstrings", reason="needs the extra `docs`")
ROOT = Path(__file__).parents[2]
WITHOUT = """
import runpy, sys
outside = set(sys.argv.pop(1).split(","))
class Outside:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in outside:
            raise ModuleNotFoundError(f"{name}: the extra docs does not bring it", name=name)
sys.meta_path.insert(0, Outside)
runpy.run_module("mkdocs", run_name="__main__", alter_sys=True)
"""
"""MkDocs where modules, named in the first argument, are not installed."""


def brought_by(extra: str) -> set[str]:
    """Packages that an extra of this project brings, directly or not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"][extra]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        need = Requirement(wanted.pop())
        package = canonicalize_name(need.name), frozenset(need.extras)
        if package in seen:
            continue
        seen.add(package)
        if package[0] == "agentcascade":
            wanted += [line for name in need.extras for line in project["optional-dependencies"][name]]
            continue
        try:
            lines = requires(need.name) or []
        except PackageNotFoundError:  # another platform's
            continue
        for line in lines:
            marker = Requirement(line).marker
            if marker is None or any(marker.evaluate({"extra": name}) for name in ("", *need.extras)):
                wanted.append(line)
    return {name for name, _ in seen} | {"agentcascade"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    there = brought_by("docs")
    outside = [m for m, of in packages_distributions().items() if not there & {canonicalize_name(d) for d in of}]
    assert "hypothesis" in outside
    built = subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(outside), "build", "--strict", "--site-dir", str(folder)],
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


def test_pages_ask_no_other_host(site: Path) -> None:
    loading = re.compile(r"""<(?:script|link|img|iframe)[^>]*\s(?:src|href)=["']?(?:https?:)?//[^\s"'>]+""")
    pages = sorted(site.rglob("*.html"))
    assert [found for page in pages for found in loading.findall(page.read_text(encoding="utf-8"))] == []


def test_pages_that_are_opened_as_files_can_be_searched(site: Path) -> None:
    with chromium() as browser:
        browser.get((site / "how-to/ledger.html").as_uri())
        requested(browser)
        box = browser.find_element("css selector", "input[name=query]")
        box.click()
        box.send_keys("certificate")
        names = "return [...document.querySelectorAll('.md-search-result__item h1')].map(e => e.innerText)"
        assert until(lambda: "Certificates" in browser.execute_script(names))
        assert [url for url in requested(browser) if not url.startswith(("file:", "data:", "chrome:"))] == []
        assert complaints(browser) == []
