"""Prompt templates: texts with ``$fields`` in `string.Template`'s syntax. What is put in is never expanded again."""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from agentcascade.errors import ConfigError, did_you_mean


class Line(NamedTuple):
    form: str
    """As the left side of ``%``."""
    fields: frozenset[str]
    optional: bool
    """Whether it has fields, and no other than optional ones: if all are empty the line is left out."""

    @property
    def is_blank(self) -> bool:
        return not self.form.strip()


class Template:
    """A text with fields: ``$goal`` or ``${goal}``; ``$$`` is a dollar.

    `required` fields stand in it, `others` and `optional` ones may. A line that has no fields but optional ones, all of
    them empty, is left out, with one of the two blank lines around it. Raises `ConfigError` for unknown and missing
    fields.
    """

    def __init__(
        self, text: str, required: Iterable[str] = (), optional: Iterable[str] = (), others: Iterable[str] = ()
    ) -> None:
        self.text: str = text.rstrip("\n")
        self.required: tuple[str, ...] = tuple(required)
        self.optional: tuple[str, ...] = tuple(optional)
        self.others: tuple[str, ...] = tuple(others)
        self._lines = [self._parsed(line) for line in self.text.split("\n")]
        present = frozenset[str]().union(*(line.fields for line in self._lines))
        known = {*self.required, *self.optional, *self.others}
        for unknown in sorted(present - known):
            raise ConfigError(f"unknown field ${unknown}: {did_you_mean(unknown, known)} A dollar is written $$.")
        if missing := [f"${field}" for field in self.required if field not in present]:
            raise ConfigError(f"missing {', '.join(missing)}: without it what belongs there is not in the prompt")
        self._forms: dict[tuple[str, ...], str] = {}

    def _parsed(self, line: str) -> Line:
        form, fields, start = "", set(), 0
        for match in string.Template.pattern.finditer(line):
            if match["invalid"] is not None:
                raise ConfigError(f"a lone $ before {line[match.end() :][:20]!r}: write $$ for a dollar")
            field = match["named"] or match["braced"]
            fields |= {field} if field else set()
            form += _escaped(line[start : match.start()]) + (f"%({field})s" if field else "$")
            start = match.end()
        form += _escaped(line[start:])
        return Line(form, frozenset(fields), bool(fields) and fields.issubset(self.optional))

    def with_text(self, text: str) -> Template:
        """Another text with the same fields."""
        return Template(text, self.required, self.optional, self.others)

    def render(self, **values: str) -> str:
        """The text with a value for each of its fields; optional ones may be left out."""
        form, empty = self._form(values)
        return form % (values | dict.fromkeys(empty, "") if empty else values)

    def form(self, **values: str) -> str:
        """The text as the left side of ``%``, with the lines that are kept where the optional fields have `values`."""
        return self._form(values)[0]

    def _form(self, values: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
        """The left side of ``%``, and the optional fields that are empty."""
        empty = tuple([field for field in self.optional if not values.get(field)])
        form = self._forms.get(empty)
        if form is None:
            form = self._forms[empty] = "\n".join(line.form for line in self._kept(empty))
        return form, empty

    def blocks(self, **values: str) -> list[str]:
        """The same in blocks, whose tokens can be counted apart: cut at blank lines and around optional ones.

        Fields without a value are left empty.
        """
        empty = [field for field in self.optional if not values.get(field)]
        blocks: list[list[Line]] = [[]]
        for line in self._kept(empty):
            if line.is_blank:
                blocks.append([])
            elif blocks[-1] and blocks[-1][-1].optional != line.optional:
                blocks.append([line])
            else:
                blocks[-1].append(line)
        whole = dict.fromkeys((*self.required, *self.optional, *self.others), "") | values
        return ["\n".join(line.form for line in block) % whole for block in blocks if block]

    def _kept(self, empty: Collection[str]) -> list[Line]:
        """The lines that are not left out, and of two blank ones around these the first."""
        kept: list[Line] = []
        behind = False
        for line in self._lines:
            if line.optional and line.fields.issubset(empty):
                behind = True
            elif not (behind and line.is_blank and (not kept or kept[-1].is_blank)):
                kept.append(line)
                behind = False
        while behind and kept and kept[-1].is_blank:
            kept.pop()
        return kept


def _escaped(words: str) -> str:
    return words.replace("%", "%%")


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
