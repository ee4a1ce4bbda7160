"""The dashboard's questions: the figures by hand, on both databases; what is unknown stays unknown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import pytest

from agentcascade.errors import InvalidRequest
from agentcascade.ledger import banked as banked_module
from agentcascade.ledger.banked import read_banked
from agentcascade.ledger.dashboard import DashboardQueries
from agentcascade.ledger.ledger import Ledger
from agentcascade.storage import Database, trajectories
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Call, Decision, EpisodeEnd, LoggedSample, Shadow, Step, Trajectory, Usage, now

EVER = datetime(2000, 1, 1, tzinfo=UTC)


def step(number, *, dollars="0.001", alone="0.01", **values):
    """One step that the student took, ten times cheaper than the teacher; None for an unknown price."""
    spent = None if dollars is None else Decimal(dollars)
    role = values.get("answered_by", "student")
    call = Call(role=role, purpose="sample", model="m", usage=Usage(input=9), dollars=spent)
    made = {
        "id": f"de_{number:03}",
        "episode": "ep_1",
        "step": number,
        "goal": "put a mug on the desk",
        "mode": "cascade",
        "answered_by": "student",
        "reason": "agreement 3/3",
        "agreement": 1.0,
        "votes": {"look": 3},
        "samples": 3,
        "calls": (call,),
        "dollars": spent,
        "teacher_dollars": None if alone is None else Decimal(alone),
        "overhead_ms": float(number),
        "seconds": 1.0,
        "created_at": now() - timedelta(seconds=100 - number),
    }
    return Decision(**made | values)


def deferred(number, **values):
    return step(number, **{"answered_by": "teacher", "agreement": 1 / 3, "dollars": "0.02"} | values)


def behind(decision, *, student="look", teacher="look", accepted=True, dollars="0.0005"):
    call = Call(role="student", purpose="shadow", model="m", usage=Usage(), dollars=dollars and Decimal(dollars))
    logged = [LoggedSample(action=student, text="…"), LoggedSample(action=None, text="?", invalid="no action")]
    return Shadow(
        decision=decision.id,
        episode=decision.episode,
        namespace=decision.namespace,
        step=decision.step,
        teacher_action=teacher,
        samples=(*logged, LoggedSample(action=student, text="…")),
        accepted=accepted,
        calls=(call,),
    )


def banked(id, namespace="default", actions=("go", "take", "clean", "put")):
    taken = tuple(Step(observation=f"{id} sees {a}", action=a) for a in actions)
    return Trajectory(id=id, namespace=namespace, goal=f"goal of {id}", steps=taken, success=True)


def fill(database, *entries):
    lessons = [e for e in entries if isinstance(e, Trajectory)]
    with database.begin(write=True) as connection:
        write_records(connection, [e for e in entries if not isinstance(e, Trajectory)])
        if lessons:
            trajectories.insert_trajectories(connection, lessons, {}, "hashing")
    return DashboardQueries(database)


def test_totals_are_the_ledgers_figures(database: Database) -> None:
    shadowed = deferred(3, mode="shadow", reason="mode shadow", agreement=None)
    end = EpisodeEnd(episode="ep_1", goal="g", mode="cascade", success=True, steps=4, started_at=now())
    judge = Call(role="teacher", purpose="judge", model="j", usage=Usage(), dollars=Decimal("0.002"))
    insights = fill(
        database,
        *(step(1), deferred(2), shadowed, behind(shadowed), step(4, episode="ep_2", failures=("student: Timeout",))),
        *(end.model_copy(update={"decision": "de_004", "calls": (judge,)}), end.model_copy(update={"episode": "ep_2"})),
        end.model_copy(update={"episode": "ep_3", "success": False}),
        end.model_copy(update={"episode": "ep_4", "success": None}),
    )
    totals = insights.totals(namespace=None, since=EVER)
    assert (totals.steps, totals.episodes, totals.cascaded, totals.deferred, totals.taught) == (4, 2, 3, 1, 2)
    assert totals.deferral_share == pytest.approx(1 / 3)
    assert (totals.finished, totals.success_share) == (3, pytest.approx(2 / 3))
    assert (totals.failures, totals.overhead_p50, totals.overhead_p99) == (1, 2.0, 4.0)
    assert totals.dollars == Decimal("0.0445"), "the shadow's and the judge's calls are paid for too"
    assert totals.saved_dollars == totals.known_saved_dollars == Decimal("0.04") - Decimal("0.0445")
    (line,) = Ledger(database).summary()
    assert (totals.dollars, totals.teacher_dollars, totals.saved_dollars) == (
        *(line.dollars, line.teacher_dollars, line.saved_dollars),
    )


def test_calls_that_were_estimated_are_counted_apart(database: Database) -> None:
    counted = Call(role="student", model="m", usage=Usage(input=9), dollars=Decimal("0.001"), estimated=True)
    insights = fill(database, step(1), step(2, calls=(counted,)))
    assert insights.totals(namespace=None, since=EVER).estimated_calls == 1
    (line,) = Ledger(database).summary()
    assert (line.estimated_calls, line.unpriced_calls) == (1, 0)
    assert [s.estimated_calls for s in Ledger(database).spending()] == [1]


def test_an_unknown_price_is_unknown_and_the_known_rest_is_told_apart(database: Database) -> None:
    insights = fill(database, step(1), step(2, dollars=None), step(3, alone=None))
    totals = insights.totals(namespace=None, since=EVER)
    assert (totals.dollars, totals.teacher_dollars, totals.saved_dollars) == (None, None, None)
    assert (totals.known_dollars, totals.known_teacher_dollars) == (Decimal("0.002"), Decimal("0.02"))
    assert totals.known_saved_dollars == Decimal("0.009"), "only the step that has both prices is compared"
    assert (totals.unpriced_steps, totals.unpriced_calls) == (2, 1)
    assert insights.goals(namespace=None, since=EVER)[0].dollars is None
    shadowed = fill(database, behind(step(1), dollars=None)).shadow(namespace=None, since=EVER)
    assert (shadowed.dollars, shadowed.known_dollars) == (None, 0)


def test_nothing_recorded_has_no_shares_and_no_overhead(database: Database) -> None:
    insights = DashboardQueries(database)
    totals = insights.totals(namespace=None, since=EVER)
    assert totals.steps == totals.dollars == 0
    assert (totals.deferral_share, totals.success_share) == (None, None)
    assert (totals.overhead_p50, totals.overhead_p99) == (None, None)
    assert insights.decisions(namespace=None, since=EVER) == []
    assert insights.bank(namespace=None).namespaces == []
    assert insights.shadow(namespace=None, since=EVER).steps == 0


@pytest.mark.parametrize(("bucket", "ago"), [("minute", "minutes"), ("hour", "hours"), ("day", "days")])
def test_spending_puts_every_step_in_its_bucket_and_shows_empty_ones(
    database: Database, bucket: Literal["minute", "hour", "day"], ago: str
) -> None:
    unit = timedelta(**{ago: 1})
    this = now().replace(second=0, microsecond=0)
    this = this if bucket == "minute" else this.replace(minute=0)
    this = this.replace(hour=0) if bucket == "day" else this
    edge = this - 3 * unit
    steps = [step(1, created_at=edge), step(2, created_at=edge - timedelta(microseconds=1)), deferred(3)]
    points = fill(database, *steps[:2], steps[2].model_copy(update={"created_at": this})).spending(
        bucket, namespace=None, since=edge - unit
    )
    times = [edge - unit, edge, edge + unit, edge + 2 * unit, this]
    assert [p.time for p in points][:5] == times
    assert [p.steps for p in points][:5] == [1, 1, 0, 0, 1]
    assert [p.deferred for p in points][:5] == [0, 0, 0, 0, 1]
    assert [p.dollars for p in points][:5] == [Decimal("0.001"), Decimal("0.001"), 0, 0, Decimal("0.02")]


def test_too_many_points_and_unknown_words_are_refused_with_what_to_do(database: Database) -> None:
    insights = DashboardQueries(database)
    with pytest.raises(InvalidRequest, match="ask for a coarser bucket or fewer hours"):
        insights.spending("minute", namespace=None, since=now() - timedelta(days=30))
    with pytest.raises(InvalidRequest, match="bucket 'hours' is unknown: did you mean 'hour'"):
        insights.spending("hours", namespace=None, since=EVER)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="goals cannot be ordered by 'slow': did you mean 'slowest'"):
        insights.goals("slow", namespace=None, since=EVER)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="no decision 'de_9'"):
        insights.decisions(namespace=None, since=EVER, before="de_9")


def test_agreement_is_counted_by_who_acted_and_full_agreement_apart(database: Database) -> None:
    levels = [1.0, 1.0, 0.7, 0.9, 2 / 3]
    steps = [step(i, agreement=level) for i, level in enumerate(levels)] + [deferred(9, agreement=0.0), deferred(10)]
    bins = fill(database, *steps, step(11, agreement=None)).agreement_histogram(namespace=None, since=EVER)
    assert [(b.low, b.accepted, b.deferred) for b in bins if b.accepted + b.deferred] == [
        *((0.0, 0, 1), (0.3, 0, 1), (0.6, 1, 0), (0.7, 1, 0), (0.9, 1, 0), (1.0, 2, 0)),
    ]


def test_goals_by_time_and_by_deferrals(database: Database) -> None:
    often = [deferred(i, goal="hard") for i in range(3)] + [step(3, goal="hard")]
    slow = step(4, goal="slow", seconds=9.0)
    collected = deferred(5, goal="taught", mode="collect")
    insights = fill(database, *often, slow, collected)
    assert [g.goal for g in insights.goals(namespace=None, since=EVER)] == ["slow", "hard", "taught"]
    (hard,) = insights.goals("most_deferred", namespace=None, since=EVER)
    assert (hard.goal, hard.steps, hard.deferred, hard.deferral_share) == ("hard", 4, 3, 0.75)
    assert hard.dollars == Decimal("0.061")
    assert len(insights.goals(namespace=None, since=EVER, limit=1)) == 1


def test_decisions_show_their_windows_and_those_that_are_gone(database: Database) -> None:
    windows = ("tr:with:colons:1-3", "gone:0-2", "foreign:0-2", "nonsense")
    made = step(1, demonstrations=windows, votes={"look": 2, "go": 1}, action="look")
    insights = fill(database, made, banked("tr:with:colons"), banked("foreign", namespace="other"))
    (latest,) = insights.decisions(namespace=None, since=EVER)
    assert [(d.window, d.goal, d.actions) for d in latest.demonstrations] == [
        ("tr:with:colons:1-3", "goal of tr:with:colons", ("take", "clean")),
        *((window, None, ()) for window in windows[1:]),
    ]
    assert (latest.votes, latest.action, latest.dollars) == ({"look": 2, "go": 1}, "look", Decimal("0.001"))


def test_decisions_come_newest_first_in_portions_that_neither_skip_nor_repeat(database: Database) -> None:
    at = now()
    insights = fill(database, *(step(i, created_at=at - timedelta(seconds=i // 3)) for i in range(10)))
    seen, before = [], None
    while page := insights.decisions(namespace=None, since=EVER, limit=4, before=before):
        seen += [d.id for d in page]
        before = seen[-1]
    assert sorted(seen) == [f"de_{i:03}" for i in range(10)]
    assert seen[:3] == ["de_002", "de_001", "de_000"]


def test_long_texts_are_cut(database: Database) -> None:
    long = "x" * 5000
    made = step(1, action=long, votes={long: 3}, demonstrations=("tr:0-1",), reason=long)
    (latest,) = fill(database, made, banked("tr", actions=(long,))).decisions(namespace=None, since=EVER)
    texts = (latest.action, *latest.votes, latest.demonstrations[0].actions[0], latest.reason)
    assert {len(text) for text in texts} == {401}


def test_shadows_compare_the_students_majority_with_the_teacher(database: Database) -> None:
    steps = [deferred(i, mode="shadow") for i in range(5)]
    shadows = [
        behind(steps[0]),
        behind(steps[1], student="go"),
        behind(steps[2], accepted=False),
        behind(steps[3], student=None),
        behind(steps[4], teacher=None),
    ]
    found = fill(database, *steps, *shadows).shadow(namespace=None, since=EVER)
    assert (found.steps, found.samples, found.accepted, found.compared, found.same) == (5, 15, 4, 2, 1)
    assert found.dollars == Decimal("0.0025")


def test_the_bank_is_counted_within_bounds_of_rows_names_and_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons = [banked(f"t{i}", "abc"[i % 3], actions=("go",) * (1 + i % 3)) for i in range(11)]
    insights = fill(database, *lessons)
    found = insights.bank(namespace=None)
    assert [(b.namespace, b.trajectories, b.steps) for b in found.namespaces] == [("a", 4, 4), ("b", 4, 8), ("c", 3, 9)]
    assert found.whole
    few = insights.bank(namespace=None, limit=2)
    assert ([b.namespace for b in few.namespaces], few.whole) == (["a", "b"], False)
    assert insights.bank(namespace="c") == (found.namespaces[2:], True)
    with database.begin() as connection:
        late = read_banked(connection, None, seconds=-1)
    assert ([b.namespace for b in late.namespaces], late.whole) == (["a"], False), "one, however long it took"
    monkeypatch.setattr(banked_module, "COUNTED", 3)
    assert [(b.trajectories, b.at_least) for b in insights.bank(namespace=None).namespaces] == [
        (3, True), (3, True), (3, False),
    ]  # fmt: skip


def test_a_namespace_sees_nothing_of_another(database: Database) -> None:
    mine = step(1, namespace="mine", demonstrations=("ours:0-2", "theirs:0-2"), goal="my goal")
    theirs = deferred(2, namespace="theirs", demonstrations=("theirs:0-2",), goal="their goal", agreement=0.0)
    end = EpisodeEnd(
        episode="ep_1", namespace="theirs", goal="g", mode="cascade", success=True, steps=1, started_at=now()
    )
    lessons = banked("ours", "mine"), banked("theirs", "theirs", actions=("a secret", "b secret"))
    insights = fill(database, mine, theirs, behind(theirs), end, *lessons)
    period = {"namespace": "mine", "since": EVER}
    totals = insights.totals(**period)
    assert (totals.steps, totals.finished, totals.dollars) == (1, 0, Decimal("0.001"))
    assert sum(p.steps for p in insights.spending("day", namespace="mine", since=now() - timedelta(days=2))) == 1
    assert [g.goal for g in insights.goals(**period)] == ["my goal"]
    assert insights.goals("most_deferred", **period) == []
    assert insights.shadow(**period).steps == 0
    assert [b.namespace for b in insights.bank(namespace="mine").namespaces] == ["mine"]
    assert sum(b.accepted + b.deferred for b in insights.agreement_histogram(**period)) == 1
    (latest,) = insights.decisions(**period)
    assert "secret" not in latest.model_dump_json()
    with pytest.raises(InvalidRequest):
        insights.decisions(**period, before="de_002")
    everything = insights.totals(namespace=None, since=EVER)
    assert (everything.steps, everything.episodes) == (2, 2), "one id in two namespaces is two episodes"


def test_since_leaves_out_what_is_older(database: Database) -> None:
    insights = fill(database, step(1, created_at=now() - timedelta(hours=5)), step(2))
    assert insights.totals(namespace=None, since=now() - timedelta(hours=1)).steps == 1
    assert insights.totals(namespace="default", since=now() - timedelta(hours=6)).steps == 2


def test_a_cascade_whose_student_fails_at_every_step_is_named(database: Database) -> None:
    down = {"failures": ("student: RateLimitError: slow down",)}
    fill(
        database,
        *(deferred(i, cascade="down", **down) for i in range(5, 9)),
        step(4, cascade="down"),
        *(deferred(i, cascade="shaky", **down) for i in range(10, 14)),
        deferred(14, cascade="shaky"),
        *(deferred(i, cascade="other", namespace="b", **down) for i in range(20, 23)),
    )
    found = {b.cascade: b for b in DashboardQueries(database).broken(namespace="default", since=EVER)}
    assert {name: (b.steps, b.failure) for name, b in found.items()} == {"down": (4, "RateLimitError: slow down")}
    assert [b.cascade for b in DashboardQueries(database).broken(namespace=None, since=EVER)] == ["down", "other"]
