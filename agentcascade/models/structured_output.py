"""Structured outputs of vLLM: a student's answers held to choices, a JSON schema, a regular expression or a grammar.

Clouds have JSON schemas at most; vLLM masks every token that would leave a choice, a schema, a regular expression or a
grammar. What the admissible actions are is known to the caller (`choices` of a request) or to the environment
(`Cascade.choices`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentcascade.errors import ConfigError
from agentcascade.models.quirks import HOSTED_VLLM
from agentcascade.types import Situation

if TYPE_CHECKING:
    from agentcascade.config.sections import ActionsConfig, SamplingConfig

MAX_THOUGHT = 240
"""Characters of a thought before a constrained action: without a limit a weak student never comes to the action."""
OPTION, CHOICES = "structured_outputs", "choices"
"""What vLLM calls it; the option of a request that lists what may be chosen, which no model is sent"""
VLLM_FIELDS = {"schema": "json", "regex": "regex", "grammar": "grammar"}
CHOICE_FORMATS = ("text", "auto", "react")

Choices = Callable[[Situation], Sequence[str]]
"""The admissible actions of a situation."""


def check_config(sampling: SamplingConfig, actions: ActionsConfig, students: Sequence[str]) -> None:
    """Raises `ConfigError` where no student can be constrained so. `students` are models' names."""
    kind, value = sampling.constrain, sampling.constraint
    if kind == "none":
        if value is not None:
            raise ConfigError("sampling.constraint needs sampling.constrain: schema, regex or grammar, not 'none'")
        return
    if students and not any(name.startswith(HOSTED_VLLM) for name in students):
        raise ConfigError(
            f"sampling.constrain '{kind}' needs a student of vLLM, '{HOSTED_VLLM}NAME', not '{students[0]}': other "
            "providers take a JSON schema at most, as response_format of the request"
        )
    if kind == "choice":
        if value is not None:
            raise ConfigError("sampling.constraint goes with schema, regex and grammar: choices come with each request")
        if actions.format not in CHOICE_FORMATS:
            raise ConfigError(
                f"sampling.constrain 'choice' needs actions.format {', '.join(CHOICE_FORMATS)}, not '{actions.format}'"
            )
    elif kind == "schema":
        _check_schema(value)
    elif not isinstance(value, str) or not value.strip():
        raise ConfigError(f"sampling.constrain '{kind}' needs sampling.constraint, a text with the {kind}")
    elif kind == "regex":
        try:
            re.compile(value)
        except re.error as error:
            raise ConfigError(f"sampling.constraint {value!r} is not a regular expression: {error}") from error


def _check_schema(value: Any) -> None:
    from jsonschema import SchemaError, validators

    wanted = f"sampling.constrain 'schema' needs sampling.constraint, a JSON schema, not {repr(value)[:80]}"
    if not isinstance(value, dict):
        raise ConfigError(wanted)
    try:
        validators.validator_for(value, default=validators.Draft202012Validator).check_schema(value)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        raise ConfigError(f"{wanted}{f': {where}' if where else ''}: {error.message[:120]}") from error
    except Exception as error:
        raise ConfigError(f"{wanted}: {type(error).__name__}") from error


def with_choices(
    options: Mapping[str, Any],
    sampling: SamplingConfig,
    choices: Choices | None,
    situation: Situation,
    failed: Callable[[str, BaseException], None],
) -> Mapping[str, Any]:
    """A request's options with the situation's choices, where they are needed and the caller gave none.

    `failed` is told of a function that breaks: the teacher then takes the step.
    """
    if sampling.constrain != "choice" or choices is None or options.get(CHOICES):
        return options
    try:
        return {**options, CHOICES: list(choices(situation))}
    except Exception as error:
        failed(CHOICES, error)
        return options


def vllm_option(
    sampling: SamplingConfig, actions: ActionsConfig, model: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a call of `model` is asked on top of a request's `options`; {} where it is not constrained.

    Raises `ConfigError` when the actions to choose from are not known.
    """
    kind = sampling.constrain
    if kind == "none" or not model.startswith(HOSTED_VLLM):
        return {}
    if kind != "choice":
        return {OPTION: {VLLM_FIELDS[kind]: sampling.constraint}}
    listed = list(dict.fromkeys(str(choice) for choice in options.get(CHOICES) or () if str(choice).strip()))
    if not listed:
        raise ConfigError(
            "sampling.constrain is 'choice', but the admissible actions of this step are not known: give the request "
            "choices=[...], or agentcascade.build(choices=function of the situation)"
        )
    return {OPTION: {"regex": react_pattern(listed)} if actions.format == "react" else {"choice": listed}}


def react_pattern(choices: Sequence[str]) -> str:
    """A regular expression: one thought, and one of `choices` as the action."""
    return rf"Thought: [^\n]{{1,{MAX_THOUGHT}}}\nAction: ({'|'.join(_literal(choice) for choice in choices)})"


def _literal(text: str) -> str:
    """`re.escape` writes escapes that grammar engines do not know, such as of a space."""
    return re.sub(r"([\\.^$*+?{}\[\]()|/-])", r"\\\1", text)
