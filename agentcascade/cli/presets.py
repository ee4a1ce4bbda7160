"""Presets of ``agentcascade init``: the answers that a short, commented configuration is written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files

from agentcascade.config.schema import MODELINE

KEYS = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "mistral": ("MISTRAL_API_KEY",),
    "groq": ("GROQ_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY"),
    "hosted_vllm": (),
    "ollama": (),
    "ollama_chat": (),
}
"""Provider: environment variables of its key, one of which must be set. Others are `agentcascade doctor`'s to know."""
LOCAL = "hosted_vllm/"
FULL = "full"


@dataclass(frozen=True)
class Answers:
    """What a configuration is written from; the defaults of a preset, or what somebody said."""

    preset: str
    teacher: str
    student: str
    api_base: str = ""
    """Of models on one's own machines"""
    price: Decimal | None = None
    """Of the student on one's own machines, in dollars per million tokens; None: not known"""
    mode: str = "collect"
    per_episode: Decimal | None = None
    """Dollars; None: no limit"""
    url: str = "sqlite:///agentcascade.db"


PRESETS = {
    "openai": Answers("openai", "openai/gpt-4.1", "openai/gpt-4.1-mini"),
    "anthropic": Answers("anthropic", "anthropic/claude-sonnet-4-5", "anthropic/claude-haiku-4-5"),
    "vllm": Answers("vllm", "openai/gpt-4.1", f"{LOCAL}MODEL", api_base="http://localhost:8000/v1"),
    "mixed": Answers("mixed", "anthropic/claude-sonnet-4-5", "openai/gpt-4.1-mini"),
}
ABOUT = {
    "openai": "teacher and student from OpenAI",
    "anthropic": "teacher and student from Anthropic",
    "vllm": "a student on your own machine (vLLM, or another OpenAI-compatible server)",
    "mixed": "a teacher from one provider, a student from another",
    FULL: "no questions: every key there is, with its default",
}
MODES = ("collect", "shadow", "cascade")


def full() -> str:
    """The configuration with every key."""
    return MODELINE + files("agentcascade.cli").joinpath("agentcascade.yaml").read_text(encoding="utf-8")


def provider_of(model: str) -> str:
    """The provider that a model's name begins with; empty where it names none."""
    return model.partition("/")[0] if "/" in model else ""


def configuration(answers: Answers) -> str:
    """A short configuration, commented, with the modeline by which editors find the schema."""
    return MODELINE + "\n".join(_lines(answers)) + "\n"


def _lines(answers: Answers) -> Iterator[str]:
    yield f"# Written by `agentcascade init --preset {answers.preset}`. What is not here has its default:"
    yield "# `agentcascade init --preset full FILE` writes every key."
    yield "# The environment sets them, too: AGENTCASCADE_RETRIEVAL__K=3."
    yield ""
    yield "# collect: the teacher acts, and its successes become demonstrations."
    yield "# shadow: the teacher acts, the student is sampled behind it and logged."
    yield "# cascade: the student acts where it agrees with itself, else the teacher."
    yield f"mode: {answers.mode}"
    yield ""
    yield f"# What your agent uses today.{_key_comment(answers.teacher)}"
    yield from _model("teacher", answers.teacher, answers, None)
    yield ""
    yield f"# The cheap one.{_key_comment(answers.student)}"
    yield from _model("student", answers.student, answers, answers.price)
    yield ""
    yield "# In mode cascade: how many samples of the student are drawn; all must agree."
    yield "router:"
    yield "  name: unanimity"
    yield "  options: {n: 3}"
    yield ""
    yield "# Demonstrations, records and budgets; postgresql://… where several machines share them."
    yield "bank:"
    yield f"  url: {scalar(answers.url)}"
    yield "  namespace: default"
    yield ""
    yield "# Dollars. A call whose worst case does not fit into what is left is not made."
    if answers.per_episode is None:
        yield "# budgets: {per_episode: 0.50}"
    else:
        yield "budgets:"
        yield f"  per_episode: {answers.per_episode}"
    yield ""
    yield "# Replaced before anything is stored; what the agent gets is never touched."
    yield "redaction: {keys: true, emails: true, phones: true}"
    if not answers.teacher.startswith(LOCAL):
        yield ""
        yield "# Tools whose calls cannot be taken back want every vote; name them before mode cascade."
        yield "# tools: {side_effects: [pay, send_email], side_effects_samples: 5}"


def _model(role: str, name: str, answers: Answers, price: Decimal | None) -> Iterator[str]:
    yield f"{role}:"
    yield f"  name: {scalar(name)}"
    if not name.startswith(LOCAL):
        return
    yield f"  api_base: {scalar(answers.api_base)}"
    if price is None:
        yield "  # Dollars per million tokens; without a price, what it costs and saves is not known."
        yield "  # price: {input: 0.05, output: 0.05}"
    else:
        yield f"  price: {{input: {price}, output: {price}}}"


def _key_comment(name: str) -> str:
    keys = KEYS.get(provider_of(name))
    return f" Its key stays in the environment: {keys[0]}." if keys else ""


def scalar(text: str) -> str:
    """A text as YAML writes it on one line."""
    import yaml

    written = yaml.safe_dump(text, width=10_000, allow_unicode=True)
    return written.removesuffix("\n").removesuffix("\n...")
