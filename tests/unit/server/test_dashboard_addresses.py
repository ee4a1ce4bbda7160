"""What stands in a dashboard's address or form is anybody's: no value of it is a failure of the server."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import httpx
import pytest

from agentcascade.ledger import episode_pages, trends
from agentcascade.ledger.selection import Selection
from agentcascade.server.dashboard.query import read_query, usual_period
from agentcascade.storage import Database, open_database
from agentcascade.storage.keys import Keys
from agentcascade.storage.rate_limiter import RateLimiter
from agentcascade.storage.record_rows import write_records
from agentcascade.storage.sessions import Sessions
from agentcascade.types import Call, Decision, Usage, now

fastapi = pytest.importorskip("fastapi", reason="needs fastapi: pip install 'agentcascade[server]'")
pytest.importorskip("jinja2", reason="needs jinja2: pip install 'agentcascade[server]'")

ODD = (
    "", "\x00", "de_1\x00", "%", "_", "'\";--", "\u202e\ud7ff😀", "a" * 5000, "-1", "1e309", "nan", "²", "9" * 30,
    "\r\nX: y", "0001-01-01", "9999-12-31T23:59:59.999999", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    "2026-W01",
)  # fmt: skip
FILTERS = ("period", "from", "until", "client", "cascade", "model", "taken", "before")
ASKED = {
    "/": FILTERS[:-1],
    "/dashboard/steps": FILTERS,
    "/dashboard/episodes": FILTERS,
    "/dashboard/episode": ("client", "id", "first", "step"),
    "/dashboard/data": ("hours", "bucket"),
    "/dashboard/decisions": ("hours", "before"),
}


def step(number, **values):
    call = Call(role="student", purpose="sample", model="m", usage=Usage(), dollars=Decimal(1))
    return Decision(
        id=f"de_{number}", episode=f"ep_{number}", step=0, goal="g", mode="cascade", answered_by="student", reason="r",
        calls=(call,), dollars=Decimal(1), teacher_dollars=Decimal(2), **values,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "a.db")
    yield opened
    opened.close()


def asked(database, *requests):
    """Answers of the dashboard's routes to requests, (method, path, what `httpx` takes)."""
    from agentcascade.server.auth import Gate
    from agentcascade.server.dashboard.routes import router

    app = fastapi.FastAPI()
    keys = Keys(database)
    app.include_router(router(database, Gate(keys, RateLimiter(database), Sessions(keys, "s" * 32), open=False)))

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return [await client.request(method, path, **values) for method, path, values in requests]

    return asyncio.run(ask())


def test_no_value_of_a_filter_is_a_failure_of_the_server(database: Database) -> None:
    with database.begin(write=True) as connection:
        write_records(connection, [step(1)])
    requests = [
        ("GET", path, {"params": {"client": "default", "id": "ep_1", name: odd}})
        for path, names in ASKED.items()
        for name in names
        for odd in ODD
    ]
    answers = asked(database, *requests)
    assert [str(a.url) for a in answers if a.status_code >= 500] == []
    assert {a.status_code for a in answers} >= {200, 400}


def test_a_form_of_more_fields_signs_nobody_in(file: Database) -> None:
    Keys(file).create("boss", admin=True)
    many = "&".join(f"f{i}=1" for i in range(50))
    (answer,) = asked(file, ("POST", "/dashboard/sign-in", {"content": many}))
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_session_is_sent_by_tls_alone_where_the_browser_came_by_it(file: Database) -> None:
    _, token = Keys(file).create("boss", admin=True)
    origins: tuple[dict[str, str], ...] = ({}, {"origin": "http://here"}, {"origin": "https://here"})
    requests = [("POST", "/dashboard/sign-in", {"data": {"key": token}, "headers": origin}) for origin in origins]
    cookies = [answer.headers["set-cookie"].lower() for answer in asked(file, *requests)]
    assert ["secure" in cookie for cookie in cookies] == [False, False, True]


def test_a_reader_who_asks_much_holds_others_up_by_one_question() -> None:
    from agentcascade.server.dashboard.answers import AnswerCache

    async def play():
        answers, order = AnswerCache(), []

        def answer(name):
            order.append(name)
            return name.encode()

        asks = [answers.get("much", i, partial(answer, f"much {i}")) for i in range(9)]
        asks.append(answers.get("other", 0, partial(answer, "other")))
        await asyncio.gather(*asks)
        return order

    assert asyncio.run(play()).index("other") <= 1


def test_a_list_says_how_far_it_looked_and_goes_on(file: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_pages, "LOOKED_THROUGH", 3)
    with file.begin(write=True) as connection:
        early = [step(i, created_at=now() - timedelta(minutes=50 - i)) for i in range(10)]
        write_records(connection, [early[0].model_copy(update={"cascade": "rare"}), *early[1:]])
    for path in ("/dashboard/steps?cascade=rare", "/dashboard/episodes?cascade=rare"):
        pages = 0
        while True:
            (answer,) = asked(file, ("GET", path, {}))
            assert answer.status_code == 200
            pages += 1
            further = re.search('href="([^"]*)">Look further back', answer.text)
            if further is None:
                break
            assert "ends here" not in answer.text
            assert "No steps match" not in answer.text
            path = html.unescape(further[1])
        assert "ep_0" in answer.text
        assert 2 <= pages <= 5


def test_trends_stop_in_time_also_where_nothing_is_found(file: Database) -> None:
    view = Selection(since=now() - timedelta(days=30), until=now(), model="none-of-that-name")
    first = trends.TrendReader(file).read(view, "day", seconds=0.0)
    assert not first.whole
    assert len(first.points) == 1


def test_trends_of_ever_other_times_are_forgotten(file: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trends, "REMEMBERED", 50)
    began = now() - timedelta(hours=5)
    with file.begin(write=True) as connection:
        write_records(connection, [step(i, created_at=began + timedelta(minutes=i)) for i in range(60)])
    reader = trends.TrendReader(file)
    for i in range(20):
        view = Selection(since=began + timedelta(microseconds=i), until=began + timedelta(hours=1))
        assert sum(p.spending.steps for p in reader.read(view, "minute", seconds=60).points) >= 59
        assert sum(1 + len(points) for _, points in reader._known.values()) <= 50


@pytest.mark.parametrize(
    ("age", "period"),
    [(None, "24h"), (0.01, "1h"), (0.9, "1h"), (1.1, "6h"), (5.9, "6h"), (6.1, "24h"), (9000, "24h")],
)
def test_a_view_that_says_no_period_is_of_what_there_is_up_to_a_day(age: float | None, period: str) -> None:
    usual = usual_period(None if age is None else now() - timedelta(hours=age))
    assert usual == period
    assert read_query({}, None, usual).period == period
    assert read_query({"period": "7d"}, None, usual).period == "7d"
    assert "period" not in read_query({}, None, usual).fields, "addresses go on to say none"
