"""What others wrote into a folder or say at an address holds up neither the Tab key nor `init`."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest

from agentcascade.cli import completion, completion_values, interview


def offered(names):
    context = click.Context(click.Command("x"))
    return [item.value for item in completion_values._offering(names)(context, click.Option(["--x"]), "")]


def test_aliases_that_multiply_complete_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = ["m0: &m0 {teacher: gpt-4.1}"]
    maps += [f"m{i}: &m{i} {{{', '.join(f'k{j}: *m{i - 1}' for j in range(400))}}}" for i in range(1, 5)]
    (tmp_path / "agentcascade.yaml").write_text("\n".join(maps))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(completion_values, "SECONDS", 1.5)  # the file has to be read in it
    began = time.thread_time()
    assert offered(completion_values.models) == ["gpt-4.1"]
    assert time.thread_time() - began < 20  # it would take hours


def test_merges_that_multiply_complete_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = ["m0: &m0 {teacher: gpt-4.1}"]
    maps += [f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, 40)]
    (tmp_path / "agentcascade.yaml").write_text("\n".join(maps))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(completion_values, "_in_time", nullcontext)  # whose signal would not be seen meanwhile
    assert offered(completion_values.models) == []
    (tmp_path / "agentcascade.yaml").write_text("\n".join(maps[:5]))
    assert offered(completion_values.models) == ["gpt-4.1"]


@pytest.mark.parametrize("text", ["[" * 300_000, "{a: " * 200_000, "- " * 300_000])
def test_what_nests_without_end_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "agentcascade.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert offered(completion_values.models) == []


def test_a_view_without_end_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(tmp_path / "agentcascade.db")) as opened:
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) AS id FROM n"
        opened.execute(f"CREATE VIEW keys AS {endless}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(completion_values, "SECONDS", 0.2)
    assert offered(completion_values._newest("keys")) == []


def test_a_start_file_that_is_read_only_stays_as_it_is(tmp_path: Path) -> None:
    start = tmp_path / ".bashrc"
    start.write_text("mine\n")
    start.chmod(0o444)
    with pytest.raises(click.ClickException, match="read-only"):
        completion._with_line(start, f". script  {completion.MARK}")
    assert start.read_text() == "mine\n"
    assert start.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_no_shell_sources_a_script_of_whatever_folder_it_starts_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: completion.Shell
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, "share")
    assert completion.place_of(shell).script.is_relative_to(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"data": [{"id": "a\\nteacher: evil"}]}',
        b'{"data": [{"id": "%s"}]}' % (b"a" * 3_000_000),
        b'{"data": 3}',
        b"\xff",
    ],
    ids=["deep", "line", "long", "number", "bytes"],
)
def test_a_list_of_models_that_is_none_names_none(body: bytes) -> None:
    class Hostile(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Hostile) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert interview.served_models(f"http://127.0.0.1:{server.server_port}/v1") == []
        thread.join()
