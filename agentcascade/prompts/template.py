"""Prompt templates: texts with ``$fields`` in `string.Template`'s syntax. What is put in is never expanded again."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agentcascade.errors import ConfigError, did_you_mean


class Piece(NamedTuple):
    """Words of a template, and the field behind them, if there is one."""

    words: str
    field: str | None


class Line(NamedTuple):
    pieces: tuple[Piece, ...]
    optional: frozenset[str]
    """Its fields, where all of them are optional: if all are empty the line is left out."""

    @property
    def is_blank(self) -> bool:
        return not any(words.strip() or field for words, field in self.pieces)


class Template:
    """A text with fields: ``$goal`` or ``${goal}``; ``$$`` is a dollar.

    `required` fields stand in it, `others` and `optional` ones may. A line that has no fields but optional ones, all of
    them empty, is left out, with one of the two blank lines around it. Raises `ConfigError` for unknown and missing
    fields.
    """

    def __init__(
        self, text: str, required: Iterable[str] = (), optional: Iterable[str] = (), others: Iterable[str] = ()
    ) -> None:
        self.text = text.rstrip("\n")
        self.required, self.optional, self.others = tuple(required), tuple(optional), tuple(others)
        self._lines = [self._parsed(line) for line in self.text.split("\n")]
        present = {field for line in self._lines for _, field in line.pieces if field}
        known = {*self.required, *self.optional, *self.others}
        for unknown in sorted(present - known):
            raise ConfigError(f"unknown field ${unknown}: {did_you_mean(unknown, known)} A dollar is written $$.")
        if missing := [f"${field}" for field in self.required if field not in present]:
            raise ConfigError(f"missing {', '.join(missing)}: without it what belongs there is not in the prompt")
        self._shapes: dict[tuple[str, ...], tuple[Piece, ...]] = {}

    def _parsed(self, line: str) -> Line:
        pieces, start = [], 0
        for match in string.Template.pattern.finditer(line):
            words = line[start : match.start()]
            if match["invalid"] is not None:
                raise ConfigError(f"a lone $ before {line[match.end() :][:20]!r}: write $$ for a dollar")
            field = match["named"] or match["braced"]
            pieces.append(Piece(words, field) if field else Piece(f"{words}$", None))
            start = match.end()
        pieces.append(Piece(line[start:], None))
        fields = frozenset(field for _, field in pieces if field)
        return Line(tuple(pieces), fields if fields.issubset(self.optional) else frozenset())

    def with_text(self, text: str) -> Template:
        """Another text with the same fields."""
        return Template(text, self.required, self.optional, self.others)

    def render(self, **values: str) -> str:
        """The text with a value for each of its fields; optional ones may be left out."""
        empty = tuple(field for field in self.optional if not values.get(field))
        shape = self._shapes.get(empty)
        if shape is None:
            shape = self._shapes[empty] = _joined(self._kept(empty))
        return "".join([words if field is None else words + values.get(field, "") for words, field in shape])

    def blocks(self, **values: str) -> list[str]:
        """The same in blocks, whose tokens can be counted apart: cut at blank lines and around optional ones."""
        blocks: list[list[Line]] = [[]]
        for line in self._kept(tuple(field for field in self.optional if not values.get(field))):
            if line.is_blank:
                blocks.append([])
            elif blocks[-1] and blocks[-1][-1].optional != line.optional:
                blocks.append([line])
            else:
                blocks[-1].append(line)
        texts = [_joined(block) for block in blocks if block]
        return ["".join(words + values.get(field or "", "") for words, field in text) for text in texts]

    def _kept(self, empty: Iterable[str]) -> list[Line]:
        kept: list[Line] = []
        behind = False
        for line in self._lines:
            if line.optional and line.optional.issubset(empty):
                behind = True
            elif not (behind and line.is_blank and (not kept or kept[-1].is_blank)):
                kept.append(line)
                behind = False
        while behind and kept and kept[-1].is_blank:
            kept.pop()
        return kept


def _joined(lines: Iterable[Line]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for number, line in enumerate(lines):
        pieces += [Piece("\n", None)] if number else []
        pieces += line.pieces
    return tuple(piece for piece in pieces if piece.words or piece.field)


def replaced(templates: Mapping[str, Template], texts: Mapping[str, str]) -> dict[str, Template]:
    """`templates` with other `texts` for some of them; raises `ConfigError` that names template and field."""
    changed = {}
    for name, text in texts.items():
        if name not in templates:
            raise ConfigError(f"there is no template '{name}': {did_you_mean(name, templates)}")
        try:
            changed[name] = templates[name].with_text(text)
        except ConfigError as error:
            raise ConfigError(f"template '{name}': {error}") from None
    return {**templates, **changed}
