"""BFCL's check of tool calls against possible answers ("AST check"), re-implemented in our own words.

It keeps the official rules, odd ones too, since verdicts are compared: types must be exact (only an int may stand for
a float of Python, and only at the top), a value of the possible answers' own type passes as a variable, texts are equal
less case, spaces and ``,./-_*^``. As of August 2024 (gorilla de8307b); `tests/benchmarks/bench_bfcl.py` compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from agentcascade.envs.bfcl import source_code
from agentcascade.envs.bfcl.calls import Call
from agentcascade.envs.bfcl.tasks import Expected, Language, mangled

_PYTHON: dict[str, type] = {
    **dict.fromkeys(("string", "any"), str),
    **dict.fromkeys(("array", "tuple"), list),
    "integer": int,
    "float": float,
    "boolean": bool,
    "dict": dict,
}
_JAVA: dict[str, type] = {
    **dict.fromkeys(("byte", "short", "integer", "long"), int),
    **dict.fromkeys(("float", "double"), float),
    **dict.fromkeys(("char", "String", "any"), str),
    **dict.fromkeys(("Array", "ArrayList", "Queue", "Stack"), list),
    **dict.fromkeys(("HashMap", "Hashtable"), dict),
    "boolean": bool,
    "Set": set,
}
_JAVASCRIPT: dict[str, type] = {
    **dict.fromkeys(("String", "any"), str),
    **dict.fromkeys(("integer", "Bigint"), int),
    "float": float,
    "Boolean": bool,
    "dict": dict,
    "array": list,
}
_TYPES: dict[str, dict[str, type]] = {"Python": _PYTHON, "Java": _JAVA, "JavaScript": _JAVASCRIPT}
_LISTS = ("Array", "ArrayList", "array", "tuple")
_IGNORED = str.maketrans(dict.fromkeys(" ,./-_*^") | {"'": '"'})
DEEPEST = 50


class Verdict(NamedTuple):
    right: bool
    kind: str = ""
    """What is wrong, in a few words that are alike for alike faults"""
    detail: str = ""


RIGHT = Verdict(True)


def check(
    calls: Sequence[Call] | None, expected: Sequence[Expected], language: Language = "Python", *, dots: bool = False
) -> Verdict:
    """Whether these calls are what a task asks for, in any order.

    `calls` is None where nothing could be read, which is right only where no call is. `dots`: functions kept them in
    their names, as they do for a model that was shown functions in its prompt.
    """
    if not expected:
        return Verdict(False, "a call where none fits", calls[0].name[:80]) if calls else RIGHT
    if calls is None:
        return Verdict(False, "no call could be read")
    if len(calls) != len(expected):
        return Verdict(False, "number of calls", f"{len(calls)} for {len(expected)}")
    left = list(calls)
    for wanted in expected:
        verdicts = []
        for i, call in enumerate(left):
            verdicts.append(_one(call, wanted, language, dots))
            if verdicts[-1].right:
                del left[i]
                break
        else:
            return verdicts[0] if len(expected) == 1 else Verdict(False, "no call fits", verdicts[0].kind)
    return RIGHT


def _one(call: Call, expected: Expected, language: Language, dots: bool) -> Verdict:
    function = expected.function
    if function is None:
        return Verdict(False, "the task lacks the expected function")
    if call.name != (function["name"] if dots else mangled(function["name"])):
        return Verdict(False, "function", call.name[:80])
    if not isinstance(call.arguments, dict):
        return Verdict(False, "arguments", "no object")
    known, required = function["parameters"]["properties"], function["parameters"].get("required")
    missing = [name for name in required if name not in call.arguments] if isinstance(required, list) else []
    if missing:
        return Verdict(False, "required argument missing", missing[0])
    for name, value in call.arguments.items():
        if name not in known or name not in expected.values:
            return Verdict(False, "unexpected argument", str(name)[:80])
        wrong = _argument(value, expected.values[name], known[name], language)
        if wrong:
            return Verdict(False, wrong, f"{str(name)[:80]} = {str(value)[:80]!r}")
    for name, options in expected.values.items():
        if name not in call.arguments and not _among("", options):
            return Verdict(False, "optional argument missing", name)
    return RIGHT


def _argument(value: Any, options: list[Any], schema: dict[str, Any], language: Language) -> str:
    """What is wrong with one argument; "" where nothing is."""
    kind = str(schema.get("type") or "")
    types = _TYPES[language]
    if kind not in types:
        return "unknown type"
    inner, items = None, schema.get("items")
    if kind in _LISTS:
        inner = str(items.get("type") or "") if isinstance(items, dict) else ""
        if inner not in types:
            return "unknown type"
    if language != "Python":
        if not isinstance(value, str):
            return "type"
        value = (source_code.java if language == "Java" else source_code.javascript)(value, kind, inner)
    if kind == "tuple" and type(value) is tuple:
        value = list(value)
    if language == "Python" and kind == "float" and type(value) is int:
        value = float(value) if abs(value) < 1e300 else value
    wanted, below = types[kind], types[inner] if inner else None
    if not _of_type(value, options, wanted, below):
        return "type" if type(value) is not wanted else "type inside"
    if not _variable(options, wanted):
        if wanted is dict:
            return "" if _dictionary(value, options, 0) else "value in a dictionary"
        if wanted is list and below is dict:
            return "" if _dictionaries(value, options) else "value in a list of dictionaries"
        if wanted is str:
            return "" if _among(_folded(value), [_folded(o) for o in options if isinstance(o, str)]) else "text"
        if wanted is list:
            return "" if _among(_folded_list(value), [_folded_list(o) for o in options]) else "list"
    return "" if _among(value, options) else "value"


def _of_type(value: Any, options: Any, wanted: type[Any], below: type[Any] | None) -> bool:
    """Of the function's type, or of the possible answers' own, which then name a variable."""
    if type(value) is wanted:
        if below is None:
            return True
        return any(not isinstance(o, list) or all(_of_type(v, o, below, None) for v in value) for o in options)
    own = _own_type(options)
    return own is not None and type(value) is own


def _variable(options: Any, wanted: type) -> bool:
    own = _own_type(options)
    return own is not None and own is not wanted


def _own_type(options: Any) -> type | None:
    return next((type(option) for option in options if not (isinstance(option, str) and option == "")), None)


def _folded(value: Any) -> Any:
    return value.translate(_IGNORED).lower() if isinstance(value, str) else value


def _folded_list(value: Any) -> Any:
    return [_folded(item) for item in value] if isinstance(value, (list, tuple, str)) else value


def _dictionary(value: Any, options: list[Any], depth: int) -> bool:
    if not isinstance(value, dict) or depth > DEEPEST:
        return False
    for option in options:
        if not isinstance(option, dict) or len(option) != len(value):
            continue
        if all(name in option and _field(given, option[name], depth) for name, given in value.items()):
            return True
    return False


def _field(value: Any, options: Any, depth: int) -> bool:
    if isinstance(options, dict):
        return _dictionary(value, [options], depth + 1)
    return isinstance(options, list) and _among(_folded(value), [_folded(option) for option in options])


def _dictionaries(value: list[Any], options: list[Any]) -> bool:
    return any(
        isinstance(option, (list, str))
        and len(option) == len(value)
        and all(_dictionary(given, [wanted], 0) for given, wanted in zip(value, option))
        for option in options
    )


def _among(value: Any, options: Sequence[Any]) -> bool:
    try:
        return value in options
    except RecursionError:
        return False
