"""Protocols: a wrapper that hands the rest on by `__getattr__` can what it wraps can, on every version of Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentcascade.models.openai import OpenAIModel
from agentcascade.models.pricing import Price, with_price
from agentcascade.protocols import can_defer, can_learn, can_stream, is_shared
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.retrievers.pgvector import PgvectorRetriever
from agentcascade.routers.step.bandits import StepLinUCB
from agentcascade.routers.step.consistency import Unanimity
from agentcascade.storage.recorder import DatabaseRecorder


class Wrapper:
    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


@pytest.mark.parametrize(
    ("can", "one", "other"),
    [
        (can_stream, OpenAIModel("openai/m", api_key="k"), object()),
        (can_learn, StepLinUCB(), Unanimity()),
        (is_shared, object.__new__(PgvectorRetriever), ExactRetriever(4)),
        (can_defer, object.__new__(DatabaseRecorder), object()),
    ],
)
def test_a_wrapper_can_what_it_wraps_can(can: Callable[[object], bool], one: object, other: object) -> None:
    assert can(one)
    assert can(Wrapper(one))
    assert not can(other)
    assert not can(Wrapper(other))


def test_a_price_does_not_take_streaming_away() -> None:
    streaming = Wrapper(OpenAIModel("openai/m", api_key="k"))
    assert can_stream(with_price(streaming, Price(input=1, output=2)))
