"""What `serve` and `launch` set where nothing is configured, and how worker processes learn of it."""

from __future__ import annotations

import click
import pytest

from agentcascade.cli.launch import watching
from agentcascade.cli.passthrough import as_environment, is_unconfigured, passing, read_upstreams
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError

STUDENT = {"name": "openai/small"}


def test_without_a_configuration_models_are_the_clients_and_are_collected_or_shadowed() -> None:
    assert is_unconfigured(CascadeConfig())
    assert not is_unconfigured(CascadeConfig(teacher={"name": "openai/x"}))
    assert passing(CascadeConfig(), ())["mode"] == "collect"
    assert passing(CascadeConfig(student=STUDENT), ())["mode"] == "shadow"
    assert "mode" not in passing(CascadeConfig(mode="cascade", student=STUDENT), ())  # it was asked for


def test_worker_processes_read_the_same_from_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    more = passing(CascadeConfig(), ["openai=http://127.0.0.1:1/v1", "anthropic=http://127.0.0.1:2"])
    for name, value in as_environment(more).items():
        monkeypatch.setenv(f"AGENTCASCADE_{name}", value)
    config = CascadeConfig.load()
    assert config.mode == "collect"
    assert config.server.passthrough == "default"
    assert config.server.upstreams == {"openai": "http://127.0.0.1:1/v1", "anthropic": "http://127.0.0.1:2"}


def test_upstreams_are_read_with_and_without_their_api() -> None:
    assert read_upstreams(["http://gate/v1?a=b"]) == dict.fromkeys(("openai", "anthropic"), "http://gate/v1?a=b")
    assert read_upstreams(["anthropic=http://a", "openai=http://o"]) == {"anthropic": "http://a", "openai": "http://o"}
    with pytest.raises(click.BadParameter, match="did you mean 'anthropic'"):
        read_upstreams(["antropic=http://a"])


def test_of_several_cascades_one_is_named() -> None:
    several = CascadeConfig(cascades={"mail": {"student": STUDENT}, "chat": {}})
    with pytest.raises(ConfigError, match="name the cascade"):
        passing(several, ())
    config = watching(several, "mail", {}, 0)
    assert (config.mode, list(config.cascades), config.server.passthrough) == ("shadow", ["mail"], "mail")


def test_whatever_is_configured_a_launched_program_is_only_watched() -> None:
    acting = CascadeConfig(
        mode="cascade",
        teacher={"name": "openai/large", "price": {"input": 1, "output": 2}},
        student=STUDENT,
        rollout={"share": 0.5, "otherwise": "student"},
        collect={"plan": True},
        memory={"enabled": True},
        prompt={"teacher_sees_demonstrations": True, "teacher_sees_drafts": True},
        server={"host": "0.0.0.0", "port": 80},
    )
    config = watching(acting, None, {"openai": "http://gate/v1"}, 0)
    assert (config.mode, config.teacher, config.rollout.share) == ("shadow", None, 1.0)
    assert (config.collect.plan, config.memory.enabled, config.prompt.teacher_sees_demonstrations) == (False,) * 3
    assert not config.caching
    assert not config.prompt.teacher_sees_drafts
    assert (config.server.host, config.server.port) == ("127.0.0.1", 0)
    assert set(config.server.prices) == {"large"}
