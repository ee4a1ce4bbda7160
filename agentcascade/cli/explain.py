"""``agentcascade explain``: why a step was deferred, or not, in words; with votes, demonstrations and the bill."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade._util.control_characters import one_line
from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import say

if TYPE_CHECKING:
    from agentcascade.config.load import CascadeConfig
    from agentcascade.ledger.stored_decision import StoredDecision
    from agentcascade.types import Call

WITHHELD = "[withheld]"
"""In place of a text whose redaction took too long."""


@click.command("explain")
@click.argument("decision", default="last")
@database_options
@click.option("--namespace", help="Of this namespace alone. Default: all.")
@click.option("--deferred", is_flag=True, help="With last: the newest step that a cascade left to the teacher.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(
    decision: str, config: Path | None, url: str | None, namespace: str | None, deferred: bool, as_json: bool
) -> None:
    """Say in words why a step was deferred, or why it was not, and what would have taken it.

    DECISION is a decision's id (`answer.agentcascade.id`), its beginning, EPISODE/STEP with steps from 0, or last.
    """
    from agentcascade.config.load import config_path
    from agentcascade.ledger.stored_decision import find_decision

    if deferred and decision != "last":
        raise click.UsageError("--deferred goes with last: another name says which step is meant")
    settings = load_config(config, url)
    with database(settings) as opened:
        found = find_decision(opened, decision, namespace=namespace, deferred=deferred)
    told = explanation(found, settings if config or config_path() else None, redacting(settings))
    if as_json:
        import json

        say(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for line in lines(told):
        say(line)


def redacting(settings: CascadeConfig) -> Callable[[str], str]:
    """What is stored was redacted when it was stored; it is shown as today's settings want it, too."""
    from agentcascade._util.bounds import OutOfBounds
    from agentcascade.redaction.redactor import Redactor

    redactor = Redactor(**settings.redaction.model_dump())

    def redacted(text: str) -> str:
        try:
            return redactor.text(text)
        except OutOfBounds:
            return WITHHELD

    return redacted


def explanation(
    found: StoredDecision, settings: CascadeConfig | None, redacted: Callable[[str], str]
) -> dict[str, Any]:
    """A decision, its reason in words, and what would have changed it; plain data.

    Args:
        found: The decision.
        settings: Today's configuration; None: it is not known, and rules are told from the votes alone.
        redacted: Takes out of a text what may not be shown.
    """
    from agentcascade.cli.explain_rules import ballots, shadow_words, teacher_agreed, ways
    from agentcascade.ledger.reasons import explain_reason

    decision = found.decision
    explained = explain_reason(decision)
    deferred = decision.answered_by == "teacher" and decision.mode == "cascade"
    takes = ways(decision, explained, settings) if deferred else []
    if deferred and (said := teacher_agreed(decision, ballots(decision))):
        takes.append(said)
    told: dict[str, Any] = {
        "id": decision.id,
        "episode": decision.episode,
        "step": decision.step,
        "namespace": decision.namespace,
        "cascade": decision.cascade,
        "mode": decision.mode,
        "goal": decision.goal,
        "created_at": decision.created_at.isoformat(),
        "answered_by": decision.answered_by,
        "action": decision.action,
        "reason": decision.reason,
        "code": explained.code,
        "because": explained.words,
        "advice": explained.advice,
        "would_have_taken_it": takes,
        "also": shadow_words(decision, found.shadow) if found.shadow else [],
        "votes": [{"action": action, "votes": votes} for action, votes in _sorted(dict(decision.votes))],
        "samples": decision.samples,
        "invalid_samples": decision.invalid_samples,
        "struck": dict(decision.struck),
        "rungs": [rung.model_dump(mode="json") for rung in decision.rungs],
        "verification": decision.verification and decision.verification.model_dump(mode="json"),
        "demonstrations": [d.model_dump(mode="json") for d in found.demonstrations],
        "dropped_demonstrations": decision.dropped_demonstrations,
        "bill": [_billed(call) for call in decision.calls],
        "dollars": _plain(decision.dollars),
        "teacher_dollars": _plain(decision.teacher_dollars),
        "saved_dollars": _plain(decision.saved_dollars),
        "cache_regret": _plain(decision.cache_regret),
        "seconds": decision.seconds,
        "overhead_ms": decision.overhead_ms,
        "failures": list(decision.failures),
    }
    kept = ("id", "namespace", "cascade", "mode", "created_at", "answered_by", "code")
    return {key: value if key in kept else _through(redacted, value) for key, value in told.items()}


def _through(redacted: Callable[[str], str], value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list):
        return [_through(redacted, part) for part in value]
    if isinstance(value, dict):
        return {redacted(str(key)): _through(redacted, part) for key, part in value.items()}
    return value


def _sorted(votes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(votes.items(), key=lambda vote: -vote[1])


def _billed(call: Call) -> dict[str, Any]:
    usage = call.usage
    return {
        "role": call.role,
        "purpose": call.purpose,
        "model": call.model,
        "requests": call.requests,
        "prompt": usage.prompt,
        "cached": usage.cached_input,
        "output": usage.completion,
        "dollars": _plain(call.dollars),
        "estimated": call.estimated,
        "cached_response": call.cached_response,
    }


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"


def lines(told: dict[str, Any]) -> list[str]:
    """An explanation for the terminal: every text of somebody else's stands in quotes, in one line, cut."""
    from agentcascade.cli.explain_rules import quoted

    space = f" · namespace {one_line(told['namespace'])}" if told["namespace"] != "default" else ""
    cascade = f" · cascade {one_line(told['cascade'])}" if told["cascade"] not in ("", "default") else ""
    place = f"episode {one_line(told['episode'])}, step {told['step']}{space}{cascade} · mode {told['mode']}"
    found = [f"{told['id']} · {place} · {told['created_at'][:19]}"]
    found += [f"goal: {quoted(told['goal'])}"] if told["goal"] else []
    who = "teacher" if told["answered_by"] == "teacher" else "student"
    did = f": {quoted(told['action'])}" if told["action"] is not None else ""
    found += ["", f"The {who} took this step{did}", f"because {told['because']}  [{one_line(told['reason'])[:200]}]"]
    if told["advice"]:
        found.append(f"what to do: {told['advice']}")
    found += _listed("What would have taken it", told["would_have_taken_it"])
    found += _listed("Behind the answer", told["also"])
    found += _listed(_voters(told), [f"{vote['votes']:>3}  {quoted(vote['action'])}" for vote in told["votes"]])
    found += _listed(
        "Votes denied to known failures", [f"{votes:>3}  {quoted(action)}" for action, votes in told["struck"].items()]
    )
    found += _listed("Rungs", [_rung(rung) for rung in told["rungs"]])
    if told["verification"]:
        found += _listed("Verifier", [_verified(told["verification"])])
    found += _listed(*_demonstrations(told))
    found += _listed("Bill", [_bill_line(call) for call in told["bill"]] + [_money(told)])
    found += _listed("Failures that were worked around", [quoted(failure) for failure in told["failures"]])
    return found


def _listed(title: str, entries: list[str]) -> list[str]:
    return ["", title, *(f"  {entry}" for entry in entries)] if entries else []


def _voters(told: dict[str, Any]) -> str:
    invalid = f", {told['invalid_samples']} of them without a usable action" if told["invalid_samples"] else ""
    return f"Votes ({told['samples']} samples{invalid})"


def _rung(rung: dict[str, Any]) -> str:
    agreement = "no vote" if rung["agreement"] is None else f"agreement {rung['agreement']:.0%}"
    agreement = "acts" if rung["role"] == "teacher" else agreement
    dollars = "price unknown" if rung["dollars"] is None else f"${Decimal(rung['dollars']):.6f}"
    return f"{one_line(rung['model'])}: {agreement}, {dollars}" + (", took the step" if rung["accepted"] else "")


def _verified(said: dict[str, Any]) -> str:
    score = "no score" if said["score"] is None else f"score {said['score']:.2f}"
    return f"{one_line(said['model'])}: {score}, asked because {said['asked']}"


def _demonstrations(told: dict[str, Any]) -> tuple[str, list[str]]:
    from agentcascade.cli.explain_rules import quoted

    dropped = told["dropped_demonstrations"]
    title = "Demonstrations that the student was shown, as the bank holds them now"
    title += f" ({dropped} more did not fit)" if dropped else ""
    entries: list[str] = []
    for shown in told["demonstrations"]:
        goal = "no longer in the bank" if shown["goal"] is None else quoted(shown["goal"])
        entries.append(f"{one_line(shown['window'])}  {goal}")
        entries += [f"    {quoted(action)}" for action in shown["actions"]]
    return title, entries


def _bill_line(call: dict[str, Any]) -> str:
    cost = "price unknown" if call["dollars"] is None else f"{'~' if call['estimated'] else ''}${_digits(call)}"
    cost = "from the response cache" if call["cached_response"] else cost
    what = f"{call['role']} {call['purpose']} {one_line(call['model'])}"
    times = f", {call['requests']} requests" if call["requests"] > 1 else ""
    cached = f", {call['cached']:,} of them cached" if call["cached"] else ""
    return f"{what}: {call['prompt']:,} prompt tokens{cached}, {call['output']:,} of answer{times}: {cost}"


def _digits(call: dict[str, Any]) -> str:
    return f"{Decimal(call['dollars']):.6f}"


def _money(told: dict[str, Any]) -> str:
    spent = "an unknown price" if told["dollars"] is None else f"${Decimal(told['dollars']):.6f}"
    if told["teacher_dollars"] is None:
        return f"in all {spent}; what the teacher alone would have cost is not known"
    alone = Decimal(told["teacher_dollars"])
    compared = f"in all {spent}; the teacher alone would have cost ${alone:.6f} (estimated)"
    if told["saved_dollars"] is None:
        return compared
    saved = Decimal(told["saved_dollars"])
    return f"{compared}: {'saved' if saved >= 0 else 'lost'} ${abs(saved):.6f}"
