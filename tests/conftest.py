"""What all tests share: no downloads, and a fake provider on a local port."""

from __future__ import annotations

import functools
import gc
import os
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from agentcascade._util import known_secrets
from tests.both_databases import database, url  # noqa: F401
from tests.fake_openai import FakeOpenAI, Reply, Script
from tests.fresh_databases import replay_migrations
from tests.postgres import pgvector_server, pgvector_url, postgres_server, postgres_url  # noqa: F401
from tests.shared_sessions import share_sessions

# Modules of tests, whose assertions pytest rewrites, and what subprocesses import are compiled once.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy is imported: threads of small matrices only wait for each other

# CPUs are shared, and the suite says the same twice; a night's run looks further, and elsewhere each time:
# HYPOTHESIS_MAX_EXAMPLES=2000 pytest
settings.register_profile(
    "default",
    deadline=None,
    derandomize="HYPOTHESIS_MAX_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", 30)),
)
settings.load_profile("default")
replay_migrations()
share_sessions()
# Every HTTP client reads the certificates anew, for 20 ms; the servers of tests speak plain HTTP.
ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]
gc.set_threshold(20_000, 20, 20)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Thousands of tests and the libraries are no garbage; looked through again and again, they cost seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _known_secrets_of_one_module() -> Iterator[None]:
    """What a module's models registered as keys is forgotten after it: another module's texts may hold the like."""
    before = [dict(held) for held in (known_secrets._configured, known_secrets._registered)]
    yield
    for held, kept in zip((known_secrets._configured, known_secrets._registered), before):
        held.clear()
        held.update(kept)


@pytest.fixture(scope="session")
def games_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where ALFWorld makes games, once for all: $AGENTCASCADE_CACHE, else a folder that pytest's workers share."""
    own = tmp_path_factory.getbasetemp()
    return os.environ.get("AGENTCASCADE_CACHE") or str(
        (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "games"
    )


@pytest.fixture
def fake_openai() -> Iterator[Callable[..., FakeOpenAI]]:
    """Starts a fake provider with the given script; it stops with the test."""
    with ExitStack() as stack:

        def start(script: Script | None = None) -> FakeOpenAI:
            return stack.enter_context(FakeOpenAI([Reply()] if script is None else script))

        yield start
