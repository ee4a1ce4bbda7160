"""``agentcascade students sample --batch``: a provider's model, sampled at every step of a log by its batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentcascade.cli.batching import model_config, model_of, open_batches
from agentcascade.cli.settings import database

if TYPE_CHECKING:
    from agentcascade.bench.sampling import StepPrompt
    from agentcascade.config.load import CascadeConfig
    from agentcascade.models.pricing import Price
    from agentcascade.vllm.offline import SamplingSettings


def batched_samples(
    model: str,
    items: Sequence[StepPrompt],
    sampling: SamplingSettings,
    config: CascadeConfig,
    options: Mapping[str, Any],
    write: Callable[[dict[str, dict[str, Any]], Price | None], None],
) -> None:
    """Sample `model` at every item, and `write` the answers with its price; only then they count as taken."""
    from agentcascade.bench.batch_sampling import sample_by_batch
    from agentcascade.errors import ConfigError
    from agentcascade.models.pricing import PriceTable

    if config.sampling.constrain != "none":
        raise ConfigError(
            f"sampling.constrain '{config.sampling.constrain}' is vLLM's: a provider's batch does not have it; set it "
            "to none"
        )
    section, asked = model_config(config, model), model_of(config, model)
    namespace = config.bank.namespace
    with database(config, create=True) as opened:
        batches = open_batches(config, opened, options["poll"])

        async def run() -> None:
            answers, batched = await sample_by_batch(
                items,
                asked,
                batches,
                sampling,
                seed=options["seed"],
                namespace=namespace,
                accounts=config.budgets.of_namespace(namespace),
            )
            listed = PriceTable({model: dict(section.price)} if section.price else {}).lookup(model)
            write(answers, listed)
            await batches.take(batched)

        asyncio.run(run())
