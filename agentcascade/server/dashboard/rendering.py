"""Templates of the dashboard (Jinja, autoescaped), and headers under which nothing runs but their own script."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from agentcascade.server.dashboard import formats

FOLDER = "agentcascade.server.dashboard"


class Templates:
    """Renders pages; `headers` go with every one of them."""

    def __init__(self) -> None:
        self._styles, self._script = _read("style.css"), _read("script.js")
        self._environment = Environment(
            loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, finalize=formats.shown,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        for name in ("dollars", "share", "count", "seconds", "moment", "bucket_time", "iso"):
            self._environment.filters[name] = getattr(formats, name)
        self._environment.globals.update(styles=self._styles, script=self._script, zip=zip)
        self.headers = {
            "content-security-policy": (
                f"default-src 'none'; script-src {_digest(self._script)}; style-src {_digest(self._styles)}; "
                "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
                "require-trusted-types-for 'script'; trusted-types 'none'"
            ),
            "x-frame-options": "DENY",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }

    def render(self, name: str, **values: Any) -> bytes:
        """The page of a template. Texts are escaped, bounded, and hidden characters in them written out."""
        return self._environment.get_template(name).render(**values).encode(errors="replace")


def _read(name: str) -> str:
    return files(FOLDER).joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline element of that text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
