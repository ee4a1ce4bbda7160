"""HTML for notebooks (``_repr_html_``): values as tables, in which every text is escaped, in sight, and cut.

What others wrote (goals, actions, errors) can hold markup: in a notebook it would run as the reader's own. Texts are
escaped, control characters and such as turn the direction of a text are written out, and nothing is loaded or run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from html import escape
from itertools import islice
from typing import TYPE_CHECKING

from agentcascade._util.control_characters import visible

if TYPE_CHECKING:
    from pydantic import BaseModel

LONGEST = 500
"""Characters of a text that are shown."""
ROWS = 100
LARGEST = 100_000
"""Characters of a table from which on no further row is added: a notebook keeps what it shows, and loads it again."""
DEEPEST = 4
UNKNOWN = "unknown"
STYLE = 'style="text-align:left;vertical-align:top;white-space:pre-wrap"'


def html_of_text(text: object) -> str:
    """A text, cut, for an element or an attribute's value.

    >>> html_of_text("<b>\\x1b[2J")
    '&lt;b&gt;\\\\u001b[2J'
    """
    shown = str(text)
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    return escape(visible(shown))


def html_of(value: object, depth: int = 0) -> str:
    """A value: a model's fields, a mapping and a sequence as tables, all else as text."""
    from pydantic import BaseModel

    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S %Z}".strip()
    if depth >= DEEPEST:
        return html_of_text(value)
    if isinstance(value, BaseModel):
        return html_of_model(value, depth)
    if isinstance(value, Mapping):
        rows = ((html_of_text(key), html_of(part, depth + 1)) for key, part in value.items())
        return html_of_rows(rows, total=len(value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if value and all(isinstance(part, BaseModel) for part in value):
            return html_of_models(value, depth + 1)
        return html_of_rows(((html_of(part, depth + 1),) for part in value), total=len(value))
    return html_of_text(value)


def html_of_money(dollars: Decimal | None) -> str:
    """Dollars to the last digit; what is not known is unknown, never zero."""
    return UNKNOWN if dollars is None else f"${dollars:f}"


def html_of_model(value: BaseModel, depth: int = 0) -> str:
    """A model's fields that say something, one in a row; those that are empty or as by default are left out."""
    rows = []
    for name, field in type(value).model_fields.items():
        part = getattr(value, name)
        default = field.get_default(call_default_factory=False)
        if name == "dollars":
            rows.append((name, html_of_money(part)))
        elif part is not None and part != default and part not in ((), {}, ""):
            rows.append((html_of_text(name), html_of(part, depth + 1)))
    return html_of_rows(rows, caption=type(value).__name__ if depth == 0 else "")


def html_of_models(values: Sequence[BaseModel], depth: int = 0, caption: str = "", names: Sequence[str] = ()) -> str:
    """Models of one kind in a table: a row each, a column for each of `names`, else for fields that say something."""
    fields = type(values[0]).model_fields if values else {}
    told = {name for value in values[:ROWS] for name in fields if getattr(value, name, None) not in (None, (), {}, "")}
    columns = list(names) or [name for name in fields if name in told]
    rows = (
        tuple(
            html_of_money(part) if part is None and name.endswith("dollars") else html_of(part, depth + 1)
            for name in columns
            for part in (getattr(value, name, None),)
        )
        for value in values
    )
    return html_of_rows(rows, caption=caption, heads=columns, total=len(values))


def html_of_rows(
    rows: Iterable[tuple[str, ...]], *, caption: str = "", heads: Sequence[str] = (), total: int | None = None
) -> str:
    """A table of at most `ROWS`, fewer where they are long. Cells are HTML already; caption and heads are texts.

    Where `total` says how many there are, `rows` are taken one by one, and none that is not shown.
    """
    if total is None:
        rows = list(rows)
        total = len(rows)
    parts = ["<table>"]
    parts += [f"<caption {STYLE}>{html_of_text(caption)}</caption>"] if caption else []
    if heads:
        parts.append("<tr>" + "".join(f'<th scope="col" {STYLE}>{html_of_text(head)}</th>' for head in heads) + "</tr>")
    size = shown = 0
    for row in islice(rows, ROWS):
        parts.append("<tr>" + "".join(f"<td {STYLE}>{cell}</td>" for cell in row) + "</tr>")
        size, shown = size + len(parts[-1]), shown + 1
        if size > LARGEST:
            break
    if total > shown:
        parts.append(f"<tr><td {STYLE}>… {total - shown:,} more</td></tr>")
    return "".join([*parts, "</table>"])
