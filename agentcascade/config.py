"""The configuration: data only. Keyword arguments win over environment variables, which win over the YAML file.

Environment variables are ``AGENTCASCADE_`` plus the path, levels joined by two underscores:
``AGENTCASCADE_RETRIEVAL__K=3``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.types import Mode


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """A chat model: any litellm name, or `module:Class` of your own `ChatModel`."""

    name: str
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    timeout_seconds: float = Field(default=60.0, gt=0, description="deadline of one call, retries included")
    retries: int = Field(default=3, ge=0)
    api_base: str | None = None
    api_key: SecretStr | None = Field(default=None, description="better left to the provider's own variable")
    price: Mapping[str, Decimal] | None = Field(
        default=None, description="dollars per million tokens: input, cached_input, cache_write, output, reasoning"
    )
    options: Mapping[str, Any] = Field(default_factory=dict, description="passed on to the provider as they are")


class BankConfig(Section):
    url: str = Field(default="sqlite:///agentcascade.db", description="SQLAlchemy URL; postgresql://… to share it")
    namespace: str = "default"


class WeightsConfig(Section):
    """Weights of the keys in a step's score; only their ratios matter."""

    goal: float = Field(default=1.0, ge=0)
    plan: float = Field(default=1.0, ge=0)
    observation: float = Field(default=1.0, ge=0)


class RetrievalConfig(Section):
    embedder: str = Field(
        default="minilm", description="minilm, hashing, sentence-transformers:NAME, onnx:FOLDER, or a plug-in's name"
    )
    index: str = Field(default="auto", description="auto (faiss where installed), exact, faiss, or a plug-in's name")
    k: int = Field(default=6, ge=0, description="demonstrations per step; 0 turns retrieval off")
    window_before: int = Field(default=2, ge=0)
    window_after: int = Field(default=2, ge=0)
    weights: WeightsConfig = WeightsConfig()


class RouterConfig(Section):
    name: str = "unanimity"
    options: Mapping[str, Any] = Field(default_factory=dict)


class SamplingConfig(Section):
    temperature: float | None = Field(default=0.1, ge=0, le=2)
    staged: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="buy only as many samples at a time as could settle the vote; auto: where every sample pays for "
        "its own prompt, so that stopping early is cheaper than one call with n",
    )
    timeout_seconds: float = Field(default=30.0, gt=0, description="deadline of the student's part of a step")


class PromptConfig(Section):
    token_budget: int = Field(default=8000, ge=0, description="tokens that demonstrations may add to a prompt")
    min_demonstrations: int = Field(
        default=1, ge=0, description="with fewer retrieved the teacher takes the step; ignored when retrieval.k is 0"
    )
    teacher_sees_demonstrations: bool = False


class ActionsConfig(Section):
    format: str = Field(default="auto", description="auto, text, react, regex, json, tools")
    pattern: str | None = None


class CollectConfig(Section):
    plan: bool = Field(default=False, description="ask the teacher for a plan before the first step (Traj-Bootstrap)")
    first_thought: bool = Field(default=False, description="open the first turn with a thought made without tools")
    drop_observations: tuple[str, ...] = Field(
        default=(), description="steps that led to an observation containing one of these are left out of the bank"
    )


class CascadeConfig(BaseSettings):
    """Everything that `agentcascade.build` needs. Unknown keys are errors that name the nearest known one."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="AGENTCASCADE_", env_nested_delimiter="__", env_ignore_empty=True
    )

    mode: Mode = "cascade"
    teacher: ModelConfig | None = None
    student: ModelConfig | None = None
    bank: BankConfig = BankConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    router: RouterConfig = RouterConfig()
    sampling: SamplingConfig = SamplingConfig()
    prompt: PromptConfig = PromptConfig()
    actions: ActionsConfig = ActionsConfig()
    collect: CollectConfig = CollectConfig()
    deadline_seconds: float = Field(default=180.0, gt=0, description="wall-clock limit of one step")
    seed: int = 0

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
    def load(cls, path: str | Path | None = None, **overrides: Any) -> CascadeConfig:
        """Read `path` (YAML) if given, the environment and `overrides`; raises `ConfigError` naming key and fix."""
        _check_environment()
        data = _read_yaml(Path(path)) if path is not None else {}
        try:
            return cls(**_merge(_merge(data, _typed(EnvSettingsSource(cls)())), overrides))
        except ValidationError as error:
            raise explain(error, cls, str(path) if path is not None else "the configuration") from None


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on top, section by section."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _typed(data: Mapping[str, Any], inside_options: bool = False) -> dict[str, Any]:
    """Environment variables are text; in free-form `options`, as in AGENTCASCADE_ROUTER__OPTIONS__N=5, read as YAML."""
    typed: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            typed[key] = _typed(value, inside_options or key == "options")
        else:
            typed[key] = yaml.safe_load(value) if inside_options and isinstance(value, str) else value
    return typed


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}: `agentcascade init` writes a commented one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping such as 'mode: cascade', not {type(data).__name__}")
    return data


def _check_environment() -> None:
    """Unknown AGENTCASCADE_ variables are typos that pydantic-settings would pass over in silence."""
    known = set(CascadeConfig.model_fields)
    for name in os.environ:
        if name.startswith("AGENTCASCADE_"):
            top = name.removeprefix("AGENTCASCADE_").split("__")[0].lower()
            if top not in known and top not in {"cache", "config"}:
                raise ConfigError(f"environment variable {name} sets no known key: {did_you_mean(top, known)}")


def explain(error: ValidationError, model: type[BaseModel], source: str) -> ConfigError:
    """One sentence per problem, with the nearest known key for a typo. Values of secret fields are not shown."""
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(p) for p in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _keys(model, problem["loc"][:-1])
            lines.append(f"unknown key '{path}': {did_you_mean(str(problem['loc'][-1]), known)}")
        else:
            value = "" if "key" in path else f" (got {problem['input']!r:.60})"
            lines.append(f"{path}: {problem['msg']}{value}")
    return ConfigError(f"{source}: " + "; ".join(lines))


def _keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The field names of the section at `path`."""
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)
