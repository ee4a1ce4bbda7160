"""Patterns of secrets and personal data: keys, e-mail addresses, phone numbers.

Every pattern takes time linear in the text: a run of characters is entered at its beginning only, or its length is
bounded. Each begins with something that a search can skip to quickly and looks at its left afterwards: a pass over 3 kB
without findings takes about 0.1 ms.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class SecretPattern(NamedTuple):
    """A regular expression and what replaces its matches. Tried where one of its `hints` occurs in small letters."""

    pattern: re.Pattern[str]
    placeholder: str
    hints: tuple[str, ...] = ()


def _prefixed(prefix: str, rest: str) -> SecretPattern:
    """Keys that begin so, where a word begins, also after a line break that JSON has escaped.

    `rest` takes the whole word: nothing may become a beginning because a key before it was replaced.
    """
    return SecretPattern(re.compile(rf"{prefix}(?:(?<![\w-]{prefix})|(?<=\\[nrt]{prefix}))(?:{rest})"), "[key]")


OWNERS_OF_KEYS = ("api", "access", "secret", "private", "signing", "encryption", "account")
OWNERS_OF_TOKENS = ("api", "access", "secret", "auth", "refresh", "bearer", "session")
AFTER_OWNER = "|".join(
    rf"(?<={owner}[_ -]{word})|(?<={owner}{word})"
    for word, owners in (("key", OWNERS_OF_KEYS), ("token", OWNERS_OF_TOKENS))
    for owner in owners
)
NAME = (
    rf"[kKtTsSpP](?i:(?:(?<=k)ey|(?<=t)oken)(?:{AFTER_OWNER})|(?<=s)ecret(?:[_-]?(?:key|token))?"
    r"|(?<=p)ass(?:w(?:or)?d|phrase))"
)
SECRET_FIELD = re.compile(rf"[\w -]{{0,40}}{NAME}")
"""Names of fields that hold secrets."""

REST = r"(?=[A-Za-z_-]*\d)[\w-]{16,}"
"""Of a key by chance, not of a name that begins like one: it has a digit."""

KEYS = (
    SecretPattern(
        re.compile(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:[\w+/=\s\\:,.]+|-(?!----))*"
            r"(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?"
        ),
        "[key]",
    ),
    SecretPattern(
        re.compile(
            rf"({NAME}[\\\"']{{0,4}}[ \t]{{0,3}}[:=][ \t]{{0,3}})"
            r"(?:(\\?[\"'])(?:(?!\2)(?:\\.|[^\\\n]))+"
            r"|(?!(?i:true|false|null|none|string)\b)[^\s\"',;&(){}\[\]<>\\]{4,})"
        ),
        r"\1\2[key]",
        ("key", "token", "secret", "passw", "passphrase"),
    ),
    SecretPattern(
        re.compile(
            r"([aA](?i:uthorization)[\\\"']{0,4}[ \t]{0,3}[:=][ \t]{0,3}[\\\"']{0,2}(?i:bearer|basic|token)[ \t]{1,3}"
            r"|[bB](?i:earer)[ \t]{1,3}(?=[\w.~+/=-]{20}|[A-Za-z._~+/=-]*\d))[\w.~+/=-]{6,}"
        ),
        r"\1[key]",
        ("bearer", "authorization"),
    ),
    _prefixed("sk", rf"-{REST}|_(?:live|test)_[\w-]{{10,}}"),
    _prefixed("rk_", r"(?:live|test)_[\w-]{10,}"),
    _prefixed("ac-", r"[a-z0-9]{8,32}-[\w-]{20,}"),
    _prefixed("gh", rf"[oprsu]_{REST}"),
    *(_prefixed(prefix, REST) for prefix in ("github_pat_", "glpat-", "gsk_", "hf_", "npm_", "pypi-")),
    _prefixed("x", rf"ai-{REST}|(?:ox[abeoprs]|app)-[\w-]{{10,}}"),
    _prefixed("A", r"(?:KIA|SIA)[A-Z0-9]{16}(?![A-Z0-9])[\w-]*|Iza[\w-]{30,}"),
    _prefixed("eyJ", r"[\w-]{8,}+\.[\w-]{8,}+\.[\w-]*"),
    SecretPattern(re.compile(r"://[^\s/:@\[\]\"']{0,100}:[^\s/@\[\]\"']{1,200}(?=@)"), "://[key]"),
)

PHONES = tuple(
    SecretPattern(re.compile(rf"[{first}](?<![\w.,#/+$€£-].)(?:{rest})(?![\w-]|[.:/,+(]\d)"), "[phone]")
    for first, rest in (
        (
            "+",
            r"(?=(?:[ ()-]{0,2}\d){8})[1-9]\d{0,2}[ -]?(?:\(\d{1,4}\)[ -]?)?\d{1,12}(?:[ -]\d{2,9}){0,5}"
            r"|(?=(?:\.?\d){8})\d{1,3}(?:\.\d{2,5}){2,5}",
        ),
        ("(", r"[2-9]\d{2}\)[ .-]?\d{3}[ .-]\d{4}|0\d{1,4}\)[ -]?\d{3,4}[ -]?\d{3,4}"),
        (
            "0-9",
            r"(?<=[2-9])\d{2}([.-])\d{3}\1\d{4}"
            r"|(?<=1)(?:[ .-]?\([2-9]\d{2}\)[ .-]?\d{3}[ .-]\d{4}|([.-])[2-9]\d{2}\2\d{3}\2\d{4})"
            r"|(?<=0)[1-9](?:([ .-])\d{2}(?:\3\d{2}){3}|\d{1,3} \d{3,4} \d{3,4})",
        ),
    )
)
"""With a country's code, parentheses or the usual separators: long numbers, dates and IP addresses are none."""

LOCAL = re.compile(r"[\w.%+-]+")
DOMAIN = re.compile(r"@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b")


def replace_secrets(text: str, patterns: tuple[SecretPattern, ...]) -> str:
    """`text` after every pattern in turn."""
    small = text.lower()
    for pattern, placeholder, hints in patterns:
        if not hints or any(hint in small for hint in hints):
            text = pattern.sub(placeholder, text)
    return text


def replace_emails(text: str) -> str:
    """`text` with ``[email]`` for every address, found from its ``@`` on, since every word could begin one."""
    if "@" not in text:
        return text
    parts, at = [], 0
    for domain in DOMAIN.finditer(text):
        local = LOCAL.match(text[max(at, domain.start() - 64) : domain.start()][::-1])
        if local is None:
            continue
        start = domain.start() - local.end()
        if local.end() > 1 and text[start] in "nrt" and text[start - 1 : start] == "\\":  # an escaped line break's
            start += 1
        parts += [text[at:start], "[email]"]
        at = domain.end()
    return "".join([*parts, text[at:]])
