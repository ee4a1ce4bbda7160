"""What child processes inherit: what they need to run, and no key."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

import agentcascade
from agentcascade._util.child_environment import ENGINE, HUB, child_environment, installer_environment
from agentcascade.config.load import CascadeConfig
from agentcascade.deprecation import AgentCascadeDeprecationWarning
from agentcascade.envs.appworld import installation
from agentcascade.vllm.engine import Engine, EngineSettings

SECRETS = {
    "OPENAI_API_KEY": "canary-1", "ANTHROPIC_API_KEY": "canary-2", "AWS_SECRET_ACCESS_KEY": "canary-3",
    "AGENTCASCADE_BANK__URL": "postgresql://u:canary-4@h/x", "GITHUB_TOKEN": "canary-5", "VLLM_API_KEY": "canary-6",
    "PGPASSWORD": "canary-7", "SOME_UNHEARD_OF_VARIABLE": "canary-8", "HF_ENDPOINT": "https://u:canary-9@h",
}  # fmt: skip


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        SECRETS | {"HF_TOKEN": "hub", "CUDA_VISIBLE_DEVICES": "1", "PIP_INDEX_URL": "https://u:p@i"}
    ).items():
        monkeypatch.setenv(name, value)


def test_neither_models_code_nor_engines_nor_installers_inherit_a_key() -> None:
    for made in (
        installation.child_variables(Path("/tmp/x")), child_environment(ENGINE, HUB), installer_environment(),
    ):  # fmt: skip
        assert "canary" not in json.dumps(made)
        assert made["PATH"]
    assert {"HF_TOKEN", "CUDA_VISIBLE_DEVICES"} <= child_environment(ENGINE, HUB).keys()
    assert "HF_TOKEN" not in installation.child_variables(Path("/tmp/x"))
    assert installer_environment()["PIP_INDEX_URL"] == "https://u:p@i"
    with pytest.warns(AgentCascadeDeprecationWarning, match="use .*child_variables instead"):
        assert "canary" not in json.dumps(installation.environment(Path("/tmp/x")))


def test_more_variables_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTCASCADE_CHILD_VARIABLES", "GITHUB_TOKEN, NOT_THERE")
    monkeypatch.delenv("AGENTCASCADE_BANK__URL")
    CascadeConfig.load()  # a variable of ours that is no key of the configuration
    assert child_environment()["GITHUB_TOKEN"] == "canary-5"


def test_an_engine_as_it_is_started_sees_no_key(tmp_path: Path) -> None:
    script = tmp_path / "vllm"
    script.write_text(f"#!{sys.executable}\nimport json, os\nprint(json.dumps(dict(os.environ)))\n")
    script.chmod(0o755)
    engine = Engine([str(script)], EngineSettings(model="m", name="m", cpu_memory=1), tmp_path / "log")
    engine.process.wait(30)
    seen = json.loads((tmp_path / "log").read_text())
    assert "canary" not in json.dumps(seen)
    assert (seen["VLLM_CPU_KVCACHE_SPACE"], seen["HF_TOKEN"]) == ("1", "hub")


def test_every_child_process_is_given_an_environment() -> None:
    root = Path(agentcascade.__file__).parent
    wrong = []
    for folder in (root, root / "envs", root / "routers", root / "retrievers"):
        for path in folder.rglob("*.py"):
            if "inside" in path.parts:
                continue  # it runs in a child that has its own
            if path.name == "foreground.py":
                continue  # the user's own program, which is given the user's environment (`agentcascade launch`)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                    "subprocess.Popen", "subprocess.run", "subprocess.check_output", "os.system", "os.popen",
                ):  # fmt: skip
                    named = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    if not any(made in named.get("env", "") for made in ("environment(", "child_variables(")):
                        wrong.append(f"{path}:{node.lineno}")
    assert wrong == []
