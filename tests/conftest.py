"""What all tests share: no downloads, and a fake provider on a local port."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fake_openai import FakeOpenAI, Reply, Script
from hypothesis import settings

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


settings.register_profile("default", deadline=None)  # CPUs are shared
settings.load_profile("default")


@pytest.fixture
def fake_openai() -> Iterator[Callable[..., FakeOpenAI]]:
    """Starts a fake provider with the given script; it stops with the test."""
    with ExitStack() as stack:

        def start(script: Script | None = None) -> FakeOpenAI:
            return stack.enter_context(FakeOpenAI([Reply()] if script is None else script))

        yield start
