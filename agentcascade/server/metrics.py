"""Request metrics of the proxy, and the page on which Prometheus reads all metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentcascade.server.workers import WorkerMetrics
from agentcascade.telemetry.attributes import SECOND_BUCKETS

if TYPE_CHECKING:
    from agentcascade.telemetry.observer import Telemetry


class RequestMetrics:
    """Requests by method, route and status, and how long they took."""

    def __init__(self, telemetry: Telemetry, render: Callable[[], tuple[bytes, str]]) -> None:
        meter: Any = telemetry.meter
        self._requests = meter.create_counter("agentcascade.http.requests", description="requests answered")
        self._seconds = meter.create_histogram(
            "http.server.request.duration",
            unit="s",
            description="time until the whole answer was sent",
            explicit_bucket_boundaries_advisory=SECOND_BUCKETS,  # OpenTelemetry's own are of milliseconds
        )
        self.telemetry = telemetry
        self.worker_metrics = WorkerMetrics.of_environment(render)

    def record(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        labels = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        self._requests.add(1, labels)
        self._seconds.record(seconds, labels)
