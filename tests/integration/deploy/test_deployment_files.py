"""Dashboard, alerts, manifests and image: they name what the server really has."""

from __future__ import annotations

import json
import re
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("fastapi", reason="needs the extra `server`")
from prometheus_client.parser import text_string_to_metric_families

from agentcascade.config.load import CascadeConfig
from agentcascade.server.metrics import RequestMetrics
from agentcascade.telemetry import attributes
from agentcascade.telemetry.prometheus import prometheus

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
CHECKED_LABELS = {"job", "instance", "le", "http_route", "http_response_status_code", "http_request_method"}
WORDS = {
    *("by", "on", "group_left", "unless", "and", "or", "sum", "max", "rate", "increase", "count", "vector"),
    *("histogram_quantile", "label_values", "up", "__rate_interval", "__range", "cascade"),
}


def exported() -> set[str]:
    """Names of the series on the page of a server that has counted everything once."""
    telemetry, render = prometheus()
    for part in (telemetry, RequestMetrics(telemetry, render)):
        for instrument in vars(part).values():
            for verb in ("add", "record", "set"):
                if type(instrument).__module__.startswith("opentelemetry") and hasattr(instrument, verb):
                    getattr(instrument, verb)(1)
    families = text_string_to_metric_families(render()[0].decode())
    return {sample.name for family in families for sample in family.samples}


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana/dashboards/agentcascade.json").read_text())  # type: ignore[no-any-return]


def expressions() -> list[str]:
    board = dashboard()
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    return [
        *(t["expr"] for panel in board["panels"] for t in panel["targets"]),
        *(v["query"]["query"] for v in board["templating"]["list"]),
        *(rule["expr"] for group in rules for rule in group["rules"]),
    ]


def test_what_dashboard_and_alerts_ask_for_is_exported() -> None:
    names = exported()
    labels = {v.replace(".", "_") for v in vars(attributes).values() if isinstance(v, str)} | CHECKED_LABELS
    asked = set()
    for expression in expressions():
        bare = re.sub(r'"[^"]*"', "", expression)
        for word in re.findall(r"[A-Za-z_]\w*", re.sub(r"\[[^]]*\]", "", bare)):
            assert word in names | labels | WORDS, f"{word} is exported by nobody: {expression}"
            asked |= {word} & names
    unseen = {re.sub("_(sum|count|bucket)$", "", n) for n in names} - {
        re.sub("_(sum|count|bucket)$", "", n) for n in asked
    }
    assert not unseen, "a metric that no panel and no alert shows"


def test_a_request_s_seconds_fall_into_buckets_of_seconds() -> None:
    telemetry, render = prometheus()
    RequestMetrics(telemetry, render).record("POST", "/v1/chat/completions", 200, 0.03)
    edges = [
        float(sample.labels["le"])
        for family in text_string_to_metric_families(render()[0].decode())
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_bucket"
    ]
    assert len([edge for edge in edges if edge < 1]) > 5


def test_panels_have_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for p in panels
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    assert len(cells) == len({*cells})
    assert max(x for x, _ in cells) < 24
    assert len({p["id"] for p in panels}) == len({p["title"] for p in panels}) == len(panels)


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        if document.get("kind") in ("Deployment", "Job"):
            yield path.name, document["spec"]["template"]["spec"]


def test_pods_may_do_little() -> None:
    found = dict(pods())
    assert found.keys() == {"deployment.yaml", "migrate.yaml"}
    for spec in found.values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {"/tmp", "/var/lib/agentcascade"} <= {m["mountPath"] for m in container["volumeMounts"]}


def test_pods_are_given_the_time_that_a_server_takes_to_stop() -> None:
    """Requests have server.shutdown_seconds, shadows and audits the same again, and feedback and closing some."""
    spec = dict(pods())["deployment.yaml"]
    (container,) = spec["containers"]
    waits = float(re.search(r"sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][-1])[1])  # type: ignore[index]
    config = CascadeConfig.load(DEPLOY / "kubernetes/agentcascade.yaml")
    assert spec["terminationGracePeriodSeconds"] >= waits + 2 * config.server.shutdown_seconds + 10
    assert not config.bank.migrate, "the job does it"
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["agentcascade"]
    assert compose["environment"]["AGENTCASCADE_BANK__MIGRATE"] == "false"
    config = CascadeConfig.load(DEPLOY / "compose/agentcascade.yaml")
    assert int(compose["stop_grace_period"].removesuffix("s")) >= 2 * config.server.shutdown_seconds + 10
    assert compose["read_only"]
    assert compose["cap_drop"] == ["ALL"]


def test_the_image_runs_as_nobody_in_particular_and_copies_what_is_let_in() -> None:
    image = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", image, re.MULTILINE), "a number: runAsNonRoot cannot look a name up"
    assert re.search(r'^ENTRYPOINT \["agentcascade"\]$', image, re.MULTILINE), "no shell between signals and server"
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(\S+) ", image, re.MULTILINE)
    assert {c for c in copied if c != "."} <= let_in
    assert all((ROOT / name).exists() for name in let_in)
    project = (ROOT / "pyproject.toml").read_text()
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", image, re.MULTILINE)
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras.split(","))


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False), (None, False)])
def test_the_health_check_asks_whether_it_is_ready(status: int | None, ready: bool) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status or 500)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    is_ready = runpy.run_path(str(DEPLOY / "healthcheck.py"))["is_ready"]
    server = HTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    if status is None:
        server.server_close()
        assert not is_ready(port)
        return
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    assert is_ready(port) is ready
    thread.join()
    server.server_close()
    assert asked == ["/readyz"]
