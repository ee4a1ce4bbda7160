from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest

from agentcascade import ScriptedModel, build, registry
from agentcascade.assembly.components import format_of, make_model, make_router
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ModelConfig, RouterConfig
from agentcascade.errors import ConfigError, MissingExtra
from agentcascade.types import Usage
from tests.plugins import install_here


def test_a_router_of_another_package_is_named_like_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        from agentcascade.routers.step.consistency import AgreementThreshold

        class Cautious(AgreementThreshold):
            pass
    """
    install_here(monkeypatch, tmp_path, "cautious", source, {"routers": {"cautious": "cautious:Cautious"}})
    router = make_router(RouterConfig(name="cautious", options={"n": 5}))
    assert type(router).__module__ == "cautious"
    with pytest.raises(ConfigError, match=r"router\.name 'cautios' is unknown: did you mean 'cautious'\?"):
        make_router(RouterConfig(name="cautios"))
    with pytest.raises(ConfigError, match=r"router\.name 'cautious' does not take \{'vots': 3\}"):
        make_router(RouterConfig(name="cautious", options={"vots": 3}))


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        ("import a_package_that_nobody_has", "broken:Router", "ModuleNotFoundError: No module named 'a_package"),
        ("1 / 0", "broken:Router", "ZeroDivisionError"),
        ("raise SystemExit(3)", "broken:Router", "SystemExit: 3"),
        ("", "broken:Router", "AttributeError"),
        ("", "not_there_at_all:Router", "ModuleNotFoundError"),
    ],
)
def test_a_part_that_cannot_be_imported_names_its_distribution(
    source: str, value: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_here(monkeypatch, tmp_path, "broken", source, {"routers": {"acme": value}})
    with pytest.raises(
        ConfigError, match=rf"router\.name 'acme' cannot be loaded: acme-broken 1\.2 .*{reason}"
    ) as caught:
        make_router(RouterConfig(name="acme"))
    assert value in str(caught.value)
    assert make_router(RouterConfig(name="unanimity")).name == "unanimity", "other parts are not touched"


def test_an_error_of_ours_at_import_is_raised_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        from agentcascade.errors import MissingExtra
        raise MissingExtra("torch", "train", "this router")
    """
    install_here(monkeypatch, tmp_path, "heavy", source, {"routers": {"acme": "heavy:Router"}})
    with pytest.raises(MissingExtra, match="this router"):
        make_router(RouterConfig(name="acme"))


def test_nobody_takes_the_name_of_one_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_here(monkeypatch, tmp_path, "greedy", "class Yes: pass", {"routers": {"unanimity": "greedy:Yes"}})
    assert type(make_router(RouterConfig(name="unanimity"))).__module__ == "agentcascade.routers.step.consistency"


MODELS = """
    from agentcascade import ScriptedModel

    def by_prefix(config, count):
        return ScriptedModel([f"Action: {config.options['word']}"], name=config.name)

    def by_name(config, count):
        return ScriptedModel(["Action: exactly"], name=config.name)
"""


def test_models_of_another_package_are_found_by_name_and_by_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"acme/": "acme:by_prefix", "acme/one": "acme:by_name", "openai/ours": "acme:by_name"}
    install_here(monkeypatch, tmp_path, "acme", MODELS, {"models": points})

    def said(name: str, **settings: Any) -> str:
        model = make_model(ModelConfig(name=name, **settings), len)
        completion = asyncio.run(model.complete([{"role": "user", "content": "hi"}]))
        assert model.name == name
        return str(completion.messages[0]["content"])

    assert said("acme/any", options={"word": "look"}) == "Action: look"
    assert said("acme/one") == said("openai/ours") == "Action: exactly"
    assert type(make_model(ModelConfig(name="openai/gpt-4.1-mini"), len)).__name__ == "OpenAIModel", (
        "of a real provider"
    )
    priced = make_model(ModelConfig(name="acme/one", price={"input": 2, "output": 0}), len)
    assert priced.dollars(Usage(input=1_000_000)) == 2, "the price of the configuration, whoever made the model"


def test_a_model_that_only_resembles_registered_ones_is_named() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .offline/expert."):
        make_model(ModelConfig(name="offline/expart"), len)


def test_an_action_format_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        from agentcascade.actions import RegexActions

        def shell(*, pattern=None, fold=False, ordered=()):
            return RegexActions(pattern or r"[$] (.+)", fold)
    """
    install_here(monkeypatch, tmp_path, "shells", source, {"actions": {"shell": "shells:shell"}})
    config = CascadeConfig.load(actions={"format": "shell", "fold": True})
    assert format_of(config).parse({"role": "assistant", "content": "I look.\n$ LS -l"}).key == "ls -l"
    with pytest.raises(ConfigError, match=r"actions\.format 'shel' is unknown: did you mean 'shell'\?"):
        format_of(CascadeConfig.load(actions={"format": "shel"}))


JUDGING = """
    verdicts = []

    class Strict:
        def __init__(self, word):
            self.word = word

        def __call__(self, trajectory):
            verdicts.append(self.word in trajectory.steps[-1].action)
            return verdicts[-1]

    class Aliases:
        name = "aliases"

        def __init__(self, same):
            self.same = same

        async def merge(self, situation, actions, ask):
            return {key: self.same[key] for action in actions if (key := action.key) in self.same}
"""


def test_a_judge_and_a_merger_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"judges": {"strict": "judging:Strict"}, "mergers": {"aliases": "judging:Aliases"}}
    install_here(monkeypatch, tmp_path / "site", "judging", JUDGING, groups)
    same = {"peek": "look"}

    def played(word: str, **settings: Any) -> tuple[bool, str]:
        actions: Any = {"format": "react", **settings}
        samples = ["Action: look", "Action: peek", "Action: look"]
        with build(
            teacher=ScriptedModel(["Action: wait"], name="teacher"),
            student=ScriptedModel(lambda messages, sample: samples[sample], name="student"),
            bank={"url": "sqlite://"},
            retrieval={"k": 0},
            judge={"name": "strict", "options": {"word": word}},
            actions=actions,
        ) as cascade:
            episode = cascade.sync_episode(goal="see")
            answer = episode.complete([{"role": "user", "content": "see"}])
            episode.finish()
            return importlib.import_module("judging").verdicts[-1], answer.model

    assert played("look", mergers=[{"name": "aliases", "options": {"same": same}}]) == (True, "student")
    assert played("look") == (False, "teacher"), "the samples differ, and the teacher waits"
    with pytest.raises(ConfigError, match=r"actions\.mergers 'alias' is unknown: did you mean 'aliases'"):
        played("look", mergers=[{"name": "alias"}])
    with pytest.raises(ConfigError, match=r"judge\.name 'lenient' is unknown"):
        build(teacher=ScriptedModel(["a"]), mode="teacher", judge={"name": "lenient"}, bank={"url": "sqlite://"})
    with pytest.raises(ConfigError, match=r"both judge\.name 'strict' and judge\.model are set"):
        CascadeConfig.load(judge={"name": "strict", "model": {"name": "offline/reader"}})


def test_a_group_that_is_empty_says_so() -> None:
    with pytest.raises(ConfigError, match="no weather are registered"):
        registry.find("weather", "sun", "weather.name")
