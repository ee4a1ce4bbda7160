"""The bench without its processes: policies, what a run keeps, the figures, and the report."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Mapping
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agentcascade.bench.policies import POLICIES, check_policies, configure_policy
from agentcascade.bench.records import EpisodeRecord, EpisodeRunFolder
from agentcascade.bench.report import RunReport
from agentcascade.bench.statistics import bootstrap_interval, demonstrations_dollars, summarise_policies
from agentcascade.bench.suites.alfworld import GENERATED, STAND_IN, AlfworldSuite
from agentcascade.cli.bench_models import kind_of, models_of
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ModelConfig, RetrievalConfig, RouterConfig
from agentcascade.errors import BenchError
from agentcascade.models.pricing import PriceTable
from agentcascade.types import Call, Decision, Step, Trajectory, Usage

BASE = CascadeConfig(
    mode="student",
    teacher=ModelConfig(name="offline/expert"),
    student=ModelConfig(name="offline/imitator"),
    retrieval=RetrievalConfig(embedder="hashing:64", k=6, window_after=1),
    router=RouterConfig(name="unanimity", options={"n": 5}),
)
NO_DEMONSTRATIONS = BASE.retrieval.model_copy(update={"k": 0})
SETTINGS = {"suite": "tiny", "episodes": 2, "price": {"input": "3"}, "versions": {"python": "3.11"}, "started": "now"}
RUN = {
    "suite": "tiny",
    "split": "test",
    "models": {"teacher": {"name": "m", "price": None}},
    "models_are": "stand-in",
    "tasks": "official",
    "group": "scenario",
    "notes": [],
    "seeds": [0, 1],
    "embedder": "hashing:64",
}


def record(policy: str = "cascade", index: int = 0, dollars: str | None = "0.5", **values: Any) -> EpisodeRecord:
    made = {
        "policy": policy,
        "seed": 0,
        "index": index,
        "task": f"task {index}",
        "success": True,
        "steps": 4,
        "teacher_steps": 1,
        "dollars": None if dollars is None else Decimal(dollars),
        "seconds": 1.5,
    }
    return EpisodeRecord.model_validate(made | values)


def printed(report: RunReport) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(report.table())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_policies_run_in_their_own_order_and_once() -> None:
    assert check_policies(("random", "cascade", "teacher", "cascade")) == ("teacher", "cascade", "random")
    assert check_policies(POLICIES) == POLICIES
    assert POLICIES.index("cascade") < POLICIES.index("random")


def test_an_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(BenchError, match=r"no policy 'cascde': did you mean 'cascade'\?"):
        check_policies(("teacher", "cascde"))


def test_random_needs_the_cascades_share() -> None:
    with pytest.raises(BenchError, match="run 'cascade' too"):
        check_policies(("teacher", "random"))


@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        ("demos", {"mode": "collect"}),
        ("teacher", {"mode": "teacher", "retrieval": NO_DEMONSTRATIONS}),
        ("student", {"mode": "student", "teacher": None, "retrieval": NO_DEMONSTRATIONS}),
        ("student+demos", {"mode": "student", "teacher": None}),
        ("cascade", {}),
        ("cascade-no-demos", {"retrieval": NO_DEMONSTRATIONS}),
        ("random", {"router": RouterConfig(name="random", options={"p": 0.25, "seed": 7})}),
    ],
)
def test_a_policy_changes_this_and_nothing_else(policy: str, changes: Mapping[str, Any]) -> None:
    before = BASE.model_copy(deep=True)
    expected = BASE.model_copy(update={"seed": 7, "mode": "cascade"} | dict(changes))
    assert configure_policy(policy, BASE, teacher_share=0.25, seed=7) == expected
    assert before == BASE


def test_what_was_appended_is_there_after_reopening(tmp_path: Path) -> None:
    call = Call(role="student", model="m", usage=Usage(input=9, output=1), dollars=Decimal("0.0000001"))
    decision = Decision(
        episode="e", step=0, mode="cascade", answered_by="student", reason="agreement 3/3", calls=(call,)
    )
    trajectory = Trajectory(goal="g", steps=(Step(observation="o", action="a"),), success=True)
    records = [
        record(index=0, decisions=(decision,), error="ValueError: line\nbreak, ü and \u2028"),
        record("demos", 1, None, trajectory=trajectory, seed=3),
    ]
    store = EpisodeRunFolder(tmp_path / "run", SETTINGS, resume=False)
    for one in records:
        store.append(one)
    assert list(store) == records
    store.close()
    again = EpisodeRunFolder(tmp_path / "run", SETTINGS, resume=True)
    assert list(again) == records
    again.close()


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_torn_last_line_did_not_happen(tmp_path: Path, left: int) -> None:
    store = EpisodeRunFolder(tmp_path, SETTINGS, resume=False)
    store.append(record(index=0))
    store.append(record(index=1))
    store.close()
    episodes = tmp_path / "episodes.jsonl"
    first, second = episodes.read_bytes().splitlines(keepends=True)
    episodes.write_bytes(first + second[:left])
    store = EpisodeRunFolder(tmp_path, SETTINGS, resume=True)
    assert [r.index for r in store] == [0]
    assert episodes.read_bytes() == first
    store.append(record(index=1))
    assert [r.index for r in store] == [0, 1]
    store.close()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    store = EpisodeRunFolder(tmp_path, SETTINGS, resume=False)
    store.append(record())
    store.close()
    with pytest.raises(BenchError, match=r"holds a run already: add --resume"):
        EpisodeRunFolder(tmp_path, SETTINGS, resume=False)
    assert (tmp_path / "episodes.jsonl").read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"run.json": "{"}, r"run\.json is not the settings of a run \(JSONDecodeError"),
        ({"run.json": "[]"}, r"run\.json is not the settings of a run \(it holds a list"),
        ({"episodes.jsonl": "{}\n"}, "holds episodes of a run whose run.json is gone"),
        ({"run.json": '{"suite": "x"}', "episodes.jsonl": '{"policy": "x"}\n'}, "episodes.jsonl line 1 is no episode"),
    ],
)
def test_a_folder_that_is_no_run_is_told(files: Mapping[str, str], says: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BenchError, match=says):
        list(EpisodeRunFolder(tmp_path, {"suite": "x"}, resume=True))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_a_run_that_can_be_continued(tmp_path: Path) -> None:
    store = EpisodeRunFolder(tmp_path, {"suite": "x"}, resume=False)
    store.append(record(index=0))
    store.close()
    store._file = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115 - closed by the store
    with pytest.raises(
        BenchError, match=r"episodes\.jsonl cannot be written \(.*No space left.*continue with --resume"
    ):
        store.append(record(index=1))
    store.close()
    assert len(list(EpisodeRunFolder(tmp_path, {"suite": "x"}, resume=True))) == 1


def test_resuming_without_a_run_starts_one(tmp_path: Path) -> None:
    store = EpisodeRunFolder(tmp_path / "new" / "run", SETTINGS, resume=True)
    assert list(store) == []
    store.close()
    assert json.loads((tmp_path / "new" / "run" / "run.json").read_text()) == SETTINGS


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"episodes": 3}, r"run with episodes = 2, not 3"),
        ({"price": {"input": "4"}}, r'run with price = {"input": "3"}, not {"input": "4"}'),
        ({"k": 6}, r"run with k = null, not 6"),
    ],
)
def test_resuming_with_other_settings_names_the_first_that_differs(
    tmp_path: Path, changed: Mapping[str, Any], said: str
) -> None:
    EpisodeRunFolder(tmp_path, SETTINGS, resume=False).close()
    with pytest.raises(BenchError, match=said):
        EpisodeRunFolder(tmp_path, {**SETTINGS, **changed}, resume=True)


def test_resuming_later_with_newer_packages_is_fine(tmp_path: Path) -> None:
    EpisodeRunFolder(tmp_path, SETTINGS, resume=False).close()
    EpisodeRunFolder(tmp_path, SETTINGS | {"versions": {"python": "3.13"}, "started": "later"}, resume=True).close()
    EpisodeRunFolder(tmp_path, {k: v for k, v in SETTINGS.items() if k != "started"}, resume=True).close()


def test_every_seed_has_its_own_bank_in_the_runs_folder(tmp_path: Path) -> None:
    store = EpisodeRunFolder(tmp_path, SETTINGS, resume=False)
    assert store.bank_url(0) == f"sqlite:///{tmp_path}/bank-0.db"
    assert store.bank_url(0) != store.bank_url(1)
    store.close()


def test_a_row_holds_the_figures_of_its_policys_episodes() -> None:
    records = [
        record("teacher", 0, "2", steps=8, teacher_steps=8),
        record("cascade", 0, "0.25", steps=10, teacher_steps=1),
        record("cascade", 1, "0.75", steps=2, teacher_steps=2, success=False, error="ValueError"),
        record("cascade", 0, "0.50", steps=3, teacher_steps=0, seed=5),
        record("demos", 0, "9"),
    ]
    teacher, cascade = summarise_policies(records, ["student", "teacher", "cascade"])
    assert (teacher.policy, teacher.episodes, teacher.deferral_share, teacher.relative_cost) == ("teacher", 1, 1.0, 1.0)
    assert (cascade.policy, cascade.episodes, cascade.errors) == ("cascade", 3, 1)
    assert cascade.accuracy == pytest.approx(2 / 3)
    assert cascade.accuracy_by_seed == {0: 0.5, 5: 1.0}
    assert cascade.dollars_per_episode == pytest.approx(0.5)
    assert cascade.relative_cost == pytest.approx(0.25)
    assert cascade.steps == 5.0
    assert cascade.deferral_share == pytest.approx(3 / 15)  # of steps, not of episodes


def test_rows_come_in_the_given_order_and_do_not_depend_on_who_finished_first() -> None:
    rng = random.Random(0)
    records = [
        record(policy, i, str(rng.random()), seed=seed, success=rng.random() < 0.7, teacher_steps=rng.randrange(4))
        for policy in ("teacher", "cascade", "student")
        for seed in (0, 1)
        for i in range(20)
    ]
    rows = summarise_policies(records, ["student", "cascade", "teacher"])
    assert [r.policy for r in rows] == ["student", "cascade", "teacher"]
    rng.shuffle(records)
    assert summarise_policies(records, ["student", "cascade", "teacher"]) == rows


def test_an_unknown_price_is_unknown_and_never_zero() -> None:
    records = [record("teacher", 0, "1"), record("cascade", 0, "0.2"), record("cascade", 1, None)]
    teacher, cascade = summarise_policies(records, ["teacher", "cascade"])
    assert teacher.dollars_per_episode == 1.0
    assert (cascade.dollars_per_episode, cascade.dollars_ci, cascade.relative_cost) == (None, None, None)
    assert "unknown" in printed(RunReport(RUN, records, ["teacher", "cascade"]))


@pytest.mark.parametrize("teacher", [[], [record("teacher", 0, None)], [record("teacher", 0, "0")]])
def test_without_the_teachers_cost_there_is_no_relative_cost(teacher: list[EpisodeRecord]) -> None:
    row = summarise_policies([*teacher, record("cascade")], ["teacher", "cascade"])[-1]
    assert (row.policy, row.dollars_per_episode, row.relative_cost) == ("cascade", 0.5, None)


def test_demonstrations_cost_what_one_seed_of_them_cost_failures_included() -> None:
    demos = [record("demos", i, "1.5", seed=seed, success=i == 0) for seed in (0, 1) for i in range(4)]
    assert demonstrations_dollars([*demos, record("cascade")]) == Decimal(6)
    assert demonstrations_dollars([*demos, record("demos", 9, None)]) is None
    assert demonstrations_dollars([record("cascade")]) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=25))
def test_an_interval_lies_within_the_values_and_around_their_mean(values: list[float]) -> None:
    array = np.array(values)
    low, high = bootstrap_interval(array)
    slack = 1e-9 * max(values)
    assert min(values) - slack <= low <= array.mean() + slack
    assert array.mean() - slack <= high <= max(values) + slack


def test_an_interval_is_the_same_every_time_and_narrows_with_the_data() -> None:
    wins = np.array([1.0, 0.0, 1.0, 1.0] * 25)
    low, high = bootstrap_interval(wins)
    assert (low, high) == bootstrap_interval(wins)
    assert (low, high) == pytest.approx((0.75 - 1.96 * 0.0433, 0.75 + 1.96 * 0.0433), abs=0.015)
    few = bootstrap_interval(wins[:12])
    assert few[1] - few[0] > 2 * (high - low)
    assert bootstrap_interval(wins, level=0.5)[0] > low


def test_an_interval_of_equal_values_is_a_point() -> None:
    (row,) = summarise_policies([record(index=i) for i in range(5)], ["cascade"])
    assert row.accuracy_ci == (1.0, 1.0)
    assert row.dollars_ci == (0.5, 0.5)


def records_of_a_run(*, cascade: str | None = "0.4", demos: str | None = "1.5") -> list[EpisodeRecord]:
    made = [record("demos", i, demos, seed=seed) for seed in (0, 1) for i in range(4)]
    made += [record("teacher", i, "1", teacher_steps=4) for i in range(3)]
    return made + [record("cascade", i, cascade, success=i > 0) for i in range(3)]


def test_the_data_have_exactly_the_published_shape() -> None:
    data = json.loads(json.dumps(RunReport(RUN, records_of_a_run(), ["teacher", "cascade"]).data()))
    assert set(data) == {"run", "policies", "demonstrations_dollars", "break_even_episodes"}
    assert data["run"] == RUN
    assert [p["policy"] for p in data["policies"]] == ["teacher", "cascade"]
    assert set(data["policies"][0]) == {
        "policy", "episodes", "accuracy", "accuracy_ci", "accuracy_by_seed", "dollars_per_episode", "dollars_ci",
        "relative_cost", "steps", "deferral_share", "errors", "difference", "difference_ci", "relative_ci",
        "group_accuracy",
    }  # fmt: skip
    cascade = data["policies"][1]
    assert cascade["accuracy"] == pytest.approx(2 / 3)
    assert cascade["accuracy_ci"] == [0.0, 1.0]
    assert cascade["relative_cost"] == pytest.approx(0.4)


def test_break_even_is_one_seeds_demonstrations_over_what_an_episode_saves() -> None:
    report = RunReport(RUN, records_of_a_run(), ["teacher", "cascade"])
    assert report.data()["demonstrations_dollars"] == 6.0
    assert report.data()["break_even_episodes"] == pytest.approx(6 / (1 - 0.4))
    assert "demonstrations: $6.0000 a seed; break-even after 10 episodes" in report.footnotes()


@pytest.mark.parametrize("cascade", ["1", "1.2"])
def test_a_cascade_that_is_not_cheaper_never_pays_off(cascade: str) -> None:
    report = RunReport(RUN, records_of_a_run(cascade=cascade), ["teacher", "cascade"])
    assert report.data()["break_even_episodes"] is None
    assert "never pays off at these prices" in report.footnotes()[0]


def test_break_even_is_unknown_where_a_price_or_a_policy_is_missing() -> None:
    for records in (
        records_of_a_run(cascade=None),
        records_of_a_run(demos=None),
        [r for r in records_of_a_run() if r.policy != "teacher"],
        [r for r in records_of_a_run() if r.policy != "demos"],
    ):
        assert RunReport(RUN, records, ["teacher", "cascade"]).data()["break_even_episodes"] is None


def test_what_is_unknown_is_not_said_to_never_pay_off() -> None:
    for records in (records_of_a_run(cascade=None), [r for r in records_of_a_run() if r.policy != "cascade"]):
        assert "never" not in RunReport(RUN, records, ["teacher", "cascade"]).footnotes()[0]


def test_dollars_against_the_teacher_come_first() -> None:
    heads, _, cascade = printed(RunReport(RUN, records_of_a_run(), ["teacher", "cascade"])).splitlines()[1:4]
    assert heads.split()[:3] == ["policy", "$/teacher's", "$/episode"]
    assert cascade.split()[:3] == ["cascade", "0.40", "0.40000"]


@pytest.mark.parametrize(
    ("mix", "lost", "told"),
    [
        ("0.3", 0, True),  # cheaper, and it wins as often
        ("0.3", 1, True),  # one task of twenty fewer: no more than chance
        ("0.3", 12, False),  # cheaper, and worse
        ("0.4", 0, False),  # as good for the same money
        (None, 0, False),
    ],
)
def test_a_random_mix_that_is_cheaper_and_as_accurate_is_named(mix: str | None, lost: int, told: bool) -> None:
    cascade = [record("cascade", i, "0.4") for i in range(20)]
    random_mix = [record("random", i, mix, success=i >= lost) for i in range(20)]
    lines = RunReport(RUN, [*cascade, *random_mix], ["cascade", "random"]).footnotes()
    said = [line for line in lines if line.startswith("a random mix at the cascade's teacher share is cheaper")]
    assert bool(said) == told
    if told:
        assert "$0.30000 against $0.40000 an episode" in said[0]
        assert said[0].endswith("here the vote does not pay")


class Page(HTMLParser):
    """Tags, what they point to, and the text around them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_everything_is_written_and_readable(tmp_path: Path) -> None:
    report = RunReport(RUN, records_of_a_run(cascade=None), ["teacher", "cascade"])
    paths = report.write(tmp_path)
    names = ["pareto.png", "pareto.svg", "report.html", "results.csv", "results.json"]
    assert sorted(p.name for p in paths) == sorted(p.name for p in tmp_path.iterdir()) == names
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(report.data()))
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert "<svg" in (tmp_path / "pareto.svg").read_text()
    with (tmp_path / "results.csv").open(newline="") as file:
        teacher, cascade = csv.DictReader(file)
    assert (teacher["policy"], float(teacher["dollars_per_episode"]), teacher["episodes"]) == ("teacher", 1.0, "3")
    assert (cascade["dollars_per_episode"], cascade["dollars_ci_low"], cascade["relative_cost"]) == ("", "", "")
    assert float(cascade["accuracy_ci_high"]) == 1.0
    assert None not in teacher
    assert None not in teacher.values()
    report.write(tmp_path)  # again, over what is there


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    RunReport(RUN, records_of_a_run(), ["teacher", "cascade"]).write(tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert "url(http" not in html
    assert "@import" not in html
    assert page.tags.count("svg") == 1
    assert page.tags.count("td") == 2 * 8 + len(RUN)
    for said in ("0.667", "0.40000", "hashing:64", '"name": "m"', "break-even after 10 episodes"):
        assert said in page.text


def test_the_page_escapes_names(tmp_path: Path) -> None:
    nasty = "<script>alert('$x')</script>"
    RunReport({**RUN, "suite": nasty, nasty: [nasty]}, [record(nasty)], [nasty]).write(tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.text.count(nasty) >= 4


@pytest.mark.parametrize(
    ("given", "input"), [({}, "0.10"), ({"student_price": "0.40/1.60"}, "0.40"), ({"student": "gpt-5"}, None)]
)
def test_alfworlds_stand_ins_bill_at_list_prices_of_real_models(given: dict[str, Any], input: str | None) -> None:
    options = {
        "teacher": "offline/expert",
        "student": "offline/imitator",
        "verifier": None,
        "members": (),
        "prices": (),
    }
    options |= {"teacher_price": None, "student_price": None, "api_base": None, **given}
    models = models_of(AlfworldSuite(), options)
    table = PriceTable()
    paid, billed = models["teacher"]["price"], models["student"]["price"]
    sonnet, nano = table.lookup("anthropic/claude-sonnet-4-5"), table.lookup("openai/gpt-4.1-nano")
    assert sonnet is not None
    assert nano is not None
    assert sonnet.input == Decimal(paid["input"])
    assert (billed and billed["input"]) == input
    if not given:
        assert (nano.input, nano.output) == (Decimal(billed["input"]), Decimal(billed["output"]))


@pytest.mark.parametrize(("models", "told"), [("offline/expert", True), ("gpt-4.1-mini", False)])
def test_stand_ins_are_named_as_such_wherever_figures_are(tmp_path: Path, models: str, told: bool) -> None:
    run = {**RUN, "notes": AlfworldSuite().notes("official", [models]), "models_are": kind_of([models, "gpt-5"])}
    report = RunReport(run, records_of_a_run(), ["teacher", "cascade"])
    report.write(tmp_path)
    assert (STAND_IN in report.footnotes()) == told
    assert (STAND_IN in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text) == told
    assert json.loads((tmp_path / "results.json").read_text())["run"]["models_are"] == ("stand-in" if told else "real")


def test_footnotes_tell_of_generated_games_and_broken_episodes() -> None:
    records = [record(index=0, error="ValueError: x", success=False), record(index=1)]
    generated, official = ({**RUN, "notes": AlfworldSuite().notes(s, [])} for s in ("generated", "official"))
    said = " ".join(RunReport(generated, records, ["cascade"]).footnotes())
    assert GENERATED in said
    assert "1 episodes of cascade broke: ValueError: x; see episodes.jsonl" in said
    assert not any("generated" in line for line in RunReport(official, records, ["cascade"]).footnotes())
    assert not any("broke " in line for line in RunReport(official, records[1:], ["cascade"]).footnotes())


def test_tasks_that_belong_together_are_solved_whole_or_not() -> None:
    records = [record(index=i, success=i != 1, group=group) for i, group in enumerate(["a", "a", "b", "b", "b"])]
    report = RunReport(RUN, records, ["cascade"])
    assert report.rows[0].accuracy == 0.8
    assert report.rows[0].group_accuracy == 0.5
    assert "scenarios solved whole: cascade 0.500" in report.footnotes()
    assert not any("whole" in line for line in RunReport(RUN, [record()], ["cascade"]).footnotes())


def test_the_table_shows_every_policy_and_fits_a_terminal() -> None:
    text = printed(RunReport(RUN, records_of_a_run(), ["teacher", "cascade"]))
    assert "tiny · test · seeds 0, 1" in text
    assert "…" not in text
    lines = text.splitlines()
    for policy, *cells in (("teacher", "1.000", "1.00000", "100.0%"), ("cascade", "0.667", "0.40000", "0.40", "25.0%")):
        (line,) = (line for line in lines if policy in line.split())
        assert set(cells) <= set(line.split())
