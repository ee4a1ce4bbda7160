"""The page of the configuration, from its pydantic models: every key with type, default and meaning."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from cells import code, prose, table
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agentcascade.config.load import CascadeConfig

HEAD = """\
# Configuration

This page is made from the schema of this version. `agentcascade init` writes the same keys into a commented
`agentcascade.yaml`. [Configure](../how-to/configure.md) says where values may come from and which of them wins: a
keyword of `agentcascade.build`, else an environment variable, else the file.

A key in a table below belongs to the section that its heading names: `k` of *retrieval* is `retrieval: {k: 6}` in the file,
`build(retrieval={"k": 6})` in Python, and `AGENTCASCADE_RETRIEVAL__K=6` in the environment. *none* is a value that is not set.

## The whole
"""
NAMES = {bool: "true / false", int: "integer", float: "number", str: "text", Decimal: "number", Path: "path"}
NAMES |= {SecretStr: "text, kept secret", object: "anything", Any: "anything"}


def page() -> str:
    """The page, in Markdown."""
    sections = dict(_sections())
    comments = _comments()
    parts = [HEAD, _table(CascadeConfig, "", sections, comments)]
    for model, path in sections.items():
        about = (model.__doc__ or "").strip() if model.__doc__ != BaseModel.__doc__ else ""
        parts += [f"\n## {path} {{ #{_anchor(path)} }}\n", about, _table(model, path, sections, comments)]
    return "\n".join(parts)


def _sections() -> Iterator[tuple[type[BaseModel], str]]:
    """Every section with the place where it is first used, in the order of the configuration."""
    seen: set[type[BaseModel]] = set()
    waiting: list[tuple[type[BaseModel], str]] = [(CascadeConfig, "")]
    while waiting:
        model, path = waiting.pop(0)
        below = []
        for name, field in model.model_fields.items():
            for found in _models(field.annotation):
                if found not in seen:
                    seen.add(found)
                    below.append((found, f"{path}.{name}".lstrip(".")))
        if model is not CascadeConfig:
            yield model, path
        waiting = [*below, *waiting]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _anchor(path: str) -> str:
    return path.replace(".", "-").replace("_", "-")


def _table(
    model: type[BaseModel], path: str, sections: Mapping[type[BaseModel], str], comments: Mapping[str, str]
) -> str:
    rows = []
    for name, field in model.model_fields.items():
        told = field.description or _about(field) or comments.get(f"{path}.{name}".lstrip("."), "")
        rows.append(
            [
                code(name),
                _type(field.annotation, sections) + _limits(field),
                _default(field),
                _capitalized(prose(told.replace("docs/how-to/roll-out.md", "Roll out"))),
            ]
        )
    return table(["key", "type", "default", "meaning"], rows)


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _about(field: FieldInfo) -> str:
    """The first line of the docstring of the section that a field holds."""
    for section in _models(field.annotation):
        if section.__doc__ and section.__doc__ != BaseModel.__doc__:
            return section.__doc__.partition("\n")[0].rstrip(".")
    return ""


def _type(annotation: Any, sections: Mapping[type[BaseModel], str]) -> str:
    if annotation in sections:
        path = sections[annotation]
        return f"[{path}](#{_anchor(path)})"
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0], sections)
    if origin is Literal:
        return ", ".join(code(part) for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part, sections) for part in parts if part is not type(None))
    if origin is tuple and Ellipsis not in parts:
        return "pair" if len(parts) == 2 else "list"
    if origin in (tuple, list):
        return f"list of {_type(parts[0], sections)}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {_type(parts[0], sections)} to {_type(parts[1], sections)}"
    return NAMES[annotation]


def _limits(field: FieldInfo) -> str:
    signs = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
    found = [
        f"{sign} {getattr(m, name):g}" for m in field.metadata for k, (sign, name) in signs.items() if isinstance(m, k)
    ]
    return f" {', '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None:
        return "none"
    if isinstance(value, BaseModel):
        set_ones = value.model_dump(exclude_unset=True, mode="json")
        return code(set_ones) if set_ones else "below"
    if value in ((), {}, ""):
        return "empty"
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(", ".join(map(str, value)) if isinstance(value, tuple) else value)


def _comments() -> dict[str, str]:
    """What the commented file that `agentcascade init` writes says of a key, for keys without a description."""
    found: dict[str, str] = {}
    section = ""
    for line in files("agentcascade.cli").joinpath("agentcascade.yaml").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"(\w+):", line):
            section = match[1]
            key = section
        elif match := re.match(r"  (?:# )?(\w+):", line):
            key = f"{section}.{match[1]}"
        else:
            continue
        _, mark, comment = line.partition(" # ") if not line.lstrip().startswith("#") else line[3:].partition(" # ")
        if mark:
            found.setdefault(key, comment.lstrip("# ").strip())
    return found
