"""What the server's log says at its start of a cascade's dollars."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from agentcascade import CascadeConfig
from agentcascade.assembly.cascade import build_all
from agentcascade.config.keywords import ModelKeywords
from agentcascade.server.app import create_app
from agentcascade.server.outlook_log import log_outlooks
from agentcascade.types import Mode

TEACHER: ModelKeywords = {"name": "openai/teacher", "api_key": "sk-1", "price": {"input": 2, "output": 8}}


def config(mode: Mode, price: Any) -> CascadeConfig:
    return CascadeConfig.load(
        None,
        mode=mode,
        teacher=TEACHER,
        student={"name": "openai/student", "api_key": "sk-1", "price": {"input": price, "output": price}},
        retrieval={"k": 0},
        bank={"url": "sqlite:///:memory:"},
    )


class Heard(logging.Handler):
    """Waits for the log's line about dollars."""

    def __init__(self) -> None:
        super().__init__()
        self.line: logging.LogRecord | None = None
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "accepted step" in record.getMessage():
            self.line = record
            self.came.set()


@pytest.mark.parametrize(
    ("mode", "price", "level", "said"),
    [
        ("cascade", "0.2", logging.INFO, "cascade default saves where more than 0.09 of its steps are accepted"),
        ("shadow", "4", logging.WARNING, "cascade default cannot save, by what is assumed below"),
    ],
)
def test_the_server_says_at_its_start_what_its_cascades_cost(mode: Mode, price: str, level: int, said: str) -> None:
    heard, log = Heard(), logging.getLogger("agentcascade.server")
    before = log.level
    log.addHandler(heard)
    log.setLevel(logging.INFO)
    try:
        with TestClient(create_app(config(mode, price)), base_url="http://127.0.0.1") as client:
            assert client.get("/healthz").status_code == 200
            assert heard.came.wait(60)
    finally:
        log.removeHandler(heard)
        log.setLevel(before)
    assert heard.line is not None
    assert heard.line.levelno == level
    assert heard.line.getMessage().startswith(said)


def test_a_cascade_that_asks_no_student_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentcascade.server")
    cascades, shared = build_all(config("collect", "4"))
    log_outlooks(cascades.values())
    shared.close()
    assert not caplog.records


def test_what_cannot_be_read_is_said_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        name = "main"

        @property
        def context(self) -> None:
            raise OSError("disk gone")

    log_outlooks([Broken()])  # type: ignore[list-item]
    assert "what cascade main costs beside its teacher is not known: OSError: disk gone" in caplog.text
