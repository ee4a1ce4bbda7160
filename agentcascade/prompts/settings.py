"""Read `prompt.template`: texts in the configuration, in files, or of packages that register them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentcascade import registry
from agentcascade._util.bounds import load_yaml
from agentcascade.errors import ConfigError, describe
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.prompts.template import replaced

REGISTERED = re.compile(r"[\w-]+")
MAX_CHARACTERS = 1_000_000
"""Of a file of templates."""


def read_texts(setting: object) -> dict[str, str]:
    """Texts by name of a template, checked, from a setting of `prompt.template`; raises `ConfigError`.

    Args:
        setting: a mapping of names to texts or ``{file: path}``; or a text of several lines or with a ``$``, for the
            template ``demonstrations``; or a YAML file of such a mapping; or another file, for ``demonstrations``; or a
            name in the entry-point group ``agentcascade.prompts``: a function without arguments that gives a mapping.
    """
    if isinstance(setting, str):
        setting = _referred(setting)
    if not isinstance(setting, Mapping):
        raise ConfigError(f"a mapping of templates to texts, a text or a file is needed, not {type(setting).__name__}")
    texts = {str(name): _text(str(name), value) for name, value in setting.items()}
    replaced(TEMPLATES, texts)
    return texts


def _referred(setting: str) -> object:
    if "\n" in setting or "$" in setting:
        return {"demonstrations": setting}
    if REGISTERED.fullmatch(setting):
        return _registered(setting)
    text = _read(Path(setting))
    if not setting.endswith((".yaml", ".yml")):
        return {"demonstrations": text}
    try:
        return with_folder(load_yaml(text) or {}, Path(setting).parent)
    except ValueError as error:
        raise ConfigError(f"{setting} is not YAML: {error}") from error


def _registered(name: str) -> Any:
    texts = registry.load(registry.find("prompts", name, "template"), "template")
    try:
        return texts()
    except Exception as error:  # of somebody's package
        raise ConfigError(f"template '{name}' cannot be read: {describe(error)}") from error


def _text(name: str, value: object) -> str:
    if isinstance(value, Mapping) and set(value) == {"file"}:
        return _read(Path(str(value["file"])))
    if not isinstance(value, str):
        raise ConfigError(f"template '{name}': a text or {{file: path}} is needed, not {type(value).__name__}")
    return value


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a pipe is waited for, a device never ends
            raise OSError("it is no regular file")
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{path} has more than {MAX_CHARACTERS:,} characters: it is no template")
    return text


def with_folder(setting: object, folder: Path) -> object:
    """A setting of `prompt.template` in a file, whose own paths begin at that file's `folder`."""
    if isinstance(setting, Mapping):
        return {
            name: {"file": str(folder / str(value["file"]))}
            if isinstance(value, Mapping) and set(value) == {"file"}
            else value
            for name, value in setting.items()
        }
    if isinstance(setting, str) and not ("\n" in setting or "$" in setting or REGISTERED.fullmatch(setting)):
        return str(folder / setting)
    return setting
