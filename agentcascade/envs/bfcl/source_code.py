"""Values that Java and JavaScript source spells: arguments of BFCL's functions in these languages are strings.

Only what BFCL's check looks at: literals, flat lists and maps. Whatever is spelt in another way stays a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from agentcascade.errors import InvalidAction

LONGEST = 5_000
"""Characters of a value that is converted; a longer one stays a text"""
_WHOLE = re.compile(r"-?\d{1,300}")
_REAL = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?(?:[eE][+-]?\d{1,3})?")
_PLAIN_REAL = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?")
_NEXT = re.compile(r"\s*[\w$]+\s*=(?![=>])")
_ARGUMENT = re.compile(r"\s*([\w$]+)\s*=(?![=>])")
_FUNCTION = re.compile(r"\s*([\w$.]+)\s*\(")
_JAVA_ARRAY = re.compile(r"new\s{1,9}\w{1,99}\[\]\s{0,9}\{([^}\n]*)\}")
_JAVA_LIST = re.compile(r"new\s{1,9}ArrayList<\w{0,99}>\(Arrays\.asList\((.{1,5000}?)\)\)")
_JAVA_ADDS = re.compile(r"new\s{1,9}ArrayList<\w{0,99}>\(\)\s{0,9}\{\{(.{1,5000}?)\}\}", re.DOTALL)
_JAVA_EMPTY_LIST = re.compile(r"new\s{1,9}ArrayList<\w{0,99}>\(\)")
_JAVA_MAP = re.compile(r"new\s{1,9}HashMap<[^>]{0,99}>\s{0,9}\(\)\s{0,9}(\{)?")
_ADD = re.compile(r"add\(([^)]+)\)")
_PUT = re.compile(r"put\(\"([^\"]*)\",\s*([^)]*)\)")
_OPENS, _CLOSES, _QUOTES = "([{", ")]}", "\"'`"


def as_json(value: Any) -> str:
    """A value that Python source or JSON spelt, as JSON; what JSON has not stands as its text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidAction(f"arguments that JSON cannot hold: {str(error)[:120]}") from error


def call(text: str, language: str) -> tuple[str, dict[str, str]]:
    """The name and the arguments, as source, of one call ``f(a=1, b="x")``. Raises `InvalidAction`."""
    head = _FUNCTION.match(text)
    if head is None:
        raise InvalidAction(f"no call: {text[:80]!r}")
    pieces = list(_arguments(text, head.end(), language))
    found: dict[str, str] = {}
    for piece in pieces if len(pieces) > 1 or pieces[0].strip() else []:
        match = _ARGUMENT.match(piece)
        if match is None or match.group(1) in found:
            raise InvalidAction(f"not an argument by name, or one twice: {piece[:80]!r}")
        value = piece[match.end() :].strip()
        found[match.group(1)] = _java(value) if language == "Java" else _unquoted(value)
    return head.group(1), found


def _arguments(text: str, start: int, language: str) -> Iterator[str]:
    """What stands between commas up to the closing parenthesis, behind which nothing follows.

    A comma ends an argument only where ``name =`` comes next: ``Map<String, Object>`` holds one too.
    """
    opened: list[str] = []
    quote, i, begin = "", start, start
    while i < len(text):
        char = text[i]
        if quote:
            i += char == "\\"
            quote = "" if char == quote else quote
        elif char in _QUOTES and not (language == "Java" and char == "`"):
            quote = char
        elif char in _OPENS:
            opened.append(_CLOSES[_OPENS.index(char)])
        elif char == ")" and not opened:
            if text[i + 1 :].strip().strip(";"):
                raise InvalidAction(f"more than one call: {text[i : i + 80]!r}")
            yield text[begin:i]
            return
        elif char in _CLOSES:
            if not opened or opened.pop() != char:
                break
        elif char == "," and not opened and _NEXT.match(text, i + 1):
            yield text[begin:i]
            begin = i + 1
        i += 1
    raise InvalidAction(f"brackets or quotes do not close: {text[:80]!r}")


def _java(value: str) -> str:
    if value[:1] in ("[", "{"):
        raise InvalidAction(f"not a Java expression: {value[:80]!r}")
    return _unquoted(value)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def java(value: str, kind: str, inner: str | None = None) -> Any:
    """A Java value of a type as Python's; the text where it does not spell one."""
    if len(value) > LONGEST:
        return value
    if kind in ("byte", "short", "integer"):
        return int(value) if _WHOLE.fullmatch(value) else value
    if kind == "long":
        return int(value[:-1]) if value[-1:] in ("l", "L") and _WHOLE.fullmatch(value[:-1]) else value
    if kind == "float":
        return float(value[:-1]) if value[-1:] in ("f", "F") and _REAL.fullmatch(value[:-1]) else value
    if kind == "double":
        return float(value) if _REAL.fullmatch(value) else value
    if kind == "boolean":
        return _boolean(value)
    if kind == "Array":
        found = _JAVA_ARRAY.search(value)
        return [_element(e, inner) for e in _split(found.group(1)) if e] if found else value
    if kind == "ArrayList":
        return _array_list(value, inner)
    return _hash_map(value) if kind == "HashMap" else value


def _element(text: str, inner: str | None) -> Any:
    return java(text, inner) if inner else _guessed_java(text)


def _array_list(value: str, inner: str | None) -> Any:
    found = _JAVA_LIST.search(value)
    parts = _split(found.group(1)) if found else None
    if parts is None and (found := _JAVA_ADDS.search(value)):
        parts = [part.strip() for part in _ADD.findall(found.group(1))]
    if parts is None:
        return [] if _JAVA_EMPTY_LIST.search(value) else value
    return [part[1:-1] if inner in ("char", "String") else _element(part, inner) for part in parts]


def _hash_map(value: str) -> Any:
    found = _JAVA_MAP.search(value)
    if not found:
        return value
    return {key: _guessed_java(v.strip()) for key, v in _PUT.findall(value[found.end() :])} if found.group(1) else {}


def _guessed_java(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    for kind in ("boolean", "long", "float"):
        if (found := java(text, kind)) != text:
            return found
    return _number(text)


def javascript(value: str, kind: str, inner: str | None = None) -> Any:
    """A JavaScript value of a type as Python's; the text where it does not spell one."""
    if len(value) > LONGEST:
        return value
    if kind == "String":
        return _unquoted(value)
    if kind == "integer":
        return int(value) if _WHOLE.fullmatch(value) else value
    if kind == "float":
        return float(value) if _PLAIN_REAL.fullmatch(value) else value
    if kind == "Bigint":
        return int(value[:-1]) if value[-1:] == "n" and _WHOLE.fullmatch(value[:-1]) else value
    if kind == "Boolean":
        return _boolean(value)
    if kind == "array":
        return _array(value.strip(), inner)
    return _object(value.strip()) if kind == "dict" else value


def _array(code: str, inner: str | None) -> Any:
    if re.match(r"(?:new\s{1,9}Array\(\s{0,9})?\[\s{0,9}\[", code):
        rows = re.findall(r"\[([^\[\]]*)\]", code)
        return [[_guessed_javascript(e) for e in _split(row)] for row in rows]
    found = re.match(r"\[([^\]\n]*)\]|new\s{1,9}Array\(([^)\n]*)\)", code)
    if not found:
        return code
    content = (found.group(1) if found.group(1) is not None else found.group(2)).strip()
    parts = _split(content) if content else []
    return [javascript(part, inner) if inner else _guessed_javascript(part) for part in parts]


def _object(code: str) -> Any:
    found = re.match(r"\{([^}\n]*)\}", code)
    if not found:
        return code
    pairs: list[str] = []
    for piece in found.group(1).split(","):
        if ":" in piece or not pairs:
            pairs.append(piece)
        else:
            pairs[-1] += f",{piece}"  # a comma inside a value
    made = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        value = value.strip()
        if colon:
            made[name.strip().strip("'\"")] = (
                _array(value, None)
                if value[:1] == "[" and value[-1:] == "]"
                else _guessed_javascript(value.strip("'\""))
            )
    return made


def _guessed_javascript(text: str) -> Any:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    return _unquoted(text) if text[:1] in ("'", '"') and _unquoted(text) != text else _number(text)


def _boolean(text: str) -> Any:
    return text == "true" if text in ("true", "false") else text


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
