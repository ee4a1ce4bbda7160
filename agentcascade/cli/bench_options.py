"""Options of a benchmark's command: their defaults by suite, those of a run that is resumed, policies, rules."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from agentcascade.bench.policies import ALONE, POLICIES, SHADOW, TUNED, check_policies, committees_of, short_name
from agentcascade.bench.suites.protocol import PlayableSuite
from agentcascade.cli.bench_models import MEMBER
from agentcascade.errors import ConfigError, describe


def defaults_of(suite: PlayableSuite, context: click.Context) -> dict[str, Any]:
    """What a suite, as it was made, would have for the options that the command line does not give.

    Members are those of its default student alone.
    """
    own = suite.defaults
    values: dict[str, Any] = {
        **{name: getattr(own, name) for name in ("teacher", "student", "episodes", "k", "samples")},
        "split": own.splits[0],
        "demos": own.demonstrations,
        "members": own.members if is_default(context, "student") else (),
    }
    return {name: value for name, value in values.items() if is_default(context, name)}


def suite_options(own: Mapping[str, Any], suite: Any, was: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The suite's own options as a run keeps them; `was`: those of one that is resumed, which may be fewer."""
    default = {field.name: field.default for field in dataclasses.fields(suite)} if own else {}
    return was if was is not None and default | dict(was) == own else own


REMEMBERED = ("episodes", "demos", "k", "samples", "temperature", "embedder")
OPTIONAL = (
    "needed",
    "window",
    "staged",
    "log_samples",
    "log_temperatures",
    "log_ks",
    "log_windows",
    "rule",
    "dry_run",
    "constrain",
    "sticky",
    "timeout",
    "quoting",
    "prompts",
)
"""Likewise, where they were given; runs of earlier versions have none."""


def remembered(context: click.Context, folder: Path) -> dict[str, Any]:
    """The options that the run in `folder` was started with, where this call does not give its own."""
    try:
        manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        was: dict[str, Any] = {k: manifest[k] for k in (*REMEMBERED, "split")} | {"seeds": tuple(manifest["seeds"])}
        was |= {k: manifest[k] for k in (*OPTIONAL, "suite_options") if k in manifest}
        members = [settings for role, settings in manifest["models"].items() if role.startswith(MEMBER)]
        was |= {
            "members": tuple(settings["name"] for settings in members),
            "prices": tuple(
                f"{settings['name']}={settings['price']['input']}/{settings['price']['output']}"
                for settings in members
                if settings["price"]
            ),
        }
        for role, settings in manifest["models"].items():
            if role.startswith(MEMBER):
                continue
            was[role] = settings["name"]
            if settings["price"]:
                was[f"{role}_price"] = f"{settings['price']['input']}/{settings['price']['output']}"
        was |= {k: manifest["models"]["student"].get(k) for k in ("api_base", "max_tokens")}
    except (OSError, ValueError, KeyError) as error:
        raise click.UsageError(
            f"{folder} holds no run that can be resumed ({describe(error)}): leave out --resume to start one"
        ) from None
    return {k: v for k, v in was.items() if is_default(context, k)}


def is_default(context: click.Context, option: str) -> bool:
    """Whether the command line says nothing of an option."""
    return context.get_parameter_source(option) in (None, ParameterSource.DEFAULT)


def chosen_policies(options: Mapping[str, Any], default: Sequence[str] = ()) -> tuple[str, ...]:
    """Those that are named, and those that a log or a rule asks for; a log asks for nothing else by itself.

    `default` are those of the suite where none is named, else `POLICIES`.
    """
    asked = [name for name, option in ((SHADOW, "log"), (TUNED, "rule")) if options[option]]
    named = options["policies"] or (() if options["log"] else default or POLICIES)
    for name, option in ((SHADOW, "log"), (TUNED, "rule")):
        if name in named and not options[option]:
            raise click.UsageError(f"--policy {name} needs --{option}")
    for flag, option in (("--log-k", "log_ks"), ("--log-window", "log_windows")):
        if options.get(option) and not options["k"]:
            raise click.UsageError(f"{flag} needs --k above 0: without it there are no demonstrations at all")
    members = (options["student"], *options["members"]) if options.get("members") else ()
    if members and not options["policies"] and not options["log"]:
        alone = [f"{ALONE}{short_name(member)}" for member in members[1:]]
        own = f"{options['needed'] or len(members) // 2 + 1} of {len(members)}"  # the cascade's
        named = (*named, *alone, *(name for name in committees_of(min(3, len(members))) if name != own))
    return check_policies((*named, *asked), members, options["samples"] if members else 1)


def read_rule(given: Path | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The sections of a rule's file, or those that a run remembers. Raises `ConfigError`."""
    from agentcascade._util.bounds import load_yaml

    if not isinstance(given, Path):
        return None if given is None else dict(given)
    try:
        data = load_yaml(given.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{given} cannot be read as a rule: {error}") from error
    rule: dict[str, Any] = data if isinstance(data, dict) else {"router": None}
    sections = [section for name, section in rule.items() if name != "students"]
    if not all(isinstance(section, dict) for section in sections) or not isinstance(rule.get("students", []), list):
        raise ConfigError(f"{given} holds no rule: it needs e.g. 'router: {{name: unanimity, options: {{n: 3}}}}'")
    return rule
