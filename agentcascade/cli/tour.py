"""``agentcascade tour``: two minutes in the terminal, on recorded answers of real models; no key, no server."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentcascade.cli.terminal import say

if TYPE_CHECKING:
    from agentcascade.cli.tour_play import Answered, Score, Tour

QUOTED = 70
"""Characters of a query."""


@click.command("tour")
@click.option("--no-pause", is_flag=True, help="Go on without Enter. Default where no terminal is there.")
def command(no_pause: bool) -> None:
    """See one cascade at work: votes, a decision, a deferral in words, demonstrations, the ledger, and what it saved.

    Recorded answers of real models are played through the real cascade. Nothing is asked live, and nothing is kept.
    """
    pauses = sys.stdin.isatty() and sys.stdout.isatty() and not no_pause
    with tempfile.TemporaryDirectory() as folder:
        for number, page in enumerate(pages(Path(folder)), 1):
            say(f"\n── {number} ─{'─' * 66}\n")
            for line in page:
                say(line)
            if pauses:
                say()
                if click.prompt("Enter goes on, q ends", default="", show_default=False, prompt_suffix=" ") == "q":
                    return


def pages(folder: Path) -> Iterator[list[str]]:
    """The pages in turn; what a page shows is played when it comes."""
    from agentcascade.cli.tour_play import AGREED, PLAYED, SPLIT, touring

    yield _what_is_real()
    with touring(folder) as (tour, url):
        yield _agreed(tour, AGREED)
        yield [*_split(tour, SPLIT), *_explained(url, SPLIT)]
        yield _demonstrations()
        score = tour.play([q for q in range(PLAYED) if q not in (AGREED, SPLIT)])
        tour.close()
        yield _ledger(url, score)
    yield _next()


def _what_is_real() -> list[str]:
    return [
        "A cascade asks cheap students first. Where enough of them agree, their answer is taken; else the teacher,",
        "the dear model, takes that one step.",
        "",
        "Real here: the answers, token counts and verdicts (recorded; InterCode-SQL, questions about 20 databases),",
        "the list prices of that time, and the cascade that plays them now. Not real: nothing is asked live.",
        "",
        "  students  qwen2.5-coder-1.5b (on your own machine), text-bison, gpt-3.5-turbo",
        "  teacher   gpt-4, which saw no schema, took up to ten turns, and pays for all of them",
        "",
        "Two queries agree when they return the same rows. The rows do not ship, classes of equal rows do:",
        "'result 0' are the rows of the right query.",
    ]


def _returned(returned: Mapping[str, str]) -> list[str]:
    from agentcascade.cli.tour_play import MEMBERS

    return [f"  {name:20} {returned.get(name, 'not asked: it could change nothing')}" for name in MEMBERS]


def _agreed(tour: Tour, question: int) -> list[str]:
    from agentcascade.cli.tour_play import PREFIX

    answered = tour.answer(question)
    decision = answered.decision
    votes, total = max(decision.votes.values(), default=0), sum(decision.votes.values()) + decision.invalid_samples
    query = " ".join(answered.text.replace("```sql", "").replace("```", "").split())
    chosen = decision.reason.rpartition("answer of ")[2].removeprefix(PREFIX)
    return [
        f"Question {question}. The students' queries return:",
        *_returned(answered.returned),
        "",
        f"{votes} of {total} votes agree, and 2 are enough: the students answer, and gpt-4 is not asked.",
        f"  the answer of {chosen}: {query[:QUOTED]}{'…' if len(query) > QUOTED else ''}",
        f"  recorded verdict: {_verdict(answered)}",
        f"  {_money(decision.dollars)} instead of {_money(decision.teacher_dollars)} for the teacher alone (estimated)",
    ]


def _split(tour: Tour, question: int) -> list[str]:
    from agentcascade.cli.tour_play import TEACHER

    answered = tour.answer(question)
    return [
        f"Question {question}. Here they do not agree:",
        *_returned(answered.returned),
        "",
        f"So the teacher takes this step: {answered.returned[TEACHER]}, recorded verdict {_verdict(answered)}.",
        "Students and teacher are both paid for:",
        f"  {_money(answered.decision.dollars)} instead of {_money(answered.decision.teacher_dollars)}",
    ]


def _verdict(answered: Answered) -> str:
    return "right" if answered.right else "wrong"


def _explained(url: str, question: int) -> list[str]:
    from agentcascade.cli.explain import explanation
    from agentcascade.ledger.stored_decision import find_decision
    from agentcascade.storage import open_database

    database = open_database(url)
    try:
        told = explanation(find_decision(database, f"question-{question}/0"), None, str)
    finally:
        database.close()
    return [
        "",
        "`agentcascade explain` says it in words, for any step of yours:",
        f"  because {told['because']}",
        *(f"  {line}" for line in told["would_have_taken_it"]),
    ]


def _demonstrations() -> list[str]:
    from agentcascade.cli.explain_rules import quoted
    from agentcascade.cli.tour_play import TAUGHT, nearest

    asked, found = nearest()
    return [
        "A student is shown demonstrations: what your teacher did in the most similar situations. This one needs text,",
        "so it is another benchmark's (BFCL, Apache-2.0): questions and right calls as published, no model's answers.",
        f"{TAUGHT} of them are in a bank; for this question",
        f"  {quoted(asked)}",
        "the bank finds",
        *(f"  {one.score:.2f}  {quoted(one.goal)}\n        {quoted(one.steps[0].action)}" for one in found),
        "",
        "Retrieved here and now, by words alone (the embedder `hashing`; by default a small model compares meanings).",
        "In mode collect your agent's own successes fill the bank. Whether they help is measured, not assumed:",
        "docs/measurements has tasks on which they did, and some on which they did not.",
    ]


def _ledger(url: str, score: Score) -> list[str]:
    from agentcascade.cli.tour_play import PLAYED, recorded_dollars
    from agentcascade.ledger.ledger import Ledger
    from agentcascade.storage import open_database

    database = open_database(url)
    try:
        line = next(one for one in Ledger(database).summary("mode") if one.group == "cascade")
    finally:
        database.close()
    saved, runs = line.saved_dollars, _money(recorded_dollars(range(PLAYED)))
    share = f", {saved / line.teacher_dollars:.0%}" if saved is not None and line.teacher_dollars else ""
    return [
        f"{score.questions} more questions were just played. The ledger, as `agentcascade ledger` shows it:",
        f"  steps {line.steps}, of which the teacher took {line.deferred} ({line.deferral_share:.0%})",
        f"  spent {_money(line.dollars)}, the teacher alone {_money(line.teacher_dollars)}",
        f"  saved {_money(saved)}{share}",
        "  (alone is an estimate: the same question and one answer as short as the student's, at the teacher's prices;",
        f"  gpt-4's own recorded runs of these questions, of up to ten turns, cost {runs})",
        f"  of the {score.questions}: right {score.right}, gpt-4 alone {score.teacher_right}",
        "",
        f"{line.steps} questions say little about accuracy. `make demo` in a checkout plays all 1,034, with confidence",
        "intervals.",
    ]


def _next() -> list[str]:
    return [
        "That was recorded. On your own agent:",
        "",
        "  agentcascade init                   a configuration, by a few questions",
        "  agentcascade launch -- PROGRAM      watch a program as it is, and see what a cascade would save",
        "  docs/start.md                       two lines of Python, from collect to cascade",
        "  agentcascade explain last           why the last step went as it did",
    ]


def _money(dollars: Decimal | None) -> str:
    return "an unknown price" if dollars is None else f"${dollars:.4f}"
