"""World of a benchmark suite for active collection: its training tasks, its loop, and models that its world binds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentcascade.cli.terminal import say

if TYPE_CHECKING:
    from agentcascade.bench.suites.protocol import Task
    from agentcascade.config.load import CascadeConfig
    from agentcascade.config.sections import ModelConfig
    from agentcascade.protocols import ChatModel, Environment, TokenCounter


class SuiteWorld:
    """A suite with its world, and the configuration under which its tasks are demonstrated."""

    def __init__(self, suite: Any, environment: Environment, settings: CascadeConfig) -> None:
        self.suite, self.environment, self.settings = suite, environment, settings

    def model(self, config: ModelConfig, count: TokenCounter) -> ChatModel:
        """A model as this world needs it."""
        from agentcascade.assembly.components import make_model

        model = make_model(config, count)
        if hasattr(model, "bind"):
            model.bind(self.environment)
        adapted = getattr(self.suite, "adapt", None)
        return model if adapted is None else adapted(model)

    def tasks(self, split: str | None, limit: int) -> list[Task]:
        """Tasks that may be demonstrated; never those that the suite's table is played on."""
        training: str = self.suite.defaults.training
        if split is not None and split != training and split == self.suite.defaults.splits[0]:
            raise click.UsageError(f"--split {split} is what the benchmark is measured on: demonstrate {training}")
        found, source = self.suite.tasks(split or training, limit, 0, workers=1, on_progress=lambda done, of: None)
        say(f"{len(found):,} {source} tasks of {split or training}")
        return list(found)


def open_suite(name: str, settings: CascadeConfig) -> SuiteWorld:
    """The suite of that name; actions and failed observations are the suite's where the configuration sets none."""
    from agentcascade import registry
    from agentcascade.config.sections import ActionsConfig

    suite = registry.construct("suites", name, "--suite", {})
    if not hasattr(suite, "environment"):
        raise click.UsageError(f"--suite {name} has no world in which a teacher could play: name one that has")
    suite.check()
    actions = ActionsConfig.model_validate({**suite.actions, **settings.actions.model_dump(exclude_unset=True)})
    dropped = settings.collect.drop_observations or tuple(suite.dropped)
    changed = settings.model_copy(
        update={"actions": actions, "collect": settings.collect.model_copy(update={"drop_observations": dropped})}
    )
    expert = settings.teacher is not None and settings.teacher.name == "offline/expert"
    return SuiteWorld(suite, suite.environment(expert=expert), changed)
