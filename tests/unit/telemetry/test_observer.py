"""Spans and metrics as the semantic conventions name them, and that watching never fails what is watched."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, make

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentcascade.errors import EmptyCompletion, MissingExtra
from agentcascade.redaction.redactor import Redactor
from agentcascade.step.stuck import Stuck
from agentcascade.telemetry import attributes
from agentcascade.telemetry import prometheus as prometheus_module
from agentcascade.telemetry.observer import Telemetry
from agentcascade.telemetry.prometheus import prometheus
from agentcascade.types import Completion, Decision, Situation, Usage
from tests.waiting import eventually


class Watched:
    """A telemetry whose spans and metrics stay in memory."""

    def __init__(self, **options: Any) -> None:
        self.spans, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.telemetry = Telemetry(tracers, MeterProvider(metric_readers=[self.reader]), **options)

    def points(self, name: str = "") -> list[Any]:
        data = self.reader.get_metrics_data()
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
        return [p for m in metrics if name in ("", m.name) for p in m.data.data_points]


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    assert span.attributes is not None
    return span.attributes


def conversation_of(episode: str) -> Situation:
    return Situation(goal="put a mug on the desk", episode=episode, namespace="ns_secret")


def deferring(watched: Watched, **more: Any) -> Any:
    cascade = make(Model("openai/s", [act("a"), act("b"), act("a")]), Model("anthropic/t", act("go")), **more)
    return cascade.twin(observer=watched.telemetry)


async def test_a_step_is_a_span_and_its_calls_are_client_spans_inside() -> None:
    watched = Watched()
    _, decision = await deferring(watched, bank=FakeBank(DEMONSTRATION)).step(MESSAGES, options={"temperature": 0.5})
    student, teacher, step = watched.spans.get_finished_spans()
    assert step.name == "agentcascade.step"
    assert {s.parent and s.parent.span_id for s in (student, teacher)} == {step.context.span_id}
    assert [s.kind.name for s in (student, teacher, step)] == ["CLIENT", "CLIENT", "INTERNAL"]
    assert student.name == "chat s"
    assert attributes_of(student)["gen_ai.operation.name"] == "chat"
    assert attributes_of(student)["gen_ai.provider.name"] == "openai"
    assert attributes_of(student)["gen_ai.request.model"] == "s"
    assert attributes_of(student)["gen_ai.request.choice.count"] == 3
    assert attributes_of(student)["gen_ai.usage.input_tokens"] == 100
    assert attributes_of(student)["gen_ai.usage.output_tokens"] == 30
    assert attributes_of(teacher)["gen_ai.provider.name"] == "anthropic"
    assert attributes_of(step)["gen_ai.conversation.id"] == decision.episode
    assert attributes_of(step)["agentcascade.episode"] == decision.episode
    assert attributes_of(step)["agentcascade.answered_by"] == "teacher"
    assert attributes_of(step)["agentcascade.deferred"] is True
    assert attributes_of(step)["agentcascade.agreement"] == pytest.approx(2 / 3)
    assert attributes_of(step)["agentcascade.dollars"] == float(decision.dollars)


async def test_metrics_add_up_and_name_neither_episodes_nor_goals() -> None:
    watched = Watched()
    cascade = deferring(watched)
    for _ in range(3):
        await cascade.step(MESSAGES, situation=conversation_of("ep_secret"))
    dollars = {p.attributes["agentcascade.role"]: p.value for p in watched.points("agentcascade.dollars")}
    assert dollars == {"student": 390.0, "teacher": 330.0}
    (steps,) = watched.points("agentcascade.steps")
    assert steps.value == 3
    tokens = {
        (p.attributes["agentcascade.role"], p.attributes["gen_ai.token.type"]): p.sum
        for p in watched.points("gen_ai.client.token.usage")
    }
    assert tokens == {
        ("student", "input"): 300, ("student", "output"): 90, ("teacher", "input"): 300, ("teacher", "output"): 30,
    }  # fmt: skip
    assert sum(p.count for p in watched.points("gen_ai.client.operation.duration")) == 6
    values = {v for p in watched.points() for v in p.attributes.values()}
    assert "ep_secret" not in values
    assert values <= {
        *(
            "chat",
            "openai",
            "anthropic",
            "s",
            "t",
            "student",
            "teacher",
            "sample",
            "act",
            "input",
            "output",
            "cascade",
            "",
        ),
    }


def test_audits_and_alarms_are_metrics() -> None:
    watched = Watched()
    watched.telemetry.on_audit("default", 0.0, 0.4, False)
    watched.telemetry.on_audit("default", 1.0, 25.0, True)
    watched.telemetry.on_audit("other", 1.0, None, False)  # audited, not watched
    audits = {(p.attributes[attributes.CASCADE], p.attributes[attributes.DIFFERS]): p.value
              for p in watched.points("agentcascade.audits")}  # fmt: skip
    assert audits == {("default", False): 1, ("default", True): 1, ("other", True): 1}
    assert [p.value for p in watched.points("agentcascade.drift.alarm")] == [1]
    assert [p.value for p in watched.points("agentcascade.drift.evidence")] == [25.0]


async def test_an_unknown_price_is_counted_not_taken_for_zero() -> None:
    watched = Watched()
    cascade = make(None, Model("t", act("go"), price=None), mode="teacher")
    cascade = cascade.twin(observer=watched.telemetry)
    await cascade.step(MESSAGES)
    assert watched.points("agentcascade.dollars") == []
    assert watched.points("agentcascade.unpriced_calls")[0].value == 1


async def test_an_error_marks_its_spans_and_passes_through() -> None:
    watched = Watched()
    cascade = make(None, Model("t", ConnectionError("key=sk-abcdefghijklmnop")), mode="teacher")
    cascade = cascade.twin(observer=watched.telemetry)
    with pytest.raises(ConnectionError):
        await cascade.step(MESSAGES)
    call, step = watched.spans.get_finished_spans()
    assert {attributes_of(s)["error.type"] for s in (call, step)} == {"ConnectionError"}
    assert call.status.status_code.name == "ERROR"
    assert "sk-abc" not in str(call.status.description)
    (failures,) = watched.points("agentcascade.failures")
    assert failures.attributes["agentcascade.kind"] == "step"
    assert failures.attributes["error.type"] == "ConnectionError"
    (took,) = watched.points("gen_ai.client.operation.duration")
    assert took.attributes["error.type"] == "ConnectionError"


async def test_cancelling_is_no_fault() -> None:
    watched = Watched()
    teacher = Model("t", act("go"), delay=60)
    cascade = make(None, teacher, mode="teacher")
    cascade = cascade.twin(observer=watched.telemetry)
    task = asyncio.create_task(cascade.step(MESSAGES))
    await eventually(lambda: teacher.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    spans = watched.spans.get_finished_spans()
    assert {s.status.status_code.name for s in spans} == {"UNSET"}
    assert all(attributes_of(s)["agentcascade.cancelled"] and "error.type" not in attributes_of(s) for s in spans)
    assert watched.points("gen_ai.client.operation.duration") == []


async def test_no_text_of_the_conversation_is_in_a_span_unless_asked_for() -> None:
    for content in (False, True):
        watched = Watched(record_content=content)
        await deferring(watched).step(MESSAGES)
        said = repr([dict(attributes_of(s)) for s in watched.spans.get_finished_spans()])
        assert ("put a mug on the desk" in said) == content
        assert ("gen_ai.output.messages" in said) == content
        for field in ("agentcascade.action", "agentcascade.reason", "agentcascade.goal"):
            assert (field in said) == content


async def test_broken_telemetry_breaks_no_step(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("exporter down")

    for instrument in ("_steps", "_tokens", "_seconds", "_dollars"):
        setattr(watched.telemetry, instrument, type("Broken", (), {"add": broken, "record": broken})())
    watched.telemetry.tracer = type("Broken", (), {"start_span": broken})()
    completion, _ = await deferring(watched).step(MESSAGES)
    assert completion.messages[0]["content"] == act("go")
    assert sum("telemetry fails" in r.message for r in caplog.records) == 1


async def test_without_a_provider_nothing_happens() -> None:
    cascade = make(None, Model("t", act("go")), mode="teacher")
    cascade = cascade.twin(observer=Telemetry())
    _, decision = await cascade.step(MESSAGES)
    assert decision.dollars == Decimal(110)


async def test_prometheus_reads_the_same_figures() -> None:
    telemetry, render = prometheus()
    cascade = make(None, Model("openai/t", act("go")), mode="teacher")
    cascade = cascade.twin(observer=telemetry)
    await cascade.step(MESSAGES)
    body, media_type = render()
    assert media_type.startswith("text/plain")
    lines = body.decode().splitlines()
    assert any(line.startswith("agentcascade_steps") and line.endswith(" 1.0") for line in lines)
    assert any(line.startswith("gen_ai_client_token_usage") for line in lines)


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("openai/gpt-4.1-mini", "openai", "gpt-4.1-mini"),
        ("bedrock/anthropic.claude-v2", "aws.bedrock", "anthropic.claude-v2"),
        ("openrouter/meta/llama-3", "openrouter", "meta/llama-3"),
        ("gpt-4.1", "openai", "gpt-4.1"),
        ("claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("mine", "unknown", "mine"),
    ],
)
def test_a_models_name_tells_its_provider_in_the_conventions_words(name: str, provider: str, model: str) -> None:
    assert attributes.model_of(name) == (provider, model)


def test_our_names_are_those_of_the_conventions_package() -> None:
    semconv = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {v for k, v in vars(semconv).items() if k.startswith("GEN_AI_") and isinstance(v, str)}
    ours = {v for k, v in vars(attributes).items() if isinstance(v, str) and v.startswith("gen_ai.") and k[:2] != "M_"}
    assert ours <= known


def test_contents_are_in_the_conventions_shape_and_redacted() -> None:
    watched = Watched(record_content=True, redactor=Redactor(patterns={"order": r"#W\d+"}))
    call = {"id": "c1", "type": "function", "function": {"name": "cancel", "arguments": '{"id": "#W12"}'}}
    completion = Completion(model="openai/s", messages=({"role": "assistant", "content": "ok", "tool_calls": [call]},))
    with watched.telemetry.call("student", "sample", "openai/s") as seen:
        seen(completion)
    (span,) = watched.spans.get_finished_spans()
    (message,) = json.loads(attributes_of(span)["gen_ai.output.messages"])
    assert message["role"] == "assistant"
    assert message["parts"] == [
        {"type": "text", "content": "ok"},
        {"type": "tool_call", "id": "c1", "name": "cancel", "arguments": '{"id": "[order]"}'},
    ]


def test_a_failed_call_that_was_billed_is_counted() -> None:
    watched = Watched()
    error = EmptyCompletion("nothing")
    error.completion = Completion(model="t", messages=(), usage=Usage(input=7, output=1), dollars=Decimal(2))
    with pytest.raises(EmptyCompletion), watched.telemetry.call("teacher", "act", "openai/t"):
        raise error
    assert [p.value for p in watched.points("agentcascade.dollars")] == [2.0]


def test_a_step_that_cost_more_than_the_teacher_lowers_what_was_saved() -> None:
    watched = Watched()
    for dollars in (1, 5):
        with watched.telemetry.step(conversation_of("e"), "cascade") as decided:
            decided(
                Decision(
                    episode="e", step=0, mode="cascade", answered_by="teacher", reason="x",
                    dollars=Decimal(dollars), teacher_dollars=Decimal(3),
                )
            )  # fmt: skip
    assert [p.value for p in watched.points("agentcascade.dollars.saved")] == [0.0]


def test_what_failures_say_makes_no_new_labels() -> None:
    watched = Watched()
    failures = ("first-thought: Timeout: after 3 s", "the user wrote: so", "student: weird thing 17")
    with watched.telemetry.step(conversation_of("e"), "cascade") as decided:
        decided(
            Decision(episode="e", step=0, mode="cascade", answered_by="teacher", reason="x", failures=failures)
        )  # fmt: skip
    kinds = {
        (p.attributes["agentcascade.kind"], p.attributes["error.type"]) for p in watched.points("agentcascade.failures")
    }
    assert kinds == {("first-thought", "Timeout"), ("other", "other"), ("student", "other")}


@pytest.mark.parametrize(
    ("reason", "signal"),
    [
        (str(Stuck("nothing_new", 3, 7)), "nothing_new"),
        ("stuck since step 2: so it says: x", "so"),
        ("agreement 2/3", ""),
    ],
)
def test_steps_of_stuck_runs_are_counted_by_their_signal(reason: str, signal: str) -> None:
    watched = Watched()
    with watched.telemetry.step(conversation_of("e"), "cascade") as decided:
        decided(Decision(episode="e", step=9, mode="cascade", answered_by="teacher", reason=reason))
    counted = watched.points("agentcascade.stuck") if signal else []
    assert [p.attributes["agentcascade.signal"] for p in counted] == [signal] * bool(signal)


class Collector(BaseHTTPRequestHandler):
    """Takes what an OTLP exporter sends."""

    got: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bytes]]]:
    got: list[tuple[str, bytes]] = []
    with HTTPServer(("127.0.0.1", 0), type("Handler", (Collector,), {"got": got})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield got
        server.shutdown()


def test_spans_go_to_the_collector_that_the_environment_names(collector: list[tuple[str, bytes]]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    provider = prometheus_module._collector()
    with Telemetry(provider).step(conversation_of("ep_1"), "teacher"):
        pass
    provider.shutdown()
    ((path, body),) = collector
    assert path == "/v1/traces"
    assert b"agentcascade.step" in body
    assert b"ep_1" in body
    assert b"mug" not in body


@pytest.mark.parametrize(
    ("module", "make", "words"),
    [
        ("opentelemetry", Telemetry, "telemetry needs opentelemetry-api"),
        ("prometheus_client", prometheus, "the metrics page needs opentelemetry-exporter-prometheus"),
    ],
)
def test_missing_packages_are_told(module: str, make: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf'{words}: pip install "agentcascade\[telemetry\]"'):
        make()
