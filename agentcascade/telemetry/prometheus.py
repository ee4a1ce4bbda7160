"""Prometheus metrics of steps and model calls, and spans to an OTLP collector."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from agentcascade.errors import MissingExtra
from agentcascade.telemetry.observer import Telemetry

OTLP = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def prometheus(*, record_content: bool = False) -> tuple[Telemetry, Callable[[], tuple[bytes, str]]]:
    """A `Telemetry` whose metrics Prometheus can read, and the function that renders them as (text, media type).

    Its spans go to the collector that $OTEL_EXPORTER_OTLP_ENDPOINT names, else to the process's tracer provider, if the
    program has set one. Raises `MissingExtra`.
    """
    try:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from opentelemetry.sdk.metrics import MeterProvider
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    except ImportError as error:
        raise MissingExtra("opentelemetry-exporter-prometheus", "telemetry", "the metrics page") from error
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry, disable_target_info=True, scope_info_enabled=False)
    meters = MeterProvider(metric_readers=[reader])
    telemetry = Telemetry(_collector(), meters, record_content=record_content)
    return telemetry, lambda: (generate_latest(registry), CONTENT_TYPE_LATEST)


def _collector() -> Any:
    """A tracer provider that sends to the collector which the environment names; None where it names none."""
    if not any(os.environ.get(name) for name in OTLP):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "agentcascade"}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(session=_session())))
    return provider


def _session() -> Any:
    """HTTP to the collector, which follows no redirect: spans and the collector's key stay where they are sent."""
    import requests

    session = requests.Session()
    session.max_redirects = 0
    return session
