"""What was certified, on which data, by which method, under which assumptions: for a person and for a program."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agentcascade.routers.tuning.fragments import fragment
from agentcascade.routers.tuning.rules import TeacherAlone
from agentcascade.routers.tuning.tuner import Tuned
from agentcascade.routers.tuning.unless_stuck import UnlessStuck
from agentcascade.routers.tuning.verified import Verified

FORMAT = 1
ASSUMPTIONS = [
    "future episodes are drawn like those of the log, independent of each other (steps of one episode need not be)",
    "samples of one step are drawn alike, as the cascade will draw them: same student, prompt, temperature",
    "the log was not looked at to choose its rules, its risk or its bound before this run",
]


def statement(tuned: Tuned) -> str:
    """One sentence."""
    wanted = tuned.settings
    bound = f"{wanted.max_risk:.3g}"
    if tuned.chosen is not None and wanted.method == "conformal":
        return f"In expectation over logs like this one, the risk is at most {bound}: {wanted.risk}."
    if tuned.chosen is not None:
        sure = f"With probability at least {wanted.confidence:g} over logs like this one"
        return f"{sure}, the risk is at most {bound}: {wanted.risk}."
    if tuned.certified:
        return "Rules are certified, but none is cheaper than the teacher alone."
    more = tuned.more_episodes
    if more is None:
        return (
            f"no rule is certified: no safe rule's observed risk is clearly below {bound}, so more episodes will not "
            "help; allow more risk, draw more samples, or take a better student."
        )
    return f"no rule is certified: collect about {more} more episodes"


def certificate(tuned: Tuned, sources: Sequence[Path] = ()) -> dict[str, Any]:
    """Plain data for JSON. `sources` are the files that the log was read from."""
    wanted, chosen = tuned.settings, tuned.chosen
    made: dict[str, Any] = {
        "format": FORMAT,
        "certified": chosen is not None,
        "statement": statement(tuned),
        "risk": {
            "kind": wanted.risk.kind,
            "count": wanted.risk.count,
            "of": str(wanted.risk),
            "weigh": wanted.risk.weigh,
            "longest_episode": wanted.risk.longest,
            "max": wanted.max_risk,
            "confidence": None if wanted.method == "conformal" else wanted.confidence,
        },
        "rule": fragment(TeacherAlone() if chosen is None else chosen.rule),
        "method": {
            "procedure": "split conformal risk control" if wanted.method == "conformal" else "learn then test",
            "test": tuned.test,
            "multiplicity": wanted.multiplicity,
            "families": list(wanted.rules),
            "rules_tried": len(tuned.candidates),
            "chains": len({c.chain for c in tuned.candidates}),
            "rules_certified": len(tuned.certified),
            "error_cost": wanted.error_cost,
        },
        "data": {
            "files": [{"name": p.name, "sha256": _sha256(p), "bytes": p.stat().st_size} for p in sources],
            "steps": tuned.steps,
            "episodes": tuned.episodes,
            "samples": tuned.most,
            "left_out": tuned.left_out,
        },
        "assumptions": _assumptions(tuned),
        "seed": wanted.seed,
        "versions": {name: _version(name) for name in ("agentcascade", "numpy", "scipy", "scikit-learn")}
        | {"python": platform.python_version()},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if chosen is None:
        made["more_episodes"] = tuned.more_episodes
        return made
    seen = chosen.replayed
    made["rule"] = fragment(chosen.rule, seen.arm, tuned.sampling)
    made["assumptions"].append(of_history(seen.arm.history))
    made["method"] |= {"rule": chosen.rule.name, "p_value": chosen.p, "level": chosen.level}
    made["observed"] = {
        "acceptance": seen.acceptance,
        "risk": seen.risk,
        "risks": seen.risks,
        "upper_bound": chosen.upper,
        "accuracy": seen.accuracy,
        "unit": seen.unit,
        "cost_per_step": seen.cost,
        "teacher_cost_per_step": seen.teacher_cost,
        "saving": seen.saving.value,
        "saving_ci": [seen.saving.low, seen.saving.high],
    }
    if seen.unit != "dollars":
        made["assumptions"].append(
            f"dollars are not known: one sample is assumed to cost {wanted.sample_cost:g} of a teacher's answer "
            "(it decides which certified rule is cheapest, not which rules are certified)"
        )
    return made


def of_history(setting: str | None) -> str:
    """Which prompts a rule was tested on: what holds for whole histories is not shown for bounded ones."""
    if setting is None:
        return (
            "students read whole histories, as in the log: where `history` bounds them, tune on a log of such prompts"
        )
    return f"students' histories are bounded as in the log ({setting}): for whole or other ones nothing is shown"


def _assumptions(tuned: Tuned) -> list[str]:
    longest, rarest = tuned.settings.risk.longest, tuned.rarest
    made = list(ASSUMPTIONS)
    if longest is not None and longest > 1:
        made.append(f"no episode has more than {longest} steps (unless --longest was given: the log's longest)")
    if rarest < 1:
        made.append(f"no step had a smaller chance of being logged than {rarest:g}, the smallest in the log")
    if tuned.chosen is not None and isinstance(tuned.chosen.rule, UnlessStuck):
        made.append(
            "signals were read off the runs as they were logged, mostly the teacher's steps: how often they hold where "
            "the student acts, the log does not show (the rule takes only steps that it would take without them)"
        )
    rule = tuned.chosen.rule if tuned.chosen is not None else None
    rule = rule.rule if isinstance(rule, UnlessStuck) else rule
    if isinstance(rule, Verified):
        made.append(
            f"candidates are scored as the log's were: by {rule.settings.name} at the same effort, with the same "
            "question; where it gives no score the vote alone decides, as in the log"
        )
    return made


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
