"""Names of spans, attributes and metrics, and buckets of histograms.

What begins with ``gen_ai`` follows OpenTelemetry's semantic conventions for generative AI as the package
opentelemetry-semantic-conventions 0.66b2 (schema 1.44.0) lists them; their status is "development". ``agentcascade``
names are our own.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
CHOICES = "gen_ai.request.choice.count"
TEMPERATURE = "gen_ai.request.temperature"
STREAM = "gen_ai.request.stream"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"
CONVERSATION = "gen_ai.conversation.id"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
ERROR = "error.type"

STEP_SPAN = "agentcascade.step"
EPISODE = "agentcascade.episode"
STEP = "agentcascade.step"
MODE = "agentcascade.mode"
CASCADE = "agentcascade.cascade"
ROLE = "agentcascade.role"
PURPOSE = "agentcascade.purpose"
NAMESPACE = "agentcascade.namespace"
DECISION = "agentcascade.decision"
ANSWERED_BY = "agentcascade.answered_by"
DEFERRED = "agentcascade.deferred"
REASON = "agentcascade.reason"
GOAL = "agentcascade.goal"
ACTION = "agentcascade.action"
AGREEMENT = "agentcascade.agreement"
SAMPLES = "agentcascade.samples"
DEMONSTRATIONS = "agentcascade.demonstrations"
DOLLARS = "agentcascade.dollars"
SAVED_DOLLARS = "agentcascade.dollars.saved"
OVERHEAD = "agentcascade.overhead"
FAILURES = "agentcascade.failures"
KIND = "agentcascade.kind"
CANCELLED = "agentcascade.cancelled"

M_TOKENS = "gen_ai.client.token.usage"
M_DURATION = "gen_ai.client.operation.duration"
M_STEPS = "agentcascade.steps"
M_STUCK = "agentcascade.stuck"
SIGNAL = "agentcascade.signal"
M_DOLLARS = "agentcascade.dollars"
M_SAVED = "agentcascade.dollars.saved"
M_UNPRICED = "agentcascade.unpriced_calls"
M_FAILURES = "agentcascade.failures"
M_OVERHEAD = "agentcascade.overhead"
M_AGREEMENT = "agentcascade.agreement"
M_AUDITS = "agentcascade.audits"
M_EVIDENCE = "agentcascade.drift.evidence"
M_ALARM = "agentcascade.drift.alarm"
DIFFERS = "agentcascade.differs"

TOKEN_BUCKETS = tuple(4**i for i in range(14))
SECOND_BUCKETS = tuple(0.01 * 2**i for i in range(14))
OVERHEAD_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)
AGREEMENT_BUCKETS = (0.0, 0.2, 0.25, 0.34, 0.4, 0.5, 0.6, 0.67, 0.75, 0.8, 0.9, 0.99, 1.0)

PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""litellm's names of providers to the conventions'; others are the same, or are used as they are."""
MAKERS = {"gpt": "openai", "o1": "openai", "o3": "openai", "o4": "openai", "claude": "anthropic"}
"""Providers of models that are named without one, by the first word of the name."""


def model_of(name: str) -> tuple[str, str]:
    """(provider, model) of a name such as ``openai/gpt-4.1-mini``; the provider is ``unknown`` where none is named."""
    first, slash, rest = name.partition("/")
    if slash:
        return PROVIDERS.get(first, first), rest
    return MAKERS.get(name.split("-")[0], "unknown"), name
