"""The interview of ``agentcascade init``: a few questions, each with a default; keys are named, and never asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from agentcascade.cli.presets import ABOUT, FULL, KEYS, LOCAL, MODES, PRESETS, Answers, provider_of
from agentcascade.cli.terminal import say
from agentcascade.errors import without_secrets

ENDPOINT_SECONDS = 2.0
MOST_MODELS = 8
LARGEST = 1_000_000
"""Bytes of its list of models."""


def guessed_preset() -> str:
    """The preset that fits the keys in the environment."""
    openai, anthropic = (any(os.environ.get(key) for key in KEYS[name]) for name in ("openai", "anthropic"))
    if openai and anthropic:
        return "mixed"
    return "anthropic" if anthropic else "openai"


def ask(preset: str | None, given: dict[str, Any]) -> Answers | None:
    """The answers of somebody at a terminal; None where every key is to be written.

    Args:
        preset: That was named; None: it is asked for.
        given: Answers that options gave: nothing is asked about these.
    """
    if preset is None:
        for name, about in ABOUT.items():
            say(f"  {name:10} {about}")
        preset = click.prompt("Models", type=click.Choice(list(ABOUT)), default=guessed_preset(), show_choices=False)
    if preset == FULL:
        return None
    answers = with_given(PRESETS[preset], given)
    if preset == "vllm":
        if "api_base" not in given:
            answers = replace(answers, api_base=_asked("Your server's base URL", answers.api_base, _address))
        answers = with_served(answers)
    if "teacher" not in given:
        say("\nThe teacher is the model that your agent uses today; the student a cheap one that learns from it.")
        answers = replace(answers, teacher=_asked("Teacher", answers.teacher, _model))
    if "student" not in given:
        answers = replace(answers, student=_asked("Student", answers.student, _model))
    if answers.student.startswith(LOCAL):
        if not answers.api_base:
            answers = replace(answers, api_base=_asked("Its base URL", PRESETS["vllm"].api_base, _address))
        said = _asked("What it costs, dollars per million tokens (empty: not known)", "", _dollars)
        answers = replace(answers, price=said)
    if "mode" not in given:
        say("\nBegin with collect: the teacher answers as before, and its successes become demonstrations.")
        answers = replace(answers, mode=click.prompt("Mode", type=click.Choice(MODES), default=answers.mode))
    said = _asked("The most that one run of your agent may cost, dollars (empty: no limit)", "", _dollars)
    return replace(answers, per_episode=said)


def with_given(answers: Answers, given: dict[str, Any]) -> Answers:
    """A preset's answers with those that options gave. Raises `click.UsageError` for one that cannot be used."""
    read: dict[str, Callable[[str], Any]] = {"teacher": _model, "student": _model, "api_base": _address}
    return replace(answers, **{name: read.get(name, str)(value) for name, value in given.items()})


def with_served(answers: Answers) -> Answers:
    """The answers with the name of a model that the server at `api_base` has, in place of the preset's."""
    served = served_models(answers.api_base)
    if not served:
        say(f"{without_secrets(answers.api_base)} does not answer now: give the name that you will serve it under")
        return answers
    say(f"it serves {', '.join(served[:MOST_MODELS])}")
    is_default = answers.student == PRESETS["vllm"].student
    return replace(answers, student=f"{LOCAL}{served[0]}") if is_default else answers


def served_models(api_base: str) -> list[str]:
    """Names of models that an OpenAI-compatible server says that it has; [] where it does not answer so."""
    import httpx

    from agentcascade._util.bounds import OutOfBounds, loads

    end, body = time.monotonic() + ENDPOINT_SECONDS, b""
    try:
        with httpx.stream("GET", f"{api_base.rstrip('/')}/models", timeout=ENDPOINT_SECONDS) as answer:
            for part in answer.iter_bytes():
                body += part
                if len(body) > LARGEST or time.monotonic() > end:
                    raise OutOfBounds("an answer without end")
        names = [str(model["id"])[:200] for model in loads(body.decode())["data"]]
        return [name for name in names if name and name.isprintable()]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError, KeyError):
        return []


def key_lines(answers: Answers) -> list[str]:
    """Whether each model's key is in the environment, by the variable's name alone."""
    needed: dict[str, list[str]] = {}
    for model in dict.fromkeys((answers.teacher, answers.student)):
        keys = KEYS.get(provider_of(model))
        if keys is None:
            needed[f"- `agentcascade doctor` says which key {model} needs"] = []
        elif keys:
            is_set = next((key for key in keys if os.environ.get(key)), None)
            said = f"✗ {keys[0]} is not set: export {keys[0]}=…, for" if is_set is None else f"✓ {is_set} is set, for"
            needed.setdefault(said, []).append(model)
    return [f"{said} {' and '.join(models)}".rstrip() for said, models in needed.items()]


def _asked(question: str, default: str, read: Callable[[str], Any]) -> Any:
    """An answer that `read` takes; asked again until it is one."""

    def checked(text: str) -> Any:
        try:
            return read(text.strip())
        except click.UsageError as error:
            raise click.UsageError(error.message) from None

    return click.prompt(question, default=default, value_proc=checked, show_default=bool(default))


def _model(text: str) -> str:
    if without_secrets(text) != text:
        raise click.UsageError("that looks like a key, which stays in the environment: give the model's name")
    if not provider_of(text) or text.endswith("/") or any(c.isspace() or not c.isprintable() for c in text):
        near = f"openai/{text}" if text.isprintable() and text and "/" not in text and " " not in text else ""
        hint = f"'{near}', say" if near else "'openai/gpt-4.1-mini', say"
        raise click.UsageError(f"a model's name is PROVIDER/MODEL: {hint}")
    return text


def _address(text: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable() and " " not in text
    except ValueError:
        usable = False
    if not usable:
        raise click.UsageError("a base URL begins with http:// or https://, and mostly ends in /v1")
    if parts.password or without_secrets(text) != text:
        raise click.UsageError("that holds a password or a key, which stays in the environment: give the URL alone")
    return text


def _dollars(text: str) -> Decimal | None:
    if not text:
        return None
    try:
        amount = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= 1_000_000:
        raise click.UsageError("a number of dollars from 0, such as 0.50, or nothing")
    return amount
