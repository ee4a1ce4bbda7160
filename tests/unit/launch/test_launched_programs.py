"""How known programs are pointed at a proxy: what their own files say must not win, their keys are left alone."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agentcascade.errors import ConfigError
from agentcascade.launch.programs import claude, codex, other, without_http_proxy

ROOT = "http://127.0.0.1:4321"


def overrides(command: list[str]) -> dict[str, Any]:
    """What Codex makes of its ``-c``: each a key and a TOML value."""
    texts = [command[i + 1] for i, word in enumerate(command) if word == "-c"]
    return tomllib.loads("\n".join(texts))


def test_claude_gets_its_address_by_the_variable(tmp_path: Path) -> None:
    launch = claude(ROOT, ["-p", "hi"], {"CLAUDE_CONFIG_DIR": str(tmp_path), "ANTHROPIC_API_KEY": "k"})
    assert launch == (["claude", "-p", "hi"], {"ANTHROPIC_BASE_URL": ROOT}, {}, ())


def test_claudes_settings_win_over_the_environment_and_ours_over_them(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"env": {"ANTHROPIC_BASE_URL": "https://gateway.example", "A": 1}}')
    environment = {"CLAUDE_CONFIG_DIR": str(tmp_path), "ANTHROPIC_BASE_URL": "https://not.asked"}
    launch = claude(ROOT, ["-p", "hi"], environment)
    assert launch.command[:2] == ["claude", "--settings"]
    assert json.loads(launch.command[2]) == {"env": {"ANTHROPIC_BASE_URL": ROOT}}
    assert launch.upstreams == {"anthropic": "https://gateway.example"}
    with pytest.raises(ConfigError, match=r"settings\.json sets ANTHROPIC_BASE_URL"):
        claude(ROOT, ["--settings=mine.json"], environment)


@pytest.mark.parametrize("where", ["environment", "settings"])
def test_claude_in_a_cloud_of_its_own_is_refused(tmp_path: Path, where: str) -> None:
    environment = {"CLAUDE_CONFIG_DIR": str(tmp_path)}
    if where == "environment":
        environment["CLAUDE_CODE_USE_BEDROCK"] = "1"
    else:
        (tmp_path / "settings.json").write_text('{"env": {"CLAUDE_CODE_USE_BEDROCK": "true"}}')
    with pytest.raises(ConfigError, match="CLAUDE_CODE_USE_BEDROCK"):
        claude(ROOT, [], environment)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"env": []}', "[" * 100_000])
def test_settings_that_cannot_be_read_are_the_programs_business(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    (tmp_path / "config.toml").write_text(text)
    assert claude(ROOT, [], {"CLAUDE_CONFIG_DIR": str(tmp_path)}).command == ["claude"]
    assert codex(ROOT, [], {"CODEX_HOME": str(tmp_path)}).upstreams == {}


@pytest.mark.parametrize(
    ("key", "login", "expected"),
    [
        ("", False, {"requires_openai_auth": True}),
        ("OPENAI_API_KEY", False, {"env_key": "OPENAI_API_KEY"}),
        ("CODEX_API_KEY", False, {"env_key": "CODEX_API_KEY"}),
        ("OPENAI_API_KEY", True, {"requires_openai_auth": True}),  # the login is what Codex itself would go by
    ],
)
def test_codex_keeps_its_key_or_its_login(tmp_path: Path, key: str, login: bool, expected: dict[str, Any]) -> None:
    if login:
        (tmp_path / "auth.json").write_text("{}")
    launch = codex(ROOT, ["exec", "hi"], {"CODEX_HOME": str(tmp_path), **({key: "sk-secret"} if key else {})})
    assert launch.command[-2:] == ["exec", "hi"]
    assert "sk-secret" not in str(launch)
    said = overrides(list(launch.command))
    provider = {"name": "agentcascade", "base_url": f"{ROOT}/v1", "wire_api": "responses", **expected}
    assert said == {"model_provider": "agentcascade", "model_providers": {"agentcascade": provider}}


def test_codexs_own_provider_keeps_all_but_its_address(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        'model_provider = "my.gate"\n[model_providers."my.gate"]\nname = "G"\nbase_url = "https://g.example/v1"\n'
        'env_key = "G_KEY"\n'
    )
    launch = codex(ROOT, [], {"CODEX_HOME": str(tmp_path)})
    said = overrides(list(launch.command))["model_providers"]
    assert said == {"my.gate": {"base_url": f"{ROOT}/v1", "supports_websockets": False}}
    assert launch.upstreams == {"openai": "https://g.example/v1"}


def test_any_other_program_keeps_where_it_was_pointed_as_the_upstream() -> None:
    launch = other(ROOT, ["python", "agent.py"], {"OPENAI_BASE_URL": "http://gate/v1"})
    assert launch.command == ["python", "agent.py"]
    assert launch.environment["OPENAI_BASE_URL"] == f"{ROOT}/v1"
    assert launch.environment["ANTHROPIC_BASE_URL"] == ROOT
    assert launch.upstreams == {"openai": "http://gate/v1"}


def test_an_http_proxy_does_not_stand_between_a_program_and_this_machine() -> None:
    assert without_http_proxy({}) == {}
    said = without_http_proxy({"https_proxy": "http://corp:3128", "NO_PROXY": "intra.example"})
    assert said["NO_PROXY"] == said["no_proxy"] == "intra.example,127.0.0.1,localhost,::1"
