"""OpenTelemetry spans and metrics of steps and model calls. Telemetry never fails what it observes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from agentcascade._version import __version__
from agentcascade.errors import MissingExtra, describe
from agentcascade.redaction.redactor import Redactor
from agentcascade.telemetry import attributes as a
from agentcascade.types import Completion, Decision, Message, Mode, Purpose, Role, Situation

__all__ = ["Telemetry"]

log = logging.getLogger("agentcascade.telemetry")


class Telemetry:
    """An `Observer` that makes OpenTelemetry spans and metrics. What fails in it is logged once, and fails no step.

    A step is a span ``agentcascade.step``, neither an agent's run nor one model call; each call in it is a client span
    ``chat MODEL``. Durations are in seconds, the overhead of a step in milliseconds, money in dollars. Metrics carry no
    ids and no texts; spans carry ids.

    Args:
        tracer_provider: Where spans go; by default the process's provider, which the program sets up (or nobody does).
        meter_provider: Where metrics go; by default the process's provider.
        record_content: Whether spans carry goals, messages and actions, too, redacted.
        redactor: Redacts those; by default one of keys, e-mail addresses and phone numbers.

    Raises:
        MissingExtra: Without opentelemetry-api.

    >>> from agentcascade.types import Situation
    >>> telemetry = Telemetry()
    >>> with telemetry.step(Situation(goal="leave the room", observation="a door"), "cascade") as decided:
    ...     pass  # `decided` is called with the step's decision
    """

    def __init__(
        self,
        tracer_provider: Any = None,
        meter_provider: Any = None,
        *,
        record_content: bool = False,
        redactor: Redactor | None = None,
    ) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ImportError as error:
            raise MissingExtra("opentelemetry-api", "telemetry", "telemetry") from error
        self._redactor = (redactor or Redactor()) if record_content else None
        self.trace: Any = trace
        self.context: Any = context
        self.tracer: Any = trace.get_tracer("agentcascade", __version__, tracer_provider)
        self.meter: Any = metrics.get_meter("agentcascade", __version__, meter_provider)
        self._complained = False
        counter = self.meter.create_counter
        self._tokens = self._histogram(a.M_TOKENS, "{token}", "tokens of a model call", a.TOKEN_BUCKETS)
        self._seconds = self._histogram(a.M_DURATION, "s", "time of a model call", a.SECOND_BUCKETS)
        self._steps = counter(a.M_STEPS, "{step}", "steps taken")
        self._stuck = counter(a.M_STUCK, "{step}", "steps that the teacher took since their run was stuck")
        self._dollars = counter(a.M_DOLLARS, "{USD}", "dollars spent, as far as prices are known")
        saved = self.meter.create_up_down_counter  # a step can cost more than the teacher alone
        self._saved = saved(a.M_SAVED, "{USD}", "dollars saved against the teacher alone, estimated")
        self._unpriced = counter(a.M_UNPRICED, "{call}", "model calls whose price is not known")
        self._failures = counter(a.M_FAILURES, "{failure}", "failures that were worked around or ended a step")
        self._overhead = self._histogram(a.M_OVERHEAD, "ms", "a step's own time", a.OVERHEAD_BUCKETS)
        self._audits = counter(a.M_AUDITS, "{step}", "steps drawn for an audit")
        gauge = self.meter.create_gauge
        self._evidence = gauge(a.M_EVIDENCE, "1", "wealth of the drift watch against the certified risk")
        self._alarm = gauge(a.M_ALARM, "1", "1 while the certified risk does not hold")
        self._agreement = self._histogram(a.M_AGREEMENT, "1", "agreement of a vote", a.AGREEMENT_BUCKETS)

    def _histogram(self, name: str, unit: str, description: str, buckets: tuple[float, ...]) -> Any:
        return self.meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)

    def step(self, situation: Situation, mode: Mode) -> AbstractContextManager[Callable[[Decision], None]]:
        """The span of a step; it gives a function to call with the step's decision."""
        about: dict[str, Any] = {
            a.CONVERSATION: situation.episode,
            a.EPISODE: situation.episode,
            a.NAMESPACE: situation.namespace,
            a.STEP: situation.step,
            a.MODE: mode,
        }
        return ObservedSpan(
            self, a.STEP_SPAN, "INTERNAL", about, lambda span, decision: self._decided(span, decision, situation)
        )

    def call(
        self, role: Role, purpose: Purpose, model: str, **request: Any
    ) -> AbstractContextManager[Callable[[Completion], None]]:
        """The span of a model call; it gives a function to call with the completion. `request` holds its options."""
        provider, bare = a.model_of(model)
        labels = {a.OPERATION: "chat", a.PROVIDER: provider, a.REQUEST_MODEL: bare, a.ROLE: role, a.PURPOSE: purpose}
        about: dict[str, Any] = dict(labels)
        if request.get("n", 1) != 1:
            about[a.CHOICES] = request["n"]
        if request.get("temperature") is not None:
            about[a.TEMPERATURE] = request["temperature"]
        if request.get("stream"):
            about[a.STREAM] = True

        def called(span: Any, completion: Completion) -> None:
            self._called(span, completion, labels)

        def left(span: Any, error: BaseException | None, seconds: float) -> None:
            if error is None or isinstance(error, Exception):  # the time until a call was cancelled says nothing of it
                outcome = {} if error is None else {a.ERROR: type(error).__name__}
                self._seconds.record(seconds, {**labels, **outcome})
            completion = getattr(error, "completion", None)  # a failed call that was billed
            if isinstance(completion, Completion):
                self._called(span, completion, labels)

        return ObservedSpan(self, f"chat {bare}", "CLIENT", about, called, left)

    def on_audit(self, cascade: str, loss: float, evidence: float | None, alarmed: bool) -> None:
        """Count one audit, and show the evidence and alarm of the drift watch (`Observer.on_audit`)."""
        try:
            self._audits.add(1, {a.CASCADE: cascade, a.DIFFERS: loss > 0})
            if evidence is not None:
                self._evidence.set(evidence, {a.CASCADE: cascade})
                self._alarm.set(int(alarmed), {a.CASCADE: cascade})
        except Exception as error:
            self.complain(error)

    def _called(self, span: Any, completion: Completion, labels: Mapping[str, Any]) -> None:
        usage = completion.usage
        self._tokens.record(usage.prompt, {**labels, a.TOKEN_TYPE: "input"})
        self._tokens.record(usage.completion, {**labels, a.TOKEN_TYPE: "output"})
        if completion.dollars is None:
            self._unpriced.add(1, labels)
        else:
            self._dollars.add(float(completion.dollars), labels)
        if span is None or not span.is_recording():
            return
        attributes: dict[str, Any] = {
            a.RESPONSE_MODEL: str(completion.fields.get("model") or a.model_of(completion.model)[1])[:200],
            a.FINISH_REASONS: list(completion.finish_reasons),
            a.INPUT_TOKENS: usage.prompt,
            a.OUTPUT_TOKENS: usage.completion,
            a.CACHE_READ_TOKENS: usage.cached_input,
            a.CACHE_WRITE_TOKENS: usage.cache_write + usage.cache_write_1h,
            a.REASONING_TOKENS: usage.reasoning,
        }
        if completion.dollars is not None:
            attributes[a.DOLLARS] = float(completion.dollars)
        if self._redactor is not None:
            attributes[a.OUTPUT_MESSAGES] = self._json([_message(m) for m in completion.messages])
        span.set_attributes(attributes)

    def _decided(self, span: Any, decision: Decision, situation: Situation) -> None:
        labels = {a.CASCADE: decision.cascade, a.MODE: decision.mode}
        self._steps.add(1, {**labels, a.ANSWERED_BY: decision.answered_by})
        if decision.reason.startswith("stuck since step "):
            self._stuck.add(1, {**labels, a.SIGNAL: _word(decision.reason.partition(": ")[2].split(" ")[0])})
        self._overhead.record(decision.overhead_ms, labels)
        if decision.agreement is not None:
            self._agreement.record(decision.agreement, labels)
        if decision.saved_dollars is not None:
            self._saved.add(float(decision.saved_dollars), labels)
        for failure in decision.failures:
            what, _, rest = failure.partition(": ")
            kind = rest.partition(":")[0]
            error = _word(kind) if kind[:1].isupper() else "other"
            self._failures.add(1, {**labels, a.KIND: _word(what), a.ERROR: error})
        if span is None or not span.is_recording():
            return
        attributes: dict[str, Any] = {
            **labels,
            a.DECISION: decision.id,
            a.ANSWERED_BY: decision.answered_by,
            a.DEFERRED: decision.mode == "cascade" and decision.answered_by == "teacher",
            a.SAMPLES: decision.samples,
            a.DEMONSTRATIONS: len(decision.demonstrations),
            a.OVERHEAD: decision.overhead_ms,
            a.FAILURES: len(decision.failures),
            a.AGREEMENT: decision.agreement,
            a.DOLLARS: None if decision.dollars is None else float(decision.dollars),
            a.SAVED_DOLLARS: None if decision.saved_dollars is None else float(decision.saved_dollars),
        }
        if self._redactor is not None:
            observed = [{"role": "user", "parts": [{"type": "text", "content": situation.observation}]}]
            text = self._redactor.text
            attributes |= {
                a.GOAL: text(situation.goal),
                a.ACTION: text(decision.action or ""),
                a.REASON: text(decision.reason),
            }
            attributes[a.INPUT_MESSAGES] = self._json(observed)
        span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def _json(self, messages: list[dict[str, Any]]) -> str:
        assert self._redactor is not None
        return json.dumps(self._redactor.value(messages), ensure_ascii=False)

    def complain(self, error: Exception) -> None:
        """Once, for what fails may fail at every step."""
        if not self._complained:
            self._complained = True
            log.warning("telemetry fails, steps go on: %s", describe(error))


class ObservedSpan:
    """A span around some work. `on_result` gets the span and a result, `on_exit` the span, an error and seconds."""

    def __init__(
        self,
        telemetry: Telemetry,
        name: str,
        kind: str,
        attributes: dict[str, Any],
        on_result: Callable[[Any, Any], None],
        on_exit: Callable[[Any, BaseException | None, float], None] | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._on_result = on_result
        self._on_exit = on_exit
        self._span: Any = None
        self._token: Any = None

    def __enter__(self) -> Callable[[Any], None]:
        telemetry = self._telemetry
        self._started = time.perf_counter()
        try:
            kind = getattr(telemetry.trace.SpanKind, self._kind)
            self._span = telemetry.tracer.start_span(self._name, kind=kind, attributes=self._attributes)
            self._token = telemetry.context.attach(telemetry.trace.set_span_in_context(self._span))
        except Exception as error:
            telemetry.complain(error)
        return lambda item: self._quietly(self._on_result, self._span, item)

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._on_exit is not None:
            self._quietly(self._on_exit, self._span, error, time.perf_counter() - self._started)
        if self._token is not None:
            self._quietly(self._telemetry.context.detach, self._token)
        if self._span is not None:
            if error is not None:
                self._quietly(self._mark, error)
            self._quietly(self._span.end)

    def _mark(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # a cancelled task: somebody else's wish, not an error
            self._span.set_attribute(a.CANCELLED, True)
            return
        self._span.set_attribute(a.ERROR, type(error).__name__)
        self._span.set_status(
            self._telemetry.trace.StatusCode.ERROR, type(error).__name__
        )  # its text may quote a prompt

    def _quietly(self, work: Callable[..., Any], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:
            self._telemetry.complain(error)


def _word(text: str) -> str:
    """`text` where it is a name, else ``other``: a label has few values, whatever an error says."""
    return text if text.replace("-", "_").isidentifier() and len(text) <= 60 else "other"


def _message(message: Message) -> dict[str, Any]:
    """An assistant message in the conventions' shape."""
    content = message.get("content")
    texts = [content] if isinstance(content, str) else [p.get("text") for p in content or () if isinstance(p, dict)]
    parts: list[dict[str, Any]] = [{"type": "text", "content": text} for text in texts if text]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        named_call = {"name": function.get("name"), "arguments": function.get("arguments")}
        parts.append({"type": "tool_call", "id": call.get("id"), **named_call})
    return {"role": "assistant", "parts": parts}
