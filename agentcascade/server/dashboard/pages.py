"""Pages of the dashboard: overview, steps, episodes, one episode. Each asks bounded questions and fills a template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from agentcascade.errors import InvalidRequest, UnknownEpisode
from agentcascade.ledger.dashboard import DashboardQueries
from agentcascade.ledger.dashboard_rows import sum_points
from agentcascade.ledger.episode_pages import LOOKED_THROUGH, EpisodeQueries
from agentcascade.ledger.trends import TrendReader
from agentcascade.server.dashboard import charts
from agentcascade.server.dashboard.query import PERIODS, TAKEN, ViewQuery, read_query, read_time, usual_period
from agentcascade.server.dashboard.rendering import Templates
from agentcascade.server.dashboard.votes import rounds_of, teachers_ballot
from agentcascade.storage import Database
from agentcascade.types import now

SAMPLED = 20_000
"""Newest steps of a view from which shares of agreement, goals and overhead are computed; money counts all of them."""
ROWS = 25
STEPS = 50
BANKED = 20
"""Namespaces whose banks are shown."""
Question = Mapping[str, str]


class Pages:
    """Makes the pages of one database."""

    def __init__(self, database: Database, templates: Templates) -> None:
        self._database, self._templates = database, templates
        self._queries, self._episodes = DashboardQueries(database), EpisodeQueries(database)
        self._trends = TrendReader(database)

    def overview(self, namespace: str | None, question: Question, signed_in: bool) -> bytes:
        """Savings first, then their course, drift, agreement, goals, the latest steps."""
        view = self._view(question, namespace)
        selection = view.selection
        trend = self._trends.read(selection, view.bucket)
        sums = sum_points(p.spending for p in trend.points)
        latest = self._episodes.steps(selection, 10)
        with self._database.begin() as connection:
            sampled = selection.newest(connection, SAMPLED)
        period: Any = {"namespace": sampled.namespace, "since": sampled.since}
        narrow: Any = {**period, "narrowing": sampled.conditions()}
        bins = self._queries.agreement_histogram(**narrow)
        any_steps = bool(sums["steps"] or latest.rows)
        return self._render(
            "overview.html", "overview", view, namespace, signed_in,
            trend=trend,
            sums=sums,
            any_steps=any_steps,
            any_money=bool(sums["known_dollars"] or sums["known_teacher_dollars"]),
            activity=self._queries.activity(sampled),
            sampled=sampled if sampled.since > selection.since else None,
            savings=charts.savings_chart(trend.points, view.bucket) if any_steps else None,
            spending=charts.spending_chart(trend.points, view.bucket) if any_steps else None,
            drift=charts.drift_chart(trend.points, view.bucket) if any_steps else None,
            agreement=charts.agreement_chart(bins) if any(b.accepted + b.deferred for b in bins) else None,
            bins=bins,
            bin_name=charts.bin_name,
            slowest=self._queries.goals("slowest", **narrow, limit=8),
            most_deferred=self._queries.goals("most_deferred", **narrow, limit=8),
            shadow=None if selection.is_narrowed else self._queries.shadow(**period),
            broken=self._queries.broken(**period),
            bank=self._queries.bank(namespace=selection.namespace, limit=BANKED),
            steps=latest.rows,
        )  # fmt: skip

    def steps(self, namespace: str | None, question: Question, signed_in: bool) -> bytes:
        """Decisions, the newest first."""
        view = self._view(question, namespace)
        found = self._episodes.steps(view.selection, ROWS, question.get("before"))
        return self._render(
            "steps.html", "steps", view, namespace, signed_in, steps=found.rows, before=found.before,
            first="before" not in question, looked_back_to=found.looked_back_to, looked_through=LOOKED_THROUGH,
        )  # fmt: skip

    def episodes(self, namespace: str | None, question: Question, signed_in: bool) -> bytes:
        """Episodes, the newest first."""
        view = self._view(question, namespace)
        before = read_time(question["before"], "before") if "before" in question else None
        found = self._episodes.episodes(view.selection, ROWS, before)
        return self._render(
            "episodes.html", "episodes", view, namespace, signed_in, episodes=found.rows, before=found.before,
            first="before" not in question, looked_back_to=found.looked_back_to, looked_through=LOOKED_THROUGH,
        )  # fmt: skip

    def episode(self, namespace: str | None, question: Question, signed_in: bool) -> bytes:
        """One episode with its steps, and each step's votes side by side."""
        view = read_query({}, namespace)
        space, id = namespace if namespace is not None else question.get("client", "default"), question.get("id", "")
        first = _whole(question.get("first", "0"))
        if "step" in question:
            first = _whole(question["step"]) // STEPS * STEPS
        found = None if "\x00" in space + id else self._episodes.episode(space, id[:300], STEPS, first)
        if found is None:
            raise UnknownEpisode("there is no such episode here: it may have been pruned, or belong to another key")
        steps = [(step, rounds_of(step), teachers_ballot(step)) for step in found.shown]
        address = ViewQuery(view.selection, "", {"client": space, "id": id}).address
        return self._render(
            "episode.html", "episodes", view, namespace, signed_in, episode=found, steps=steps, first=first,
            size=STEPS, at=lambda first: address("/dashboard/episode", first=first or None),
        )  # fmt: skip

    def _view(self, question: Question, namespace: str | None) -> ViewQuery:
        if any(question.get(name) for name in ("period", "from")):
            return read_query(question, namespace)
        space = namespace if namespace is not None else question.get("client", "").strip() or None
        return read_query(
            question, namespace, usual_period(None if "\x00" in (space or "") else self._episodes.oldest(space))
        )

    def _render(
        self, template: str, here: str, view: ViewQuery, namespace: str | None, signed_in: bool, **values: Any
    ) -> bytes:
        options = self._episodes.options(view.selection)
        return self._templates.render(
            template, here=here, view=view, namespace=namespace, signed_in=signed_in, options=options, periods=PERIODS,
            taken=TAKEN, present=now(), bucket=view.bucket, episode_address=_episode_address, **values,
        )  # fmt: skip


def _episode_address(namespace: str, id: str, step: int | None = None) -> str:
    fields = {"client": namespace, "id": id} | ({} if step is None else {"step": str(step)})
    return f"/dashboard/episode?{urlencode(fields)}" + ("" if step is None else f"#step-{step + 1}")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 8):
        raise InvalidRequest(f"{text[:40]!r} is no number of a step")
    return int(text)
