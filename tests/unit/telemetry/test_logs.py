"""Structured logs: one line each, without secrets, and without contents unless they are asked for."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.errors import ConfigError
from agentcascade.redaction.redactor import Redactor
from agentcascade.telemetry import logs

KEY = "sk-proj-Ab3dEf6hIj9kLmNoPq"


@pytest.fixture
def written(capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Configures, and gives the lines written since; the loggers are put back as they were."""
    before = {}
    for name in ("agentcascade", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        before[name] = (logger.handlers[:], logger.level, logger.propagate)
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)  # a server that a test started sets it

    def lines(**options: Any) -> list[str]:
        if options:
            logs.configure_logging(**options)
        return capfd.readouterr().err.splitlines()

    yield lines
    for name, (handlers, level, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def record(message: str, *args: object, **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("agentcascade.x")
    return logger.makeRecord("agentcascade.x", logging.INFO, "x.py", 1, message, args, None, extra=extra)


def shown(message: str, *args: object, **extra: Any) -> Any:
    return json.loads(logs.StructuredFormatter().format(record(message, *args, **extra)))


def test_a_line_of_json_holds_time_level_logger_message_and_fields(written: Any) -> None:
    written(level="info")
    logging.getLogger("agentcascade.server").info("answered %d", 200, extra={"route": "/v1/models", "ms": 1.5})
    logging.getLogger("agentcascade.server").debug("not this")
    (line,) = written()
    said = json.loads(line)
    assert said.pop("time").endswith("+00:00")
    assert said == {
        "level": "info",
        "logger": "agentcascade.server",
        "message": "answered 200",
        "route": "/v1/models",
        "ms": 1.5,
    }


def test_what_a_library_marks_its_records_with_is_left_out() -> None:
    """A name like those of Ray, whose own record factory may be in place here."""
    said = shown("a", _library_timestamp_ns=1, job=2)
    assert "_library_timestamp_ns" not in said
    assert said["job"] == 2


def test_uvicorn_is_configured_too_unless_it_is_not_asked_for(written: Any) -> None:
    written(level="info")
    logging.getLogger("uvicorn.error").info("started")
    assert json.loads(written()[0])["logger"] == "uvicorn.error"
    logging.getLogger("uvicorn").handlers[:] = []
    written(level="info", uvicorn=False)
    assert logging.getLogger("uvicorn").handlers == []


def test_configuring_again_replaces_the_handler(written: Any) -> None:
    written(level="info")
    written(level="warning", json=False)
    logging.getLogger("agentcascade").warning("once")
    (line,) = written()
    assert line.endswith("WARNING agentcascade: once")


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ConfigError, match="log level 'loud' is unknown: use one of debug, info"):
        logs.configure_logging("loud")


def test_secrets_are_left_out_everywhere() -> None:
    class Client:
        def __str__(self) -> str:
            return f"Client({KEY})"

    try:
        raise ValueError(f"bad key {KEY}")
    except ValueError as error:
        failed = record(
            f"{KEY} %s", KEY, extra_key=KEY, nested={"a": [KEY, {KEY: KEY}]}, client=Client(), password="pw"
        )
        failed.exc_info = (ValueError, error, error.__traceback__)
    failed.stack_info = f"Stack: {KEY}"
    line = logs.StructuredFormatter().format(failed)
    assert "Ab3dEf" not in line
    said = json.loads(line)
    assert said["message"] == "[key] [key]"
    assert said["client"] == "Client([key])"
    assert said["password"] == "[key]"
    assert said["exception"].endswith("ValueError: bad key [key]")


def test_contents_are_shown_by_their_length_unless_asked_for() -> None:
    messages = [{"role": "user", "content": "the patient is ill"}]
    said = shown("x", messages=messages, request={"arguments": '{"a": 1}', "n": 2}, prompt=None)
    assert said["messages"] == "[1 long]"
    assert said["request"] == {"arguments": "[8 long]", "n": 2}
    assert said["prompt"] is None
    asked = json.loads(
        logs.StructuredFormatter(contents=True).format(record("x", messages=messages, prompt=f"use {KEY}"))
    )
    assert asked["messages"] == messages
    assert asked["prompt"] == "use [key]"


def test_own_redactor_is_used_and_a_failing_hook_shows_nothing() -> None:
    orders = logs.StructuredFormatter(redactor=Redactor(patterns={"order": r"#W\d+"}))
    assert json.loads(orders.format(record("order #W123")))["message"] == "order [order]"

    def broken(text: str) -> str:
        raise RuntimeError

    line = logs.StructuredFormatter(redactor=Redactor(hooks=[broken])).format(record("the patient"))
    assert json.loads(line)["message"] == "[withheld: redaction failed with RuntimeError]"


def test_extra_fields_cannot_pose_as_ours() -> None:
    said = shown("true", time="never", level="critical", logger="root", exception=None)
    assert (said["message"], said["level"], said["logger"]) == ("true", "info", "agentcascade.x")
    assert said["time"] != "never"


def test_a_message_whose_arguments_do_not_fit_is_still_logged(capfd: pytest.CaptureFixture[str]) -> None:
    assert shown("%d %s", KEY)["message"] == "%d %s ('[key]',)"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: {2}}, object(), b"\xff", "\udc80"])
def test_any_value_can_be_logged(value: object) -> None:
    shown("x", value=value)


def test_cycles_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    shown("x", loop=loop)


@given(st.text(), st.booleans())
def test_no_value_begins_a_second_line(text: str, as_json: bool) -> None:
    line = logs.StructuredFormatter(as_json=as_json).format(
        record("%s", text + "\r\n\u2028\x85{", name_of_it=text, k={text: text})
    )
    assert len(line.splitlines()) == 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)
    if as_json:
        json.loads(line)


def test_plain_text_keeps_letters_of_every_language() -> None:
    line = logs.StructuredFormatter(as_json=False).format(record("größer 漢字", städte="Zürich"))
    assert (
        line.endswith("Z INFO agentcascade.x: größer 漢字 städte=Zürich")
        or "INFO agentcascade.x: größer 漢字 st" in line
    )


def test_the_trace_that_is_under_way_is_named() -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    assert "trace_id" not in shown("outside")
    with sdk.TracerProvider().get_tracer("x").start_as_current_span("y") as span:
        said = shown("inside")
    assert said["trace_id"] == trace.format_trace_id(span.get_span_context().trace_id)
    assert said["span_id"] == trace.format_span_id(span.get_span_context().span_id)
