"""The wheel, built from the source distribution, holds what the package needs, and nothing of the tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from agentcascade._version import __version__

pytest.importorskip("setuptools", minversion="77")
ROOT = Path(__file__).parents[2]
FILES = ("pyproject.toml", "README.md", "LICENSE", "LICENSES.md", "NOTICE")
BUILD = "import sys, setuptools.build_meta as backend; print(getattr(backend, f'build_{sys.argv[1]}')(sys.argv[2]))"


def built(kind: str, source: Path, into: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-P", "-c", BUILD, kind, str(into)],
        cwd=source,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return into / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Source distribution and wheel, made as a build frontend makes them."""
    folder = tmp_path_factory.mktemp("build")
    source, into = folder / "source", folder / "dist"
    into.mkdir()
    package = source / "agentcascade"
    shutil.copytree(ROOT / package.name, package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    archive = built("sdist", source, into)
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return archive, built("wheel", folder / f"agentcascade-{__version__}", into)


def test_the_wheel_holds_every_module_and_all_that_they_read(distributions: tuple[Path, Path]) -> None:
    names = {*zipfile.ZipFile(distributions[1]).namelist()}
    here = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "agentcascade").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    }
    assert here - names == set()
    assert {
        "agentcascade/py.typed",
        "agentcascade/server/dashboard/templates/base.html",
        "agentcascade/cli/agentcascade.yaml",
    } <= names
    assert any(re.fullmatch(r"agentcascade/storage/migrations/versions/\w+\.py", name) for name in names)


def test_nothing_else_is_in_either(distributions: tuple[Path, Path]) -> None:
    own = re.compile(rf"agentcascade/|agentcascade-{re.escape(__version__)}\.dist-info/")
    assert [name for name in zipfile.ZipFile(distributions[1]).namelist() if not own.match(name)] == []
    with tarfile.open(distributions[0]) as opened:
        members = [member.name.partition("/")[2] for member in opened.getmembers()]
    own = re.compile(r"$|agentcascade(?:\.egg-info)?(?:/|$)|(?:PKG-INFO|setup\.cfg|" + "|".join(FILES) + ")$")
    assert [name for name in members if not own.match(name)] == []
    unwanted = re.compile(r"(?:^|/)(?:tests?|__pycache__)/|\.db|\.pyc$|\.env$")
    assert [name for name in members if unwanted.search(name)] == []


def test_its_metadata_say_what_it_is(distributions: tuple[Path, Path]) -> None:
    wheel = zipfile.ZipFile(distributions[1])
    folder = f"agentcascade-{__version__}.dist-info"
    about = HeaderParser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert (about["Version"], about["License-Expression"], about["Author"]) == (
        *(__version__, "Apache-2.0"),
        "The agentcascade authors",
    )
    assert {*about.get_all("License-File", [])} == {"LICENSE", "LICENSES.md", "NOTICE"}
    assert {f"{folder}/licenses/{name}" for name in ("LICENSE", "LICENSES.md", "NOTICE")} <= {*wheel.namelist()}
    groups = {*tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]}
    registered = re.findall(
        r"^\[(agentcascade\.\w+)\]", wheel.read(f"{folder}/entry_points.txt").decode(), re.MULTILINE
    )
    assert {*registered} == groups


def test_the_wheel_runs_outside_the_checkout_and_is_typed(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        wheel.extractall(tmp_path / "site")
    program = tmp_path / "program.py"
    program.write_text(
        "import agentcascade\n"
        'echo = agentcascade.ScriptedModel(lambda messages, sample: "look", name="echo")\n'
        'with agentcascade.build(teacher=echo, mode="teacher", bank={"url": "sqlite:///own.db"}) as cascade:\n'
        '    answer = cascade.sync_episode(goal="leave").complete([{"role": "user", "content": "a door"}])\n'
        "print(agentcascade.__file__, answer.choices[0].message.content)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert run.stdout.split() == [str(tmp_path / "site/agentcascade/__init__.py"), "look"], run.stderr[-2000:]
