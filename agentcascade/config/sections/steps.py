"""Sections of a step: samples, prompts, actions, tools, and what is asked behind the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from agentcascade.config.section import Section
from agentcascade.config.sections.models import ModelConfig, PartConfig
from agentcascade.errors import ConfigError
from agentcascade.prompts.settings import read_texts
from agentcascade.types import Mode


class SamplingConfig(Section):
    """How students are sampled: what votes, how many at a time, how warm, how long."""

    across: Literal["samples", "students"] = Field(
        default="samples",
        description="what must agree; samples: those of one student, and further `students` are a chain; students: "
        "`student` and `students` are a committee; each gives `samples` of `weight` votes, and `router` judges all",
    )
    temperature: float | None = Field(
        default=0.1, ge=0, le=2, description="of samples; a higher one can make agreement a better signal"
    )
    staged: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="buy only as many samples at a time as could settle the vote; auto: in the waves with the least "
        "expected dollars; without a known price, and for the first 20 votes, where every sample pays for its prompt. "
        "A committee's members are asked in such waves, cheapest first; never: all at once",
    )
    cached_from_tokens: int | None = Field(
        default=None,
        ge=0,
        description="shortest prompt that the student's provider reads from its cache; default: as published "
        "(models/quirks.py), 1024 where nothing is",
    )
    second_dollars: float = Field(
        default=0.0, ge=0, description="what a second of waiting for samples is worth, when waves are planned"
    )
    timeout_seconds: float = Field(
        default=30.0, gt=0, description="deadline of the student's part of a step; in a committee of each call"
    )
    vary: Literal["none", "order", "subsets"] = Field(
        default="none",
        description="each sample of a step gets its own prompt and request; order: the demonstrations in another "
        "order; subsets: without another third of them",
    )
    feed_back: Literal["never", "auto", "always"] = Field(
        default="never",
        description="where every sample is invalid, ask once more with the reason before the step is deferred; auto: "
        "where that is expected to cost less than the teacher",
    )
    logprobs: bool = Field(default=False, description="ask for log-probabilities, where the student's provider can")
    constrain: Literal["none", "choice", "schema", "regex", "grammar"] = Field(
        default="none",
        description="students of vLLM can only answer so; choice: one of the actions that the request's `choices` list",
    )
    constraint: str | Mapping[str, Any] | None = Field(
        default=None, description="the JSON schema, the regular expression or the grammar (EBNF)"
    )


class PromptConfig(Section):
    """What is put into prompts, where, and how much of it."""

    token_budget: int = Field(default=8000, ge=0, description="tokens that demonstrations may add to a prompt")
    min_demonstrations: int = Field(
        default=1, ge=0, description="with fewer retrieved the teacher takes the step; ignored when retrieval.k is 0"
    )
    teacher_sees_demonstrations: bool = Field(
        default=False, description="a teacher that a step is deferred to is shown what the student was shown"
    )
    teacher_sees_drafts: bool = Field(
        default=False,
        description="a teacher that a step is deferred to reads the student's distinct candidates with their votes, "
        "behind the history; an audit's teacher never does. A teacher hardly stronger copies them: measure first",
    )
    draft_tokens: int = Field(
        default=1000, ge=0, description="tokens that they may add; a candidate that does not fit is left out"
    )
    place: Literal["auto", "first", "last"] = Field(
        default="auto",
        description="where demonstrations stand; first: at the end of the first user message; last: before the new "
        "observation, behind the history, which the student's prompt cache then holds whatever is shown; auto: where "
        "the next two steps are expected to cost less, and first where nothing is cached or `caching` is off",
    )
    quoting: Literal["fenced", "plain"] = Field(
        default="fenced",
        description="how texts of others stand in prompts: fenced, without chat-template tokens, or plain as they are",
    )
    shortened: bool = Field(default=False, description="show the reasonings that `agentcascade bank shorten` made")
    template: Annotated[Mapping[str, str], NoDecode] = Field(
        default_factory=dict,
        description="texts said to models, by name (agentcascade/prompts/defaults.py): name: text or {file: path}; or "
        "a YAML file of these, or a name registered in the entry-point group agentcascade.prompts",
    )

    @field_validator("template", mode="before")
    @classmethod
    def _read_template(cls, setting: object) -> dict[str, str]:
        try:
            return read_texts(setting)
        except ConfigError as error:
            raise PydanticCustomError("template", "{problem}", {"problem": str(error)}) from None


class ActionsConfig(Section):
    """What of an answer is the action, and which actions count as the same."""

    format: str = Field(
        default="auto", description="auto, text, react, regex, json, tools, python, sql, or a plug-in's name"
    )
    pattern: str | None = Field(default=None, description="of format regex; of format sql the dialect, e.g. sqlite")
    fold: bool = Field(
        default=False,
        description="texts that differ only in case, spacing, Unicode form, quotes around them or a final full stop "
        "are one action (sql: names in any case); for worlds in which these mean nothing, such as text games",
    )
    verifier: ModelConfig | None = Field(
        default=None, description="a cheap model that is asked, before a step is deferred, which samples mean the same"
    )
    mergers: tuple[PartConfig, ...] = Field(
        default=(), description="plug-ins that say which samples mean the same, in turn, before the verifier"
    )
    dry_run: bool = Field(
        default=False, description="in benchmarks: before that, try samples that only read, and join equal answers"
    )


class ToolsConfig(Section):
    """Tool calls: who goes on after one, and which need more agreement."""

    keep_model: bool = Field(
        default=False,
        description="the model that called a tool also reads its result, whatever the router says; in a committee that "
        "member, whose answer is taken without the others' votes (where it is not known, all vote)",
    )
    side_effects: tuple[str, ...] = Field(
        default=(), description="tools whose calls cannot be taken back: they need side_effects_agreement"
    )
    side_effects_agreement: float = Field(default=1.0, gt=0, le=1, description="share of the samples that must agree")
    side_effects_samples: int = Field(default=0, ge=0, description="at least so many samples before such a call")


class ShadowConfig(Section):
    """Mode shadow: the student sampled behind the teacher, for a log that `tune` reads."""

    rate: float = Field(default=1.0, ge=0, le=1, description="share of the steps that are sampled")
    samples: int | None = Field(
        default=None,
        ge=1,
        description="per step, in a committee of each member; default: as many as the router would draw",
    )
    temperatures: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(
        default=(), description="each step is sampled at one of them, so that the log holds several to choose from"
    )
    ks: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), description="likewise, numbers of demonstrations")
    windows: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], ...] = Field(
        default=(), description="likewise, steps before and after the one that matches"
    )
    timeout_seconds: float = Field(default=60.0, gt=0, description="of one, behind the answer")
    max_pending: int = Field(default=32, ge=1, description="shadows at work at once; more are left out")


class AuditConfig(Section):
    """Steps of mode cascade that are checked by the teacher, behind the answer, and what follows from it."""

    rate: float = Field(default=0.0, ge=0, le=1, description="share of the steps that are drawn for an audit")
    risk: float | None = Field(
        default=None, gt=0, lt=1, description="the certified risk (tune --max-risk --risk teacher-disagreement)"
    )
    count: Literal["marginal", "selective"] = Field(
        default="marginal", description="risk as a share of all steps, or of those that the student takes"
    )
    delta: float = Field(default=0.05, gt=0, lt=1, description="false alarms; see promise")
    promise: Literal["ever", "rate"] = Field(
        default="ever", description="ever: none at all, but for delta; rate: at most one in 1 / delta audits on average"
    )
    when_alarmed: Literal["warn", "tighten", "teacher"] = "teacher"
    timeout_seconds: float = Field(default=60.0, gt=0, description="of one, behind the answer")
    max_pending: int = Field(default=32, ge=1, description="audits at work at once; more are left out")
    batch: bool = Field(default=False, description="by the teacher's batch interface: at its price, within a day")
    batch_size: int = Field(default=50, ge=1, le=10_000, description="audits that are sent together")
    batch_seconds: float = Field(default=3600.0, gt=0, description="after which fewer are sent, too")
    batch_pending: int = Field(
        default=1000, ge=1, description="drawn steps that wait for batches, in memory; more are left out"
    )
    together: int = Field(
        default=1, ge=1, le=32, description="the most audits of a namespace, texts without tools, that share a call"
    )
    together_characters: int = Field(default=60_000, ge=1, le=1_000_000, description="of the audits of one call")
    together_seconds: float = Field(
        default=10.0, gt=0, le=600, description="for which an audit waits for others to share a call with"
    )


class RolloutConfig(Section):
    """The share of the episodes that `mode` is for."""

    share: float = Field(default=1.0, ge=0, le=1, description="share of the episodes in `mode`; sticky by episode id")
    otherwise: Mode = Field(default="teacher", description="mode of the other episodes")
