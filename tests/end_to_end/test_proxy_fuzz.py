"""The proxy fuzzed from its own OpenAPI document: no fault, every answer as documented. Run with `-s` for the count."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
pytest.importorskip("schemathesis", reason="needs the extra `dev`")
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Err

from agentcascade.config.load import CascadeConfig
from tests.proxy import Proxy, serving
from tests.proxy import settings as configuration

EXAMPLES = int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", 30))
EPISODE = "ep-known"
STORED: list[str] = []
"""Id of a response that is stored."""
INPUT = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Where is it?"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "a bed"},
]
SEEN: Counter[str] = Counter()
"""Cases by route and status."""


def answer(request: Request) -> Reply:
    """What a model may say, in turn."""
    turn = sum(SEEN.values()) % 4
    if turn == 3:
        return Reply(tool_calls=[("look", '{"at": "it"}')], texts=(None,))
    return Reply(texts=(("one", "two", "three")[turn],))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("fuzz")
    with FakeOpenAI(answer) as fake:
        modes = {name: {"mode": name} for name in ("cascade", "collect", "shadow")}
        with serving(CascadeConfig(**configuration(fake, folder, cascades=modes))) as running:
            running.http.headers["authorization"] = f"Bearer {running.key('fuzz', admin=True)}"
            running.chat(model="collect", headers={"x-agentcascade-episode": EPISODE})
            asked = {"model": "collect", "input": "hi"}
            STORED[:] = [running.http.post("/v1/responses", json=asked).json()["id"]]
            yield running
            assert len(fake.requests) > EXAMPLES // 2, "many cases must get past the checks of the body"
    print("\n" + "\n".join(f"{count:6} {what}" for what, count in sorted(SEEN.items())))
    print(f"{sum(SEEN.values()):6} cases")


@pytest.mark.parametrize("sense", list(GenerationMode))
def test_everything_that_can_be_sent(proxy: Proxy, sense: GenerationMode) -> None:
    """Requests as the document describes them, and requests that break it in some way."""
    load_all_checks()
    document = schemathesis.openapi.from_url(f"{proxy.base}/openapi.json")
    found = list(document.get_all_operations())
    operations = [operation.ok() for operation in found if not isinstance(operation, Err)]
    assert len(operations) == len(found)
    assert len(operations) == 13
    for operation in operations:
        if sense is GenerationMode.NEGATIVE and operation.method in ("get", "delete"):
            continue  # nothing in it could be wrong
        examples = EXAMPLES if operation.method == "post" else EXAMPLES // 10
        few = settings(
            max_examples=max(examples, 6), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
        )

        @few
        @given(case=operation.as_strategy(generation_mode=sense))
        def send(case: Any) -> None:
            _send(proxy, case, sense)

        send()


def _send(proxy: Proxy, case: Any, sense: GenerationMode) -> None:
    _reach_in(case)
    if sense is GenerationMode.POSITIVE:
        _say_something(case)
    started = time.monotonic()
    response = case.call(headers={"authorization": proxy.http.headers["authorization"]}, timeout=90)
    SEEN[f"{case.method} {case.path} {response.status_code}"] += 1
    assert response.status_code < 500, response.text
    assert time.monotonic() - started < 60
    assert "Traceback" not in response.text
    if response.status_code == 413:  # which the check of broken requests does not take for a refusal
        return
    # A conversation may be of the right shape and yet make no sense: that is a 400.
    case.validate_response(response, excluded_checks=CHECKS.get_by_names(["positive_data_acceptance"]))


def _reach_in(case: Any) -> None:
    """Name a model and an episode that there are, in most cases: else all are answered 404 at the door."""
    body = case.body
    turn = sum(SEEN.values())
    named = body.get("model") if isinstance(body, dict) else None
    if isinstance(named, str) and 0 < len(named) <= 200 and turn % 8:
        body["model"] = ("cascade", "collect", "shadow")[turn % 3]
    if isinstance(case.path_parameters, dict) and "id" in case.path_parameters and case.method != "DELETE":
        case.path_parameters["id"] = STORED[0]
    if isinstance(case.path_parameters, dict) and "episode" in case.path_parameters and turn % 16:
        case.path_parameters["episode"] = EPISODE


def _say_something(case: Any) -> None:
    """Items and tools that make sense, in most cases: random ones are all refused by their first field."""
    turn = sum(SEEN.values())
    if case.path != "/v1/responses" or not isinstance(case.body, dict) or not turn % 3:
        return
    kept = {
        k: v for k, v in case.body.items() if k in ("model", "stream", "store", "instructions", "metadata", "top_p")
    }
    case.body.clear()
    case.body.update({**kept, "input": INPUT})
    if turn % 2:
        case.body["tools"] = [{"type": "function", "name": "look", "parameters": {"type": "object"}}]
