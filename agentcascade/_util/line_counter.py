"""Token counter of texts made of lines and steps: each line and each step of demonstrations is encoded once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from agentcascade._util.recent_cache import RecentCache

LINE_START = re.compile(r"\n[A-Za-z(#]")
"""Where a text may be cut behind its first character: no token of the encodings that this is for goes over the end of a
line and on with one of these. Prompts are made of the same lines over and over, and those are counted once."""
STEP = "Observation:"
STEP_START = f"\n{STEP}"
"""Where a text is cut first: steps of demonstrations begin so, and stand in many prompts."""
TEXTS, STEPS, LINES = 25_000, 100_000, 100_000
"""Counts remembered in a generation: of whole texts, of steps (a bank's), and of lines, of which most are in a step."""


class LineCounter:
    """Tokens of a text, by its lines.

    Args:
        encode: A text to its tokens, none of which goes over a `LINE_START`.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self._encode = encode
        # By a text's fingerprint: the texts themselves, which may be long, are not kept.
        self._texts, self._steps, self._lines = (RecentCache[int, int](size) for size in (TEXTS, STEPS, LINES))

    def __call__(self, text: str) -> int:
        tokens = self._texts.get(key := text_fingerprint(text))
        if tokens is None:
            first, *following = text.split(STEP_START)
            tokens = self.of_lines(first + "\n") + self._of_parts(following) if following else self.of_lines(text)
            self._texts.put(key, tokens)
        return tokens

    def of_step(self, text: str) -> tuple[int, int]:
        """What a text that begins with `STEP` adds as the last of some lines, and as one that others follow.

        Lines (a text that ends with the end of one) and steps behind them, joined by line ends, have the sum of these
        tokens.
        """
        _, *parts = f"\n{text}".split(STEP_START)
        tokens = self._of_parts(parts)
        return tokens, tokens + self._of_end(parts[-1])

    def of_lines(self, text: str) -> int:
        """Of a text by its lines alone."""
        starts = [0, *[match.start() + 1 for match in LINE_START.finditer(text)], len(text)]
        return sum([self.of_whole(text[start:end]) for start, end in pairwise(starts)])

    def of_whole(self, text: str) -> int:
        """Of a text that is encoded as it is."""
        tokens = self._lines.get(key := text_fingerprint(text))
        if tokens is None:
            tokens = len(self._encode(text))
            self._lines.put(key, tokens)
        return tokens

    def _of_parts(self, parts: Sequence[str]) -> int:
        """Of steps, each without "Observation:" in front, and of the line ends between them."""
        *before, last = parts
        return self._of_part(last) + sum([self._of_part(part) + self._of_end(part) for part in before])

    def _of_part(self, step: str) -> int:
        tokens = self._steps.get(key := text_fingerprint(step))
        if tokens is None:
            tokens = self.of_lines(STEP + step)
            self._steps.put(key, tokens)
        return tokens

    def _of_end(self, step: str) -> int:
        """That the end of the line adds to a step: one, but for what forms a token with it."""
        plain = step[-1:].isascii() and step[-1:].isalnum()
        return 1 if plain else self._of_part(step + "\n") - self._of_part(step)


def text_fingerprint(text: str) -> int:
    """Fingerprint of a text in this process: its hash, with its length, since "( " and "\\u2028" are the same bytes."""
    return hash(text) ^ len(text)
