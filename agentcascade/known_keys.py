"""Known secrets, removed by value: keys of the configuration and the environment, whatever form they have.

A provider that echoes the key it was sent, whole, cut off, percent-encoded or in base64, must not hand it on to
clients, logs, the database or other tenants. What only looks like a key is `patterns`' business.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from agentcascade import forking

PLACEHOLDER = "[key]"
SHORTEST = 8
"""Characters of a secret; what is shorter occurs by chance."""
SHOWN = 8
"""Characters at either end of a secret by which one that is cut off is recognised."""
MOST = 1000
"""Secrets that are held; the environment's and the configuration's are far fewer."""
FRESH_SECONDS = 5.0
"""For which the environment is not looked through again."""
SECRET_VARIABLE = re.compile(
    r"(?i)(?:^|_)(?:(?:api|access|secret|private|auth|account|service|encryption|signing|master)_?)?"
    r"(?:key|token|secret|password|passwd|pwd|passphrase|credential|credentials|pat|dsn)(?:_id|_value)?\d*$"
)
HARMLESS = re.compile(r"(?i)(?:true|false|none|null|placeholder|dummy[\w-]*|[\d.]+|(?:/|\.{1,2}/|~/).*)", re.DOTALL)
"""Switches, numbers and paths, which variables of such names hold as well."""
SECRET_FIELD = re.compile(
    r"(?i)(?:x-)?(?:[\w-]*[_-])?(?:api[_-]?key|key|token|secret|password|passwd|passphrase|authorization|cookie)"
)

_of_request: ContextVar[tuple[str, ...]] = ContextVar("agentcascade_secrets_of_request", default=())
_lock = forking.lock()
_given: dict[str, None] = {}
_environment: tuple[float, frozenset[str]] = (float("-inf"), frozenset())


def register(*secrets: str | None) -> None:
    """From now on `hide` removes them; what is too short to be a secret is passed over."""
    new = [s for s in secrets if s and _is_secret(s) and s not in _given]
    if new:
        with _lock:
            for secret in new:
                _given[secret] = None
                if len(_given) > MOST:
                    _given.pop(next(iter(_given)))


def of_request(*secrets: str) -> None:
    """Those that a request was sent with: `hide` removes them in its own task, and in those that it starts."""
    _of_request.set(tuple(s for s in secrets if _is_secret(s)))


def register_fields(options: Mapping[str, Any], depth: int = 4) -> None:
    """The same for values under keys such as ``Authorization`` or ``api_key``, however deep."""
    for name, value in options.items():
        if isinstance(value, Mapping) and depth:
            register_fields(value, depth - 1)
        elif isinstance(value, str) and SECRET_FIELD.fullmatch(str(name)):
            register(value, value.partition(" ")[2])


def hide(text: str) -> str:
    """`text` without any known secret. Takes microseconds where none is in it."""
    for secret in (*_of_request.get(), *known()):
        for probe, patterns in _forms(secret):
            if probe in text:
                for pattern in patterns:
                    text = re.sub(pattern, PLACEHOLDER, text)
    return text


def known() -> Iterable[str]:
    """Longest first, so that of two secrets the one that holds the other goes as a whole."""
    global _environment
    at, found = _environment
    if time.monotonic() - at > FRESH_SECONDS:
        found = frozenset(_of_environment())
        _environment = time.monotonic(), found
    return _ordered(found, tuple(_given))


@lru_cache(maxsize=4)
def _ordered(environment: frozenset[str], given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*environment, *given}, key=lambda s: (-len(s), s)))


def _of_environment() -> Iterable[str]:
    for name, value in os.environ.items():
        if "://" in value and len(value) < 4096:
            try:
                password = urlsplit(value).password
            except ValueError:
                continue
            if password and _is_secret(password):
                yield password
        elif SECRET_VARIABLE.search(name) and _is_secret(value):
            yield value


def _is_secret(value: str) -> bool:
    return SHORTEST <= len(value) <= 8192 and not HARMLESS.fullmatch(value)


@lru_cache(maxsize=2 * MOST)
def _forms(secret: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(what must occur, the patterns that are then replaced) for every form of a secret, longest first."""
    texts = {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]}
    if len(secret) >= 12:
        raw = secret.encode(errors="surrogatepass")
        texts |= {raw.hex(), *_base64(raw)}
    if secret.isalpha():  # "postgres": not the beginning of "postgresql"
        return tuple((text, (rf"(?<!\w){re.escape(text)}(?!\w)",)) for text in texts)
    if len(secret) < 2 * SHOWN:
        return tuple((text, (re.escape(text),)) for text in sorted(texts, key=len, reverse=True))
    heads: dict[str, list[str]] = {}
    for text in sorted(texts, key=len, reverse=True):
        heads.setdefault(text[:SHOWN], []).append(re.escape(text))
    tail = secret[-SHOWN:]
    # whole; cut off, with what is left of it; or starred in its middle
    found = [(head, (*wholes, rf"{re.escape(head)}[\w*.…~+/=%-]*")) for head, wholes in heads.items()]
    return (*found, (tail, (rf"[\w*.…~+/=%-]{{0,256}}{re.escape(tail)}",)))


def _base64(raw: bytes) -> Iterable[str]:
    """As it stands in base64 of a longer text (``user:key``), whatever is before and behind it."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        own = encoded[(0, 2, 3)[before] : -1 if (before + len(raw)) % 3 else None]
        yield own
        yield own.replace("+", "-").replace("/", "_")
