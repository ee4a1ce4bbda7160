"""Settings of `router.stuck`: which signals say that a run is stuck, and how long the teacher then takes its steps."""

from __future__ import annotations

from pydantic import Field, field_validator

from agentcascade.config.section import Section

ERRORS = (
    *("nothing happens", "error:", "error executing", "traceback (most recent call last)", "exception:"),
    *("command not found", "no such file", "permission denied", "timed out", "invalid action", "is not recognized"),
)
"""ALFWorld's and InterCode's words, and those of Python, shells and tools."""
EMPTY = ("[]", "{}", "()", "null", "none", "ok", "ok.", "(no output)", "(empty)")
DONE = (
    *("task is completed", "task is complete", "task is done", "task complete", "task has been completed"),
    *("completed the task", "finished the task"),
)


class StuckConfig(Section):
    """When a run counts as stuck. A signal whose number is null is not looked at; defaults are those that foretell.

    Signals are counted since the student had its turn again.
    """

    repeated: int | None = Field(
        default=1,
        ge=1,
        description="the last actions, up to 8, are those before, so many times over: nothing new",
    )
    errors: int | None = Field(default=2, ge=1, description="error observations in a row")
    nothing_new: int | None = Field(
        default=3, ge=1, description="observations in a row of which every line was seen before, or which are errors"
    )
    over_plan: float | None = Field(
        default=None, gt=0, description="steps, in lines of the episode's plan; never where it has none"
    )
    false_done: int | None = Field(
        default=None, ge=1, description="times that the agent said it is finished, and went on"
    )
    silence: int | None = Field(default=None, ge=1, description="observations in a row that say nothing")
    hold: int = Field(default=3, ge=1, le=100, description="steps that the teacher takes at least")
    most: int = Field(
        default=10, ge=1, le=1000, description="steps that it takes at most; before, it goes on until something is new"
    )
    error_phrases: tuple[str, ...] = Field(
        default=ERRORS, description="an observation is an error with one of these at its beginning or end, in any case"
    )
    done_phrases: tuple[str, ...] = Field(
        default=DONE, description="of an agent that says it is finished, in reasoning or action"
    )
    done_actions: tuple[str, ...] = Field(
        default=("submit", "finish", "done", "stop"), description="actions that say it, by their first word"
    )
    empty: tuple[str, ...] = Field(default=EMPTY, description="observations that say nothing, beside an empty one")

    @field_validator("error_phrases", "done_phrases", "done_actions", "empty")
    @classmethod
    def _fold(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if any(not phrase.strip() for phrase in phrases):
            raise ValueError("an empty phrase is in every text: leave it out")
        if len(phrases) > 100 or any(len(phrase) > 200 for phrase in phrases):
            raise ValueError("at most 100 phrases of at most 200 characters each")
        return tuple(phrase.casefold() for phrase in phrases)
