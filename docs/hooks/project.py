"""Pages of the project that live at the root of the repository, and its examples, as pages of the site."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "LICENSES.md": "project/licenses.md",
}
"""Where each page of the root is on the site."""
LINK = re.compile(r"\]\((?!https?:|#)([\w./-]+)(#[\w-]+)?\)")


def pages() -> dict[str, str]:
    """Their Markdown by their path on the site."""
    made = {
        page: rewritten((ROOT / name).read_text(encoding="utf-8"), "../" * page.count("/"))
        for name, page in HOME.items()
    }
    return made | {"project/examples.md": _examples()}


def rewritten(text: str, up: str) -> str:
    """`text` of the root with links that hold on the site, from a page from which `up` leads to its top."""

    def moved(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        if path.startswith("docs/"):
            return f"]({up}{path.removeprefix('docs/')}{anchor})"
        if path in HOME:
            return f"]({up}{HOME[path]}{anchor})"
        if path.startswith("examples/"):
            return f"]({up}project/examples.md#{_anchor(path)})"
        raise ValueError(f"a page links {path}, which is no page of the site")

    return LINK.sub(moved, text)


def _anchor(path: str) -> str:
    return Path(path).stem.replace("_", "-")


def _examples() -> str:
    parts = [
        "# Examples\n\nPrograms in the repository's `examples/`. Each runs as it is, without a key; the tests run all.\n"
    ]
    for path in sorted((ROOT / "examples").glob("[0-9]*.py")):
        text = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(text)) or ""
        about = docstring.partition("\n")[0].rstrip(".:")
        parts.append(f'\n## {about} {{ #{_anchor(path.name)} }}\n\n```python title="examples/{path.name}"\n{text}```\n')
    return "\n".join(parts)
