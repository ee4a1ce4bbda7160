"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import agentcascade

ROOT = Path(agentcascade.__file__).parent
FOLDERS = (ROOT, *(ROOT / name for name in ("envs", "retrievers", "routers")))  # links, which rglob does not follow
MODULES = sorted(
    {
        ".".join(("agentcascade", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for folder in FOLDERS
        for file in folder.rglob("*.py")
        if ">>> " in file.read_text(encoding="utf-8")
    }
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where their databases come to lie
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert not result.failed
