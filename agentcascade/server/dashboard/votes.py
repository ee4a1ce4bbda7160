"""Votes side by side: each sample's action beside the others, in letters that say which are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentcascade.ledger.episode_pages import EpisodeStep

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST = 24
"""Samples that stand side by side; a vote of more is told in numbers."""


class Ballot(NamedTuple):
    """One sample, or several equal ones where there are too many to show each."""

    name: str
    letter: str
    action: str | None
    says: str
    """In words, whether it agrees."""
    agrees: bool
    note: str = ""


class Round(NamedTuple):
    """Ballots of one model or committee, and how they came out."""

    title: str
    ballots: list[Ballot]
    summary: str
    split: bool


def rounds_of(step: EpisodeStep) -> list[Round]:
    """All votes of a step: each rung's of a ladder, else its own, then what was drawn behind the answer."""
    decision, found = step.decision, []
    letters: dict[str, str] = {}
    if step.rungs:
        for rung in step.rungs:
            votes: Mapping[str, int] = rung.get("votes") or {}
            if votes or rung.get("samples"):
                invalid = max(0, int(rung.get("samples") or 0) - sum(votes.values()))
                title = f"{rung.get('role', '')} {rung.get('model', '')}".strip()
                found.append(_round(title, votes, {}, invalid, letters))
    elif decision.votes or decision.invalid_samples:
        found.append(_round("Student’s samples", decision.votes, step.struck, decision.invalid_samples, letters))
    if step.kind == "shadow" and step.drawn:
        found.append(_drawn(step, letters))
    return found


def teachers_ballot(step: EpisodeStep) -> tuple[str, str, bool] | None:
    """The teacher's action, what it is beside the samples, and whether it is the majority's; None where unknown."""
    decision = step.decision
    action = step.teacher_action if step.kind else None
    if action is None and decision.answered_by == "teacher":
        action = decision.action
    if action is None:
        return None
    leading = _leading(decision.votes) if not step.kind else _majority(step)
    if not leading:
        return action, "no sample to compare with", True
    if action in leading:
        return action, "same as the most votes" if len(leading) == 1 else "same as one of the tied votes", True
    sampled = action in decision.votes or any(s.action == action for s in step.drawn)
    most = "the most votes" if len(leading) == 1 else "the tied votes"
    return action, f"differs from {most}" + (", one sample said it" if sampled else ", no sample said it"), False


def _majority(step: EpisodeStep) -> frozenset[str]:
    if step.kind == "audit" or not step.drawn:
        return frozenset() if step.decision.action is None else frozenset((step.decision.action,))
    counts: dict[str, int] = {}
    for sample in step.drawn:
        if sample.action is not None:
            counts[sample.action] = counts.get(sample.action, 0) + sample.weight
    return _leading(counts)


def _leading(votes: Mapping[str, int]) -> frozenset[str]:
    """The actions with the most votes; several where they are tied."""
    most = max(votes.values(), default=0)
    return frozenset(action for action, number in votes.items() if number == most)


def _said(action: str, leading: frozenset[str], classes: int) -> tuple[str, bool]:
    """What a ballot is beside the others, in words, and whether it is theirs."""
    if classes == 1:
        return "agrees", True
    if action not in leading:
        return "differs", False
    return ("most votes", True) if len(leading) == 1 else ("tied", False)


def _letter(action: str, letters: dict[str, str]) -> str:
    return letters.setdefault(action, LETTERS[len(letters)] if len(letters) < len(LETTERS) else f"#{len(letters) + 1}")


def _round(
    title: str, votes: Mapping[str, int], struck: Mapping[str, int], invalid: int, letters: dict[str, str]
) -> Round:
    total = sum(votes.values())
    ballots: list[Ballot] = []
    ordered = sorted(votes.items(), key=lambda vote: -vote[1])
    leading = _leading(votes)
    each = total + invalid <= MOST
    for action, number in ordered:
        letter = _letter(action, letters)
        says, agrees = _said(action, leading, len(ordered))
        for _ in range(number if each else 1):
            name = f"Sample {len(ballots) + 1}" if each else f"{number} of {total} samples"
            ballots.append(Ballot(name, letter, action, says, agrees))
    for action, number in struck.items():
        ballots.append(Ballot(f"{number} struck", _letter(action, letters), action, "known to fail here", False))
    for _ in range(invalid if each else min(1, invalid)):
        name = f"Sample {len(ballots) + 1}" if each else f"{invalid} samples"
        ballots.append(Ballot(name, "–", None, "no usable action", False))
    return Round(title, ballots, _summary(ordered, total, invalid, letters), len(ordered) > 1 or bool(invalid))


def _drawn(step: EpisodeStep, letters: dict[str, str]) -> Round:
    counts: dict[str, int] = {}
    for sample in step.drawn:
        if sample.action is not None:
            counts[sample.action] = counts.get(sample.action, 0) + sample.weight
    ordered = sorted(counts.items(), key=lambda vote: -vote[1])
    leading = _leading(counts)
    for action, _ in ordered:
        _letter(action, letters)
    ballots = []
    for i, sample in enumerate(step.drawn[:MOST]):
        says, agrees = "no usable action", False
        if sample.action is not None:
            says, agrees = _said(sample.action, leading, len(ordered))
        letter = "–" if sample.action is None else letters[sample.action]
        note = sample.invalid or sample.member
        ballots.append(Ballot(f"Sample {i + 1}", letter, sample.action, says, agrees, note))
    invalid = sum(s.action is None for s in step.drawn)
    words = _summary(ordered, sum(counts.values()), invalid, letters)
    return Round("Shadow: samples behind the teacher’s answer", ballots, words, len(ordered) > 1 or bool(invalid))


def _summary(ordered: list[tuple[str, int]], total: int, invalid: int, letters: Mapping[str, Any]) -> str:
    if not ordered:
        return "no usable action"
    unusable = f", {invalid} unusable" if invalid else ""
    if len(ordered) == 1:
        return f"all {total} say {letters[ordered[0][0]]}{unusable}"
    return ", ".join(f"{letters[action]} {number} of {total}" for action, number in ordered[:6]) + unusable
