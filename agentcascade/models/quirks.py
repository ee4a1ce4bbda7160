"""Provider quirks: what model providers do differently, in tables that all adapters and the billing read.

A new quirk is one row here and one case in ``tests/provider_cases.py``. What cannot be known beforehand is learned from
an endpoint's refusals, as `REFUSALS` and the texts behind it say: see `endpoint`. What is not billed by the token:
see `billing.surcharges`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from agentcascade.config.effort import LEVEL_TOKENS, LEVELS, plain_name
from agentcascade.wire.anthropic_blocks import DETAILS

# Models, by litellm's names for them.

HOSTED_VLLM = "hosted_vllm/"
"""Prefix of models on a vLLM server of one's own."""


@dataclass(frozen=True)
class ModelQuirks:
    """What is different about a model; the defaults are what most models do."""

    supports_n: bool | None = None
    """Whether its endpoint takes n > 1; None: what litellm lists."""
    signs_thinking: bool = False
    """It refuses to go on thinking in a tool exchange that began without its signed thinking."""
    inlines_references: bool = False
    """litellm replaces the references in its JSON schemas by what they lead to, without a bound."""
    limit_parameter: str = "max_tokens"
    """What it calls the most tokens of an answer."""
    token_factor: Decimal = Decimal("1.35")
    """Its tokens for one of cl100k_base, at most: Claude's tokenizer needs about a third more, for most texts."""
    image_tokens: Mapping[str, int] = field(default_factory=lambda: {"low": 300, "": 5_000})
    """The most tokens of an image by its `detail`, "" for any other: no provider bills more, as far as published."""
    prompt_cache: Literal["automatic", "marked"] | None = None
    """Whether its provider caches every prompt, or only what `cache_control` marks; None: marked where writing has a
    price of its own above the input's."""
    cache_minimum: int = 1024
    """Tokens of the shortest prefix that is cached."""
    cache_block: int = 1
    """Tokens in whose multiples a prefix is read from the cache."""
    cache_seconds: float = 300.0
    """How long what was cached is kept after its last use."""
    user_after_tools: bool = True
    """Whether a user's message may follow a tool's result."""
    most_top_logprobs: int | None = None
    """The most likely tokens that its endpoint tells of each position; None: not known before it refuses more."""
    wire_format: Literal["openai", "openai at an address", "messages", "translated"] = "translated"
    """Whether it takes OpenAI's requests as they are: always, or only where an address is given; or Anthropic's, into
    which they are translated here; else by litellm."""
    thinks_adaptively: bool = False
    """Anthropic: it thinks as much as its effort says; others are given a number of tokens to think with."""
    base_url_variable: str | None = None
    api_key_variable: str | None = None
    """Environment variables of its address and key, where they are not those of OpenAI's client."""


MODELS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    (r"groq(/|$)", {"supports_n": False}),  # refused, although litellm lists it
    (r"anthropic/", {"wire_format": "messages"}),
    (r".*claude", {"signs_thinking": True}),
    # `cache_control` goes through to these, by litellm or as it is; other gateways might refuse it.
    (
        r"(anthropic|bedrock|vertex_ai|azure_ai|openrouter|openrouter\.ai)/.*claude|claude|([a-z-]+\.)?anthropic\.claude",
        {"prompt_cache": "marked"},
    ),
    (r".*claude.*(opus-4[-.][5-7]|haiku-4[-.]5|4[-.]5-haiku|mythos-preview)", {"cache_minimum": 4096}),
    (r".*claude.*(haiku-3|3([-.]5)?-haiku)", {"cache_minimum": 2048}),
    (r".*gemini", {"cache_minimum": 2048}),
    (r".*gemini-[3-9]", {"cache_minimum": 4096}),
    (r".*deepseek", {"cache_minimum": 64, "cache_block": 64, "cache_seconds": 3600.0}),
    (r"(openai|azure)/", {"prompt_cache": "automatic", "cache_block": 128, "cache_seconds": 600.0}),
    (r".*(mistral|ministral|codestral|magistral)", {"user_after_tools": False}),
    (r".*claude-[a-z]+-(4-([6-9]|\d\d)|[5-9])(\D|$)", {"thinks_adaptively": True}),
    (r".*(gemini|vertex|bedrock|fireworks)", {"inlines_references": True}),
    (r"(openai|azure)/", {"token_factor": Decimal(1)}),
    (r"xai/", {"most_top_logprobs": 8}),
    (r"dashscope/", {"most_top_logprobs": 5}),
    (r"(openai|azure)/(ft:)?(o\d|gpt-[5-9])", {"limit_parameter": "max_completion_tokens"}),
    (r".*gpt-4o-mini", {"image_tokens": {"low": 2_833, "": 48_169}}),  # billed as if it were a large model
    (
        HOSTED_VLLM,
        {
            "cache_minimum": 16,
            "cache_block": 16,
            "cache_seconds": 600.0,
            "wire_format": "openai at an address",
            "base_url_variable": "HOSTED_VLLM_API_BASE",
            "api_key_variable": "HOSTED_VLLM_API_KEY",
        },
    ),
    (r"openai/", {"wire_format": "openai at an address"}),
    (r"openai/(ft:)?(gpt-3\.5|gpt-4|chatgpt-4)", {"wire_format": "openai"}),
    (
        r"openai/((ft:)?(gpt-[5-9]|o\d|codex|computer-use|gpt-audio|gpt-4o.*(audio|search))|.*/)",
        {"wire_format": "translated"},  # requests that differ, and names with a route in them
    ),
)
"""(what a model's name begins with, a regular expression; its quirks). Of several rows that fit, later ones win."""


RESPONSES_ROUTE = "openai/responses/"
"""Prefix of OpenAI's models, and of others at an address, that are asked by its Responses API."""


def without_route(name: str) -> str:
    """The litellm name under which lists know a model: without its effort, and the API that it is asked by."""
    name = plain_name(name)
    return f"openai/{name.removeprefix(RESPONSES_ROUTE)}" if name.startswith(RESPONSES_ROUTE) else name


@lru_cache(maxsize=1024)
def model_quirks(name: str) -> ModelQuirks:
    """All rows of `MODELS` that fit the litellm name, as one."""
    quirks, listed_name = ModelQuirks(), without_route(name)
    for pattern, changes in MODELS:
        if re.match(pattern, listed_name):
            quirks = replace(quirks, **changes)
    return quirks if plain_name(name) == listed_name else replace(quirks, wire_format="translated")


LIMIT_PARAMETERS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""What models call the most tokens of an answer."""
LOCAL_PROVIDERS = frozenset({"ollama", "lemonade"})
"""litellm's providers that run on the user's own machine: their listed price of 0 is one."""


# What an endpoint refuses, so that it is asked again without.

PARAMETER_REFUSED = frozenset({400, 404, 422, 501})
"""HTTP statuses of a request that an endpoint does not take."""
PARAMETER_FORBIDDEN = frozenset({"logprobs", "top_logprobs"})
"""Parameters that are refused by 403: "You are not allowed to request logprobs from this model" (OpenAI)."""
REFUSALS: Mapping[str, re.Pattern[str]] = {
    "logprobs": re.compile(r"logprob"),
    "top_logprobs": re.compile(r"logprob"),
    "seed": re.compile(r"\bseed\b"),  # Gemini, Mistral
    "stream_options": re.compile(r"stream_options|include_usage"),  # older vLLM
    "reasoning_effort": re.compile(r"reasoning[_. ]effort|thinking_level"),  # a model that does not think
    "temperature": re.compile(r"(?=.*\btemperature\b).*(unsupported|not support|only the default|may only)", re.DOTALL),
    "thinking_token_budget": re.compile(r"thinking_token_budget|reasoning_config|reasoning_parser"),
    "chat_template_kwargs": re.compile(r"chat_template_kwargs"),
}
"""Parameters that an answer can do without, and how a refusal, in lower case, names them."""
MOST_LOGPROBS_REFUSED = re.compile(
    r"(?:range\b[^\[\]]{0,40}\[ *\d+ *, *|between \d+ and |<= *|≤ *|at most |more than |less than or equal to "
    r"|max(?:imum)?(?: value)?(?: allowed)?(?: of| is)?:? *)(\d{1,6})\b"
)
"""How a refusal of `top_logprobs`, in lower case, says how many are taken (OpenAI, vLLM, DashScope, Together)."""
N_REFUSED = re.compile(r"\bn\b|choice|candidate|sample|best_of|multiple", re.IGNORECASE)  # llama.cpp, Groq
"""How a refusal of n > 1 names it: the endpoint is asked for one answer at a time."""
MESSAGES_REFUSALS: Mapping[str, re.Pattern[str]] = {
    "top_p": re.compile(r"\btop_p\b"),  # beside temperature, from Claude 4.1 on
    "temperature": re.compile(r"^(?!.*\btop_p\b).*\btemperature\b", re.DOTALL),
    "top_k": re.compile(r"\btop_k\b"),
    "output_config": re.compile(r"\beffort\b"),
    "thinking": re.compile(r"thinking\.type|does not support thinking"),
}
"""Likewise at Anthropic's Messages API."""
UNSIGNED_REFUSED = re.compile(r"signature.{0,20}thinking|thinking.{0,20}signature", re.IGNORECASE)
"""How Anthropic refuses thinking that another model did, or that was changed."""
UNTHINKING_REFUSED = re.compile(r"Expected .?thinking.? or .?redacted_thinking", re.IGNORECASE)
"""How Anthropic refuses to think on in a tool exchange that began without thinking."""
EFFORTS: Mapping[str, str] = {level: level for level in LEVELS[2:]}
"""OpenAI's reasoning_effort → Anthropic's."""
THINKING_BUDGETS: Mapping[str, int] = {level: LEVEL_TOKENS[level] for level in LEVELS[2:]}
"""Tokens to think with, by reasoning_effort: as litellm has it."""
ROOM_TO_ANSWER = 1024
"""Tokens of an answer behind a budget to think with, where one limit holds both."""
THINKING_WANTED = re.compile(r"must be (?:passed|provided|included|present|sent)|required|missing|pass(?:ed)? back")
"""How a refusal, beside the name of a field of thinking, says that it wants it back with tool calls: DeepSeek."""
NO_THINKING = " "
"""Sent where an endpoint wants the thinking of a tool call that another model made without any."""


# Fields of messages.


class MessageField(NamedTuple):
    """A field of an assistant's message."""

    join: Literal["text", "list", "object", "blocks", "last"] = "last"
    """How the parts of a stream are joined: see `message_fields`."""
    texts: tuple[str, ...] = ()
    """Of an object or a block, its fields that come in parts."""
    portable: bool = False
    """Whether any provider may be sent it. All else goes to its maker alone: thinking, signatures, annotations."""
    thinking: bool = False
    """Whether it holds thoughts: the same ones, as different servers call them."""


MESSAGE_FIELDS: Mapping[str, MessageField] = {
    "role": MessageField(portable=True),
    "content": MessageField("text", portable=True),
    "refusal": MessageField("text", portable=True),
    "tool_calls": MessageField(portable=True),  # joined by index: see `deltas`
    "tool_call_id": MessageField(portable=True),
    "name": MessageField(portable=True),
    "function_call": MessageField("object", ("name", "arguments"), portable=True),
    "audio": MessageField("object", ("data", "transcript"), portable=True),
    **dict.fromkeys(("cache_control", "prefix", "partial"), MessageField(portable=True)),  # the caller's own word
    "reasoning_content": MessageField("text", thinking=True),  # DeepSeek, vLLM, llama.cpp, Mistral by litellm
    "reasoning": MessageField("text", thinking=True),  # OpenRouter, Groq, Together, Ollama, vLLM
    "thinking_blocks": MessageField("blocks", ("thinking",), thinking=True),  # Anthropic by litellm
    "reasoning_details": MessageField("blocks", ("text", "summary"), thinking=True),  # OpenRouter
    "reasoning_text": MessageField("text", thinking=True),  # GitHub Copilot
    "thinking": MessageField("text", thinking=True),  # Ollama's own name
    "thoughts": MessageField("text", thinking=True),
    "provider_specific_fields": MessageField("object"),  # litellm: signatures of Gemini and others
    "annotations": MessageField("list"),
    "citations": MessageField("list"),
    "images": MessageField("list"),
    DETAILS: MessageField(),  # what of Anthropic's blocks has no other place: see `wire`
    "response_items": MessageField(),  # OpenAI's Responses: reasoning, and the order of items (`wire.responses_items`)
}
"""What is not in the table survives as well, joined as `last`, and goes back to its maker alone."""
PARTIAL_BLOCKS = frozenset({"thinking", "reasoning.text", "reasoning.summary"})
"""Types of blocks that are streamed in parts."""
OPAQUE = frozenset({"signature", "data", "encrypted_content", "id", "type", "format"})
"""Of a block of thinking, what is no text: signatures and ciphers are long, and have no tokens of their own."""
THINKING_PARTS = frozenset({"thinking", "redacted_thinking"})
"""Types of parts of a message's content that hold thoughts."""
PORTABLE_CALL_FIELDS = frozenset({"id", "type", "index", "function", "custom"})
"""What any provider may be sent of a tool call. All else, such as Gemini's signatures, goes to its maker alone."""


# Usage reports.

USAGE_FIELDS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt_tokens", "input_tokens"),
    "completion": ("completion_tokens", "output_tokens"),
    "cached": (
        "cache_read_input_tokens",  # Anthropic, litellm
        "prompt_cache_hit_tokens",  # DeepSeek
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
    ),
    "cache_write": (
        "cache_creation_input_tokens",  # Anthropic, litellm
        "prompt_tokens_details.cache_creation_tokens",
        "prompt_tokens_details.cache_write_tokens",
        "input_tokens_details.cache_creation_tokens",
        "input_tokens_details.cache_write_tokens",
    ),
    "cache_write_1h": (
        "cache_creation.ephemeral_1h_input_tokens",
        "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens",
        "input_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens",
    ),
    "reasoning": (
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "output_tokens_details.thinking_tokens",  # Anthropic
    ),
}
"""Where reports hold a count: paths into the report, of which the first with a count above zero is read."""


# HTTP.

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""Statuses worth another try."""
MAY_BE_BILLED = frozenset({408, 504, 524})
"""Statuses of gateways that gave up, after which a model may still have worked on the request, and be paid for it."""
ERROR_CODE_FIELDS = ("code", "status", "status_code")
"""Where the error object inside an answer with status 200 holds its status: OpenRouter, vLLM, gateways."""
