"""A YAML file that is none, whatever its reader raises: a `ConfigError` that names it, and in no unbounded time."""

from __future__ import annotations

import traceback

import pytest

from agentcascade._util.bounds import OutOfBounds, load_yaml
from agentcascade.cli.bench_options import read_rule
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError
from agentcascade.prompts.settings import read_texts

MULTIPLIED = "\n".join(
    ["m0: &m0 [1]", *(f"m{i}: &m{i} [{', '.join([f'*m{i - 1}'] * 300)}]" for i in range(1, 7))]
)  # fmt: skip
BROKEN = {
    "date": "seed: 2026-13-45",
    "bool": "seed: !!bool perhaps",
    "timestamp": "seed: !!timestamp now",
    "int": "seed: !!int many",
    "deep": "[" * 5000,
    "itself": "cascades: &c {cascades: *c}",
    "multiplied": MULTIPLIED,
    "syntax": "a: [",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_whatever_is_wrong_with_a_file_is_told(tmp_path, text):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    for read in (CascadeConfig.load, read_rule, lambda path: read_texts(str(path))):
        with pytest.raises(ConfigError, match=r"broken\.yaml"):
            read(file)


def test_an_option_of_the_environment_that_is_no_yaml_is_named_and_not_shown(monkeypatch):
    monkeypatch.setenv("AGENTCASCADE_ROUTER__NAME", "unanimity")
    monkeypatch.setenv("AGENTCASCADE_ROUTER__OPTIONS__SECRET", "@hunter2[")
    with pytest.raises(ConfigError, match=r"'secret'.*quotes") as raised:
        CascadeConfig.load()
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_aliases_count_each_time():
    with pytest.raises(OutOfBounds, match="more than"):
        load_yaml(MULTIPLIED)
    assert load_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}
