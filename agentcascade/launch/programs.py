"""Programs that `agentcascade launch` knows, and how each is pointed at a proxy: by its own variables or options.

One more is a function in `PROGRAMS`. What it sets must win over the program's own files, and leave its key alone.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentcascade.errors import ConfigError

LOOPBACK = "127.0.0.1,localhost,::1"


class Launch(NamedTuple):
    """How a program is run in front of a proxy.

    Attributes:
        command: With its arguments.
        environment: Changes to the environment.
        upstreams: By API (openai, anthropic), where the program would have sent its requests, if not to the provider.
        notes: What its user should know.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    upstreams: Mapping[str, str] = {}
    notes: Sequence[str] = ()


class Program(NamedTuple):
    """A program that is known by name."""

    prepare: Callable[[str, Sequence[str], Mapping[str, str]], Launch]
    """(root of the proxy's address, arguments, environment) → how it is run."""
    install: str
    """The command that installs it."""


def claude(root: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Launch:
    """Claude Code. `env` of its settings wins over the environment, so where that has an address ours is given last."""
    files = _claude_settings(environment)
    configured = {k: v for file in files for k, v in file.items()}
    both = {**environment, **configured}
    for name in ("BEDROCK", "VERTEX", "FOUNDRY", "MANTLE"):
        if both.get(f"CLAUDE_CODE_USE_{name}", "").lower() in ("1", "true", "yes", "on"):
            raise ConfigError(
                f"CLAUDE_CODE_USE_{name} is set: claude then asks a cloud of its own, and nothing would go through the "
                "proxy. Unset it, or take it out of Claude Code's settings.json"
            )
    upstream = both.get("ANTHROPIC_BASE_URL")
    own = {"ANTHROPIC_BASE_URL": root}
    command = ["claude", *arguments]
    if "ANTHROPIC_BASE_URL" in configured:
        if any(a == "--settings" or a.startswith("--settings=") for a in arguments):
            raise ConfigError(
                "Claude Code's settings.json sets ANTHROPIC_BASE_URL, which wins over the environment, and --settings "
                "can be given once: take one of them out"
            )
        command[1:1] = ["--settings", json.dumps({"env": own})]
    return Launch(command, own, {"anthropic": upstream} if upstream else {})


def codex(root: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Launch:
    """Codex, which knows no variable for it: a provider of its own, or the address of the one that it is set to.

    Its built-in provider cannot be changed, and speaks WebSocket first.
    """
    home = Path(environment.get("CODEX_HOME") or Path.home() / ".codex")
    config = _toml(home / "config.toml")
    name, known = config.get("model_provider", "openai"), config.get("model_providers")
    provider = known.get(name) if isinstance(known, Mapping) and isinstance(name, str) else None
    if isinstance(provider, Mapping) and isinstance(provider.get("base_url"), str):
        changed = {
            f"model_providers.{_key(name)}.base_url": f"{root}/v1",
            f"model_providers.{_key(name)}.supports_websockets": False,
        }
        return Launch(["codex", *_overrides(changed), *arguments], {}, {"openai": provider["base_url"]})
    keys = [k for k in ("CODEX_API_KEY", "OPENAI_API_KEY") if environment.get(k)]
    login = {"requires_openai_auth": True} if not keys or (home / "auth.json").exists() else {"env_key": keys[0]}
    fields = {"name": "agentcascade", "base_url": f"{root}/v1", "wire_api": "responses", **login}
    made = {"model_provider": "agentcascade"}
    made |= {f"model_providers.agentcascade.{k}": v for k, v in fields.items()}  # type: ignore[misc]
    upstream = config.get("openai_base_url") or environment.get("OPENAI_BASE_URL")
    return Launch(
        ["codex", *_overrides(made), *arguments], {}, {"openai": upstream} if isinstance(upstream, str) else {}
    )


def other(root: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Launch:
    """Any other: the variables that OpenAI's and Anthropic's SDKs and litellm read."""
    set_here = {"OPENAI_BASE_URL": f"{root}/v1", "OPENAI_API_BASE": f"{root}/v1", "ANTHROPIC_BASE_URL": root}
    set_here["ANTHROPIC_API_BASE"] = root
    upstreams = {
        api: found
        for api, names in (("openai", ("OPENAI_BASE_URL", "OPENAI_API_BASE")), ("anthropic", ("ANTHROPIC_BASE_URL",)))
        if (found := next((environment[n] for n in names if environment.get(n)), None))
    }
    return Launch(list(arguments), set_here, upstreams)


PROGRAMS: Mapping[str, Program] = {
    "claude": Program(claude, "npm install -g @anthropic-ai/claude-code"),
    "codex": Program(codex, "npm install -g @openai/codex"),
}


def without_http_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Changes to the environment by which no HTTP proxy stands between a program and this machine itself."""
    if not any(environment.get(n) or environment.get(n.lower()) for n in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")):
        return {}
    listed = environment.get("NO_PROXY") or environment.get("no_proxy")
    value = f"{listed},{LOOPBACK}" if listed else LOOPBACK
    return {"NO_PROXY": value, "no_proxy": value}


def _claude_settings(environment: Mapping[str, str]) -> list[dict[str, str]]:
    """`env` of Claude Code's settings files, the one that wins last."""
    home = Path(environment.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
    found = []
    for path in (home / "settings.json", Path(".claude/settings.json"), Path(".claude/settings.local.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        env = data.get("env") if isinstance(data, dict) else None
        found.append({k: v for k, v in env.items() if isinstance(v, str)} if isinstance(env, dict) else {})
    return found


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # a broken one is the program's to complain of
        return {}


def _overrides(values: Mapping[str, Any]) -> list[str]:
    """Codex's ``-c key=value``, values as TOML: JSON's texts and truth values are its own."""
    return [part for key, value in values.items() for part in ("-c", f"{key}={json.dumps(value)}")]


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else json.dumps(name)
