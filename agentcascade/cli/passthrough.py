"""Pass-through without a configuration: what `serve` and `launch` set for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from agentcascade.assembly.components import find_module
from agentcascade.config.load import CascadeConfig, variants
from agentcascade.errors import ConfigError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])
APIS = "openai", "anthropic"


def upstream_option(function: F) -> F:
    """``--upstream``."""
    return click.option(
        "--upstream",
        "upstreams",
        multiple=True,
        metavar="[API=]URL",
        help="Base URL that clients' keys go to, instead of the provider's own. API is openai or anthropic; without it "
        "both. Repeatable.",
    )(function)


def is_unconfigured(settings: CascadeConfig) -> bool:
    """Whether no model of a teacher's place is configured, by a file or by the environment."""
    return settings.teacher is None and not settings.cascades and settings.mode != "student"


def passing(settings: CascadeConfig, upstreams: Iterable[str], cascade: str | None = None) -> dict[str, Any]:
    """Sections that make a configuration pass through, beside what it says itself.

    Raises:
        ConfigError: It has several cascades, and none is named.
    """
    names = list(variants(settings))
    name = cascade or settings.server.passthrough or (names[0] if len(names) == 1 else "")
    if name not in names:
        which = "--cascade" if cascade else "server.passthrough, or --cascade of `launch`"
        raise ConfigError(f"{which}: name the cascade that passes through: {did_you_mean(name, names)}")
    more: dict[str, Any] = {"server": {"passthrough": name}}
    if given := read_upstreams(upstreams):
        more["server"]["upstreams"] = given
    if "mode" not in settings.model_fields_set and not settings.cascades:
        more["mode"] = "shadow" if settings.student is not None else "collect"
    if "retrieval" not in settings.model_fields_set and not (
        find_module("onnxruntime") or find_module("sentence_transformers")
    ):
        more["retrieval"] = {"embedder": "hashing"}
    return more


def read_upstreams(texts: Iterable[str]) -> dict[str, str]:
    """Base URLs by API. Raises `click.BadParameter` for an unknown API."""
    found: dict[str, str] = {}
    for text in texts:
        head, equals, url = text.partition("=")
        if not equals or "/" in head:
            found |= dict.fromkeys(APIS, text)
        elif head not in APIS:
            raise click.BadParameter(f"'{head}': {did_you_mean(head, APIS)}", param_hint="--upstream")
        else:
            found[head] = url
    return found


def as_environment(sections: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Variables, without their prefix, that say what `sections` do: see `config.load`."""
    variables: dict[str, str] = {}
    for name, value in sections.items():
        key = f"{path}{name.upper()}"
        if isinstance(value, Mapping) and not path:
            variables |= as_environment(value, f"{key}__")
        else:
            variables[key] = json.dumps(value) if isinstance(value, Mapping) else str(value)
    return variables
