"""Reasoning effort (thinking budget) as a configuration says it, and in a model's name: ``gpt-5.1@high``.

A level as OpenAI's ``reasoning_effort`` has them (modes of one model: ThinkDial, arXiv 2508.18773), a number of tokens
to think with, or a share of what a namespace usually thinks, ``0.5x`` (e1, arXiv 2510.27042: a fraction of the average
needs no knowledge of how hard a question is). One model at several efforts is several rungs of a ladder.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
LEVEL_TOKENS = dict(zip(LEVELS, (0, 512, 1024, 2048, 4096, 8192, 16384)))
"""Tokens to think with at each level, where a provider takes a number (litellm has the same), and for the order of
efforts."""
MOST_TOKENS = 1_000_000
MOST_SHARE = 100.0

TOKENS = re.compile(r"(\d{1,7})t?", re.ASCII)
SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?|\.\d{1,6})x", re.ASCII)
NAMED = re.compile(rf"@(?:{'|'.join(LEVELS)}|\d{{1,7}}t|\d{{1,3}}(?:\.\d{{1,6}})?x)$", re.ASCII)
"""An effort at the end of a model's name. Vertex names end in ``@20240620``, which is none."""


class Effort(NamedTuple):
    """How much a model is to think: one of the three is given."""

    level: str = ""
    tokens: int | None = None
    share: float | None = None
    """Of what the namespace's steps usually think with this model."""

    def __str__(self) -> str:
        if self.tokens is not None:
            return f"{self.tokens}t"
        return self.level if self.share is None else f"{self.share:g}x"

    def expected_tokens(self, usual: float | None = None) -> float | None:
        """Tokens that it thinks at most, about; None where it is a share of what is not known."""
        if self.tokens is not None:
            return float(self.tokens)
        if self.share is not None:
            return None if usual is None else self.share * usual
        return float(LEVEL_TOKENS[self.level])


def parse_effort(setting: object) -> Effort:
    """The effort that a setting says: ``"high"``, ``4096``, ``"0.5x"``; YAML's ``off`` is ``none``.

    Raises:
        ValueError: It says none; the message names what does.

    >>> [str(parse_effort(setting)) for setting in ("high", 4096, ".5x", False)]
    ['high', '4096t', '0.5x', 'none']
    """
    text = "none" if setting is False else str(setting).strip().lower()
    if not isinstance(setting, bool) or setting is False:
        if text in LEVELS:
            return Effort(text)
        if (tokens := TOKENS.fullmatch(text)) and 0 < int(tokens[1]) <= MOST_TOKENS:
            return Effort(tokens=int(tokens[1]))
        if (share := SHARE.fullmatch(text)) and 0 < float(share[1]) <= MOST_SHARE:
            return Effort(share=float(share[1]))
    raise ValueError(
        f"an effort is one of {', '.join(LEVELS)}, a number of tokens to think with (4096), or a share of what the "
        f"namespace usually thinks (0.5x), not {str(setting)[:40]!r}"
    )


def name_at(name: str, effort: Effort | None) -> str:
    """What records call a model at an effort."""
    return f"{plain_name(name)}@{effort}" if effort is not None else name


def plain_name(name: str) -> str:
    """A model's name without an effort, by which prices and quirks know it.

    >>> plain_name("openai/gpt-5.1@high"), plain_name("vertex_ai/claude-3-5-sonnet@20240620")
    ('openai/gpt-5.1', 'vertex_ai/claude-3-5-sonnet@20240620')
    """
    return NAMED.sub("", name) if "@" in name else name


def effort_of(name: str) -> Effort | None:
    """The effort in a model's name."""
    named = NAMED.search(name) if "@" in name else None
    return parse_effort(named[0][1:]) if named else None
