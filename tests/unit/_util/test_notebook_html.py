"""HTML for notebooks: whatever texts hold, the page has the tags of our tables alone, and nothing is shown as zero."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade import Ledger, ScriptedModel, Step, Trajectory, Turn, Usage, build
from agentcascade._util.notebook import ROWS, html_of_models
from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.reports.page import Page
from agentcascade.storage import open_database
from agentcascade.types import Call, Decision, Rung

ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</table>",
    "\x1b[2J\u202e",
    "&lt;",
    "x" * 9000,
)
texts = st.sampled_from(ATTACKS) | st.text(max_size=40)


class Seen(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        self.closed[tag] += 1

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(page: str) -> Seen:
    seen = Seen(page)
    assert set(seen.tags) <= {"table", "caption", "tr", "td", "th"}
    assert seen.tags == seen.closed
    assert seen.attributes <= {"style", "scope"}
    assert not {"\x1b", "\u202e", "\x9b"} & set(page)
    return seen


def decision(text: str, **fields: object) -> Decision:
    call = Call(role="student", model=text, usage=Usage(input=3), dollars=None)
    made = {
        "episode": text,
        "step": 0,
        "goal": text,
        "mode": "cascade",
        "answered_by": "teacher",
        "reason": text,
        "votes": {text: 2},
        "failures": (text,),
        "calls": (call,),
        "rungs": (Rung(model=text, role="student", votes={text: 1}),),
    }
    return Decision(**{**made, **fields})


@given(texts)
@settings(max_examples=30)
def test_any_text_is_text(text: str) -> None:
    seen = checked(decision(text)._repr_html_())
    assert "unknown" in seen.text
    assert len(seen.text) < 20_000
    checked(Turn(text=text)._repr_html_())
    checked(Trajectory(goal=text, steps=(Step(observation=text, action=text),), success=True)._repr_html_())


def test_a_decision_says_what_is_in_it() -> None:
    seen = checked(decision("look", dollars=Decimal("0.0000012"), agreement=2 / 3)._repr_html_())
    for said in ("Decision", "reason", "look", "$0.0000012", "0.666667", "answered_by", "teacher"):
        assert said in seen.text
    assert "teacher_drafts" not in seen.text  # as by default


def test_many_rows_are_cut() -> None:
    page = html_of_models([Usage(input=i + 1) for i in range(ROWS + 7)])
    assert "7 more" in page
    assert checked(page).tags["tr"] == ROWS + 2


def test_long_tables_are_cut_by_their_size() -> None:
    many = {f"{i}" + '"' * 490: 1 for i in range(5000)}
    one = Decision(episode="e", step=0, goal="g", mode="cascade", answered_by="student", reason="r", votes=many)
    page = html_of_models([one] * 2000)
    assert len(page) < 1_000_000
    assert "more" in checked(page).text


def test_ledger_and_episode(tmp_path: Path) -> None:
    attack = ATTACKS[0]
    url = f"sqlite:///{tmp_path}/a.db"
    with build(teacher=ScriptedModel([attack]), mode="teacher", bank={"url": url}, retrieval={"k": 0}) as cascade:
        episode = cascade.sync_episode(goal=attack)
        episode.complete([{"role": "user", "content": attack}])
        seen = checked(episode._repr_html_())
        assert seen.text.count(attack) == 3
        assert "unknown" in seen.text
        assert "mode teacher" in seen.text
    database = open_database(url)
    recorder = DatabaseRecorder(database)
    paid = Call(role="student", model=attack, usage=Usage(input=3), dollars=Decimal("0.25"))
    recorder.record(decision(attack, calls=(paid,), dollars=Decimal("0.25"), teacher_dollars=Decimal(1)))
    recorder.close()
    told = checked(Ledger(database)._repr_html_()).text
    database.close()
    assert "0.75" in told
    assert "unknown" in told  # of the scripted teacher, which has no price


def test_a_page_of_a_report() -> None:
    page = Page(ATTACKS[0])
    page.table([ATTACKS[1]], [[ATTACKS[2]]])
    shown = page._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    assert shown.count("</table>") == 1
