"""Settings of the soft verifier (`verifier`): which model scores candidates, when, and what a score decides."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from agentcascade.config.sections import ModelConfig

Ask = Literal["split", "stakes", "always"]
Share = Annotated[float, Field(ge=0, le=1)]


class VerifierConfig(ModelConfig):
    """A model that says how likely a candidate action is right: ``{model: NAME, effort: low, ask: split}``."""

    temperature: float | None = Field(default=0.0, ge=0, le=2)
    max_tokens: int | None = Field(default=512, ge=1, description="of its answer, thoughts included")
    timeout_seconds: float = Field(
        default=15.0, gt=0, description="of one verification; a slower one gives no score, and the vote decides"
    )
    retries: int = Field(default=1, ge=0)
    ask: tuple[Ask, ...] = Field(
        default=("split",),
        min_length=1,
        description="when it is asked; split: where the vote alone would defer; stakes: where the vote accepts a call "
        "of tools.side_effects; always: both, and wherever else the vote accepts",
    )
    agreement: tuple[Share, Share] = Field(
        default=(0.3, 1.0),
        description="band: share of the votes that the candidate of a split vote has at least and at most",
    )
    accept: float = Field(
        default=0.9, ge=0, le=1, description="a candidate of a split vote is taken from this score on"
    )
    reject: float = Field(
        default=0.5, ge=0, le=1, description="a candidate that the vote accepts is deferred below this score"
    )
    think: bool = Field(default=True, description="let it write a sentence or two before its verdict")
    read: Literal["auto", "scale"] = Field(
        default="auto",
        description="scale: ask for a number from 0 to 10; auto: the probability of yes, where the provider tells "
        "log-probabilities, else the scale",
    )
    context_tokens: int = Field(
        default=4000, ge=200, description="of conversation and candidate that it is shown; the middle is left out"
    )
    worth: Literal["auto", "always"] = Field(
        default="auto",
        description="auto: a split vote is not put to it while that is expected to cost more than the teacher's calls "
        "that it saves; of unknown prices it is asked",
    )

    @field_validator("ask", mode="before")
    @classmethod
    def _read_ask(cls, setting: object) -> object:
        return (setting,) if isinstance(setting, str) else setting

    @model_validator(mode="after")
    def _has_a_band(self) -> Self:
        low, high = self.agreement
        if low > high:
            raise ValueError(f"agreement is {low:g} to {high:g}: the band begins with its smaller share")
        return self

    def asks(self, accepted: bool, agreement: float, stakes: bool) -> Ask | None:
        """Why it is asked about a candidate; None where it is not.

        Args:
            accepted: Whether the vote alone takes it.
            agreement: Share of the votes that it has.
            stakes: Whether it calls a tool with side effects.
        """
        always = "always" in self.ask
        if accepted and stakes and (always or "stakes" in self.ask):
            return "stakes"
        if accepted:
            return "always" if always else None
        inside = self.agreement[0] - 1e-9 <= agreement <= self.agreement[1] + 1e-9
        return "split" if inside and (always or "split" in self.ask) else None

    def takes(self, accepted: bool, score: float | None) -> bool:
        """Whether a candidate that it was asked about is taken; without a score as the vote alone says."""
        if score is None:
            return accepted
        return score >= (self.reject if accepted else self.accept)
