"""Every reason that the engine can give has words: they are read off its source, so that a new one is not forgotten."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import agentcascade
from agentcascade.ledger.reasons import REASONS, explain_reason
from agentcascade.types import Decision, Verification

ROOT = Path(agentcascade.__file__).parent
FOLDERS = "step", "episodes", "server", "integrations", "launch"
MADE_BY = {
    "accept": 1,
    "defer": 0,
    "_teacher": 2,
}
"""Methods of the engine that take a reason, and its place among their arguments."""
GIVES = {("latch.py", "reason"), ("stuck.py", "__str__"), ("record.py", "agreement_on"), ("verifying.py", "words")}
"""Functions whose returned texts are reasons, or ends of some."""
ENDS = ", verifier", ", after", ", answer", ", rung"


def texts(node: ast.expr | None, named: dict[str, ast.expr]) -> Iterator[str]:
    """Texts that an expression may be, with 3 in place of what is filled in."""
    if isinstance(node, ast.Name) and node.id in named:
        yield from texts(named[node.id], {name: value for name, value in named.items() if name != node.id})
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        values = [part.value if isinstance(part, ast.FormattedValue) else part for part in node.values]
        parts = [list(texts(value, named)) or ["3"] for value in values]
        for chosen in itertools.product(*parts):
            yield "".join(chosen)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body, named)
        yield from texts(node.orelse, named)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from texts(value, named)
    elif isinstance(node, ast.BinOp):
        for left, right in itertools.product(texts(node.left, named), list(texts(node.right, named)) or [""]):
            yield left + right


def reasons_in(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    named = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Attribute) and t.attr in REASON for t in node.targets
        ):
            yield from texts(node.value, named)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            place = MADE_BY.get(node.func.attr)
            if place is not None and len(node.args) > place:
                yield from texts(node.args[place], named)
        elif isinstance(node, ast.FunctionDef) and (file.name, node.name) in GIVES:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from texts(inner.value, named)


REASON = ("reason", "why")


@cache
def found() -> list[str]:
    """What the source gives as reasons; read by the tests, not by every worker that collects them."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    given = {reason for file in files for reason in reasons_in(file)}
    return sorted(reason for reason in given if reason and not reason.startswith(ENDS))


def decided(reason: str, **fields: object) -> Decision:
    made = {"episode": "e", "step": 0, "mode": "cascade", "answered_by": "teacher", "reason": reason}
    return Decision(**{**made, **fields})


def test_the_source_is_read() -> None:
    assert len(found()) >= 15, found()
    codes = {explain_reason(decided(reason)).code for reason in found()}
    assert codes == {reason.code for reason in REASONS}, "a reason that nobody gives any more, or that has no words"


def test_every_reason_of_the_engine_has_words() -> None:
    for reason in found():
        explained = explain_reason(decided(reason))
        assert explained.code != "other", reason
        assert len(explained.words) > 20, reason
        assert "{" not in explained.words + explained.advice, reason


@pytest.mark.parametrize(
    ("reason", "fields", "words", "advice"),
    [
        ("agreement 0/3", {}, "no sample had a usable action", "max_tokens"),
        ("0 demonstrations, 1 needed (4 over prompt.token_budget 8000)", {}, "1 demonstrations or more", "4 more were"),
        ("student failed: TimeoutError", {}, "part failed (TimeoutError)", "sampling.timeout_seconds"),
        ("student failed: BudgetExceeded", {}, "BudgetExceeded", "budgets.per_episode"),
        ("agreement 0.67 on pay, 1 needed", {}, "a call of pay cannot be taken back", "side_effects_agreement: 0.67"),
        ("stuck since step 4: repeated 1", {}, "`repeated` reached 1 at step 4", "router.stuck.repeated above 1"),
        (
            "agreement 2/3, verifier 0.41",
            {"verification": Verification(model="v", action="a", asked="split", score=0.41)},
            "scored that action 0.41, below verifier.accept",
            "verifier.accept: 0.41 or less",
        ),
        (
            "agreement 3/3, verifier 0.20",
            {"verification": Verification(model="v", action="a", asked="always", score=0.2)},
            "0.20, below verifier.reject",
            "verifier.reject: 0.20",
        ),
        (
            "agreement 2/3, verifier 0.95",
            {"answered_by": "student", "verification": Verification(model="v", action="a", asked="split", score=0.95)},
            "would have been deferred, but the verifier scored the action 0.95",
            "",
        ),
        (
            "agreement 3/3, after a fault was fed back, answer of acme/one, rung acme/one",
            {"answered_by": "student"},
            "was fed back (sampling.feed_back); the answer is acme/one's",
            "",
        ),
        ("the teacher is over budget", {"answered_by": "student"}, "the student's best sample was taken", "raise"),
    ],
)
def test_words_of_one_decision(reason: str, fields: dict[str, object], words: str, advice: str) -> None:
    explained = explain_reason(decided(reason, **fields))
    assert words in explained.words
    assert advice in explained.advice


@given(st.text(max_size=600))
@example("agreement 1/3, answer of " + "a, verifier " * 200)
@example("mode \x1b[2J")
@example("router '{router}{0}' chose the teacher")
def test_any_text_is_explained_on_one_line(reason: str) -> None:
    for who in ("teacher", "student"):
        explained = explain_reason(decided(reason, answered_by=who))
        assert not {"\n", "\x1b", "\x9b", "\u202e"} & set("".join(explained))
        assert len(explained.words) < 6 * 400 + 400
