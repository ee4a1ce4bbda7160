"""Reports: the right figures, nothing from outside, hostile text harmless, and every source of them."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentcascade import build
from agentcascade.cli import main
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.reports import live, log, tuning
from agentcascade.routers.tuning.certification import certificate
from agentcascade.routers.tuning.tuner import Settings, tune
from agentcascade.steplog import jsonl
from agentcascade.steplog.types import LoggedStep
from agentcascade.storage import open_database
from agentcascade.types import Usage, now

HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x.png>"
ODD = (
    "$\\frac{$",
    "$x^$",
    "a\x00b",
    "_hidden",
    "\u202eevil",
    "]]></svg>" + HOSTILE,
    "${alert(1)}",
    "$title",
    "x" * 5000,
)
"""Names that are no TeX, no SVG, no template and no end of a figure."""
SECTIONS = (
    *("Frontier", "What agreement is worth", "Risk and coverage", "What is saved", "Sensitivity to prices"),
    *("All rules that were tried", "Certificate"),
)


def steps(number: int = 300, *, priced: bool = False, gold: bool = True, hostile: bool = False) -> list[LoggedStep]:
    made = []
    for i in range(number):
        wrong = HOSTILE if hostile else "no"
        answers = ["yes"] * 5 if i % 10 else ["yes", wrong, "yes", wrong, None]
        line: dict[str, Any] = {"id": i, "student": answers, "teacher": "yes", "category": wrong if i % 2 else "b"}
        step = jsonl.parse_line(line | ({"gold": "yes"} if gold else {}))
        if priced:
            (drawn,) = step.students
            price = Price(input=Decimal("0.4"), output=Decimal("1.6"), cached_input=Decimal("0.1"))
            samples = tuple(s.model_copy(update={"tokens": 40}) for s in drawn.samples)
            drawn = drawn.model_copy(update={"prompt": Usage(input=1500), "price": price, "samples": samples})
            usage, teacher = Usage(input=900, output=100), Price(input=3, output=15)
            step = step.model_copy(update={"students": (drawn,), "teacher_usage": usage, "teacher_price": teacher})
        made.append(step)
    return made


def page(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    harmless(text)
    return text


def harmless(text: str) -> None:
    """No script, and nothing that a browser would fetch."""
    assert "<script" not in text
    assert not re.search(r"<(?:link|iframe|img|object|embed)\b", text)
    assert not re.search(r"""<[^>]*(?:src|href)\s*=\s*(?!["']?#)""", text), "only references within the page"
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


@pytest.mark.parametrize("priced", [False, True])
@pytest.mark.parametrize("gold", [False, True])
def test_a_tuning_is_reported_whole(tmp_path: Path, priced: bool, gold: bool) -> None:
    log_ = steps(priced=priced, gold=gold, hostile=True)
    tuned = tune(log_, Settings(max_risk=0.1, risk=_risk(gold)))
    assert tuned.chosen is not None
    tuning.write_tuning_report(tmp_path / "r.html", tuned, log_, certificate(tuned))
    text = page(tmp_path / "r.html")
    assert all(f"<h2>{name}</h2>" in text for name in SECTIONS)
    assert text.count("<svg") == 5
    assert tuned.chosen.rule.name in text
    assert f"{tuned.chosen.replayed.saving.value:.1%}" in text
    assert ("cost of a step, dollars" in text) is priced
    assert "&lt;script&gt;" in text or "script" not in text


def _risk(gold: bool) -> Any:
    from agentcascade.routers.tuning.risks import Risk

    return Risk("wrong" if gold else "teacher-disagreement")


def test_what_is_not_certified_says_how_much_is_missing(tmp_path: Path) -> None:
    log_ = [jsonl.parse_line({"id": i, "student": ["a", "a"], "teacher": "a"}) for i in range(20)]
    tuned = tune(log_, Settings(max_risk=0.01, risk=_risk(False)))
    tuning.write_tuning_report(tmp_path / "r.html", tuned, log_, certificate(tuned))
    assert re.search(r'class="lead">no rule is certified: collect about \d+ more episodes', page(tmp_path / "r.html"))


def test_a_log_alone_has_a_report(tmp_path: Path) -> None:
    log.write_log_report(tmp_path / "r.html", steps(priced=True), "mine")
    text = page(tmp_path / "r.html")
    assert "300" in text
    assert "Nothing here is certified" in text
    # by hand: unanimity of 3 accepts the 270 steps that agree, and a teacher takes 30
    teacher, student = (900 * 3 + 100 * 15) / 1e6, (1500 * 0.4 + 3 * 40 * 1.6) / 1e6
    assert f"{1 - (student + 0.1 * teacher) / teacher:.1%}" in text


async def test_the_live_database_has_a_report(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    price = Price(input=Decimal(1), output=Decimal(2))
    cascade = build(
        teacher=ScriptedModel(["stay"], name="teacher", price=price),
        student=ScriptedModel(["go"], name="student", price=price),
        bank={"url": url},
        retrieval={"k": 0},
        audit={"rate": 1.0},
    )
    async with cascade:
        for _ in range(3):
            episode = cascade.episode(HOSTILE)
            await episode.complete([{"role": "user", "content": "Task: go"}])
    database = open_database(url)
    live.write_live_report(tmp_path / "r.html", database, namespace=None, since=now() - timedelta(days=1))
    database.close()
    text = page(tmp_path / "r.html")
    assert "audits" in text
    assert "0.0%" in text  # of three audits none was as the teacher


def test_the_command_wants_one_source(tmp_path: Path) -> None:
    run = CliRunner().invoke
    path = tmp_path / "log.jsonl"
    jsonl.write_jsonl(path, steps(60))
    done = run(main, ["report", "--log", str(path), "--out", str(tmp_path / "x" / "r.html")])
    assert done.exit_code == 0, done.output
    page(tmp_path / "x" / "r.html")
    both = run(main, ["report", "--log", str(path), "--run", str(tmp_path)])
    assert "not both" in both.output
    assert "holds no run" in run(main, ["report", "--run", str(tmp_path)]).output
    assert "of the database" in run(main, ["report", "--log", str(path), "--url", "sqlite:///x.db"]).output
    assert "there is no database" in run(main, ["report", "--url", f"sqlite:///{tmp_path / 'none.db'}"]).output


def test_a_certificate_in_a_report_is_the_certificate(tmp_path: Path) -> None:
    log_ = steps()
    tuned = tune(log_, Settings(max_risk=0.1))
    made = certificate(tuned)
    tuning.write_tuning_report(tmp_path / "r.html", tuned, log_, made)
    text = page(tmp_path / "r.html")
    assert json.dumps(made["versions"]["python"]).strip('"') in text
    assert "independent of each other" in text


def key(text: str, name: str) -> str:
    found = re.search(rf'<div class="key">{name}<b>([^<]*)</b>', text)
    assert found is not None
    return found[1]


def test_the_risk_that_is_shown_is_the_one_that_was_certified(tmp_path: Path) -> None:
    """290 episodes of one good step, 10 of thirty bad ones: 300 of 590 steps go wrong, but 10 of 300 episodes do."""
    from agentcascade.routers.tuning.risks import Risk

    lines = [{"id": f"{e}", "episode": f"e{e}", "student": ["a"] * 3, "teacher": "a"} for e in range(290)]
    for e in range(290, 300):
        lines += [{"id": f"{e}-{i}", "episode": f"e{e}", "student": ["x"] * 3, "teacher": "a"} for i in range(30)]
    log_ = [jsonl.parse_line(line) for line in lines]
    assert tune(log_, Settings(max_risk=0.1, risk=Risk("teacher-disagreement"))).chosen is None
    tuned = tune(log_, Settings(max_risk=0.1, risk=Risk("teacher-disagreement", weigh="episodes")))
    assert tuned.chosen is not None
    made = certificate(tuned)
    assert "averaged over episodes" in made["statement"]
    assert made["observed"]["risk"] == pytest.approx(10 / 300)
    tuning.write_tuning_report(tmp_path / "r.html", tuned, log_, made)
    text = page(tmp_path / "r.html")
    assert key(text, "risk on the log") == f"{10 / 300:.4f}"
    assert "counts every episode alike" in text


def test_the_teachers_own_mistakes_are_its_risk_where_they_count(tmp_path: Path) -> None:
    from agentcascade.routers.tuning.risks import Risk

    log_ = [
        jsonl.parse_line({"id": i, "student": ["x"] * 3, "teacher": "a" if i % 10 else "b", "gold": "a"})
        for i in range(100)
    ]
    tuned = tune(log_, Settings(max_risk=0.2, risk=Risk("wrong", "total")))
    assert tuned.chosen is None
    tuning.write_tuning_report(tmp_path / "r.html", tuned, log_, certificate(tuned))
    text = page(tmp_path / "r.html")
    assert key(text, "risk on the log") == "0.1000"
    assert "counts every episode alike" not in text  # each is one step


def test_figures_show_any_name_as_it_is() -> None:
    from agentcascade.reports import figures

    rows = [(name, 0.5, (0.4, 0.6)) for name in ODD]
    for svg in (
        figures.plot_bars(rows, "share"),
        figures.plot_curves({name: [(0.0, 0.1), (1.0, 0.2)] for name in ODD}, ("x", "y")),
        figures.plot_frontier([(1.0, 0.1, True)], dict.fromkeys(ODD, (1.0, 0.1)), None, None, None, ("x", "y")),
    ):
        harmless(svg)
        assert svg.count("</svg>") == 1
        assert "\\frac{" in svg
        assert "\x00" not in svg
        assert "hidden" in svg
        assert "x" * 70 not in svg


@pytest.mark.parametrize("rules", ["category", "tool"])
def test_a_log_of_any_names_is_tuned_and_reported(tmp_path: Path, rules: str) -> None:
    made = []
    for i in range(400):
        name = ODD[i % 4]
        action = json.dumps({"name": name, "arguments": {}}) if i % 2 else f"{name} act"
        line = {"id": i, "student": [action] * 5, "teacher": action, "gold": action, "category": name}
        made.append(jsonl.parse_line(line))
    tuned = tune(made, Settings(max_risk=0.3, rules=(rules,)))
    tuning.write_tuning_report(tmp_path / "r.html", tuned, made, certificate(tuned, ()))
    assert "hidden" in page(tmp_path / "r.html")
