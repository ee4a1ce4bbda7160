"""A YAML file that is none, whatever its reader raises: a `ConfigError` that names it, and in no unbounded time."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from agentcascade._util.bounds import OutOfBounds, load_yaml
from agentcascade.cli.bench_options import read_rule
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError
from agentcascade.prompts.settings import read_texts
from agentcascade.routers.tuning import fragments

MULTIPLIED = "\n".join(
    ["m0: &m0 [1]", *(f"m{i}: &m{i} [{', '.join([f'*m{i - 1}'] * 300)}]" for i in range(1, 7))]
)  # fmt: skip
MERGED = "\n".join(["m0: &m0 {k: 1}", *(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}], k{i}: 1}}" for i in range(1, 40))])
BROKEN = {
    "date": "seed: 2026-13-45",
    "bool": "seed: !!bool perhaps",
    "timestamp": "seed: !!timestamp now",
    "int": "seed: !!int many",
    "deep": "[" * 5000,
    "itself": "cascades: &c {cascades: *c}",
    "multiplied": MULTIPLIED,
    "merged": MERGED,
    "merged by many": "a: &a [" + "{}, " * 3000 + "]\nb: [" + "{<<: *a}, " * 3000 + "]",
    "merged set": MERGED + "\nz: !!set {<<: *m39}",
    "merged into itself": "cascades: &c {<<: [*c, *c]}",
    "number": "seed: 1" + ":59" * 5000,
    "large": "seed: 1" + ":59" * 200 + ".5",
    "no number": "seed: !!int ''",
    "syntax": "a: [",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_whatever_is_wrong_with_a_file_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    for read in (CascadeConfig.load, read_rule, fragments.read, lambda path: read_texts(str(path))):
        with pytest.raises(ConfigError, match=r"broken\.yaml"):
            read(file)


def test_an_option_of_the_environment_that_is_no_yaml_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTCASCADE_ROUTER__NAME", "unanimity")
    monkeypatch.setenv("AGENTCASCADE_ROUTER__OPTIONS__SECRET", "@hunter2[")
    with pytest.raises(ConfigError, match=r"'secret'.*quotes") as raised:
        CascadeConfig.load()
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_aliases_count_each_time() -> None:
    with pytest.raises(OutOfBounds, match="more than"):
        load_yaml(MULTIPLIED)
    assert load_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


def test_what_is_merged_counts_each_time_and_merges_as_before() -> None:
    with pytest.raises(OutOfBounds, match="merged ones"):
        load_yaml(MERGED)
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, *a], z: 4}\nd: {<<: *a, <<: *b}\ne: {y: 5, <<: *a}"
    assert load_yaml(text)["c"] == {"x": 1, "y": 3, "z": 4}, "the first of several wins, whatever PyYAML's version"
    assert load_yaml(text)["d"] == {"x": 1, "y": 3}
    assert load_yaml(text)["e"] == {"x": 1, "y": 5}
    cheap_first = "cheap: &cheap {price: 1}\ndear: &dear {price: 9, size: 2}\nmodel: {<<: [*cheap, *dear]}"
    assert load_yaml(cheap_first)["model"] == {"price": 1, "size": 2}
    with pytest.raises(ValueError, match="for merging"):
        load_yaml("a: &a [1]\nb: {<<: *a}")
