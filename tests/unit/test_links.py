"""No link of the documentation leads nowhere; the check finds one that does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import links


def test_no_link_leads_nowhere() -> None:
    assert len(links.PAGES) > 40
    assert [what for page in links.PAGES for what in links.wrong(page)] == []


@pytest.mark.parametrize(
    ("link", "what"),
    [
        ("[a](b.md)", "no such file"),
        ("[a](#nowhere)", "no such heading"),
        ("[a](other.md#nowhere)", "no such heading"),
        ("![a](b.png)", "no such file"),
        ("[a](https://nowhere)", "no address"),
        ("[a](https:///path)", "no address"),
        ("[a](htps://example.org)", "neither a file nor an address"),
        ("[a]: b.md", "no such file"),
        ("[a](other.md#héad-two)", None),
        ("[a](#one-two)", None),
        ("[a](https://example.org/x_(y))", None),
        ("`[a](b.md)`", None),
        ("```\n[a](b.md)\n```", None),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, link: str, what: str | None) -> None:
    (tmp_path / "other.md").write_text("# Other\n\n## Héad two\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(f"# One `two`\n\n{link}\n", encoding="utf-8")
    found = list(links.wrong(page))
    assert [text.rpartition(": ")[2] for text in found] == ([what] if what else [])
    assert all(text.startswith("page.md:3: ") for text in found)
