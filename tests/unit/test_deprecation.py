"""Deprecations warn at the caller's line, say what to use instead, and what was to go by this version is gone."""

from __future__ import annotations

import warnings
from importlib import import_module
from types import ModuleType

import pytest

import agentcascade.routers  # noqa: F401 - declares what moved, before any test puts other declarations in its place
from agentcascade import deprecation
from agentcascade._version import __version__
from agentcascade.deprecation import AgentCascadeDeprecationWarning, deprecated, moved_names, renamed_argument


@pytest.fixture(autouse=True)
def _own_removals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "REMOVALS", {})


def test_a_deprecated_function_works_and_warns_where_it_is_called() -> None:
    @deprecated(since="0.2", removed_in="0.4", instead="agentcascade.add")
    def plus(a: int, b: int = 1) -> int:
        """A sum."""
        return a + b

    with pytest.warns(AgentCascadeDeprecationWarning) as caught:
        assert plus(2, b=3) == 5
    assert caught[0].filename == __file__
    assert "plus is deprecated since 0.2 and gone in 0.4: use agentcascade.add instead" in str(caught[0].message)
    assert (plus.__name__, plus.__doc__) == ("plus", "A sum.")
    assert [*deprecation.REMOVALS.values()] == ["0.4"]


async def test_a_renamed_argument_is_taken_by_its_old_name() -> None:
    @renamed_argument("samples", "n", since="0.2", removed_in="0.4")
    async def draw(*, n: int) -> int:
        return n

    with pytest.warns(AgentCascadeDeprecationWarning, match=r"draw\(samples=\) .*: use n= instead"):
        assert await draw(samples=3) == 3  # type: ignore[call-arg]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await draw(n=4) == 4
    with pytest.raises(TypeError, match="'samples' and 'n'"):
        await draw(samples=3, n=3)  # type: ignore[call-arg]


def test_a_name_that_moved_is_found_where_it_was() -> None:
    old = ModuleType("acme")
    homes = {"Price": "agentcascade.models.pricing:Price", "tokens": "agentcascade.models.tokens"}
    old.__getattr__ = moved_names("acme", homes, since="0.2", removed_in="0.4")  # type: ignore[method-assign]
    with pytest.warns(AgentCascadeDeprecationWarning, match=r"acme.Price .*: use agentcascade.models.pricing.Price"):
        assert old.Price is import_module("agentcascade.models.pricing").Price
    with pytest.warns(AgentCascadeDeprecationWarning):
        assert old.tokens is import_module("agentcascade.models.tokens")
    with pytest.raises(AttributeError, match="module 'acme' has no attribute 'nothing'"):
        _ = old.nothing


def test_modules_of_routers_warn_where_their_family_is_left_out() -> None:
    with pytest.warns(AgentCascadeDeprecationWarning, match=r"use agentcascade\.routers\.tier\.ppo instead") as caught:
        from agentcascade.routers import ppo
    assert caught[0].filename == __file__
    assert ppo.__name__ == "agentcascade.routers.tier.ppo"


def test_what_was_to_go_by_this_version_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert deprecation.REMOVALS
    now = [int(part) for part in __version__.split(".")]
    assert [name for name, gone in deprecation.REMOVALS.items() if [int(p) for p in gone.split(".")] <= now] == []
