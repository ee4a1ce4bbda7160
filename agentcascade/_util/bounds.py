"""Bounds of size, depth and time for parsing what models, clients and configurations write.

Every text of theirs is hostile: JSON that nests or counts without end, a pattern that backtracks for hours. What is
here answers within a bound or raises `OutOfBounds`, whose message never quotes more than 80 characters of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

import regex

from agentcascade._util.threads import apart
from agentcascade._util.yaml_bounds import TooMuchYaml, load_bounded

T = TypeVar("T")

LONGEST = 1_000_000
"""Characters of one text that is still parsed"""
DEEPEST = 100
"""Levels of nesting of one JSON value"""
MOST = 200_000
"""Values in one JSON value"""
MATCH_SECONDS = 0.1
"""What one pass of somebody's regular expression over one text may take"""
HANDED_ON = 2_000
"""Characters from which on other threads run while a pattern is matched: below, handing on costs more than the match"""
LONGEST_PATTERN = 10_000
LONGEST_LINEAR = 1_000
AT_ONCE = 50_000
"""Characters that may be parsed in the event loop (a few milliseconds): above, a thread does it"""


class OutOfBounds(ValueError):
    """A text is too long, nests too deep, holds too much, or takes too long to match."""


def loads(text: str, *, longest: int = LONGEST, deepest: int = DEEPEST, most: int = MOST) -> Any:
    """A JSON value in time linear in the text. Raises `ValueError`, as `OutOfBounds` where a bound is passed.

    An object that names a field twice is refused: readers differ in which of the two they take.
    """
    if len(text) > longest:
        raise OutOfBounds(f"{len(text):,} characters: {longest:,} are the most")
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise OutOfBounds(f"nested too deep: {deepest} levels are the most") from None
    if text.count("[") + text.count("{") > deepest or len(text) > most:
        count_values(value, deepest=deepest, most=most)
    return value


def load_yaml(text: str, *, deepest: int = DEEPEST, most: int = MOST) -> Any:
    """A YAML document. Raises `ValueError` for whatever is none, as `OutOfBounds` where a bound is passed.

    What an alias stands for counts each time, what is merged (``<<``) before it is, and what holds itself has no depth.
    """
    import yaml

    try:
        value = load_bounded(text, yaml.SafeLoader, most)
    except RecursionError:
        raise OutOfBounds(f"nested too deep: {deepest} levels are the most") from None
    except TooMuchYaml as error:
        raise OutOfBounds(str(error)) from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # of a tag that does not fit its value
        raise ValueError(f"a value is not what its tag says ({error})") from error
    count_values(value, deepest=deepest, most=most)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i]) if len(names) < 1000 else ""
        raise ValueError(f"the field {twice[:40]!r} is there twice" if twice else "a field is there twice")
    return fields


def count_values(value: Any, *, deepest: int = DEEPEST, most: int = MOST) -> int:
    """The number of values in lists and mappings, `value` included. Raises `OutOfBounds`; never recurses."""
    level, count, depth = [value], 0, 0
    while level:
        count += len(level)
        if count > most:
            raise OutOfBounds(f"more than {most:,} values")
        if depth > deepest:
            raise OutOfBounds(f"nested too deep: {deepest} levels are the most")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, (list, tuple)):
                below.extend(item)
            if count + len(below) > most:  # aliases of YAML: few objects, however many values
                raise OutOfBounds(f"more than {most:,} values")
        level, depth = below, depth + 1
    return count


class Pattern:
    """A regular expression of a configuration, in Python's syntax, whose matching is cut off after `seconds`.

    None is for one of ours whose time is linear in the text: looking at the clock means adding up the time of all
    threads, which takes ten times as long as matching a short text. Raises `ValueError` when it does not compile.
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False, seconds: float | None = MATCH_SECONDS) -> None:
        if len(pattern) > LONGEST_PATTERN:
            raise OutOfBounds(f"{len(pattern):,} characters: {LONGEST_PATTERN:,} are the most")
        self.pattern = pattern
        self._seconds = seconds
        flags = regex.VERSION0 | (regex.IGNORECASE if ignore_case else 0)
        try:
            self._compiled = regex.compile(pattern, flags)
        except (regex.error, RecursionError, MemoryError, OverflowError) as error:
            raise ValueError(str(error) or type(error).__name__) from error
        self.groups = self._compiled.groups
        self.groupindex = self._compiled.groupindex

    def finditer(self, text: str) -> Iterator[regex.Match[str]]:
        """Raises `OutOfBounds` when all matches together take too long."""
        try:
            yield from self._compiled.finditer(text, timeout=self._seconds, concurrent=len(text) > HANDED_ON)
        except TimeoutError:
            raise self._slow(text) from None

    def sub(self, put: Callable[[regex.Match[str]], str], text: str) -> str:
        """Raises `OutOfBounds` when it takes too long."""
        try:
            replaced: str = self._compiled.sub(put, text, timeout=self._seconds, concurrent=len(text) > HANDED_ON)
        except TimeoutError:
            raise self._slow(text) from None
        return replaced

    def _slow(self, text: str) -> OutOfBounds:
        return OutOfBounds(
            f"the pattern {self.pattern[:80]!r} takes more than {self._seconds:g} s on a text of {len(text):,} "
            "characters: write it without repetitions inside repetitions"
        )


def linear_pattern(pattern: str, *, ignore_case: bool = False) -> Any:
    """A stranger's regular expression compiled by RE2, whose time is linear in the text and whose memory is bounded.

    None for one that RE2 does not know (look-around, back references) or that is too long or too large. ``\\u00e9`` is
    understood as in ECMAScript.
    """
    return _linear(pattern, ignore_case)[0]


def compile_cost(pattern: str) -> int:
    """Most that `linear_pattern` takes to compile, in units of some 10 µs: repeated classes of Unicode take 50 ms."""
    compiled, too_large = _linear(pattern, False)
    if compiled is not None:
        return int(compiled.programsize) // 20
    return 500 + 5 * len(pattern) if too_large else 0


@lru_cache(maxsize=128)
def _linear(pattern: str, ignore_case: bool) -> tuple[Any, bool]:
    """The compiled pattern, of up to a megabyte; and whether it was too large, not unknown."""
    import re2

    if len(pattern) > LONGEST_LINEAR:
        return None, False
    options = re2.Options()
    options.max_mem = 1 << 20
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(_ESCAPED.sub(r"\\x{\1}", pattern), options), False
    except (re2.error, UnicodeError) as error:
        return None, "too large" in str(error)


_ESCAPED = re.compile(r"\\u([0-9A-Fa-f]{4})")


async def off_loop(slow: bool, work: Callable[..., T], *args: Any) -> T:
    """What ``work(*args)`` returns; called in a thread where it is slow, so that the event loop goes on."""
    return await apart(work, *args) if slow else work(*args)


def escape_surrogates(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot encode, written as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
