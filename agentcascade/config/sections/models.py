"""Sections of models, and of what is named like one: students, rungs, parts by entry point, routers, judges."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from agentcascade.config.effort import parse_effort
from agentcascade.config.section import NamedSection, Section
from agentcascade.config.stuck import StuckConfig


def _read_effort(setting: object) -> str | None:
    return None if setting is None else str(parse_effort(setting))


class ModelConfig(NamedSection):
    """A chat model: any litellm name, or `module:Class` of your own `ChatModel`. A bare name is one, too."""

    aliases: ClassVar[tuple[str, ...]] = ("model",)
    name: str = Field(description="of litellm's form, PROVIDER/MODEL; a plug-in's; or module:Class")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="of its own calls; a student's samples go by `sampling.temperature`"
    )
    max_tokens: int | None = Field(default=None, ge=1, description="of an answer, where the request sets no limit")
    timeout_seconds: float = Field(default=60.0, gt=0, description="deadline of one call, retries included")
    retries: int = Field(default=3, ge=0, description="after failures that may pass, such as a busy server")
    api_base: str | None = Field(default=None, description="base URL; default: the provider's own")
    api_key: SecretStr | None = Field(default=None, description="better left to the provider's own variable")
    price: Mapping[str, Decimal] | None = Field(
        default=None, description="dollars per million tokens: input, cached_input, cache_write, output, reasoning"
    )
    options: Mapping[str, Any] = Field(default_factory=dict, description="passed on to the provider as they are")
    effort: Annotated[str | int | None, BeforeValidator(_read_effort)] = Field(
        default=None,
        description="how much it thinks: none, minimal, low, medium, high, xhigh, max; a number of tokens; or a share "
        "of what the namespace usually thinks with it (0.5x); default: the provider's own",
    )
    text_calls: bool = Field(
        default=False,
        description="read tool calls that it writes into its text, where its server has no parser of them: as JSON, in "
        "tags, in a fence, or as name({…}) as demonstrations show them; its answers are then not streamed in parts",
    )


class StudentConfig(ModelConfig):
    """A student, and what it gives where students vote together (`sampling.across: students`)."""

    samples: int = Field(default=1, ge=1, le=100, description="answers that it gives to a committee")
    weight: int = Field(default=1, ge=1, le=100, description="votes in a committee that each of them counts")


class PartConfig(NamedSection):
    """A part that a package registers by an entry point, and the options that it is made with; or its bare name."""

    name: str = Field(description="it is registered by")
    options: Mapping[str, Any] = Field(default_factory=dict, description="arguments that it is made with")


class RouterConfig(PartConfig):
    """The rule that takes the student's action or defers the step to the teacher."""

    name: str = "unanimity"
    latch: Literal["never", "auto"] = Field(
        default="never",
        description="after a deferral the teacher takes further steps while its prompt cache is warm; auto: where that "
        "is expected to cost less than asking the student, which would often be deferred again",
    )
    stuck: StuckConfig | None = Field(
        default=None,
        description="while the run is stuck (repeated actions, errors, nothing new), the teacher takes its steps and "
        "no student is asked; {} looks at the signals that foretell failure. Default: off",
    )

    @field_validator("latch", mode="before")
    @classmethod
    def _read_latch(cls, setting: object) -> object:
        """YAML reads ``off`` and ``on`` as booleans."""
        return {True: "auto", False: "never"}[setting] if isinstance(setting, bool) else setting


def of_whole_run(router: RouterConfig) -> str | None:
    """A setting of `router` that no single student can have; None where it says how votes are judged, and no more."""
    default = RouterConfig()
    names = (name for name in RouterConfig.model_fields if name not in PartConfig.model_fields)
    return next((name for name in names if getattr(router, name) != getattr(default, name)), None)


class LinkConfig(StudentConfig):
    """A further student: of a chain, with the rule that it is accepted by, or of a committee."""

    router: RouterConfig = RouterConfig()

    @field_validator("router")
    @classmethod
    def _judges_votes_alone(cls, router: RouterConfig) -> RouterConfig:
        if own := of_whole_run(router):
            raise ValueError(f"{own} is of the whole run, whichever student is asked: set it in the cascade's router")
        return router


class RungConfig(StudentConfig):
    """Rung of a ladder: a model, mostly at an effort, and the rule that it is accepted by; the last is the teacher."""

    router: RouterConfig | None = Field(default=None, description="default: `router`; the last rung has none")


class JudgeConfig(Section):
    """What decides whether an episode succeeded, where the caller does not say: a model, or a plug-in."""

    model: ModelConfig | None = None
    question: str = Field(
        default="Did the agent reach its goal? Judge only by what the observations show. Answer yes or no.",
    )
    name: str | None = Field(default=None, description="a plug-in's name, instead of `model`")
    options: Mapping[str, Any] = Field(default_factory=dict, description="of the plug-in")
    together: int = Field(
        default=1, ge=1, le=64, description="the most episodes of a namespace that one call asks the model about"
    )
    together_characters: int = Field(default=60_000, ge=1, le=1_000_000, description="of the episodes of one call")
    together_seconds: float = Field(
        default=1.0, gt=0, le=600, description="for which an episode that ends waits for others to share a call with"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.name is not None and self.model is not None:
            raise ValueError(f"both judge.name '{self.name}' and judge.model are set: one judge decides, leave one out")
        if self.name is not None and self.together > 1:
            raise ValueError(f"together is {self.together}, but only a model (judge.model) is asked about several")
        if self.model is not None and str(self.model.effort or "").endswith("x"):
            raise ValueError(
                f"model.effort is {self.model.effort}, a share of what steps usually think, and a judge takes no "
                "steps: say a level or a number of tokens"
            )
        return self
