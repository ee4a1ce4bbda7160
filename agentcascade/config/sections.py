"""The sections of a configuration, each with its defaults and what they mean. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from agentcascade.config.effort import parse_effort
from agentcascade.config.section import NamedSection
from agentcascade.config.section import Section as Section
from agentcascade.config.stuck import StuckConfig
from agentcascade.errors import ConfigError
from agentcascade.prompts.settings import read_texts
from agentcascade.types import Account, Mode, Situation


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


class BankConfig(Section):
    """The database: demonstrations, records, budgets."""

    url: str = Field(default="sqlite:///agentcascade.db", description="SQLAlchemy URL; postgresql://… to share it")
    namespace: str = "default"
    journal: Path | None = Field(
        default=None,
        description="folder for what is not in the database yet; default: beside an SQLite file, else under "
        "$XDG_STATE_HOME/agentcascade (~/.local/state)",
    )
    migrate: bool = Field(
        default=True,
        description="bring the tables up to date when the database is opened; off: refuse tables that are not, for "
        "`agentcascade db upgrade` has to do it, as a job and with a role of its own",
    )


class WeightsConfig(Section):
    """Weights of the keys in a step's score; only their ratios matter."""

    goal: float = Field(default=1.0, ge=0, description="how alike the goals are")
    plan: float = Field(default=1.0, ge=0, description="how alike the plans are")
    observation: float = Field(default=1.0, ge=0, description="how alike what was just seen is")


class RetrievalConfig(Section):
    """Which demonstrations a step is shown."""

    embedder: str = Field(
        default="minilm",
        description="minilm (minilm:int8 and minilm:float32 fix its precision, which is else measured), hashing, "
        "sentence-transformers:NAME, onnx:FOLDER, or a plug-in's name",
    )
    index: str = Field(
        default="auto",
        description="auto (faiss where installed), exact, faiss, pgvector (bank in PostgreSQL), or a plug-in's name",
    )
    k: int = Field(default=6, ge=0, description="demonstrations per step; 0 turns retrieval off")
    window_before: int = Field(default=2, ge=0, description="steps shown before the one that matched")
    window_after: int = Field(default=2, ge=0, description="steps shown after the one that matched")
    weights: WeightsConfig = WeightsConfig()
    sticky: Literal["never", "always", "auto"] = Field(
        default="never",
        description="keep the demonstrations of the episode's earlier step, so that the provider's prompt cache hits; "
        "auto: where that is expected to save more than it loses",
    )
    sticky_sensitivity: float = Field(
        default=5.0, ge=0, description="deferrals that a demonstration score lower by 1 is expected to cause"
    )
    utility_weight: float = Field(
        default=0.0,
        ge=0,
        description="added to a demonstration's score per unit by which the success rate of episodes that used it is "
        "above the namespace's",
    )


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


class CollectConfig(Section):
    """Demonstrations: what is asked of the teacher, what is banked, and where it is sent (`active`)."""

    plan: bool = Field(default=False, description="ask the teacher for a plan before the first step (Traj-Bootstrap)")
    first_thought: bool = Field(default=False, description="open the first turn with a thought made without tools")
    drop_observations: tuple[str, ...] = Field(
        default=(), description="steps that led to an observation containing one of these are left out of the bank"
    )
    active: bool = Field(
        default=False,
        description="collect where a demonstration is expected to save more than it costs, and stop where none does",
    )
    budget: Decimal | None = Field(
        default=None, gt=0, description="dollars of active collection in a namespace, in all; default: no limit"
    )
    horizon: int = Field(default=1000, ge=1, description="future episodes over which a demonstration must pay")
    cold_start: int = Field(
        default=10, ge=0, description="demonstrations by diversity alone while no step was voted on yet"
    )


class ContrastConfig(Section):
    """Known failures: what failed in a situation is kept, denied votes there, and may be shown beside what worked."""

    failed: tuple[str, ...] = Field(
        default=(), description="an action failed if the next observation contains one of these; none: nothing is kept"
    )
    strike: bool = Field(default=True, description="a sample that repeats a known failure votes for nothing")
    show: bool = Field(default=False, description="demonstrations say what was tried in vain in their situations")
    times: int = Field(
        default=2,
        ge=1,
        description="that an action must have failed in a situation, and never have worked, to be known",
    )
    same: tuple[Literal["goal", "category", "observation", "before"], ...] = Field(
        default=("category", "observation", "before"),
        description="what makes two situations the same; before: the action before",
    )
    keep: int = Field(default=20_000, ge=1, description="outcomes of a namespace, the newest")

    @field_validator("failed")
    @classmethod
    def _are_marks(cls, marks: tuple[str, ...]) -> tuple[str, ...]:
        if any(not mark.strip() for mark in marks):
            raise ValueError("an empty text is in every observation: every action would have failed")
        return marks

    @field_validator("same")
    @classmethod
    def _are_situations(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if "observation" not in parts:
            raise ValueError("situations with different observations are not the same: add observation")
        return parts


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


class BudgetsConfig(Section):
    """Dollars. A call whose worst case does not fit into what is left is not made."""

    per_episode: Decimal | None = Field(default=None, ge=0, description="one run of the agent")
    per_namespace: Decimal | None = Field(default=None, ge=0, description="per `period`")
    period: Literal["total", "day", "month"] = "month"
    when_exceeded: Literal["error", "student"] = Field(
        default="error", description="student: where the teacher's call does not fit, the student's answer is taken"
    )
    when_unavailable: Literal["allow", "refuse"] = Field(
        default="allow",
        description="what happens to a call while the database cannot be asked; allow: it is made, and booked as soon "
        "as the database is back",
    )
    output_tokens: int | None = Field(
        default=None,
        ge=1,
        description="limit that a call within a budget is sent with when it has no max_tokens; default: none, and the "
        "model's own limit is reserved; 4096 where that is not known",
    )

    def accounts(self, situation: Situation) -> tuple[Account, ...]:
        """Those that a step is paid from."""
        own = f"{len(situation.namespace)}:{situation.namespace}/{situation.episode}"
        found: list[Account] = []
        if self.per_episode is not None:
            found.append(Account(scope="episode", name=own, limit=self.per_episode))
        return (*found, *self.of_namespace(situation.namespace))

    def of_namespace(self, namespace: str) -> tuple[Account, ...]:
        """Those that what is no step is paid from: recalls, rewriting the bank."""
        if self.per_namespace is None:
            return ()
        return (Account(scope="namespace", name=namespace, limit=self.per_namespace, period=self.period),)


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


class RedactionConfig(Section):
    """What is replaced before anything is stored. Answers to the agent are never touched."""

    keys: bool = Field(default=True, description="API keys, tokens and passwords")
    emails: bool = Field(default=True, description="e-mail addresses")
    phones: bool = Field(default=True, description="phone numbers")
    patterns: Mapping[str, str] = Field(default_factory=dict, description="placeholder: regular expression")
    presidio: bool = Field(default=False, description="names and more, by Presidio; needs the extra `redaction`")


class RetentionConfig(Section):
    """Days for which records are kept; the bank and histories are never touched. None keeps them for ever."""

    decisions: int | None = Field(default=90, ge=1, description="with their calls and shadows")
    episodes: int | None = Field(default=365, ge=1, description="ended ones, without their steps")
    drafts: int | None = Field(default=14, ge=1, description="unfinished episodes of mode collect")
    recalls: int | None = Field(default=90, ge=1, description="what memory was made of, with its calls")
    responses: int | None = Field(default=30, ge=1, description="of the Responses API, sealed")
    max_decisions: int | None = Field(default=5_000_000, ge=1, description="in number; the oldest go first")


class ResponseCacheConfig(Section):
    """Answers to exactly equal model calls of a namespace, given again for nothing: at temperature 0 or by request."""

    enabled: bool = Field(
        default=False,
        description="requests may say more: the header x-agentcascade-cache, or agentcascade_cache among metadata, is "
        "use (whatever the temperature), no-cache (ask anew, keep that answer) or no-store",
    )
    ttl_seconds: float = Field(default=86_400.0, gt=0, description="for which an answer is given again")
    max_entries: int = Field(default=100_000, ge=1, description="answers of one namespace; the oldest go first")
    max_bytes: int = Field(default=256_000_000, ge=1, description="of one namespace in the database, likewise")
    max_entry_bytes: int = Field(default=1_000_000, ge=1, description="of one answer; a larger one is not kept")
    memory_bytes: int = Field(default=32_000_000, ge=0, description="of answers held in each process")


class TelemetryConfig(Section):
    """OpenTelemetry of the process itself; the server's metrics need no setting."""

    opentelemetry: bool = Field(default=False, description="traces and metrics by the process's own providers")
    contents: bool = Field(default=False, description="put messages into spans and logs")


class MemoryConfig(Section):
    """Memory of long histories, for agents' steps and on its own (BudgetMem)."""

    enabled: bool = Field(default=False, description="put a memory block before every step of the agent")
    teacher_sees_memory: bool = Field(default=True, description="the teacher is given the memory block, too")
    remember: bool = Field(default=True, description="append every step's observation and action to the history")
    history: str = Field(
        default="", description="name of the namespace's history that steps are given; default: the episode's own"
    )
    axis: str = Field(default="local", description="local (no chat model), implementation, reasoning, capacity")
    tiers: Mapping[str, Mapping[str, str]] = Field(
        default_factory=dict, description="module: {tier: rules, models, deep or llm:SIZE[:direct|cot|reflect|refine]}"
    )
    models: Mapping[Literal["small", "medium", "large"], ModelConfig] = Field(default_factory=dict)
    router: RouterConfig = RouterConfig(name="fixed", options={"tiers": "mid"})
    tradeoff: float = Field(default=0.3, ge=0, le=1, description="λ: weight of cost against quality")
    explore: float = Field(default=0.0, ge=0, le=1, description="share of choices made at random, to learn from")
    embedder: str = Field(default="", description="default: retrieval.embedder")
    retrieval: Literal["hybrid", "dense", "lexical"] = Field(
        default="hybrid", description="chunks are searched by BM25 (lexical), by vectors (dense), or by both"
    )
    chunk_tokens: int = Field(default=256, ge=16, description="of a chunk of the history")
    k: int = Field(default=5, ge=1, description="chunks of each search")
    top_k: int = Field(default=10, ge=1, description="chunks that the filter reads")
    token_budget: int = Field(default=1000, ge=0, description="of the memory's text")
    deadline_seconds: float = Field(default=10.0, gt=0, description="of one question; what came too late is left out")
    max_dollars: Decimal | None = Field(default=None, ge=0, description="for the chat models of one question")
    max_history_tokens: int = Field(
        default=1_000_000, ge=1000, description="of one history; the oldest beyond are passed over"
    )
    max_histories: int = Field(default=64, ge=1, description="held in memory at once")
    max_held_bytes: int = Field(
        default=1_000_000_000, ge=0, description="of the histories held at once; a line takes 2 to 7 KB"
    )

    @field_validator("router")
    @classmethod
    def _has_no_latch(cls, router: RouterConfig) -> RouterConfig:
        if router.stuck is not None:
            raise ValueError("stuck is the step router's (router.stuck): a memory is recalled however the run goes")
        if router.latch != "never":
            raise ValueError(
                "latch is the step router's (router.latch): tiers of memory have no prompt cache to stay with"
            )
        return router


class ServerConfig(Section):
    """The proxy of `agentcascade serve`."""

    host: str = Field(default="127.0.0.1", description="address to listen on; not on the loopback keys are needed")
    port: int = Field(default=8080, ge=0, le=65535, description="0: any that is free")
    open: bool = Field(default=False, description="serve without keys; else a key is needed as soon as one exists")
    hosts: tuple[str, ...] = Field(
        default=(),
        description="names it is reached by, beside addresses, localhost and names without a dot; '*.example.com' for "
        "all below, '*' for any. Without keys other names are refused (DNS rebinding), with keys only if this is set",
    )
    origins: tuple[str, ...] = Field(
        default=(), description="of pages of other sites that may use it in a browser, as https://app.example.com"
    )
    max_body_bytes: int = Field(default=8_000_000, ge=1000, description="of one request; more: 413")
    max_incoming_bytes: int = Field(
        default=128_000_000, ge=1000, description="held of all bodies that are still coming in; more: 503"
    )
    max_requests: int = Field(
        default=256, ge=1, description="requests at work at once; more are told to come back (503)"
    )
    header_seconds: float = Field(default=10.0, gt=0, description="in which a client must have sent a request's head")
    body_seconds: float = Field(default=30.0, gt=0, description="in which its body must have come")
    feedback_seconds: float = Field(
        default=30.0, gt=0, description="a feedback's answer; one that takes longer goes on, and its client asks again"
    )
    store_responses: bool = Field(
        default=True, description="keep what a Responses request lets be stored, for retention.responses days"
    )
    shutdown_seconds: float = Field(default=30.0, ge=0, description="for requests under way when the server stops")
    passthrough: str = Field(
        default="",
        description="cascade that answers for models that no cascade is called by: the model that a client names is "
        "then the teacher, asked at its provider with the client's own key, which is not kept",
    )
    upstreams: Mapping[Literal["openai", "anthropic"], str] = Field(
        default_factory=dict, description="of passthrough: base URLs that clients' keys are sent to instead"
    )
    prices: Mapping[str, Mapping[str, Decimal]] = Field(
        default_factory=dict,
        description="dollars per million tokens by model, as a model's `price`, of those that have none: configured "
        "ones, models that clients name (passthrough), and those of a wrapped client's calls",
    )
