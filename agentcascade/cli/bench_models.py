"""Models of a benchmark by role, with their prices."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from agentcascade.bench.policies import short_name
from agentcascade.bench.suites.protocol import PlayableSuite
from agentcascade.errors import did_you_mean

PAPER_PRICES = {"teacher": "3/15", "student": "0.40/1.60"}
"""Dollars per million input/output tokens of the paper's models, the default for offline stand-ins."""


def kind_of(models: list[str]) -> str:
    """What the models of a run are: real, unless one of them is recorded or a stand-in."""
    for prefix, kind in (("offline/", "stand-in"), ("recorded/", "recorded")):
        if any(name.startswith(prefix) for name in models):
            return kind
    return "real"


MEMBER = "member "
"""Role of the further students of a committee, numbered from 2"""


def models_of(suite: PlayableSuite, options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of all models by role, as the configuration and the manifest hold them.

    Raises `click.BadParameter` for a price that is none, or of no model of the run, and for a student twice.
    """
    roles = {role: options[role] for role in ("teacher", "student", "verifier") if options[role]}
    roles |= {f"{MEMBER}{i}": name for i, name in enumerate(options["members"], 2)}
    seated = [options["student"], *options["members"]]
    if twice := [name for i, name in enumerate(seated) if short_name(name) in map(short_name, seated[:i])]:
        raise click.BadParameter(
            f"'{twice[0]}' is a student already, and its further votes would be its own: name another model, or more "
            "--samples",
            param_hint="--member",
        )
    given = dict(text.rpartition("=")[::2] for text in options["prices"])
    if unknown := [name for name in given if name not in roles.values()]:
        raise click.BadParameter(
            f"'{unknown[0]}' is no model of this run: {did_you_mean(unknown[0], sorted(set(roles.values())))}",
            param_hint="--price",
        )
    listed = getattr(suite, "price", lambda name: None)
    found = {}
    for role, name in roles.items():
        known = options.get(f"{role}_price") or given.get(name)
        settings = {"name": name, "price": (None if known else listed(name)) or price(role, name, known)}
        if role == "student":
            settings |= {"api_base": options["api_base"], "max_tokens": options.get("max_tokens")}
        elif role.startswith(MEMBER):
            settings |= {"max_tokens": options.get("max_tokens")}
        found[role] = settings
    return found


def price(role: str, name: str, given: str | None) -> dict[str, str] | None:
    """``IN/OUT`` as a price; stand-ins get the paper's, other models the price list's."""
    text = given or (PAPER_PRICES.get(role, PAPER_PRICES["student"]) if name.startswith("offline/") else None)
    if text is None:
        return None
    try:
        parts = [str(Decimal(part)) for part in text.split("/")]
    except InvalidOperation:
        parts = []
    if len(parts) != 2:
        option = f"--{role}-price" if role in ("teacher", "student", "verifier") else "--price"
        raise click.BadParameter(f"'{text}' is not IN/OUT in dollars per million tokens, e.g. 3/15", param_hint=option)
    return {"input": parts[0], "output": parts[1]}
