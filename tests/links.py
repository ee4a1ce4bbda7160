"""Links of the documentation: files and headings that there are, addresses that are well-formed. No network is asked.

usage: python tests/links.py     lists what leads nowhere; status 1 if anything does
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]
OF_THE_SITE = re.compile(
    r"(?:^|/)(?:reference/(?:cli|configuration|database|errors|http|python|python-modules|telemetry)|project/\w+|index)\.md$"
)
"""Pages that the site's hooks make: MkDocs checks these, as strictly (`tests/integration/test_site.py`)."""
CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(
    r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^\s)>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)|<(https?://[^>\s]+)>",
    re.MULTILINE,
)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*(?:\{[^}]*#([\w-]+)[^}]*\})?\s*$", re.MULTILINE)
HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}|localhost|127\.0\.0\.1", re.IGNORECASE)


def anchors(text: str) -> set[str]:
    """Those of a page's headings, as Python-Markdown and GitHub make them, and those that are written out."""
    found: set[str] = set(re.findall(r"(?:id|name)=\"([\w-]+)\"", text))
    for title, own in HEADING.findall(re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        words = re.sub(r"[^\w\s-]", "", ascii_only).strip().lower()
        slug = own or re.sub(r"[-\s]+", "-", words)
        found |= {slug, re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())}
    return found


def wrong(page: Path) -> Iterator[str]:
    """What is wrong with each link of `page`, by its line."""
    text = page.read_text(encoding="utf-8")
    prose = CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    for match in LINK.finditer(prose):
        link = next(group for group in match.groups() if group)
        line = prose.count("\n", 0, match.start()) + 1
        if (what := _wrong(page, link)) is not None:
            yield f"{page.relative_to(ROOT) if page.is_relative_to(ROOT) else page.name}:{line}: {link}: {what}"


def _wrong(page: Path, link: str) -> str | None:
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        return None if parts.hostname and HOST.fullmatch(parts.hostname) else "no address"
    if parts.scheme == "mailto":
        return None if re.fullmatch(r"[^@\s]+@[\w.-]+", parts.path) else "no address"
    if parts.scheme:
        return "neither a file nor an address"
    if OF_THE_SITE.search(parts.path):
        return None
    target = (page.parent / parts.path).resolve() if parts.path else page
    if not target.exists():
        return "no such file"
    if parts.fragment and target.suffix == ".md" and parts.fragment not in anchors(target.read_text(encoding="utf-8")):
        return "no such heading"
    return None


if __name__ == "__main__":
    found = [what for page in PAGES for what in wrong(page)]
    print("\n".join(found) or f"{len(PAGES)} pages, no link leads nowhere")
    sys.exit(bool(found))
