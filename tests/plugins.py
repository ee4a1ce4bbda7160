"""Small packages with entry points, as another author would install them: on `sys.path`, with a dist-info folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest


def install(folder: Path, name: str, source: str, entry_points: Mapping[str, Mapping[str, str]]) -> Path:
    """Put the module `name` and its distribution ``acme-<name>`` 1.2 into `folder`, which must stand on the path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(dedent(source), encoding="utf-8")
    info = folder / f"acme_{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.2\n", encoding="utf-8")
    sections = (
        f"[agentcascade.{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
    return folder


def install_here(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    name: str,
    source: str,
    entry_points: Mapping[str, Mapping[str, str]],
) -> None:
    """The same for this process, until the test ends."""
    monkeypatch.syspath_prepend(install(folder, name, source, entry_points))
    monkeypatch.delitem(sys.modules, name, raising=False)
