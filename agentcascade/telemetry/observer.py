"""Steps and model calls as OpenTelemetry spans and metrics. It never fails what it watches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from agentcascade import __version__
from agentcascade.errors import MissingExtra, describe
from agentcascade.telemetry import attributes as a
from agentcascade.types import Completion, Decision, Mode, Purpose, Role, Situation

log = logging.getLogger("agentcascade.telemetry")


class Telemetry:
    """An observer. Without providers of its own it uses the process's, which the program sets up (or nobody does).

    A step is a span ``invoke_agent NAME``, each model call in it a client span ``chat MODEL``. Metrics carry no ids and
    no texts; spans carry ids, and a step's goal only with `record_content`. Raises `MissingExtra`.
    """

    def __init__(
        self, tracer_provider: Any = None, meter_provider: Any = None, *, record_content: bool = False
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise MissingExtra("opentelemetry-api", "telemetry", "telemetry") from error
        self._content = record_content
        self._trace: Any = trace
        self._tracer = trace.get_tracer("agentcascade", __version__, tracer_provider)
        self.meter: Any = metrics.get_meter("agentcascade", __version__, meter_provider)
        self._complained = False
        counter, histogram = self.meter.create_counter, self.meter.create_histogram
        self._tokens = histogram(
            a.M_TOKENS, "{token}", "tokens of a call", explicit_bucket_boundaries_advisory=a.TOKEN_BUCKETS
        )
        self._seconds = histogram(
            a.M_DURATION, "s", "seconds of a call", explicit_bucket_boundaries_advisory=a.SECOND_BUCKETS
        )
        self._steps = counter(a.M_STEPS, "{step}", "steps taken")
        self._dollars = counter(a.M_DOLLARS, "{USD}", "spent, as far as prices are known")
        self._saved = self.meter.create_up_down_counter(
            a.M_SAVED, "{USD}", "saved against the teacher alone, estimated"
        )
        self._unpriced = counter(a.M_UNPRICED, "{call}", "calls whose price is not known")
        self._failures = counter(a.M_FAILURES, "{failure}", "failures that were worked around or ended a step")
        self._overhead = histogram(
            a.M_OVERHEAD, "ms", "a step's own time", explicit_bucket_boundaries_advisory=a.OVERHEAD_BUCKETS
        )
        self._agreement = histogram(
            a.M_AGREEMENT, "1", "agreement of a vote", explicit_bucket_boundaries_advisory=a.AGREEMENT_BUCKETS
        )

    def step(self, situation: Situation, mode: Mode) -> AbstractContextManager[Callable[[Decision], None]]:
        about = {
            a.OPERATION: "invoke_agent",
            a.CONVERSATION: situation.episode,
            a.NAMESPACE: situation.namespace,
            a.EPISODE_STEP: situation.step,
            a.MODE: mode,
        }
        if self._content:
            about[a.INPUT_MESSAGES] = situation.goal
        return self._span("invoke_agent", "INTERNAL", about, self._decided)

    def call(
        self, role: Role, purpose: Purpose, model: str, **request: Any
    ) -> AbstractContextManager[Callable[[Completion], None]]:
        provider, _, bare = model.rpartition("/")
        about = {
            a.OPERATION: "chat",
            a.PROVIDER: provider.split("/")[0] or "unknown",
            a.REQUEST_MODEL: bare,
            a.ROLE: role,
            a.PURPOSE: purpose,
        }
        labels = dict(about)
        for name, value in (
            (a.CHOICES, request.get("n")),
            (a.TEMPERATURE, request.get("temperature")),
            (a.STREAM, request.get("stream")),
        ):
            if value is not None:
                about[name] = value
        return self._call(f"chat {bare}", about, labels)

    @contextmanager
    def _call(self, name: str, about: dict[str, Any], labels: dict[str, Any]) -> Iterator[Callable[[Completion], None]]:
        started = time.perf_counter()
        outcome: dict[str, Any] = {}

        def called(span: Any, completion: Completion) -> None:
            self._called(span, completion, labels)

        try:
            with self._span(name, "CLIENT", about, called) as done:
                yield done
        except BaseException as error:
            outcome = {a.ERROR: type(error).__name__}
            raise
        finally:
            self._quietly(self._seconds.record, time.perf_counter() - started, {**labels, **outcome})

    @contextmanager
    def _span(
        self, name: str, kind: str, about: dict[str, Any], told: Callable[[Any, Any], None]
    ) -> Iterator[Callable[[Any], None]]:
        span, token = None, None
        try:
            span = self._tracer.start_span(name, kind=getattr(self._trace.SpanKind, kind), attributes=about)
            from opentelemetry import context

            token = context.attach(self._trace.set_span_in_context(span))
        except Exception as error:
            self._complain(error)
        try:
            yield lambda item: self._quietly(told, span, item)
        except BaseException as error:
            self._quietly(self._mark, span, error)
            raise
        finally:
            self._quietly(self._leave, span, token)

    def _mark(self, span: Any, error: BaseException) -> None:
        if span is None:
            return
        span.set_attribute(a.ERROR, type(error).__name__)
        if not isinstance(error, asyncio.CancelledError):
            span.set_status(self._trace.StatusCode.ERROR, describe(error))

    def _leave(self, span: Any, token: Any) -> None:
        from opentelemetry import context

        if token is not None:
            context.detach(token)
        if span is not None:
            span.end()

    def _called(self, span: Any, completion: Completion, labels: dict[str, Any]) -> None:
        usage = completion.usage
        for kind, count in (("input", usage.prompt), ("output", usage.completion)):
            self._tokens.record(count, {**labels, a.TOKEN_TYPE: kind})
        if completion.dollars is None:
            self._unpriced.add(1, labels)
        else:
            self._dollars.add(float(completion.dollars), labels)
        if span is not None and span.is_recording():
            span.set_attributes(
                {
                    a.RESPONSE_MODEL: completion.model,
                    a.FINISH_REASONS: list(completion.finish_reasons),
                    a.INPUT_TOKENS: usage.prompt,
                    a.OUTPUT_TOKENS: usage.completion,
                    a.CACHE_READ_TOKENS: usage.cached_input,
                    a.CACHE_WRITE_TOKENS: usage.cache_write + usage.cache_write_1h,
                    a.REASONING_TOKENS: usage.reasoning,
                }
            )

    def _decided(self, span: Any, decision: Decision) -> None:
        labels = {a.CASCADE: decision.cascade, a.MODE: decision.mode}
        self._steps.add(1, {**labels, a.ANSWERED_BY: decision.answered_by})
        self._overhead.record(decision.overhead_ms, labels)
        if decision.agreement is not None:
            self._agreement.record(decision.agreement, labels)
        if decision.saved_dollars is not None:
            self._saved.add(float(decision.saved_dollars), labels)
        for failure in decision.failures:
            self._failures.add(1, {**labels, a.FAILURE: ":".join(failure.split(":")[:2])[:80]})
        if span is not None and span.is_recording():
            span.set_attributes(
                {
                    a.AGENT: decision.cascade,
                    a.ANSWERED_BY: decision.answered_by,
                    a.REASON: decision.reason,
                    a.SAMPLES: decision.samples,
                    a.DEMONSTRATIONS: len(decision.demonstrations),
                    a.OVERHEAD: decision.overhead_ms,
                    a.FAILURES: len(decision.failures),
                    **({} if decision.agreement is None else {a.AGREEMENT: decision.agreement}),
                    **({} if decision.dollars is None else {a.DOLLARS: float(decision.dollars)}),
                }
            )

    def _quietly(self, work: Callable[..., Any], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            log.warning("telemetry fails, steps go on: %s", describe(error))


def prometheus() -> tuple[Telemetry, Callable[[], tuple[bytes, str]]]:
    """A `Telemetry` whose metrics Prometheus can read, and the function that renders them (text, media type).

    Spans go to the process's tracer provider, if the program has set one. Raises `MissingExtra`.
    """
    try:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from opentelemetry.sdk.metrics import MeterProvider
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    except ImportError as error:
        raise MissingExtra("opentelemetry-exporter-prometheus", "telemetry", "the metrics page") from error
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry, disable_target_info=True, scope_info_enabled=False)
    telemetry = Telemetry(meter_provider=MeterProvider(metric_readers=[reader]))
    return telemetry, lambda: (generate_latest(registry), CONTENT_TYPE_LATEST)
