"""The page of metrics, spans and attributes, from the instruments that are really made."""

from __future__ import annotations

from cells import code, table
from opentelemetry.sdk.metrics import MeterProvider

from agentcascade.server.metrics import RequestMetrics
from agentcascade.telemetry import attributes
from agentcascade.telemetry.observer import Telemetry

HEAD = """\
# Metrics and spans

`/metrics` of `agentcascade serve` is a page for Prometheus, whose names have `_` for `.`, the unit, and `_total` behind
counters. In your own process set `telemetry.opentelemetry: true`: spans and metrics then go to that process' OpenTelemetry
providers, and spans of the server go wherever `OTEL_EXPORTER_OTLP_ENDPOINT` says. Names that begin with `gen_ai` follow OpenTelemetry's semantic conventions for
generative AI (package 0.66b2, schema 1.44.0, status *development*); all others are our own. With `server --workers N` every metric
has the label `worker`; `sum by (…) (rate(…))` is the server's.
"""
SPANS = """
## Spans

| span | kind | what it is |
| --- | --- | --- |
| `agentcascade.step` | internal | one step, from the request to the decision |
| `chat MODEL` | client | one model call in it; its parent is the step |
"""
ABOUT = {
    "OPERATION": "always `chat`",
    "PROVIDER": "who serves the model, by the conventions' names",
    "REQUEST_MODEL": "the model that was asked for",
    "RESPONSE_MODEL": "the model that the provider says answered",
    "CHOICES": "samples of the call, where more than one",
    "TEMPERATURE": "temperature that was sent",
    "STREAM": "true where the call is streamed",
    "FINISH_REASONS": "why each choice ended",
    "INPUT_TOKENS": "tokens of the prompt",
    "OUTPUT_TOKENS": "tokens of the answer",
    "CACHE_READ_TOKENS": "tokens that were read from the provider's prompt cache",
    "CACHE_WRITE_TOKENS": "tokens that were written to it",
    "REASONING_TOKENS": "tokens of thinking, where told",
    "TOKEN_TYPE": "input or output",
    "CONVERSATION": "the episode's id",
    "INPUT_MESSAGES": "the prompt, redacted; only with `telemetry.contents`",
    "OUTPUT_MESSAGES": "the answer, redacted; only with `telemetry.contents`",
    "ERROR": "class of the error that ended the span",
    "STEP_SPAN": "name of the span; as an attribute the number of the step in its episode",
    "EPISODE": "the episode's id",
    "STEP": "number of the step in its episode",
    "MODE": "teacher, collect, shadow, cascade or student",
    "CASCADE": "name of the configured cascade",
    "ROLE": "teacher, student, verifier, judge, memory …",
    "PURPOSE": "what the call was for: act, sample, plan, audit, shadow …",
    "NAMESPACE": "namespace of the records",
    "DECISION": "id of the decision, as in the database",
    "ANSWERED_BY": "teacher or student",
    "DEFERRED": "whether the student was asked and the teacher answered",
    "REASON": "why, in words",
    "GOAL": "the goal, redacted; only with `telemetry.contents`",
    "ACTION": "the action, redacted; only with `telemetry.contents`",
    "AGREEMENT": "share of the samples in the largest class",
    "SAMPLES": "samples that were drawn",
    "DEMONSTRATIONS": "demonstrations that were shown",
    "DOLLARS": "what the step or the call cost, where known",
    "SAVED_DOLLARS": "less than the teacher alone would have cost, estimated",
    "OVERHEAD": "milliseconds that the middleware itself took",
    "FAILURES": "failures of the step, in words",
    "KIND": "class of a failure",
    "CANCELLED": "true where the caller went away",
    "SIGNAL": "which signal said that the run is stuck",
    "DIFFERS": "whether the audited teacher's action differed",
}


class _Instruments:
    """A meter that remembers what was made of it."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, str, str]] = []
        self._meter = MeterProvider().get_meter("documentation")

    def get_meter(self, *_: object, **__: object) -> _Instruments:
        return self

    def __getattr__(self, name: str) -> object:
        make = getattr(self._meter, name)

        def create(metric: str, unit: str = "", description: str = "", **more: object) -> object:
            kind = name.removeprefix("create_").replace("_", " ")
            self.made.append((metric, kind, unit, description))
            return make(metric, unit=unit, description=description, **more)

        return create


def page() -> str:
    """The page, in Markdown. Raises `KeyError` for an attribute that nothing is said of."""
    instruments = _Instruments()
    telemetry = Telemetry(None, instruments)
    RequestMetrics(telemetry, lambda: (b"", ""))
    metrics = ([code(n), kind, code(unit) if unit else "", about] for n, kind, unit, about in sorted(instruments.made))
    names = {
        name: value
        for name, value in vars(attributes).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("M_")
    }
    told: dict[str, str] = {}
    for name, value in names.items():
        told.setdefault(value, ABOUT[name])
    rows = ([code(value), about] for value, about in sorted(told.items()))
    return "\n".join(
        [
            HEAD,
            "## Metrics",
            table(["metric", "kind", "unit", "meaning"], metrics),
            SPANS,
            "## Attributes",
            table(["attribute", "meaning"], rows),
        ]
    )
