"""The page in a real browser, over a real server and database: right figures, nothing recorded ever runs."""

from __future__ import annotations

import re
import socket
import threading
import time
from datetime import timedelta
from decimal import Decimal

import httpx
import pytest
from chromium import chromium, complaints, requested, resize

from agentcascade.errors import InvalidKey
from agentcascade.storage import open_database, trajectories
from agentcascade.storage.recorder import write_records
from agentcascade.types import Call, Decision, EpisodeEnd, LoggedSample, Shadow, Step, Trajectory, Usage, now

fastapi = pytest.importorskip("fastapi", reason="needs fastapi: pip install 'agentcascade[server]'")
uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'agentcascade[server]'")

EVIL = "<img src=x onerror=\"document.title='pwned'\"></script><script>document.title='pwned'</script>"
KEYS = {"Bearer good": "default", "Bearer admin": None}


def step(number, **values):
    call = Call(role="student", purpose="sample", model="m", usage=Usage(), dollars=Decimal("0.5"))
    made = {
        "id": f"de_{number:03}",
        "episode": f"ep_{number // 10}",
        "step": number % 10,
        "goal": "put a mug on the desk",
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
        "created_at": now() - timedelta(seconds=300 + number),
    }
    return Decision(**made | values)


def fill(database):
    """30 steps of today, one that was deferred and one with a hostile goal; one of last week; a shadow."""
    evil = {"goal": EVIL, "action": EVIL, "votes": {EVIL: 3}, "reason": EVIL, "failures": (EVIL,), "cascade": EVIL}
    teacher = step(1, answered_by="teacher", goal="find the key", agreement=1 / 3, reason="agreement 1/3", seconds=8.0)
    entries = [
        *(step(0, **evil), teacher, *(step(i) for i in range(2, 30))),
        step(99, created_at=now() - timedelta(days=6), episode="ep_old"),
        *(
            EpisodeEnd(episode=f"ep_{i}", goal="g", mode="cascade", success=i > 0, steps=9, started_at=now())
            for i in range(3)
        ),
        Shadow(
            decision="de_001",
            episode="ep_0",
            step=1,
            teacher_action="look",
            samples=(LoggedSample(action="look", text="look"),),
            accepted=True,
        ),
    ]
    taken = tuple(Step(observation="o", action=a) for a in ("go to shelf 1", "take mug 2", EVIL, "put mug 2"))
    with database.begin(write=True) as connection:
        write_records(connection, entries)
        lesson = Trajectory(id="tr_1", goal="put a cup on the shelf", steps=taken, success=True)
        trajectories.insert_trajectories(connection, [lesson], {}, "hashing")


class Site:
    """The dashboard's routes behind uvicorn on a free port. `locked` asks for a key; `broken` fails every question."""

    def __init__(self, database):
        from agentcascade.server.dashboard import router

        self.locked = self.broken = False
        app = fastapi.FastAPI()
        app.include_router(router(database, self._authorize))
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who comes before uvicorn does waits for it
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    async def _authorize(self, request):
        if self.broken:
            raise fastapi.HTTPException(503, "the database does not answer")
        if not self.locked:
            return None
        key = request.headers.get("authorization", "")
        if key not in KEYS:
            raise InvalidKey("there is no such key")
        return KEYS[key]

    def close(self):
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture(params=[True])
def site(request, tmp_path):
    database = open_database(tmp_path / "a.db")
    if request.param:
        fill(database)
    opened = Site(database)
    yield opened
    opened.close()
    database.close()


empty_site = pytest.mark.parametrize("site", [False], indirect=True)


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser, site):
    """The page as a visitor meets it: no key kept from before, a quiet console."""
    resize(browser, 1280)
    browser.get(site.url)
    requested(browser), complaints(browser)
    return browser


def find(page, css):
    return page.find_element("css selector", css)


def text(page, css):
    """In one go, so that a refresh in between cannot take the element away."""
    return page.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", css)


def wait_for(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.03)


def wait_shown(page, css):
    wait_for(lambda: any(e.is_displayed() for e in page.find_elements("css selector", css)), css)


def choose(page, range):
    page.execute_script("document.querySelector(`input[value='${arguments[0]}']`).click()", range)


def test_the_tiles_show_the_right_figures(page):
    wait_shown(page, "#tile-saved .value")
    tiles = {e.get_attribute("id")[5:]: e.text.split("\n")[1:] for e in page.find_elements("css selector", ".tile")}
    assert tiles == {
        "saved": ["$45.00", "75 % less than the teacher alone with its prompt cache ($60.00)"],
        "spent": ["$15.00", "30 steps in 3 episodes"],
        "deferral": ["3.3 %", "1 of 30 steps in mode cascade"],
        "success": ["66.7 %", "of 3 judged episodes"],
        "overhead": ["3.0 ms", "median of a step; p99 3.0 ms"],
        "bank-size": ["1", "trajectories, 4 steps"],
    }
    assert text(page, "#slowest tbody tr td") == "find the key"
    assert text(page, "#most-deferred tbody").splitlines()[0].startswith("find the key")
    assert "1 of 1 compared" in text(page, "#shadow")
    assert complaints(page) == []


def test_a_decision_opens_to_its_votes_and_demonstrations(page):
    wait_shown(page, ".decision")
    row = page.find_elements("css selector", ".decision")[2]
    row.find_element("css selector", "summary").send_keys("\n")
    wait_for(lambda: row.find_elements("css selector", ".inside"), "the decision opens by keyboard")
    said = row.text
    assert "go to desk 1\n3 of 3" in said
    assert "put a cup on the shelf\ntake mug 2\n<img" in said, "the window's own steps, no others"
    assert "go to shelf 1" not in said
    assert row.find_element("css selector", "ol").get_attribute("start") == "2"
    assert "Removed from the bank since.\ntr_gone:0-2" in said
    assert "$0.50, teacher alone $2.00" in said


def test_older_decisions_follow_on_demand_and_stay(page):
    wait_shown(page, "#older")
    assert len(page.find_elements("css selector", ".decision")) == 25
    page.execute_script("document.querySelectorAll('.decision')[7].open = true")
    find(page, "#older").click()
    wait_for(lambda: len(page.find_elements("css selector", ".decision")) == 30, "30 decisions")
    assert not find(page, "#older").is_displayed()
    page.execute_script("return refresh()")
    assert len(page.find_elements("css selector", ".decision")) == 30
    assert len(page.find_elements("css selector", ".decision[open]")) == 1, "what was open stays open"


def test_another_range_asks_anew(page):
    wait_shown(page, "#tiles")
    choose(page, "7d")
    wait_for(lambda: "31 steps in 4 episodes" in text(page, "#tile-spent"), "last week's step")
    assert any("hours=168&bucket=hour" in url for url in requested(page))
    assert page.current_url.endswith("#7d")
    choose(page, "1h")
    wait_for(lambda: "30 steps in 3 episodes" in text(page, "#tile-spent"), "this hour")
    assert complaints(page) == []


def test_recorded_texts_are_texts(page, site):
    wait_shown(page, ".decision")
    page.execute_script("for (const d of document.querySelectorAll('.decision')) d.open = true")
    wait_for(lambda: len(page.find_elements("css selector", ".inside")) == 25, "all open")
    assert text(page, ".decision .goal") == EVIL
    assert EVIL in [e.text for e in page.find_elements("css selector", "#slowest td:first-child")]
    assert page.find_elements("css selector", "main img, main script") == []
    assert page.title == "agentcascade"
    with pytest.raises(Exception, match="TrustedHTML"):
        page.execute_script("document.body.innerHTML = arguments[0]", EVIL)
    assert page.title == "agentcascade"


def test_nothing_leaves_the_origin(browser, site):
    resize(browser, 1280)
    requested(browser), complaints(browser)
    browser.get(site.url)
    wait_shown(browser, ".decision")
    asked = [url for url in requested(browser) if not url.startswith("data:")]
    assert len(asked) >= 2
    assert [url for url in asked if not url.startswith(site.url + "/")] == []
    assert complaints(browser) == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways(page, dark):
    resize(page, 360, dark=dark)
    page.refresh()
    wait_shown(page, ".decision")
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    wait_for(lambda: len(page.find_elements("css selector", ".inside")) == 25, "all open")
    assert page.execute_script("return document.documentElement.scrollWidth") == 360
    wide = """return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .away, thead, svg')
      && e.getBoundingClientRect().right > 360.5).map(e => e.outerHTML.slice(0, 80))"""
    assert page.execute_script(wide) == []
    light = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (light == "rgb(12, 17, 22)") is dark


def test_charts_are_named_and_read_by_keyboard(page):
    wait_shown(page, "#spending svg")
    for chart in page.find_elements("css selector", "svg.chart"):
        assert chart.accessible_name, "a screen reader has a name for it"
    labels = [e.text for e in page.find_elements("css selector", "#agreement text")]
    assert {"0", "30", "all", "% of samples in the largest vote"} <= set(labels)
    find(page, "#spending svg").send_keys("\ue012")  # arrow left: the newest hour
    wait_for(lambda: "spent $" in text(page, ".readout") or "no steps" in text(page, ".readout"), "a value is read")


def test_a_key_is_asked_for_kept_in_the_session_and_forgotten(page, site):
    site.locked = True
    page.refresh()
    wait_shown(page, "#login")
    assert not find(page, "#figures").is_displayed()
    find(page, "#key").send_keys("wrong\n")
    wait_for(lambda: "no such key" in text(page, "#refused"), "the refusal")
    assert page.execute_script("return sessionStorage.length") == 0
    find(page, "#key").send_keys("good\n")
    wait_shown(page, "#tile-spent")
    assert "Namespace default." in text(page, "#foot")
    assert page.execute_script("return [sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    assert "good" not in page.current_url
    page.refresh()
    wait_shown(page, "#tile-spent")
    find(page, "#forget").click()
    wait_shown(page, "#login")
    assert page.execute_script("return sessionStorage.length") == 0
    assert page.find_elements("css selector", ".decision, .tile") == [], "nothing of the tenant is left in the page"


def test_trouble_is_told_and_the_last_figures_stay(page, site):
    wait_shown(page, "#tile-spent")
    site.broken = True
    page.execute_script("return refresh()")
    wait_shown(page, "#trouble")
    assert "cannot be loaded: the database does not answer" in text(page, "#trouble")
    assert find(page, "#tile-spent").is_displayed()
    site.broken = False
    page.execute_script("return refresh()")
    assert not find(page, "#trouble").is_displayed()


def test_pausing_stops_the_questions(page):
    wait_shown(page, "#tile-spent")
    find(page, "#pause").click()
    assert (text(page, "#pause"), find(page, "#pause").get_attribute("aria-pressed")) == ("Resume", "true")
    requested(page)
    find(page, "#pause").click()
    wait_for(lambda: any("/dashboard/data" in url for url in requested(page)), "resuming asks at once")


@empty_site
def test_an_empty_database_says_how_to_begin(page, site):
    wait_shown(page, "#empty")
    assert "Nothing recorded yet" in text(page, "#empty")
    assert f'base_url="{site.url}/v1"' in text(page, "#empty")
    assert not find(page, "#figures").is_displayed()


def test_the_page_holds_no_data_and_forbids_whatever_is_not_its_own(site):
    answer = httpx.get(site.url)
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200
    assert "mug" not in answer.text
    assert re.search(r"script-src 'sha256-[\w+/]{43}='; style-src 'sha256-[\w+/]{43}=';", policy)
    for rule in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text), "no address outside"


def test_the_data_route_keeps_namespaces_apart_and_answers_bad_questions_in_openais_shape(site):
    site.locked = True
    with httpx.Client(base_url=site.url) as client:
        refused = client.get("/dashboard/data")
        assert (refused.status_code, refused.json()["error"]["message"]) == (401, "there is no such key")
        for key, namespace in KEYS.items():
            answer = client.get("/dashboard/data", headers={"authorization": key})
            assert (answer.status_code, answer.json()["namespace"]) == (200, namespace)
            assert answer.headers["cache-control"] == "no-store"
        for bad in ("hours=soon", "hours=nan", "hours=-1", "hours=1e9", "bucket=week", "hours=720&bucket=minute"):
            answer = client.get(f"/dashboard/data?{bad}", headers={"authorization": "Bearer good"})
            assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), bad
        answer = client.get("/dashboard/decisions?before=de_nowhere", headers={"authorization": "Bearer good"})
        assert (answer.status_code, "start from the newest" in answer.text) == (400, True)
