"""JSON schema of the configuration, by which editors complete and check ``agentcascade.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentcascade.config.load import WHOLE, CascadeConfig
from agentcascade.config.section import NamedSection

FILE = "agentcascade.schema.json"
"""What it is called beside a configuration."""
MODELINE = f"# yaml-language-server: $schema={FILE}\n"
"""First line of a configuration whose schema lies beside it."""
SWITCH = {"enum": ["on", "off", "yes", "no"]}
"""YAML 1.1's booleans, which YAML 1.2, and so an editor, takes for texts."""


def configuration_schema() -> dict[str, Any]:
    """The schema of a whole file. It takes what `CascadeConfig.load` takes; the values that depend on each other, and
    names of models and plug-ins, are checked there alone.

    Returns:
        A JSON schema (draft 2020-12).

    >>> from agentcascade.config.schema import configuration_schema
    >>> configuration_schema()["properties"]["mode"]["enum"]
    ['teacher', 'collect', 'shadow', 'cascade', 'student']
    """
    schema = _with_switches(CascadeConfig.model_json_schema(mode="validation"))
    found: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    found["title"] = "agentcascade.yaml"
    parts = found["properties"]
    for section in _named_sections(NamedSection):
        if section.__name__ in found["$defs"]:
            found["$defs"][section.__name__] = _or_bare_name(found["$defs"][section.__name__], section.aliases)
    found["$defs"]["PromptConfig"]["properties"]["template"] = {
        "anyOf": [{"type": "object"}, {"type": "string"}],
        "description": "name: text or {file: path}; or a YAML file of these, or a plug-in's name",
    }
    latch = found["$defs"]["RouterConfig"]["anyOf"][1]["properties"]["latch"]
    latch["enum"] = [*latch["enum"], "on", "off", True, False]
    latch.pop("type", None)
    own = {name: part for name, part in parts.items() if name not in WHOLE}
    parts["cascades"]["additionalProperties"] = {"type": "object", "properties": own, "additionalProperties": False}
    return found


def _named_sections(section: type[NamedSection]) -> Iterator[type[NamedSection]]:
    """A section and those that are made from it."""
    yield section
    for further in section.__subclasses__():
        yield from _named_sections(further)


def _or_bare_name(schema: dict[str, Any], aliases: Sequence[str]) -> dict[str, Any]:
    """The schema of a section for which a bare name may stand, and whose name may be under an alias."""
    schema["properties"] |= {alias: {"type": "string", "description": "in place of `name`"} for alias in aliases}
    if "name" in schema.get("required", ()) and aliases:
        others = [name for name in schema.pop("required") if name != "name"]
        schema |= {"required": others} if others else {}
        schema["oneOf"] = [{"required": [name]} for name in ("name", *aliases)]
    return {"anyOf": [{"type": "string"}, schema]}


def _with_switches(schema: Any) -> Any:
    """A schema whose booleans may be written as in YAML 1.1, too."""
    if isinstance(schema, list):
        return [_with_switches(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {name: _with_switches(part) for name, part in schema.items()}
    if found.get("type") == "boolean":
        del found["type"]
        found["anyOf"] = [{"type": "boolean"}, SWITCH]
    return found
