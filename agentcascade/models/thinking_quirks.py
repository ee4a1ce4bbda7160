"""Thinking quirks: how each family of models is told how much to think (reasoning effort, thinking budget), as data.

A new family is one row of `THINKERS` and one line of ``tests/unit/models/test_effort.py``. What no row knows is asked
with ``reasoning_effort``, and an endpoint that refuses it is asked without from then on (`endpoint`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from agentcascade.config.effort import plain_name
from agentcascade.models.quirks import without_route


@dataclass(frozen=True)
class Thinker:
    """How a model is told how much to think."""

    dialect: Literal["reasoning_effort", "messages", "gemini", "template", "none"] | None = None
    """OpenAI's word for it; Anthropic's ``thinking``; Gemini's, by litellm; a variable of vLLM's chat template; it does
    not think; None: nobody knows."""
    levels: tuple[str, ...] = ()
    """That it knows; all others are errors."""
    budgets: bool = False
    """Whether it takes a number of tokens."""
    least_tokens: int = 1
    """Of such a number."""
    switch: str = "enable_thinking"
    """What its chat template calls thinking."""
    keeps_cache: bool = False
    """Whether its provider's prompt cache is the same at every effort. At OpenAI an effort is part of the prompt; at
    Anthropic a budget is, while `output_config.effort` is not; Qwen's template puts it behind the prompt."""
    thinks_unasked: bool = False
    """Whether it thinks where nothing is said of it, so that it must be told not to."""


NONE_TO_HIGH = ("none", "low", "medium", "high")
NONE_TO_XHIGH = (*NONE_TO_HIGH, "xhigh")
NONE_TO_MAX = (*NONE_TO_XHIGH, "max")

THINKERS: tuple[tuple[str, dict[str, Any]], ...] = (
    # OpenAI: its own refusals list the levels ("Unsupported value: 'minimal' is not supported with 'gpt-5.1'").
    (r".*(gpt-3\.5|gpt-4|chatgpt-4|davinci|babbage)", {"dialect": "none"}),
    (r".*\bo\d", {"dialect": "reasoning_effort", "levels": ("low", "medium", "high")}),
    (r".*\bo1-(mini|preview)", {"dialect": "none", "levels": ()}),
    (r".*gpt-5", {"dialect": "reasoning_effort", "levels": ("minimal", "low", "medium", "high")}),
    (r".*gpt-5\.1", {"levels": NONE_TO_HIGH}),
    (r".*gpt-5\.([2-9]|\d\d)", {"levels": NONE_TO_XHIGH}),
    (r".*gpt-[6-9]", {"dialect": "reasoning_effort", "levels": NONE_TO_XHIGH}),
    (r".*gpt-5[^/]*codex", {"levels": ("low", "medium", "high")}),
    (r".*gpt-5(\.1-codex-max|\.([2-9]|\d\d)[^/]*codex)", {"levels": ("low", "medium", "high", "xhigh")}),
    (r".*gpt-5-pro", {"levels": ("high",)}),
    (r".*gpt-5\.\d+-pro", {"levels": ("medium", "high", "xhigh")}),
    (r".*gpt-5[^/]*-chat", {"dialect": "none", "levels": ()}),
    (r".*gpt-oss", {"dialect": "reasoning_effort", "levels": ("low", "medium", "high")}),
    # Anthropic. From 4.6 on it thinks as much as its effort says, from 4.7 on it takes no budget, from 5 on it thinks
    # unasked, and some cannot be told not to.
    (r".*claude", {"dialect": "messages", "levels": NONE_TO_MAX, "budgets": True, "least_tokens": 1024}),
    (r".*claude-(instant|v?[12]|3-(opus|sonnet|haiku)|3[-.]5)", {"dialect": "none", "levels": (), "budgets": False}),
    (r".*claude-([a-z]+-4[-.]6|4[-.]6)", {"levels": (*NONE_TO_HIGH, "max"), "keeps_cache": True}),
    (r".*claude-[a-z]+-4[-.]([7-9]|\d\d)(\D|$)", {"budgets": False, "keeps_cache": True}),
    (r".*claude-[a-z]+-[5-9](\D|$)", {"budgets": False, "keeps_cache": True, "thinks_unasked": True}),
    (r".*claude-((fable|mythos)|opus-5[-.]5)", {"levels": ("low", "medium", "high", "xhigh", "max"), "budgets": False}),
    # Gemini: 2.5 has budgets, of which Pro's has no zero; 3 has levels, and always thinks.
    (r".*gemini", {"dialect": "none"}),
    (
        r".*gemini-2\.5",
        {"dialect": "gemini", "levels": ("none", "minimal", "low", "medium", "high"), "budgets": True},
    ),
    (r".*gemini-2\.5-pro", {"levels": ("minimal", "low", "medium", "high"), "least_tokens": 128}),
    (r".*gemini-[3-9]", {"dialect": "gemini", "levels": ("low", "high")}),
    (r".*gemini-[3-9][^/]*flash", {"levels": ("minimal", "low", "medium", "high")}),
    # Servers of one's own: thinking is a variable of the chat template, a budget is a parameter of vLLM's sampling.
    (
        r"(hosted_vllm/|openai/).*(qwen-?3|glm-?4[-.]?[5-9]|glm-?5|nemotron|smollm3|hunyuan)",
        {"dialect": "template", "levels": ("none", *("minimal", "low", "medium", "high", "xhigh", "max")),
         "budgets": True, "keeps_cache": True},
    ),
    (r"(hosted_vllm/|openai/).*qwen-?3.*instruct", {"dialect": "none", "levels": (), "budgets": False}),
    (
        r"(hosted_vllm/|openai/).*(deepseek-v3[-.][12]|granite-?3[-.][23])",
        {"dialect": "template", "levels": ("none", *("minimal", "low", "medium", "high", "xhigh", "max")),
         "budgets": True, "keeps_cache": True, "switch": "thinking"},
    ),
    (r"(hosted_vllm/|openai/).*(llama-?[23]|mistral-7b|gemma-?[23]|qwen-?2)", {"dialect": "none"}),
)  # fmt: skip
"""(what a model's name begins with, in lower case, a regular expression; how it is told). Later rows win."""


@lru_cache(maxsize=1024)
def thinker(name: str) -> Thinker:
    """All rows of `THINKERS` that fit a model's litellm name, as one."""
    found, listed = Thinker(), without_route(plain_name(name)).lower()
    for pattern, changes in THINKERS:
        if re.match(pattern, listed):
            found = replace(found, **changes)
    return found
