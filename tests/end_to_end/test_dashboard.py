"""Pages in a real browser, over a real server and database: right figures, usable by all, nothing recorded runs."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade._util.control_characters import visible
from agentcascade.errors import StorageError
from agentcascade.storage import open_database, trajectories
from agentcascade.storage.keys import Keys
from agentcascade.storage.rate_limiter import RateLimiter
from agentcascade.storage.record_rows import write_records
from agentcascade.storage.sessions import Sessions
from agentcascade.types import Call, Decision, EpisodeEnd, LoggedSample, Shadow, Step, Trajectory, Usage, now
from tests.chromium import chromium, complaints, requested, resize

fastapi = pytest.importorskip("fastapi", reason="needs fastapi: pip install 'agentcascade[server]'")
uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'agentcascade[server]'")

EVIL = "<img src=x onerror=\"document.title='pwned'\"></script><script>document.title='pwned'</script>\u202egpj\x1b[2J"
EPISODE = "/dashboard/episode?" + urlencode({"client": "default", "id": "ep_0"})
rendering = pytest.importorskip(
    "agentcascade.server.dashboard.rendering", reason="needs jinja2: pip install 'agentcascade[server]'"
)
PAGES = ("/", "/dashboard/steps", "/dashboard/episodes", EPISODE, "/?cascade=none", "/dashboard/episode?id=none")


BEGIN = (now() - timedelta(minutes=5)).replace(second=0, microsecond=0)
"""Of the first step: all that is recorded of today is in the same minute, so in one row of the hours."""


def step(number, **values):
    model = "gpt-5-mini" if number % 2 else "qwen3"
    call = Call(role="student", purpose="sample", model=model, usage=Usage(), dollars=Decimal("0.5"))
    made = {
        "id": f"de_{number:03}",
        "episode": f"ep_{number // 10}",
        "step": number % 10,
        "goal": "put a mug on the desk",
        "cascade": "house",
        "mode": "cascade",
        "answered_by": "student",
        "reason": "agreement 3/3",
        "agreement": 1.0,
        "votes": {"go to desk 1": 3},
        "samples": 3,
        "action": "go to desk 1",
        "demonstrations": ("tr_1:1-3", "tr_gone:0-2"),
        "calls": (call,),
        "dollars": Decimal("0.5"),
        "teacher_dollars": Decimal(2),
        "overhead_ms": 3.0,
        "seconds": 1.5,
        "created_at": BEGIN + timedelta(seconds=number),
    }
    return Decision(**made | values)


def fill(database):
    """30 steps of today, one deferred, one with hostile texts; one of last week; an audit; another client's."""
    evil = {"goal": EVIL, "action": EVIL, "votes": {EVIL: 3}, "reason": EVIL, "failures": (EVIL,), "cascade": EVIL}
    split = {"votes": {"go to desk 1": 1, "go to shelf 2": 1}, "samples": 3, "invalid_samples": 1, "action": "look"}
    teacher = step(1, answered_by="teacher", goal="find the key", agreement=1 / 3, reason="agreement 1/3", **split)
    entries = [
        *(step(0, **evil), teacher, *(step(i) for i in range(2, 30))),
        step(99, created_at=BEGIN - timedelta(days=6), episode="ep_old"),
        step(98, namespace="acme", episode="secret-episode", goal="acme's secret"),
        *(
            EpisodeEnd(
                episode=f"ep_{i}", goal="g", mode="cascade", success=i > 0, steps=9, started_at=BEGIN, finished_at=BEGIN
            )
            for i in range(3)
        ),
        Shadow(
            decision="de_002", episode="ep_0", step=2, kind="audit", teacher_action="look",
            samples=(LoggedSample(action="look", text="look"),), accepted=True, created_at=BEGIN,
        ),
    ]  # fmt: skip
    taken = tuple(Step(observation="o", action=a) for a in ("go to shelf 1", "take mug 2", EVIL, "put mug 2"))
    with database.begin(write=True) as connection:
        write_records(connection, entries)
        lesson = Trajectory(id="tr_1", goal="put a cup on the shelf", steps=taken, success=True)
        trajectories.insert_trajectories(connection, [lesson], {}, "hashing")


class Site:
    """The dashboard's routes behind uvicorn on a free port, with the gate that the proxy has."""

    def __init__(self, database):
        from agentcascade.server.auth import Gate
        from agentcascade.server.dashboard.routes import router

        site = self

        class Failing(Gate):
            async def viewer(self, headers, session):
                if site.broken:
                    raise StorageError("the disk is gone")
                return await super().viewer(headers, session)

        self.broken, self.keys = False, Keys(database)
        app = fastapi.FastAPI()
        sessions = Sessions(self.keys, "s" * 32)
        app.include_router(router(database, Failing(self.keys, RateLimiter(database), sessions, open=False)))
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who comes before uvicorn does waits for it
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    def get(self, path, **headers):
        return httpx.get(self.url + path, headers=headers)

    def close(self):
        self._server.should_exit = True
        self._thread.join(60)


@pytest.fixture(params=[True])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    database = open_database(tmp_path / "a.db")
    if request.param:
        fill(database)
    opened = Site(database)
    yield opened
    opened.close()
    database.close()


empty_site = pytest.mark.parametrize("site", [False], indirect=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser: Any, site: Site) -> Any:
    """A browser with a quiet console, that has no session and no wishes from before."""
    resize(browser, 1280)
    browser.delete_all_cookies()
    browser.get(site.url)
    browser.execute_script("localStorage.clear(); sessionStorage.clear()")
    requested(browser), complaints(browser)
    return browser


def leave(page, act):
    """Does what leads to another page, and waits for it: a click may return before that."""
    from selenium.webdriver.support.ui import WebDriverWait

    page.execute_script("window.left = true")
    act()
    there = "return window.left === undefined && document.readyState === 'complete'"
    WebDriverWait(page, 20).until(lambda page: page.execute_script(there), "the page was not left")


def find(page, css):
    return page.find_element("css selector", css)


def text(page, css):
    return page.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", css)


def axe_source():
    """axe-core (MPL-2.0, never in this repository): $AXE_CORE, npm's, or the one in the package axe-core-python."""
    spec = importlib.util.find_spec("axe_core_python")
    packaged = [Path(spec.origin).parent / "axe.min.js"] if spec and spec.origin else []
    npm = Path(__file__).resolve().parents[2] / "node_modules/axe-core/axe.min.js"
    given = [Path(os.environ["AXE_CORE"])] if "AXE_CORE" in os.environ else []
    found = next((path for path in (*given, npm, *packaged) if path.is_file()), None)
    if found is None:
        pytest.skip("no axe-core: npm install --no-save axe-core, or pip install axe-core-python, or set AXE_CORE")
    return found.read_text(encoding="utf-8")


AXE = """const done = arguments[0]
axe.run(document, {resultTypes: ['violations']}).then(found => done(
  found.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 120)).join(' | '))),
  error => done([String(error)]))"""


def test_axe_finds_nothing_on_any_page_in_light_and_dark_wide_and_narrow(page: Any, site: Site) -> None:
    source = axe_source()
    for width, dark in ((1280, False), (1280, True), (360, False), (360, True)):
        resize(page, width, dark=dark)
        for path in PAGES if width == 360 else PAGES[:4]:
            page.get(site.url + path)
            page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
            page.execute_script(source)
            assert page.execute_async_script(AXE) == [], (path, width, dark)
            if width == 360:
                assert page.execute_script("return document.documentElement.scrollWidth") == 360, path
    site.keys.create("somebody")
    page.get(site.url)
    page.execute_script(source)
    assert page.execute_async_script(AXE) == [], "signing in"
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(12, 17, 22)", "dark"


def test_the_overview_shows_the_right_figures_savings_first_and_asks_nobody_else(page: Any, site: Site) -> None:
    page.get(site.url + "/?client=default")
    tiles = [e.text.split("\n") for e in page.find_elements("css selector", ".tiles > div")]
    assert tiles[:4] == [
        ["Saved", "$45.00", "75 % less than the teacher alone ($60.00)"],
        ["Spent", "$15.00", "30 steps in 3 episodes"],
        ["Deferred", "3.3 %", "1 of 30 steps in mode cascade"],
        ["Success", "66.7 %", "of 3 judged episodes"],
    ]
    assert text(page, "#most-deferred tbody").startswith("find the key")
    find(page, "#numbers summary").click()
    row = next(r for r in page.find_elements("css selector", "#t-money tbody tr") if "$45.00" in r.text)
    assert row.text.endswith("1 of 1"), "the audit that differs"
    for chart in page.find_elements("css selector", ".plot"):
        assert chart.accessible_name, "a screen reader has a name for it"
    find(page, ".plot").send_keys("\ue010")  # end: the newest
    assert "spent $" in text(page, ".readout")
    asked = [url for url in requested(page) if not url.startswith("data:")]
    assert asked
    assert all(url.startswith(site.url + "/") for url in asked)
    assert complaints(page) == []


def test_filters_stand_in_the_address_and_narrow_every_figure(page: Any, site: Site) -> None:
    page.execute_script("document.querySelector('[name=model]').value = 'gpt-5-mini'")
    leave(page, find(page, "form.filters button").click)
    assert page.current_url == site.url + "/?period=24h&model=gpt-5-mini"
    assert "15 steps" in text(page, "#spent")
    for address, steps in {
        "/?taken=deferred": 1, "/?taken=student&client=default": 29, "/?cascade=house": 30, "/?client=acme": 1,
        "/?period=7d": 32, "/?model=qwen3&taken=deferred": 0,
    }.items():  # fmt: skip
        answer = site.get(address).text
        assert (f">{steps} steps" in answer) if steps else ("No steps match" in answer), address
    shared = site.get("/?taken=deferred&period=7d").text
    assert 'href="/dashboard/steps?period=7d&amp;taken=deferred"' in shared, "a view is kept from page to page"
    for bad in ("period=soon", "taken=x", "from=x", "from=2026-11-02&until=2026-11-01", "from=1900-01-01", "model=%00"):
        answer = site.get(f"/?{bad}")
        assert (answer.status_code, "This view cannot be shown" in answer.text) == (400, True), bad


def test_an_episode_shows_each_sample_beside_the_others(page: Any, site: Site) -> None:
    page.get(site.url + EPISODE)
    deferred = find(page, "#step-2")
    ballots = [e.text.replace("\n", " ") for e in deferred.find_elements("css selector", ".ballots li")]
    assert ballots == [
        "A Sample 1 · ≠ tied go to desk 1",
        "B Sample 2 · ≠ tied go to shelf 2",
        "– Sample 3 · ≠ no usable action",
        "teacher ≠ differs from the tied votes, no sample said it look",
    ]
    assert "≠ A 1 of 2, B 1 of 2, 1 unusable" in deferred.text
    agreed = find(page, "#step-4")
    assert "= all 3 say A" in agreed.text
    agreed.find_element("css selector", "summary").send_keys("\n")
    assert "student sample, gpt-5-mini: 1 request, $0.50" in agreed.text
    assert "put a cup on the shelf\ntake mug 2\n<img" in agreed.text, "the window's own steps, no others"
    assert "tr_gone:0-2 removed from the bank since" in agreed.text
    assert "≠ differs from the most votes" in find(page, "#step-3").text, "the audit"


def test_lists_go_on_page_by_page_without_a_step_twice(site: Site) -> None:
    for path, wanted in (("/dashboard/steps?taken=student", 30), ("/dashboard/episodes?period=7d", 5)):
        seen: list[str] = []
        address: str | None = path
        while address:
            answer = site.get(address).text
            seen += re.findall(r'<a href="/dashboard/episode\?([^"]*)" ?', answer)
            following = re.search(r'rel="next" href="([^"]*)"', answer)
            address = following[1].replace("&amp;", "&") if following else None
        assert len(seen) == len(set(seen)) == wanted, path


def test_recorded_texts_are_texts_and_hidden_characters_are_seen(page: Any, site: Site) -> None:
    for path in (*PAGES[:3], EPISODE):
        page.get(site.url + path)
        assert page.find_elements("css selector", "main img, main script") == []
        assert "agentcascade" in page.title
        assert "pwned" not in page.title
    assert "\\u202egpj\\u001b[2J" in text(page, "#step-1")
    assert not set("\u202e\x1b") & set(page.page_source)
    with pytest.raises(Exception, match="TrustedHTML"):
        page.execute_script("document.body.innerHTML = arguments[0]", EVIL)


def test_without_javascript_the_tables_are_there(page: Any, site: Site) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(site.url)
        assert len(page.find_elements("css selector", "main tbody tr")) > 12
        assert not find(page, "#theme").is_displayed(), "a button that would do nothing"
        find(page, "a[href^='/dashboard/steps']").click()
        WebDriverWait(page, 20).until(lambda page: page.current_url.startswith(site.url + "/dashboard/steps"))
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_switch_turns_it_dark_and_is_remembered(page: Any) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = page.execute_script(colour)
    find(page, "#theme").send_keys("\n")
    page.refresh()
    assert page.execute_script(colour) == "rgb(12, 17, 22)" != light
    assert find(page, "#theme").get_attribute("aria-pressed") == "true"
    find(page, "#theme").click()
    assert page.execute_script(colour) == light


def test_signing_in_gives_a_session_that_is_not_the_key_and_ends_with_it(page: Any, site: Site) -> None:
    key, token = site.keys.create("viewer", namespace="acme")
    page.get(site.url + "/dashboard/steps?period=7d")
    assert "mug" not in page.page_source
    assert "secret" not in page.page_source
    leave(page, lambda: find(page, "#key").send_keys("ac-wrong\n"))
    assert "not valid" in text(page, "[role=alert]")
    leave(page, lambda: find(page, "#key").send_keys(token + "\n"))
    assert page.current_url == site.url + "/dashboard/steps?period=7d", "what was wanted"
    assert "acme's secret" in text(page, "main")
    assert "mug" not in text(page, "main")
    (cookie,) = page.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], "expiry" in cookie) == (True, "Lax", False)
    assert token.rpartition("-")[2] not in cookie["value"]
    assert page.execute_script("return document.cookie") == ""
    assert page.execute_script("return localStorage.length + sessionStorage.length") == 0
    session = {"cookie": f"{cookie['name']}={cookie['value']}"}
    assert site.get(EPISODE, **session).status_code == 404, "another's episode is none"
    assert site.get("/dashboard/steps?client=default", **session).text.count("mug") == 0
    id, expires, ended, signature = cookie["value"].split(".")
    good = [id, expires, ended, signature]
    for place, value in ((1, int(expires) + 1), (1, 1), (2, 1), (3, "0" * 64)):
        forged = ".".join(str(value) if i == place else part for i, part in enumerate(good))
        assert site.get("/dashboard/steps", cookie=f"{cookie['name']}={forged}").status_code == 401
    assert site.get("/dashboard/steps", cookie=f"{cookie['name']}={token}").status_code == 401
    leave(page, find(page, ".tools form button").click)
    assert page.get_cookies() == []
    assert "needs an API key" in text(page, "main")
    assert site.get("/dashboard/steps", **session).status_code == 401, "a copy, too"
    signed_in = httpx.post(f"{site.url}/dashboard/sign-in", data={"key": token})
    session = {"cookie": f"{cookie['name']}={signed_in.cookies[cookie['name']]}"}
    assert site.get("/dashboard/steps", **session).status_code == 200
    site.keys.revoke(key.id)
    assert site.get("/dashboard/steps", **session).status_code == 401


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "/\\evil.example", "/v1/models", "/\r\nx: y"]
)
def test_signing_in_leads_to_no_other_place(site: Site, to: str) -> None:
    _, token = site.keys.create("viewer")
    answer = httpx.post(f"{site.url}/dashboard/sign-in", data={"key": token, "to": to})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@empty_site
def test_an_empty_database_says_how_to_begin(page: Any, site: Site) -> None:
    assert "Nothing was recorded in the last 24 hours" in text(page, "main")
    assert 'base_url="http' in text(page, "main pre")
    for path in PAGES[1:3]:
        assert "Nothing was recorded" in site.get(path).text


def test_trouble_is_told_without_its_insides(site: Site) -> None:
    site.broken = True
    answer = site.get("/")
    assert (answer.status_code, "the database does not answer" in answer.text) == (503, True)
    assert "disk" not in answer.text


def test_the_headers_forbid_whatever_is_not_the_pages_own(site: Site) -> None:
    answer = site.get("/")
    policy = answer.headers["content-security-policy"]
    assert re.search(r"script-src 'sha256-[\w+/]{43}='; style-src 'sha256-[\w+/]{43}=';", policy)
    for rule in ("default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"(src|href|action)=\"?(https?:)?//", answer.text), "no address outside"


def test_the_data_route_keeps_namespaces_apart_and_answers_bad_questions_in_openais_shape(site: Site) -> None:
    keys = {None: site.keys.create("boss", admin=True)[1], "acme": site.keys.create("viewer", namespace="acme")[1]}
    refused = site.get("/dashboard/data")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    for namespace, token in keys.items():
        answer = site.get("/dashboard/data", authorization=f"Bearer {token}")
        assert (answer.status_code, answer.json()["namespace"]) == (200, namespace)
        assert answer.headers["cache-control"] == "no-store"
        assert site.get("/", authorization=f"Bearer {token}").status_code == 200
    good = {"authorization": f"Bearer {keys['acme']}"}
    for bad in ("hours=soon", "hours=nan", "hours=-1", "hours=1e9", "bucket=week", "hours=720&bucket=minute"):
        answer = site.get(f"/dashboard/data?{bad}", **good)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), bad
    answer = site.get("/dashboard/decisions?before=de_nowhere", **good)
    assert (answer.status_code, "start from the newest" in answer.text) == (400, True)


@pytest.fixture(scope="module")
def templates() -> Any:
    from agentcascade.server.dashboard.rendering import Templates

    return Templates()


@settings(max_examples=30)
@given(st.text(max_size=60) | st.sampled_from([EVIL, "x" * 5000, "\ud800", "{{ 7 * 7 }}", "'\"><svg/onload=a>"]))
def test_any_text_is_escaped_bounded_and_visible(templates: Any, recorded: str) -> None:
    """What a parser of HTML reads back is the text, cut, with its control and direction characters written out."""
    found = []

    class Reader(HTMLParser):
        inside = False

        def handle_starttag(self, tag, attributes):
            self.inside = ("role", "alert") in attributes
            assert tag not in ("img", "svg2", "iframe")

        def handle_data(self, data):
            if self.inside:
                found.append(data)

        def handle_endtag(self, tag):
            self.inside = False

    Reader().feed(templates.render("problem.html", message=recorded, status=400).decode())
    said = visible(recorded if len(recorded) <= 2000 else recorded[:2000] + "…")
    assert "".join(found) == said
