"""What a release is made of agrees with itself: one version, notices, citation, workflows, hooks before a commit."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentcascade._version import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_version_stands_in_one_place_and_its_copies_agree() -> None:
    assert "version" not in PROJECT
    assert "version" in PROJECT["dynamic"]
    assert read_yaml(ROOT / "CITATION.cff")["version"] == __version__
    newest = re.search(r"^## \[?([\d.]+|Unreleased)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] in (__version__, "Unreleased")


def test_the_citation_has_what_its_format_requires() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]


def test_licence_files_are_there_and_the_notice_tells_what_is_shipped_with_data() -> None:
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    shipped = {*ROOT.glob("envs/*/data"), *ROOT.glob("envs/*/recordings")}
    assert len(shipped) > 3
    assert [str(folder) for folder in shipped if f"agentcascade/{folder.relative_to(ROOT)}" not in notice] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_targets_that_there_are_and_may_do_no_more_than_it_says(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()
            continue
        assert job["timeout-minutes"] <= 60, name
        for step in job["steps"]:
            assert set(re.findall(r"\bmake ([a-z]+)", step.get("run", ""))) <= targets()
            assert "${{" not in step.get("run", ""), "what an event says is no part of a script: give it by env"
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_a_release_is_tested_built_attested_and_published_without_a_token() -> None:
    jobs = read_yaml(ROOT / ".github/workflows/release.yml")["jobs"]
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("tests", "build")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text
    for action in ("attest-build-provenance", "attest-sbom", "gh-action-pypi-publish", "deploy-pages"):
        assert action in text


def test_pythons_that_are_claimed_are_those_that_are_tested_and_sessions_are_those_of_nox() -> None:
    claimed = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    jobs = read_yaml(ROOT / ".github/workflows/tests.yml")["jobs"]
    rows = jobs["nox"]["strategy"]["matrix"]["include"]
    tested = {row["session"].removeprefix("tests-") for row in rows if row["session"].startswith("tests-")}
    assert {*jobs["all"]["strategy"]["matrix"]["python"], *tested} == {*claimed}
    assert all(row["session"].partition("-")[2] in ("", row["python"]) for row in rows)

    command = [sys.executable, "-m", "nox", "--list", "--noxfile", str(ROOT / "noxfile.py")]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sessions = dict(re.findall(r"^[*-] (\S+)(?: -> (.+))?$", listed, re.MULTILINE))
    assert {row["session"] for row in rows} <= sessions.keys()
    assert {f"tests-{python}" for python in claimed} == {name for name in sessions if name.startswith("tests-")}
    assert {"lowest", "wheel", "lint", "types", "docs"} <= sessions.keys()
    assert all(sessions.values())


def test_every_target_of_make_is_explained() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    told = dict(re.findall(r"^  make (\w+) +(\S.+)$", done.stdout, re.MULTILINE))
    assert told.keys() == targets()


def test_hooks_before_a_commit_run_files_that_there_are() -> None:
    hooks = [hook for repo in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {"ruff", "format", "typos", "links", "licences", "public", "pages"} <= {hook["id"] for hook in hooks}
    for hook in hooks:
        assert [path for path in re.findall(r"tests/[\w/]+\.py", hook["entry"]) if not (ROOT / path).is_file()] == []
