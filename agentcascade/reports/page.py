"""Self-contained HTML page of a report. Texts are escaped; figures are our own SVG."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from agentcascade._util.files import write_atomically


class Page:
    """HTML page, filled from top to bottom, then written."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []

    def _repr_html_(self) -> str:
        """In a notebook: the page without its own style."""
        return f"<h1>{escape(self.title)}</h1>{''.join(self._parts)}"

    def lead(self, text: str) -> None:
        self._parts.append(f'<p class="lead">{escape(text)}</p>')

    def keys(self, figures: Mapping[str, str]) -> None:
        """Key figures, by name."""
        cells = "".join(f'<div class="key">{escape(k)}<b>{escape(v)}</b></div>' for k, v in figures.items())
        self._parts.append(f'<div class="keys">{cells}</div>')

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        self._parts.append(f"<p>{escape(text)}</p>")

    def note(self, text: str) -> None:
        self._parts.append(f'<p class="note">{escape(text)}</p>')

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]], chosen: int | None = None) -> None:
        """Table; `chosen` is the row that is highlighted."""
        head = "".join(f"<th>{escape(h)}</th>" for h in headings)
        body = "".join(
            f"<tr{' class=chosen' if i == chosen else ''}>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>"
            for i, row in enumerate(rows)
        )
        self._parts.append(
            f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Table of names and values; values that are no text are written as JSON."""
        rows = "".join(
            f"<tr><th>{escape(str(k))}</th><td>{escape(v if isinstance(v, str) else json.dumps(v))}</td></tr>"
            for k, v in facts.items()
        )
        self._parts.append(f'<div class="wide"><table class="facts">{rows}</table></div>')

    def figure(self, svg: str, caption: str) -> None:
        self._parts.append(f'<figure><div class="plot">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>')

    def html(self) -> str:
        template = Template(files("agentcascade.reports").joinpath("page.html").read_text(encoding="utf-8"))
        return template.substitute(title=escape(self.title), body="\n".join(self._parts))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.html())


def percent(value: float | None, digits: int = 1) -> str:
    return "unknown" if value is None else f"{value:.{digits}%}"


def money(value: float | None, unit: str = "dollars") -> str:
    if value is None:
        return "unknown"
    return f"${value:.4g}" if unit == "dollars" else f"{value:.3f}"
