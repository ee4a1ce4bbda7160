"""The configuration: data only. Keyword arguments win over environment variables, which win over the YAML file.

Environment variables are ``AGENTCASCADE_`` plus the path, levels joined by two underscores:
``AGENTCASCADE_RETRIEVAL__K=3``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Self, Union, Unpack, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from agentcascade._util import known_secrets
from agentcascade._util.bounds import load_yaml
from agentcascade._util.control_characters import one_line
from agentcascade.config.history import HistoryConfig
from agentcascade.config.ladder import REPLACED, sections_of
from agentcascade.config.section import NamedSection, with_name
from agentcascade.config.sections import (
    ActionsConfig,
    AuditConfig,
    BankConfig,
    BudgetsConfig,
    CollectConfig,
    ContrastConfig,
    JudgeConfig,
    LinkConfig,
    MemoryConfig,
    ModelConfig,
    PromptConfig,
    RedactionConfig,
    ResponseCacheConfig,
    RetentionConfig,
    RetrievalConfig,
    RolloutConfig,
    RouterConfig,
    RungConfig,
    SamplingConfig,
    ServerConfig,
    ShadowConfig,
    StudentConfig,
    TelemetryConfig,
    ToolsConfig,
)
from agentcascade.config.verifier import VerifierConfig
from agentcascade.errors import ConfigError, did_you_mean, without_secrets
from agentcascade.prompts.settings import with_folder
from agentcascade.types import Mode

if TYPE_CHECKING:
    from agentcascade.config.keywords import ConfigKeywords

log = logging.getLogger("agentcascade.config")


class CascadeConfig(BaseSettings):
    """Configuration of cascades and memories. Unknown keys are errors that name the nearest known one.

    `agentcascade.build` takes its fields as keywords; `agentcascade init` writes a commented YAML file of them. What a
    section's fields mean, their defaults and units are in `agentcascade.config.sections`. It is frozen.

    >>> from agentcascade import CascadeConfig
    >>> config = CascadeConfig.load(student={"name": "openai/gpt-4.1-mini"}, mode="student", retrieval={"k": 4})
    >>> config.student.name, config.retrieval.k, config.retrieval.window_before
    ('openai/gpt-4.1-mini', 4, 2)
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="AGENTCASCADE_", env_nested_delimiter="__", env_ignore_empty=True
    )

    mode: Mode = Field(default="cascade", description="who acts: docs/how-to/roll-out.md says what each is for")
    teacher: ModelConfig | None = None
    student: StudentConfig | None = None
    students: tuple[LinkConfig, ...] = Field(
        default=(),
        description="further students, asked in turn where the one before is not accepted; with `sampling.across: "
        "students` they vote together with `student`",
    )
    ladder: tuple[RungConfig, ...] = Field(
        default=(),
        description="rungs, the cheapest first, in place of `student`, `students` and `teacher`: each a model at an "
        "effort, asked where the rungs below were not accepted; the last is the teacher",
    )
    bank: BankConfig = BankConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    router: RouterConfig = RouterConfig()
    verifier: VerifierConfig | None = Field(
        default=None, description="a small model whose score of a candidate decides beside the vote. Default: off"
    )
    sampling: SamplingConfig = SamplingConfig()
    prompt: PromptConfig = PromptConfig()
    actions: ActionsConfig = ActionsConfig()
    collect: CollectConfig = CollectConfig()
    contrast: ContrastConfig = ContrastConfig()
    tools: ToolsConfig = ToolsConfig()
    shadow: ShadowConfig = ShadowConfig()
    audit: AuditConfig = AuditConfig()
    rollout: RolloutConfig = RolloutConfig()
    budgets: BudgetsConfig = BudgetsConfig()
    judge: JudgeConfig = JudgeConfig()
    memory: MemoryConfig = MemoryConfig()
    history: HistoryConfig | None = Field(
        default=None,
        description="bounded history: the last steps of a run stand in a student's prompt, older ones as a carried "
        "state; {} for keep: 8, carry: 400. Default: off, the whole history stands there",
    )
    redaction: RedactionConfig = RedactionConfig()
    retention: RetentionConfig = RetentionConfig()
    response_cache: ResponseCacheConfig = ResponseCacheConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    server: ServerConfig = ServerConfig()
    caching: bool = Field(
        default=True,
        description="set prompt-cache breakpoints (cache_control) for models that cache only what is marked, where the "
        "caller sets none; off: requests go out as they are",
    )
    cascades: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="name: what differs from the rest of this configuration"
    )
    deadline_seconds: float = Field(default=180.0, gt=0, description="wall-clock limit of one step")
    seed: int = Field(default=0, description="of every random choice, with the task and the step")

    @model_validator(mode="after")
    def _climb(self) -> Self:
        """What the ladder stands for stands in the other sections, though they were not set."""
        given = [name for name in self.model_fields_set if getattr(self, name)]
        if "ladder" in self.model_fields_set and not self.ladder and not {*given} & {*REPLACED}:
            raise ValueError(
                "ladder is empty: name its rungs, the cheapest first, the last of which is the teacher; or leave it "
                "out, and name `student` and `teacher`"
            )
        for name, section in sections_of(self.ladder, self.router, given).items():
            self.__dict__[name] = section
        return self

    @field_validator("ladder", mode="before")
    @classmethod
    def _is_list(cls, rungs: object) -> object:
        if isinstance(rungs, str | Mapping) or not isinstance(rungs, Sequence):
            raise ValueError(
                "a ladder is a list of rungs, the cheapest first, each a model's name or {model: NAME, effort: LEVEL}"
            )
        return rungs

    @field_validator("student", mode="before")
    @classmethod
    def _read_student(cls, setting: object) -> object:
        """A `ModelConfig` is a student's, too."""
        return setting.model_dump(exclude_unset=True) if type(setting) is ModelConfig else setting

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @classmethod
    def load(cls, path: str | Path | None = None, **overrides: Unpack[ConfigKeywords]) -> CascadeConfig:
        """Load a configuration: keywords win over the environment, which wins over the YAML file.

        Args:
            path: Of the file; default: none.
            overrides: Sections and fields, such as ``mode="shadow"`` or ``retrieval={"k": 4}``.

        Raises:
            ConfigError: A value is missing, unknown or impossible; the message names key and fix.
        """
        _check_environment()
        data = _with_folder(_read_yaml(Path(path)), Path(path).parent) if path is not None else {}
        try:
            return cls(**_merge(_merge(data, _typed(_Environment(cls)())), overrides))
        except ValidationError as error:
            raise explain(error, cls, str(path) if path is not None else "the configuration") from None


class _Environment(EnvSettingsSource):
    """Environment variables. That of a section holds JSON; AGENTCASCADE_TEACHER and its like may be a bare name."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        kind = field.annotation
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        is_named = any(isinstance(one, type) and issubclass(one, NamedSection) for one in kinds)
        if is_named and isinstance(value, str) and not value.lstrip().startswith(("{", "[")):
            return with_name(value)
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError as error:
            shown = "" if known_secrets.SECRET_FIELD.fullmatch(field_name) else f", not {without_secrets(value)[:60]!r}"
            raise ConfigError(
                f"the environment: what sets '{field_name}' as a whole must be JSON{shown} ({error}); single keys are "
                f"set by AGENTCASCADE_…{field_name.upper()}__KEY"
            ) from None


def check(settings: Mapping[str, Any], source: str) -> CascadeConfig:
    """A configuration of these settings alone, without the environment. Raises `ConfigError`, which names `source`."""
    try:
        return CascadeConfig(**settings)
    except ValidationError as error:
        raise explain(error, CascadeConfig, source) from None


def _with_folder(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a file says, with its templates' files beside it."""
    prompt, cascades = data.get("prompt"), data.get("cascades")
    if isinstance(prompt, Mapping) and "template" in prompt:
        data = {**data, "prompt": {**prompt, "template": with_folder(prompt["template"], folder)}}
    if isinstance(cascades, Mapping):
        own = {k: _with_folder(v, folder) if isinstance(v, dict) else v for k, v in cascades.items()}
        data = {**data, "cascades": own}
    return data


WHOLE = ("cascades", "server", "retention")
"""Sections that no single cascade can have: one server, and one database whose records are pruned together."""


def variants(config: CascadeConfig) -> dict[str, CascadeConfig]:
    """The cascades of a configuration by name; ``default`` where it names none. Raises `ConfigError`."""
    if not config.cascades:
        return {"default": config}
    base = config.model_dump(exclude={"cascades"}, exclude_unset=True)
    made: dict[str, CascadeConfig] = {}
    for name, changes in config.cascades.items():
        if own := next((key for key in WHOLE if key in changes), None):
            raise ConfigError(
                f"cascades.{name}: '{own}' belongs to the whole configuration, not to one cascade of it: set it above"
            )
        try:
            made[name] = CascadeConfig(**_merge(base, changes))
        except ValidationError as error:
            raise explain(error, CascadeConfig, f"cascades.{name}") from None
    return made


NAMED = ("teacher", "student", "verifier", "router", "model", "small", "medium", "large")
"""Keys of sections for which a bare name may stand."""


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], free: bool = False) -> dict[str, Any]:
    """`base` with `over` laid on top, section by section; inside `options`, which are `free`, no key has a meaning.

    Another `name` of a model or router takes the options and the price of the one before away: they were that one's.
    """
    merged = dict(base)
    if "name" in over and "name" in merged and _plain(over["name"]) != _plain(merged["name"]):
        merged = {k: v for k, v in merged.items() if k not in ("options", "price")}
    for key, value in over.items():
        old = merged.get(key)
        if key in NAMED and not free:
            old, value = with_name(old, "model"), with_name(value, "model")
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(old, value, free or key == "options")
        else:
            merged[key] = value
    return merged


def _plain(name: object) -> str:
    """A model's name without `wrap`'s prefix, which says how it is reached."""
    return str(name).removeprefix("client/")


def _typed(data: Mapping[str, Any], inside_options: bool = False) -> dict[str, Any]:
    """Environment variables are text; in free-form `options`, as in AGENTCASCADE_ROUTER__OPTIONS__N=5, read as YAML."""
    typed: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            typed[key] = _typed(value, inside_options or key == "options")
        else:
            typed[key] = _option(key, value) if inside_options and isinstance(value, str) else value
    return typed


def _option(key: str, value: str) -> Any:
    try:
        return load_yaml(value)
    except ValueError:  # which quotes the value, and that may be a secret
        raise ConfigError(
            f"the environment: options are read as YAML, and that of '{key}' is none: "
            f"a text with special characters stands in quotes, as in …__{key.upper()}='\"…\"'"
        ) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}: `agentcascade init` writes a commented one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping such as 'mode: cascade', not {type(data).__name__}")
    return data


ORCHESTRATED = re.compile(r"(?:.*_)?(?:SERVICE_(?:HOST|PORT.*)|PORT(?:_\d+_[A-Z]+(?:_(?:PROTO|PORT|ADDR))?)?)")
"""What Kubernetes (and Docker's links) set for a service that is called agentcascade, or begins so."""


OTHER_VARIABLES = {
    "cache", "config", "log_level", "log_format", "vllm", "workers_folder", "workers_session_secret", "child_variables"
}  # fmt: skip
"""Of AGENTCASCADE_…, those that are read elsewhere."""


def _check_environment() -> None:
    """Unknown AGENTCASCADE_ variables are typos that pydantic-settings would pass over in silence.

    Raises `ConfigError` for what looks like one. What others may have set is passed over: with a warning, unless it is
    plainly Kubernetes'.
    """
    known = set(CascadeConfig.model_fields)
    for name, value in os.environ.items():
        if not name.startswith("AGENTCASCADE_"):
            continue
        rest = name.removeprefix("AGENTCASCADE_")
        top = rest.split("__")[0].lower()
        if top in known or top in OTHER_VARIABLES:
            continue
        if ORCHESTRATED.fullmatch(rest):
            if rest == "PORT" and value.isdigit():
                log.warning("%s is passed over: the server's port is AGENTCASCADE_SERVER__PORT", name)
        elif "__" in rest or get_close_matches(top, known, n=1, cutoff=0.5):
            raise ConfigError(f"environment variable {name} sets nothing that is known: {did_you_mean(top, known)}")
        else:
            log.warning("environment variable %s is passed over: it is near no known key", one_line(name))


def explain(error: ValidationError, model: type[BaseModel], source: str) -> ConfigError:
    """One sentence per problem, with the nearest known key for a typo. Values of secret fields are not shown."""
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(p) for p in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = list(_section(model, problem["loc"][:-1]).model_fields)
            lines.append(f"unknown key '{path}': {did_you_mean(str(problem['loc'][-1]), known)}")
        else:
            if problem["type"] == "model_type":
                lines.append(_not_a_section(path, _section(model, problem["loc"]), problem["input"]))
                continue
            secret = any(known_secrets.SECRET_FIELD.fullmatch(str(part)) for part in problem["loc"])
            value = "" if secret else f" (got {without_secrets(repr(problem['input']))[:60]})"
            lines.append(f"{path}: {problem['msg']}{value}")
    return ConfigError(f"{source}: " + "; ".join(lines))


def _not_a_section(path: str, section: type[BaseModel], value: object) -> str:
    """That a section is neither a mapping nor, where it may be one, a bare name."""
    keys = list(section.model_fields)
    needed = "a name or a mapping is" if issubclass(section, NamedSection) else "a mapping is"
    shown = without_secrets(repr(value))[:60]
    return f"{path}: {needed} needed, such as {{{keys[0]}: …}}, not {shown}; its keys are {', '.join(keys)}"


def _section(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The section at `path`, which may lead through lists and mappings of sections."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is not None:  # else a place in the list, or a name in the mapping, that led to `model`
            model = next(_sections(field.annotation), model)
    return model


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """The sections that a field's type names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def config_path() -> Path | None:
    """The config file that the CLI uses when none is named: $AGENTCASCADE_CONFIG, else ./agentcascade.yaml."""
    named = os.environ.get("AGENTCASCADE_CONFIG")
    if named:
        return Path(named)
    local = Path("agentcascade.yaml")
    return local if local.exists() else None
