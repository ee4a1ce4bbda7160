"""The schema of the configuration takes what the configuration takes, and marks what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from agentcascade.cli import main
from agentcascade.config.load import CascadeConfig
from agentcascade.config.schema import MODELINE, configuration_schema
from agentcascade.errors import ConfigError

SCHEMA = configuration_schema()


def problems(settings: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(settings)]


def test_it_is_a_schema_with_every_section() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == set(CascadeConfig.model_fields)


def test_init_writes_it_beside_the_file_that_names_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "agentcascade.yaml")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "agentcascade.yaml").read_text()
    assert text.startswith(MODELINE)
    schema = json.loads((tmp_path / MODELINE.strip().rpartition("=")[2]).read_text())
    assert schema == SCHEMA
    assert not list(Draft202012Validator(schema).iter_errors(yaml.safe_load(text)))


@pytest.mark.parametrize(
    "settings",
    [
        {"ladder": ["openai/gpt-5-mini@low", {"model": "openai/gpt-5", "effort": 4096}]},
        {"student": {"name": "openai/gpt-4.1-mini", "price": {"input": "0.4", "output": 1.6}, "effort": "0.5x"}},
        {"router": {"latch": True, "stuck": {}}, "caching": False},
        {"prompt": {"template": "prompts.yaml"}},
        {"budgets": {"per_episode": 0.5, "per_namespace": "100"}, "retention": {"decisions": None}},
        {"cascades": {"mail": {"mode": "collect", "bank": {"namespace": "mail"}}}},
        {"judge": {}, "shadow": {"windows": [[2, 2]], "ks": [3, 6]}},
        {"teacher": "openai/gpt-4.1", "student": "openai/gpt-4.1-mini", "router": "unanimity"},
        {"teacher": {"model": "openai/gpt-4.1", "effort": "low"}, "judge": {"model": "openai/gpt-4.1"}},
    ],
)
def test_what_the_configuration_takes(settings: dict[str, Any], tmp_path: Path) -> None:
    assert problems(settings) == []
    (tmp_path / "prompts.yaml").write_text("{}")
    (tmp_path / "agentcascade.yaml").write_text(yaml.safe_dump(settings))
    CascadeConfig.load(tmp_path / "agentcascade.yaml")


@pytest.mark.parametrize("switch", ["on", "off"])
def test_switches_as_an_editor_reads_them(switch: str) -> None:
    assert problems({"caching": switch, "router": {"latch": switch}, "actions": {"fold": switch}}) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"retreival": {"k": 3}},
        {"retrieval": {"kk": 3}},
        {"retrieval": {"k": -1}},
        {"mode": "cascades"},
        {"student": {"temperature": 0.1}},
        {"student": {"name": "openai/gpt-4.1-mini", "model": "openai/gpt-4.1-mini"}},
        {"teacher": ["openai/gpt-4.1"]},
        {"bank": "sqlite:///agentcascade.db"},
        {"audit": {"rate": 2}},
        {"cascades": {"mail": {"server": {"port": 1}}}},
        {"cascades": {"mail": {"retrieval": {"kk": 3}}}},
    ],
)
def test_what_it_refuses(settings: dict[str, Any]) -> None:
    assert problems(settings)
    from agentcascade.config.load import variants

    with pytest.raises(ConfigError):
        variants(CascadeConfig.load(None, **settings))
