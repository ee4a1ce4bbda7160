"""Bills that errors carry."""

from __future__ import annotations

import asyncio

import pytest

from agentcascade.errors import EmptyCompletion, bill_of
from agentcascade.types import Completion

BILL = Completion(model="m", messages=(), estimated=True, lost=1)


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
