"""No GPL but in the extra that says so; the page in the repository is what is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from tests import licences


@pytest.mark.parametrize("extra", licences.extras())
def test_no_gpl_comes_with_the_core_or_an_extra_that_does_not_say_so(extra: str) -> None:
    try:
        brought = licences.closure(extra)
    except PackageNotFoundError as error:
        pytest.skip(f"the extra is not installed here: {error}")
    assert len(brought) > 40
    found = {name: told for name, p in brought.items() if licences.COPYLEFT.search(told := licences.licence(p))}
    if extra in licences.WITH_GPL:
        assert found.keys() == {"jericho", "fast-downward-textworld"}
    else:
        assert found == {}


def test_the_page_is_what_is_installed() -> None:
    """Made again by `python tests/licences.py`."""
    page = licences.PAGE.read_text(encoding="utf-8")
    for extra, row in licences.lines(page).items():
        if extra:  # the core's own packages differ with the platform
            assert row in page, extra
    assert "not told" not in page
    assert "alone" in page


@pytest.mark.parametrize(
    ("text", "is_gpl"),
    [
        ("GPL-3.0", True),
        ("AGPL-3.0-only", True),
        ("GNU General Public License v2 or later (GPLv2+)", True),
        ("GNU General Public License v3", True),
        ("LGPL-3.0-only", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("GNU Library or Lesser General Public License (LGPL)", False),
        ("MIT", False),
    ],
)
def test_what_counts_as_gpl(text: str, is_gpl: bool) -> None:
    assert bool(licences.COPYLEFT.search(text)) == is_gpl
