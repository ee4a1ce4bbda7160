"""Known secrets, removed by value: keys of the configuration and the environment, whatever form they have.

A provider that echoes the key it was sent, whole, cut off, percent-encoded or in base64, must not hand it on to
clients, logs, the database or other tenants. What only looks like a key is `secret_patterns`' business.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from agentcascade._util import forking

PLACEHOLDER = "[key]"
SHORTEST = 8
"""Characters of a secret; what is shorter occurs by chance."""
WORD_CHARACTERS = 16
"""Letters alone, and fewer of them, may be a word: such a secret is removed where it stands by itself."""
SHOWN = 8
"""Characters at either end of a secret by which one that is cut off is recognised."""
MOST = 1000
"""Secrets that are held of the configuration, and as many of calls; of a tenth more, the longest unused go."""
FRESH_SECONDS = 5.0
"""For which the environment is not looked through again."""
SECRET_VARIABLE = re.compile(
    r"(?i)(?:^|_)(?:(?:api|access|secret|private|auth|account|service|encryption|signing|master)_?)?"
    r"(?:key|token|secret|password|passwd|pwd|passphrase|credential|credentials|pat|dsn)(?:_id|_value)?\d*$"
)
HARMLESS = re.compile(
    r"(?i)[\d.]{1,11}|true|false|none|null|placeholder|dummy(?:[_-]?(?:api)?[_-]?(?:key|token))?|not[_-]?needed"
)
"""Words and short numbers in the place of a secret."""
SETTING = re.compile(r"[\d.]+|(?:/|\.{1,2}/|~/).*", re.DOTALL)
"""Numbers and paths, which variables of such names hold as well."""
BASE64 = re.compile(r"/(?=.*\d)(?=.*[A-Z])[\w+/]{15,}={0,2}", re.ASCII)
"""A key that only begins like a path, unless there is such a file."""
IDENTIFIER = re.compile(r"(?=[^\d]*\d)(?=[^A-Za-z]*[A-Za-z])[\w~+=-]{20,}")
"""A part of a URL that is no word: a token, or an account's number."""
SECRET_FIELD = re.compile(
    r"(?i)(?:x-)?(?:[\w-]*[_-])?(?:api[_-]?key|key|token|secret|password|passwd|passphrase|authorization|cookie)"
)

HEXADECIMAL = re.compile("[0-9a-fA-F]{8,}")
HEADER = re.compile(r"\s*[:=]\s*")

_of_request: ContextVar[tuple[str, ...]] = ContextVar("agentcascade_secrets_of_request", default=())
_lock = forking.lock()
_configured: dict[str, int] = {}
_registered: dict[str, int] = {}
"""Secret: when it was registered last, by this count."""
_count = count()
_environment: tuple[float, frozenset[str]] = (float("-inf"), frozenset())


def register(*secrets: str | None, configured: bool = False) -> None:
    """From now on `hide` removes them; what is too short to be a secret is passed over.

    `configured` are those that are registered once, for as long as the process lives: secrets of calls, of which there
    may be any number, do not take their place.
    """
    with _lock:
        for secret in secrets:
            if not secret or not _is_secret(secret) or (secret in _configured and not configured):
                continue
            held = _configured if configured else _registered
            held[secret] = next(_count)
            if len(held) > MOST * 1.1:
                for unused in sorted(held, key=held.__getitem__)[:-MOST]:
                    del held[unused]


def register_for_request(*secrets: str) -> None:
    """Secrets that a request was sent with: `hide` removes them in its own task, and in those that it starts."""
    _of_request.set(tuple(s for s in secrets if _is_secret(s)))


def register_fields(options: Mapping[str, Any], depth: int = 4, *, configured: bool = False) -> None:
    """Register values under keys such as ``Authorization`` or ``api_key``, however deep."""
    for name, value in options.items():
        if isinstance(value, Mapping) and depth:
            register_fields(value, depth - 1, configured=configured)
        elif isinstance(value, str) and SECRET_FIELD.fullmatch(str(name)):
            register(value, value.partition(" ")[2], configured=configured)
        elif isinstance(value, str) and "://" in value:
            register(*secrets_in_url(value), configured=configured)


def secrets_in_url(url: str, *, path: bool = True) -> Iterable[str]:
    """The secrets in an address: its password, or a token in the user's place, in a query, or as a part of the path."""
    try:
        parts = urlsplit(url)
        user, password = parts.username, parts.password
        query = parse_qsl(parts.query, max_num_fields=100)
    except ValueError:
        return
    if password:
        yield unquote(password)
        yield password
    elif user and any(c.isdigit() for c in user):
        yield unquote(user)
    yield from (value for name, value in query if SECRET_FIELD.fullmatch(name))
    if path:
        yield from (part for part in parts.path.split("/") if IDENTIFIER.fullmatch(part))


def hide(text: str, also: Iterable[str] = ()) -> str:
    """`text` without any known secret, nor those in `also`. Takes microseconds where none is in it."""
    for secret in (*also, *_of_request.get(), *known_secrets()):
        for probe, patterns in _forms(secret):
            if probe in text:
                for pattern in patterns:
                    text = re.sub(pattern, PLACEHOLDER, text)
    return text


def known_secrets() -> Iterable[str]:
    """All known secrets, longest first, so that of two the one that holds the other goes as a whole."""
    global _environment
    at, from_environment = _environment
    if time.monotonic() - at > FRESH_SECONDS:
        from_environment = frozenset(_of_environment())
        _environment = time.monotonic(), from_environment
    return _ordered(from_environment, frozenset((*_configured, *_registered)))


@lru_cache(maxsize=4)
def _ordered(environment: frozenset[str], registered: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted({*environment, *registered}, key=lambda s: (-len(s), s)))


def _of_environment() -> Iterable[str]:
    for name, value in os.environ.items():
        secrets: Iterable[str] = ()
        if "://" in value and len(value) < 4096:
            secrets = secrets_in_url(value, path=False)
        elif name.endswith("_HEADERS"):  # "name=value,name=value" or "name: value" (OpenTelemetry's exporters, SDKs)
            pairs = [HEADER.split(pair.strip(), maxsplit=1)[-1] for pair in re.split(r"[,\n]", value)]
            secrets = [secret for pair in pairs for secret in (pair, unquote(pair).partition(" ")[2])]
        elif SECRET_VARIABLE.search(name) and (not SETTING.fullmatch(value) or _is_no_path(value)):
            secrets = (value,)
        yield from (secret for secret in secrets if _is_secret(secret))


def _is_no_path(value: str) -> bool:
    return BASE64.fullmatch(value) is not None and not os.path.exists(value)


def _is_secret(value: str) -> bool:
    return SHORTEST <= len(value) <= 8192 and not HARMLESS.fullmatch(value)


@lru_cache(maxsize=3 * MOST)
def _forms(secret: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(what must occur, the patterns that are then replaced) for every form of a secret, longest first."""
    texts = {secret, *_percent(secret), *_escaped(secret)}
    if HEXADECIMAL.fullmatch(secret):
        texts |= {secret.lower(), secret.upper()}
    if len(secret) >= 12:
        raw = secret.encode(errors="surrogatepass")
        texts |= {raw.hex(), raw.hex().upper(), *_base64(raw)}
    if secret.isalpha() and len(secret) < WORD_CHARACTERS:  # "postgres": not the beginning of "postgresql"
        return tuple((text, (rf"(?<!\w){re.escape(text)}(?!\w)",)) for text in texts)
    if secret.isalpha() or len(secret) < 2 * SHOWN:
        return tuple((text, (re.escape(text),)) for text in sorted(texts, key=len, reverse=True))
    heads: dict[str, list[str]] = {}
    for text in sorted(texts, key=len, reverse=True):
        heads.setdefault(text[:SHOWN], []).append(re.escape(text))
    tail = secret[-SHOWN:]
    # whole; cut off, with what is left of it; or starred in its middle
    forms = [(head, (*wholes, rf"{re.escape(head)}[\w*.…~+/=%-]*")) for head, wholes in heads.items()]
    return (*forms, (tail, (rf"[\w*.…~+/=%-]{{0,256}}{re.escape(tail)}",)))


def _percent(secret: str) -> Iterable[str]:
    """In a URL, with what may stand there left or not, digits of either case, and encoded once more."""
    for once in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield from (once, re.sub("%..", lambda m: m[0].lower(), once), quote(once, safe=""))


def _escaped(secret: str) -> Iterable[str]:
    """As string literals of JSON and Python, and in HTML. Of most keys nothing is escaped."""
    literal = json.dumps(secret)[1:-1]
    yield from (literal, repr(secret)[1:-1], literal.replace("/", r"\/"), json.dumps(literal)[1:-1])
    yield re.sub("[<>&']", lambda m: f"\\u{ord(m[0]):04x}", literal)  # Go's JSON, and JSON in pages
    named, quoted = html.escape(secret, quote=False), html.escape(secret)
    yield from (named, named.replace('"', "&quot;"), quoted, quoted.replace("&#x27;", "&#39;"))
    yield quoted.replace("&#x27;", "&apos;")
    yield re.sub("[&<>\"']", lambda m: f"&#{ord(m[0])};", secret)
    go = quoted.replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    yield from (go, go.replace("+", "&#43;"))


def _base64(raw: bytes) -> Iterable[str]:
    """As it stands in base64 of a longer text (``user:key``), whatever is before and behind it."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[before] : -1 if (before + len(raw)) % 3 else None]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
