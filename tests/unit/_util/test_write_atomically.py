"""Files that are replaced in one go: links are refused or kept, read-only files are left, pipes are written to."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from agentcascade._util.files import replaceable, write_atomically
from agentcascade.cli import main
from agentcascade.steplog.parquet import write_parquet
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path: Path, relative: bool, is_there: bool) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    real, middle, link = tmp_path / "real/file", tmp_path / "links/middle", tmp_path / "links/file"
    middle.symlink_to("../real/file" if relative else real)
    link.symlink_to("middle" if relative else middle)
    if is_there:
        real.write_text("before")
        real.chmod(0o640)
    write_atomically(link, "after", follow=True)
    assert (link.is_symlink(), middle.is_symlink()) == (True, True)
    assert real.read_text() == link.read_text() == "after"
    assert stat.S_IMODE(real.stat().st_mode) == (0o640 if is_there else 0o600)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "file", "links", "middle", "real"]


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "a", "text", follow=True)
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, "text")


def steps(path: Path) -> Any:
    samples = (LoggedSample(action="go", text="go"),)
    return write_parquet(
        path, [LoggedStep(id="s", students=(StudentSamples(model="m", samples=samples),), teacher="go")]
    )


def follows(path: Path) -> None:
    write_atomically(path, "after", follow=True)


@pytest.mark.parametrize(("write", "linked"), [(follows, True), (follows, False), (steps, False)])
def test_a_read_only_file_is_left_and_named(tmp_path: Path, write: Any, linked: bool) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o444)
    named = file
    if linked:
        named = tmp_path / "link"
        named.symlink_to(file)
    with pytest.raises(PermissionError, match=rf"'{named}'"):
        write(named)
    assert file.read_text() == "before"
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert {p.name for p in tmp_path.iterdir()} == {"file", named.name}


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("write", [lambda path: write_atomically(path, "after"), steps], ids=["text", "parquet"])
def test_what_is_behind_a_link_is_left(tmp_path: Path, write: Any, is_there: bool) -> None:
    """Somebody else may have put it where an export, a log or a report goes."""
    secret, link = tmp_path / "secret", tmp_path / "log"
    if is_there:
        secret.write_text("before")
    link.symlink_to("secret")
    with pytest.raises(OSError, match=r"it is a link to secret: name the file itself: .*log"):
        write(link)
    assert link.is_symlink()
    assert secret.exists() == is_there
    assert not is_there or secret.read_text() == "before"


def test_a_pipe_is_written_to() -> None:
    code = "from agentcascade._util.files import *; write_atomically(Path('/dev/stdout'), 'é')"
    written = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert written.stdout.decode() == "é"
    assert Path("/dev/stdout").is_symlink()


def test_init_writes_the_configuration_that_a_link_leads_to(tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles.yaml"
    dotfiles.write_text("mode: teacher\n")
    link = tmp_path / "agentcascade.yaml"
    link.symlink_to("dotfiles.yaml")
    command = ["init", str(link), "--preset", "full", "--force"]
    made = CliRunner().invoke(main, command)
    assert made.exit_code == 0, made.output
    assert link.is_symlink()
    assert "teacher" in yaml.safe_load(dotfiles.read_text())
    dotfiles.chmod(0o400)
    refused = CliRunner().invoke(main, command)
    assert (refused.exit_code, "it is read-only" in refused.output, str(link) in refused.output) == (1, True, True)


def test_what_is_new_is_not_made_before_it_is_whole(tmp_path: Path) -> None:
    assert replaceable(tmp_path / "new") == tmp_path / "new"
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "new", "\ud800")
    assert list(tmp_path.iterdir()) == []
