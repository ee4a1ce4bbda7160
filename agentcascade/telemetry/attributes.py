"""Every attribute and metric name that we emit.

Those that begin with ``gen_ai`` follow OpenTelemetry's semantic conventions for generative AI, schema 1.44.0 (in
development there); ``agentcascade`` ones are our own.
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
AGENT = "gen_ai.agent.name"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
ERROR = "error.type"

EPISODE_STEP = "agentcascade.step"
MODE = "agentcascade.mode"
CASCADE = "agentcascade.cascade"
ROLE = "agentcascade.role"
PURPOSE = "agentcascade.purpose"
NAMESPACE = "agentcascade.namespace"
ANSWERED_BY = "agentcascade.answered_by"
REASON = "agentcascade.reason"
AGREEMENT = "agentcascade.agreement"
SAMPLES = "agentcascade.samples"
DEMONSTRATIONS = "agentcascade.demonstrations"
DOLLARS = "agentcascade.dollars"
SAVED_DOLLARS = "agentcascade.dollars.saved"
OVERHEAD = "agentcascade.overhead"
FAILURES = "agentcascade.failures"
FAILURE = "agentcascade.failure"

M_TOKENS = "gen_ai.client.token.usage"
M_DURATION = "gen_ai.client.operation.duration"
M_STEPS = "agentcascade.steps"
M_DOLLARS = "agentcascade.dollars"
M_SAVED = "agentcascade.dollars.saved"
M_UNPRICED = "agentcascade.unpriced_calls"
M_FAILURES = "agentcascade.failures"
M_OVERHEAD = "agentcascade.overhead"
M_AGREEMENT = "agentcascade.agreement"

TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
SECOND_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
OVERHEAD_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)
AGREEMENT_BUCKETS = (0.0, 0.2, 0.25, 0.34, 0.4, 0.5, 0.6, 0.67, 0.75, 0.8, 0.9, 0.99, 1.0)
