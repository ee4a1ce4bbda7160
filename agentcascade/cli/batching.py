"""``--batch`` of commands whose calls can wait, and the batches of a configuration's database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.terminal import say

if TYPE_CHECKING:
    from agentcascade.batches.run import Batches
    from agentcascade.config.load import CascadeConfig
    from agentcascade.config.sections import ModelConfig
    from agentcascade.protocols import ChatModel
    from agentcascade.storage import Database

F = TypeVar("F", bound=Callable[..., Any])

poll_option = click.option(
    "--poll",
    type=FiniteRange(0.01),
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    help="How often a batch is asked whether it has ended.",
)


def batch_options(function: F) -> F:
    """``--batch`` and ``--poll``."""
    batch = click.option(
        "--batch", is_flag=True, help="By the provider's batch interface: half the price as a rule, within a day."
    )
    return batch(poll_option(function))


def open_batches(settings: CascadeConfig, database: Database, poll: float) -> Batches:
    """The batches of a database, billed and within its budgets; what happens to them is said on stderr."""
    from agentcascade.batches.polling import BatchPoller
    from agentcascade.batches.run import Batches
    from agentcascade.billing.batch_door import BatchDoor
    from agentcascade.models.tokens import token_counter
    from agentcascade.storage.batches import BatchStore
    from agentcascade.storage.budgets import DatabaseBudgets

    door = BatchDoor(token_counter(), budgets=DatabaseBudgets(database), settings=settings.budgets)
    poller = BatchPoller(BatchStore(database), door, tell=lambda line: say(line, err=True))
    return Batches(poller, seconds=poll)


def model_config(settings: CascadeConfig, name: str, api_base: str = "") -> ModelConfig:
    """The configuration's own section for a model of that name, else one without more than its name."""
    from agentcascade.config.sections import ModelConfig

    for section in (settings.teacher, settings.student, settings.judge.model):
        if isinstance(section, ModelConfig) and section.name == name:
            return section
    return ModelConfig(name=name, api_base=api_base or None)


def model_of(settings: CascadeConfig, name: str, api_base: str = "") -> ChatModel:
    """The model of that name."""
    from agentcascade.assembly.components import make_model
    from agentcascade.models.tokens import token_counter

    return make_model(model_config(settings, name, api_base), token_counter())
