"""Templates of prompts: their fields, their lines, and where a configuration takes them from."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.config.load import CascadeConfig, variants
from agentcascade.config.sections import PromptConfig
from agentcascade.errors import ConfigError
from agentcascade.prompts.defaults import TEMPLATES, texts
from agentcascade.prompts.prompts import DEFAULT, Prompts, prompts_of
from agentcascade.prompts.template import Template
from tests.plugins import install_here

hostile = st.text(max_size=30) | st.sampled_from(["$a", "%(b)s", "%", "${b}", "$$", "{a}", "%(a)s", "\n\n$b\n", "\\1"])


@given(hostile, hostile)
def test_what_is_put_in_stands_there_as_it_is(one: str, two: str) -> None:
    template = Template("<$a|${b}> $$5 {a} 9% %(a)s $a", required=("a",), others=("b",))
    assert template.render(a=one, b=two) == f"<{one}|{two}> $5 {{a}} 9% %(a)s {one}"


@given(
    st.lists(st.sampled_from(["$a-", "${b}", "$$", "words", "\n", "{c}", " ", "%", "%s"]), max_size=12).map("".join),
    hostile,
)
def test_fields_are_those_of_string_templates(text: str, value: str) -> None:
    template = Template(text, others=("a", "b"))
    assert template.render(a=value, b="B") == string.Template(text.rstrip("\n")).substitute(a=value, b="B")


@pytest.mark.parametrize(
    ("given_", "rendered"),
    [
        ({}, "Goal: g\nEnd"),
        ({"plan": "p"}, "Goal: g\nPlan: p\nEnd"),
        ({"mark": "m"}, "Goal: g\n\nm\n\nEnd"),
        ({"plan": "p", "mark": "m"}, "Goal: g\nPlan: p\n\nm\n\nEnd"),
    ],
)
def test_a_line_of_an_empty_optional_field_is_left_out(given_: dict[str, str], rendered: str) -> None:
    lines = "Goal: $goal\nPlan: $plan\n\n$mark\n\nEnd" if "mark" in given_ else "Goal: $goal\nPlan: $plan\nEnd"
    assert Template(lines, required=("goal",), optional=("plan", "mark")).render(goal="g", **given_) == rendered
    together = Template("$goal ($plan)\n$plan$mark", required=("goal",), optional=("plan", "mark"))
    assert together.render(goal="g") == "g ()", "what is required is never left out"


def test_of_two_blank_lines_around_what_is_left_out_one_stays() -> None:
    template = Template("a\n\n$mark\n\nb\n\n$mark", optional=("mark",))
    assert template.render(mark="m") == "a\n\nm\n\nb\n\nm"
    assert template.render() == "a\n\nb"
    assert template.blocks() == ["a", "b"]
    assert template.blocks(mark="m") == ["a", "m", "b", "m"]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_each_template_is_checked_for_its_fields_at_load(name: str, tmp_path: Path) -> None:
    template = TEMPLATES[name]
    whole = " ".join(f"${field}" for field in (*template.required, *template.optional, *template.others))
    config = CascadeConfig.load(prompt={"template": {name: whole}})
    assert prompts_of(config.prompt).templates[name].text == whole
    with pytest.raises(ConfigError, match=rf"prompt\.template: template '{name}': unknown field \$nonsense"):
        CascadeConfig.load(prompt={"template": {name: f"{whole} $nonsense"}})
    for field in template.required:
        without = " ".join(f"${f}" for f in template.required if f != field)
        with pytest.raises(ConfigError, match=rf"template '{name}': missing \${field}\b"):
            CascadeConfig.load(prompt={"template": {name: without}})


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"jugde": "$episode"}, "no template 'jugde': did you mean 'judge'"),
        ({"judge": "$episodes"}, "unknown field $episodes: did you mean 'episode'"),
        ({"judge": "it costs $5: $episode"}, "template 'judge': a lone $ before '5: $episode': write $$"),
        ({"judge": {"file": "nowhere.txt"}}, "there is no file nowhere.txt"),
        ({"judge": {"path": "nowhere.txt"}}, "template 'judge': a text or {file: path} is needed"),
        ({"judge": 5}, "template 'judge': a text or {file: path} is needed, not int"),
        ("nowhere.yaml", "there is no file nowhere.yaml"),
        ("/dev/null", "/dev/null cannot be read: it is no regular file"),
        ("no\0where.txt", "cannot be read"),
        ("nobodys", "template 'nobodys' is unknown: known: default"),
        (["$examples"], "a mapping of templates to texts, a text or a file is needed, not list"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(setting: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        CascadeConfig.load(prompt={"template": setting})


def test_what_is_no_file_of_templates_by_size_or_depth_is_refused(tmp_path: Path) -> None:
    large, deep = tmp_path / "large.txt", tmp_path / "deep.yaml"
    large.write_text("$examples" * 200_000, encoding="utf-8")
    deep.write_text("[" * 5_000, encoding="utf-8")
    for path, problem in ((large, "more than 1,000,000 characters"), (deep, "is not YAML")):
        with pytest.raises(ConfigError, match=problem):
            CascadeConfig.load(prompt={"template": str(path)})


def test_texts_come_from_files_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "etc"
    (there / "more").mkdir(parents=True)
    (there / "judge.txt").write_text("Judge:\n$episode\n", encoding="utf-8")
    (there / "more" / "planned.txt").write_text("So you plan:\n$plan\n", encoding="utf-8")
    (there / "more" / "prompts.yaml").write_text(
        "planned: {file: planned.txt}\nheading: 'No. $number'\n", encoding="utf-8"
    )
    config = there / "agentcascade.yaml"
    config.write_text(
        "prompt: {template: {judge: {file: judge.txt}}}\n"
        "cascades:\n  a: {}\n  b: {prompt: {template: more/prompts.yaml}}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    loaded = CascadeConfig.load(config)
    assert loaded.prompt.template == {"judge": "Judge:\n$episode\n"}
    made = variants(loaded)
    assert made["a"].prompt.template == loaded.prompt.template
    assert made["b"].prompt.template["planned"] == "So you plan:\n$plan\n"
    assert prompts_of(made["b"].prompt).render("heading", number="7") == "No. 7"
    (there / "judge.txt").unlink()  # what was read is in the configuration, which workers elsewhere get
    assert CascadeConfig.model_validate(loaded.model_dump(exclude_unset=True)).prompt == loaded.prompt


def test_one_text_is_that_of_the_demonstrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Seen before, up to $mark:\n$examples\n$mark"
    (tmp_path / "seen.txt").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTCASCADE_PROMPT__TEMPLATE", "seen.txt")
    assert CascadeConfig.load().prompt.template == {"demonstrations": text}
    assert CascadeConfig.load(prompt={"template": text}).prompt.template == {"demonstrations": text}


def test_a_package_registers_its_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CascadeConfig.load(prompt={"template": "default"}).prompt.template == texts()
    source = """
        def texts():
            return {"planned": "Mine: $plan"}

        def broken():
            raise OSError("the disk is gone")
    """
    points = {"mine": "own_prompts:texts", "broken": "own_prompts:broken"}
    install_here(monkeypatch, tmp_path, "own_prompts", source, {"prompts": points})
    assert CascadeConfig.load(prompt={"template": "mine"}).prompt.template == {"planned": "Mine: $plan"}
    with pytest.raises(ConfigError, match="template 'broken' cannot be read: OSError: the disk is gone"):
        CascadeConfig.load(prompt={"template": "broken"})


def test_equal_settings_are_one_object_of_prompts() -> None:
    assert prompts_of(PromptConfig()) is DEFAULT
    plan = {"plan": "Plan!"}
    assert prompts_of(PromptConfig(template=plan)) is prompts_of(PromptConfig(template=plan, token_budget=1))
    assert prompts_of(PromptConfig(template=plan)) is not prompts_of(PromptConfig(template=plan, quoting="plain"))
    assert Prompts(texts=texts()).templates.keys() == TEMPLATES.keys()
