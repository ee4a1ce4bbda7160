"""Reasons of decisions in words: what each reason that the engine gives means, and what to do about it.

`Decision.reason` is a short text for a table's column. Every text that the engine can write there has a `Reason` here;
`tests/unit/ledger/test_reasons.py` reads the engine's source, and holds that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agentcascade._util.control_characters import one_line
from agentcascade.types import Decision

LONGEST = 400
"""Characters of a reason that are read."""


class Reason(NamedTuple):
    """One kind of reason."""

    code: str
    """By which programs know it."""
    form: re.Pattern[str]
    deferred: str
    """What it means where the teacher answered; its fields are the groups of `form`."""
    advice: str
    accepted: str = ""
    """What it means where the student answered; empty: it never does with this reason."""


class Explained(NamedTuple):
    """A decision's reason in words."""

    code: str
    words: str
    advice: str


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


SHADOWS = "docs/how-to/roll-out.md says when to go on"
REASONS = (
    Reason(
        "mode",
        _form(r"mode (?P<mode>\w+)"),
        "in mode {mode} the teacher takes every step",
        "nothing is wrong: set mode to cascade once shadows and `agentcascade tune` say that it pays; " + SHADOWS,
    ),
    Reason(
        "wanted",
        _form(r"wanted: (?P<what>.*)"),
        "active collection sent the teacher here for a demonstration ({what})",
        "nothing is wrong: `agentcascade bank wanted` says what is wanted next",
    ),
    Reason(
        "several-answers",
        _form(r"n=(?P<n>\d+) answers"),
        "the request asked for {n} answers, and several answers are not one action: they come from the teacher",
        "ask with n: 1 where the cascade is to act",
    ),
    Reason(
        "teachers-option",
        _form(r"(?P<option>\S+): the teacher's alone"),
        "the request asked for `{option}`, which only the teacher's answer can have",
        "leave `{option}` out where the cascade is to act",
    ),
    Reason(
        "effort-ceiling",
        _form(r"no student is asked under max_effort (?P<effort>.+)"),
        "the request allows no more effort than {effort}, and every rung below the teacher thinks more",
        "raise the request's max_effort, or add a rung at {effort} or below",
    ),
    Reason(
        "router-teacher",
        _form(r"router '(?P<router>.*)' chose the teacher"),
        "the router '{router}' sent this step to the teacher without drawing a sample",
        "look at router.options: a router that draws no sample can take no action of the student's",
    ),
    Reason(
        "tool-exchange",
        _form(r"the teacher's tool exchange"),
        "the teacher called a tool before, and tools.keep_model has it read the result itself",
        "tools.keep_model: false lets the student read results of the teacher's calls",
    ),
    Reason(
        "drift-alarm",
        _form(r"drift alarm: .*"),
        "audits found more disagreements with the teacher than the certified risk (audit.risk) allows, so the student "
        "is not asked",
        "`agentcascade audit` shows the evidence; tune again, then `agentcascade audit --reset`",
    ),
    Reason(
        "side-effects",
        _form(r"agreement (?P<share>[\d.]+) on (?P<tools>.+), (?P<needed>[\d.]+) needed"),
        "the vote was enough for an ordinary action, but a call of {tools} cannot be taken back: {share} of the votes "
        "were for it, and {needed} are needed",
        "tools.side_effects_agreement: {share} would have taken it; tools.side_effects_samples draws more votes first",
    ),
    Reason(
        "agreement",
        _form(
            r"agreement (?P<votes>\d+)/(?P<total>\d+)(?P<fed>, after a fault was fed back)?"
            r"(?:, answer of (?P<member>.+?))?(?:, verifier (?P<score>gave no score|[\d.]+))?(?:, rung (?P<rung>.+))?"
        ),
        "the votes were split: {votes} of {total} were for one action, which is fewer than the router wants",
        "",
        accepted="{votes} of {total} votes were for one action, and that is enough for the router",
    ),
    Reason(
        "demonstrations",
        _form(r"(?P<found>\d+) demonstrations, (?P<needed>\d+) needed(?: \((?P<dropped>\d+) over prompt.*\))?"),
        "the student is only asked with {needed} demonstrations or more (prompt.min_demonstrations), and {found} were "
        "there to show it",
        "collect demonstrations of such tasks (`agentcascade bank list` shows what there is, and in which namespace), "
        "or lower prompt.min_demonstrations",
    ),
    Reason(
        "latched",
        _form(r"latched: (?P<why>.*)"),
        "the teacher kept the step without the student being asked, since that was expected to cost less: {why}",
        "router.latch: never asks the student at every step",
    ),
    Reason(
        "stuck",
        _form(r"stuck since step (?P<since>\d+): (?P<signal>\w+) (?P<value>\S+)"),
        "the run goes in circles: the signal `{signal}` reached {value} at step {since} (counted from 0), and while a "
        "run is stuck the teacher takes its steps",
        "router.stuck.{signal} above {value} would have let the student go on; read the episode first",
    ),
    Reason(
        "teacher-over-budget",
        _form(r"the teacher is over budget"),
        "the teacher's call did not fit into a budget",
        "raise budgets.per_episode, budgets.per_namespace or the key's budget, if you want the teacher's answer there",
        accepted="the teacher's call did not fit into a budget, so that the student's best sample was taken "
        "(budgets.when_exceeded: student)",
    ),
    Reason(
        "no-action-no-teacher",
        _form(r"no valid action and no teacher: (?P<why>.*)"),
        "no sample of the student had a usable action ({why}), and there is no teacher to defer to",
        "name a teacher, or look at actions.format",
        accepted="no sample had a usable action ({why}); with no teacher to defer to the first answer went out as it "
        "was",
    ),
    Reason(
        "failed",
        _form(r"(?P<what>[\w -]+) failed: (?P<error>\w+)"),
        "the {what}'s part failed ({error}), and the teacher answered in its place",
        "",
        accepted="something failed and was worked around ({what}: {error})",
    ),
    Reason(
        "not-decided",
        _form(r"not decided"),
        "the step ended before anybody answered",
        "its failures below say in what; the caller got that error",
        accepted="the step ended before anybody answered",
    ),
)
"""In the order in which they are tried."""

ERRORS = {
    "TimeoutError": "the student's part has sampling.timeout_seconds; a step as a whole has deadline_seconds: raise "
    "them, or look at the endpoint",
    "BudgetExceeded": "its worst case did not fit into a budget: raise budgets.per_episode, budgets.per_namespace or "
    "the key's budget, or set max_tokens, which bounds the worst case",
    "UnknownPrice": "a call within a budget needs a price: set the model's price",
    "AuthenticationError": "its key was refused: `agentcascade doctor --call` tries it",
    "NotFoundError": "its provider knows no such model or path: compare the model's name and api_base",
    "RateLimitError": "its provider refused for being asked too often: fewer at once, or more retries",
    "APIConnectionError": "its endpoint could not be reached: `agentcascade doctor --call` tries it",
}
"""Error's name: what to do. Others are told by the decision's failures."""
INVALID = (
    "no vote: no sample had a usable action. Look at the student's max_tokens, at actions.format, and whether tool "
    "calls stand in its text (text_calls)"
)


def explain_reason(decision: Decision) -> Explained:
    """A decision's reason in words.

    Args:
        decision: As it was answered with or stored.

    Returns:
        Code, words and advice; code ``other`` for a reason that is not the engine's (another version's, say).

    >>> from agentcascade import Decision
    >>> explain_reason(Decision(episode="e", step=0, mode="collect", answered_by="teacher", reason="mode collect"))[:2]
    ('mode', 'in mode collect the teacher takes every step')
    """
    text = one_line(decision.reason[:LONGEST])
    for reason in REASONS:
        found = reason.form.fullmatch(text)
        if found is None:
            continue
        fields = {name: value or "" for name, value in found.groupdict().items()}
        taken = decision.answered_by == "student"
        words, advice = (reason.accepted or reason.deferred) if taken else reason.deferred, reason.advice
        words, advice = _filled(words, fields), _filled(advice, fields)
        if reason.code == "agreement":
            words, advice = _of_vote(decision, fields, words)
        elif reason.code == "failed":
            default = "what failed is quoted under failures; docs/reference/errors.md says what to do about each error"
            advice = ERRORS.get(fields["error"], default)
        elif reason.code == "demonstrations" and fields["dropped"]:
            advice = f"{fields['dropped']} more were found and did not fit: raise prompt.token_budget"
        return Explained(reason.code, words, advice)
    return Explained("other", text, "this version knows no such reason")


def _of_vote(decision: Decision, fields: dict[str, str], words: str) -> tuple[str, str]:
    """A vote in words, with what the verifier and a fed-back fault did to it."""
    taken, said = decision.answered_by == "student", decision.verification
    advice = ""
    if not taken and fields["votes"] == "0":
        words, advice = INVALID.split(". ", 1)
    if fields["score"]:
        score = fields["score"]
        if score == "gave no score":
            words += "; the verifier gave no score, so that the vote alone decided"
        elif taken and said is not None and said.asked == "split":
            words = f"{fields['votes']} of {fields['total']} votes would have been deferred, but the verifier scored "
            words += f"the action {score}, at least verifier.accept"
        elif taken:
            words += f", and the verifier did not object (score {score})"
        elif said is not None and said.asked != "split":
            words = f"{fields['votes']} of {fields['total']} votes were enough, but the verifier scored the action "
            words += f"{score}, below verifier.reject"
            advice = f"verifier.reject: {score} or less would have left it accepted"
        else:
            words += f"; the verifier scored that action {score}, below verifier.accept"
            advice = f"verifier.accept: {score} or less would have taken it"
    if fields["fed"]:
        words += "; these votes came after the fault of earlier samples, all invalid, was fed back (sampling.feed_back)"
    if fields["member"]:
        words += f"; the answer is {fields['member']}'s"
    return words, advice


def _filled(text: str, fields: dict[str, str]) -> str:
    """`text` with its fields; what the fields hold is never a form itself."""
    return re.sub(r"\{(\w+)\}", lambda field: fields.get(field[1], ""), text)
