"""Control characters, written out: what a bank, a model or a client wrote cannot command a terminal or forge a line."""

from __future__ import annotations

from collections.abc import Iterable

BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""They show a text in another order than it has."""
HIDDEN = (0x00AD, 0x180E, 0x200B, 0x2060, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC), 0xE0001)
TAGS = range(0xE0020, 0xE0080)
CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)


def _escaped(codes: Iterable[int]) -> dict[int, str]:
    """How JSON writes them, so that a JSON text stays the same data."""
    return {c: "".join(f"\\u{unit:04x}" for unit in _units(c)) for c in codes}


def _units(code: int) -> tuple[int, ...]:
    return (code,) if code < 0x10000 else (0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF))


LINE = _escaped((*CONTROLS, *BIDI, *HIDDEN, *TAGS, *range(0xD800, 0xE000)))
"""For `str.translate`: all of it, line breaks too, for what must stay one line."""
TEXT = {c: to for c, to in LINE.items() if c not in (0x09, 0x0A)}
"""The same, but line breaks and tabs stay."""


def visible(text: str) -> str:
    """`text` for a terminal: every other character than line breaks and tabs that commands it is written out."""
    return text.translate(TEXT)


def one_line(text: str) -> str:
    """The same in one line."""
    return text.translate(LINE)


LABEL = 60
"""Characters of a name in a figure."""


def titled(name: str) -> str:
    """A name of a log, for a figure: one line, cut; a leading underscore would hide it from matplotlib's legends."""
    text = one_line(name)
    text = text if len(text) <= LABEL else text[: LABEL - 1] + "…"
    return f" {text}" if text.startswith("_") else text
