"""Bills that errors carry."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest

import agentcascade
from agentcascade.errors import EmptyCompletion, bill_of, without_secrets
from agentcascade.types import Completion

BILL = Completion(model="m", messages=(), estimated=True, lost=1)


def test_no_message_of_ours_looks_like_a_secret() -> None:
    """What users are told passes through `without_secrets`, which must leave it whole."""
    eaten = []
    for path in Path(agentcascade.__file__).parent.rglob("*.py"):
        raised = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Raise)]
        for part in [p for n in raised for p in ast.walk(n)]:
            pieces = part.values if isinstance(part, ast.JoinedStr) else [part]
            text = "".join(str(p.value) if isinstance(p, ast.Constant) else "some" for p in pieces)
            if without_secrets(text) != text:
                eaten.append((path.name, text))
    assert eaten == []


def carrying(error: BaseException) -> BaseException:
    error.completion = BILL  # type: ignore[attr-defined]
    return error


def test_a_bill_is_found_on_any_error_that_carries_one() -> None:
    assert bill_of(carrying(ConnectionError("broke off"))) is BILL
    assert bill_of(EmptyCompletion("nothing")) is None
    assert bill_of(ValueError("never sent")) is None


async def test_the_bill_of_a_cancelled_call_survives_the_timeout_that_cancelled_it() -> None:
    async def call() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            carrying(error)
            raise

    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0):
            await call()
    assert bill_of(raised.value) is BILL


def test_another_calls_bill_is_not_taken_for_this_ones() -> None:
    error = ValueError("the teacher's, raised while the student's was handled")
    error.__context__ = carrying(ConnectionError("the student's, booked already"))
    assert bill_of(error) is None


def test_errors_that_cause_each_other_are_followed_once() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert bill_of(first) is None
