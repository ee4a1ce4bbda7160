from __future__ import annotations

from pathlib import Path

import pytest
from plugins import install_here

from agentcascade import registry
from agentcascade.assembly.components import make_router
from agentcascade.config.sections import RouterConfig
from agentcascade.errors import ConfigError, MissingExtra


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


def test_a_group_that_is_empty_says_so() -> None:
    with pytest.raises(ConfigError, match="no weather are registered"):
        registry.find("weather", "sun", "weather.name")
