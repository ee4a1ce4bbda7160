"""Markdown of generated pages: cells and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cell(text: object) -> str:
    """`text` in one cell of a table."""
    return " ".join(str(text).replace("|", "\\|").split())


def code(text: object) -> str:
    """`text` as code in a cell. A pipe in code needs no backslash in HTML, so it is written as such."""
    plain = escaped(" ".join(str(text).split()))
    return f"<code>{plain}</code>" if plain else ""


def escaped(text: str) -> str:
    """`text` without a character that Markdown or HTML would read as its own."""
    return "".join(f"&#{ord(c)};" if c in "&<>|*_[]`\\" else c for c in text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, with an empty line before and behind."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(["", *lines, ""])


def prose(text: str) -> str:
    """`text` as it was written, but for code between backticks."""
    return "".join(code(part) if i % 2 else escaped(part) for i, part in enumerate(text.split("`")))
