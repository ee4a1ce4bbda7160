"""Known secrets removed from an exception in place: its text, body, response and causes; it stays the same object."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from types import MemberDescriptorType
from typing import Any

from agentcascade._util import known_secrets

CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization")
"""Headers of a request, whose values are secrets though nobody registered them."""
MOST_ERRORS, MOST_VALUES = 32, 100_000
"""Causes of one exception, and values of one body, that are looked through; what is beyond them is cut off."""
MOST_TUPLES = 8
"""Of one in another; what is deeper is cut off."""


def remove_secrets(error: BaseException) -> None:
    """Remove known secrets from `error`, and from all that caused it; its class and everything else stay.

    A provider that says back the key that it was sent says it in the text, body and headers of its error, which
    programs log. Removed are the known secrets (`known_secrets`) and the credentials of the request itself, by value.
    """
    errors = _with_causes(error)
    also = frozenset(secret for each in errors for secret in _credentials(each))
    for each in errors:
        _clean(each, also)
    for each in errors[1:]:
        if _says_secret(each, also):  # one that cannot be changed, such as pydantic's
            _cut_off(each, errors)


def _with_causes(error: BaseException) -> list[BaseException]:
    """The error, its causes and contexts, members of groups and arguments; those beyond the limit are cut off."""
    errors: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if id(each) in errors:
            continue
        errors[id(each)] = each
        if len(errors) >= MOST_ERRORS:
            each.__cause__ = each.__context__ = None
        waiting += [e for e in (each.__cause__, each.__context__) if e is not None]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        with suppress(Exception):
            waiting += [e for e in each.args if isinstance(e, BaseException)]
    return list(errors.values())


def _clean(error: BaseException, also: Iterable[str]) -> None:
    with suppress(Exception):
        error.args = tuple(_cleaned(list(error.args), also))
    for name, value in _fields(error).items():
        with suppress(Exception):  # of a value that raises whatever it is asked, or must not be set
            if isinstance(value, str | bytes | list | dict | tuple | set | frozenset):
                if (new := _cleaned(value, also)) is not value:
                    setattr(error, name, new)
            elif _is_http(value):
                _clean_http(value, also)
            elif hasattr(value, "multi_items"):  # litellm keeps headers alone
                setattr(error, name, _headers(value, also))
    if isinstance(error, UnicodeError) and hasattr(error, "object"):
        error.object = _cleaned(error.object, also)


def _fields(error: BaseException) -> dict[str, Any]:
    """Its attributes, also those in slots (`OSError.strerror`)."""
    fields: dict[str, Any] = dict(getattr(error, "__dict__", {}))
    for kind in type(error).__mro__:
        for name, descriptor in vars(kind).items():
            if isinstance(descriptor, MemberDescriptorType) and not name.startswith("__"):
                with suppress(Exception):
                    fields[name] = getattr(error, name)
    return fields


def _says_secret(error: BaseException, also: Iterable[str]) -> bool:
    try:
        text = f"{error}\n{error!r}"
    except Exception:  # nobody can print it
        return False
    return bool(_text(text, also) != text)


def _cut_off(error: BaseException, errors: Iterable[BaseException]) -> None:
    for each in errors:
        if each.__context__ is error:
            each.__context__ = error.__context__
        if each.__cause__ is error:
            each.__cause__ = error.__cause__ or error.__context__


def _cleaned(value: Any, also: Iterable[str], depth: int = 0) -> Any:
    """`value` without secrets: a new text, the same list or dictionary with new texts in it, however deep."""
    if isinstance(value, tuple | set | frozenset):
        is_bounded = len(value) <= MOST_VALUES and depth < MOST_TUPLES
        new = [_cleaned(item, also, depth + 1) for item in value] if is_bounded else []
        return value if len(new) == len(value) and all(a is b for a, b in zip(new, value)) else type(value)(new)
    if not isinstance(value, list | dict):
        return _text(value, also)
    root: list[Any] = [value]
    waiting: list[list[Any] | dict[Any, Any]] = [root]
    left = MOST_VALUES
    while waiting:
        container = waiting.pop()
        items: Iterable[tuple[Any, Any]] = container.items() if isinstance(container, dict) else enumerate(container)
        if left <= 0:
            container.clear()
            continue
        for key, item in list(items):
            left -= 1
            is_fixed = isinstance(item, tuple | set | frozenset)
            new = _cleaned(item, also, depth + 1) if is_fixed else _text(item, also)
            if isinstance(item, list | dict):
                waiting.append(item)
            if isinstance(container, dict) and (name := _text(key, also)) != key:
                del container[key]
                container[name] = new
            elif new is not item:
                container[key] = new
    return root[0]


def _text(value: Any, also: Iterable[str]) -> Any:
    if isinstance(value, str):
        hidden = known_secrets.hide(value, also)
        return value if hidden == value else hidden
    if isinstance(value, bytes):
        text = value.decode("utf-8", "surrogateescape")
        hidden = known_secrets.hide(text, also)
        return value if hidden == text else hidden.encode("utf-8", "surrogateescape")
    return value


def _is_http(value: Any) -> bool:
    """Whether it is a request or response of httpx, or of what looks like it."""
    try:
        return hasattr(value, "headers") and (hasattr(value, "status_code") or hasattr(value, "method"))
    except Exception:  # what it raises when it is asked is no attribute error
        return False


def _credentials(error: BaseException) -> Iterable[str]:
    """Values that requests of this error were sent with to prove who asks, and secrets in their address."""
    for value in list(getattr(error, "__dict__", {}).values()):
        if not _is_http(value):
            continue
        request = getattr(value, "_request", value)
        with suppress(Exception):
            for name in CREDENTIALS:
                value_sent = request.headers.get(name) or ""
                secret = value_sent.partition(" ")[2] or value_sent
                if len(secret) >= known_secrets.SHORTEST:
                    yield secret
        with suppress(Exception):
            yield from known_secrets.secrets_in_url(str(request.url))


def _clean_http(message: Any, also: Iterable[str]) -> None:
    """A request or response, and the redirects and requests behind it."""
    responses = [message, *getattr(message, "history", ())]
    for each in [*responses, *(getattr(r, "_request", None) for r in responses)]:
        if each is not None:
            _clean_headers(each, also)
            _clean_content(each, also)


def _headers(headers: Any, also: Iterable[str]) -> Any:
    pairs = headers.multi_items()
    new = [(_text(name, also), _text(value, also)) for name, value in pairs]
    return headers if new == pairs else type(headers)(new)


def _clean_headers(message: Any, also: Iterable[str]) -> None:
    with suppress(Exception):
        message.headers = _headers(message.headers, also)
    with suppress(Exception):
        if hasattr(message, "method") and (url := _text(str(message.url), also)) != str(message.url):
            message.url = type(message.url)(url)


def _clean_content(response: Any, also: Iterable[str]) -> None:
    """The text of a response, in the encoding that it came in, and its bytes."""
    if not hasattr(response, "status_code") or "_content" not in vars(response):
        return
    with suppress(Exception):
        text = response.text
        if (hidden := _text(text, also)) is not text:
            response._content, response._text = hidden.encode(response.encoding or "utf-8"), hidden
    response._content = _text(response._content, also)
