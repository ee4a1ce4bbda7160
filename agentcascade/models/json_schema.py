"""JSON Schema validation of answers against schemas of clients, within bounds of size, depth and time.

A schema is a stranger's text. References lead nowhere but into the schema itself and the specification's own
meta-schemas: nothing is fetched, no file is read. `pattern` and `patternProperties` run on RE2, whose time is linear;
a pattern that it does not know (look-around, back references) is not checked, nor are `unevaluatedItems` and
`unevaluatedProperties`. Every keyword that is evaluated is counted; a check that needs too many is given up.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from agentcascade._util import bounds
from agentcascade._util.lru_cache import LRUCache
from agentcascade.errors import InvalidAction, InvalidRequest

MAX_CHARACTERS = 200_000
"""Characters of a schema that is still checked against"""
MAX_VALUES = 10_000
"""Values in it"""
CACHED_SCHEMAS = 200
"""Schemas that are kept compiled: an agent's few recur at every step"""
MAX_DEPTH = 60
"""Keywords within keywords: each takes four frames, and the library's Rust panics where Python's stack is full"""
MAX_CACHED_CHARACTERS = 20_000
"""Characters of a schema that is kept: `CACHED_SCHEMAS` of them are some 40 MB"""
MAX_STEPS = 10_000
"""What one check may cost, in evaluated keywords (5 to 40 µs each)"""
MAX_ERROR_CHARACTERS = 120
"""Characters of an error that are told"""

_LINEAR = 5_000
"""States of an automaton times characters of a text that cost as much as one keyword"""
_SKIPPED = ("unevaluatedItems", "unevaluatedProperties")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_SEARCH = 500
"""What it costs to look up a reference by name: all of the schema is searched for it"""
_LISTS = ("enum", "required")
"""Keywords that would take a text for a list of its characters"""
_SLOW = ('"pattern', 'Ref":', '"$ref":')

MAX_INLINED_VALUES = 20_000
"""Values of a schema when every reference is replaced by what it leads to"""

Keyword = Callable[[Any, Any, Any, Any], Iterator[Any]]


class Compiled(NamedTuple):
    validator: Any
    """None where there is no schema, or it passes a bound: it checks nothing"""
    slow: bool
    """Whether it may take more than some milliseconds: it is large or has patterns"""


class _GivenUp(Exception):
    """A check has cost all that it may."""


_NOTHING = Compiled(None, False)
_spent = threading.local()


def check(value: Any, schema: object, what: str) -> None:
    """Raises `InvalidAction` when `value` does not fit the JSON schema, or when that would take too long to find out.

    What is no schema, or passes a bound, checks nothing; nor does a keyword whose value makes no sense.
    """
    from jsonschema.exceptions import best_match

    validator = compiled(schema).validator
    if validator is None:
        return
    _spent.left, _spent.depth, _spent.patterns = MAX_STEPS, 0, set()
    try:
        errors = list(validator.iter_errors(value))
    except (_GivenUp, RecursionError):
        raise InvalidAction(
            f"{what} cannot be checked against their schema: {MAX_STEPS:,} steps are the most"
        ) from None
    try:
        error = best_match(errors)
    except Exception:  # it looks the type of an error's part of the schema up, and there is no such type
        error = errors[0]
    if error is not None:
        where = ".".join(str(p)[:40] for p in list(error.absolute_path)[:10])
        raise InvalidAction(
            bounds.escape_surrogates(f"{what}{f' at {where}' if where else ''}: {_shortened(error.message)}")
        )


def _shortened(message: str) -> str:
    """A message that begins with the value and ends with what is wrong with it, cut in its middle."""
    if len(message) <= MAX_ERROR_CHARACTERS:
        return message
    half = MAX_ERROR_CHARACTERS // 2
    return f"{message[: half - 3]} … {message[-half:]}"


def is_slow(schema: object) -> bool:
    """Whether a check against it belongs into a thread."""
    return bool(schema) and compiled(schema).slow


def check_inlined(schema: object, what: str) -> None:
    """Raises `InvalidRequest` for a schema that explodes where references are inlined, as litellm does for some APIs.

    Twenty definitions that each name the next one twice are a million values then, in the event loop.
    """
    waiting: list[tuple[object, Mapping[str, object], tuple[str, ...]]] = [(schema, {}, ())]
    left = MAX_INLINED_VALUES
    while waiting:
        part, known, chain = waiting.pop()
        left -= 1 + (len(part) // 50 if isinstance(part, str) else 0)
        if left < 0:
            raise InvalidRequest(
                f"{what}: its references make more than {MAX_INLINED_VALUES:,} values when they are inlined"
            )
        if isinstance(part, list):
            waiting += [(item, known, chain) for item in part]
        elif isinstance(part, Mapping):
            for name in ("$defs", "definitions"):
                if isinstance(below := part.get(name), Mapping):
                    known = {**known, **below}
            leads = part.get("$ref")
            last = leads.rpartition("/")[2] if isinstance(leads, str) else ""
            if last not in known:
                waiting += [(item, known, chain) for item in part.values()]
            elif last not in chain:
                waiting.append((known[last], known, (*chain, last)))


def compiled(schema: object) -> Compiled:
    if not isinstance(schema, Mapping):
        return _NOTHING
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError, RecursionError):
        return _NOTHING
    if len(text) > MAX_CHARACTERS:
        return _NOTHING
    found = _kept.get(text)
    if found is None:
        found = _compile(text)
        if len(text) <= MAX_CACHED_CHARACTERS:
            _kept.put(text, found)
    return found


_kept: LRUCache[str, Compiled] = LRUCache(CACHED_SCHEMAS)


def _compile(text: str) -> Compiled:
    import jsonschema

    try:
        loaded = json.loads(text)
        bounds.count_values(loaded, most=MAX_VALUES)
        kind = jsonschema.validators.validator_for(loaded, default=jsonschema.validators.Draft202012Validator)
        validator = _limited(kind)(loaded, registry=_specifications())
    except Exception:  # a schema's `$id` that is no address, a `$schema` that is no text …
        return _NOTHING
    slow = len(text) > 4_000 or any(mark in text for mark in _SLOW)
    return Compiled(validator, slow)


@lru_cache(maxsize=1)
def _specifications() -> Any:
    """The meta-schemas that come with the library. A registry without a way to retrieve others."""
    from jsonschema_specifications import REGISTRY

    return REGISTRY


@lru_cache(maxsize=16)
def _limited(kind: Any) -> Any:
    """The validator class with every keyword counted, on RE2, and true to itself where a part names another draft."""
    from jsonschema.validators import extend

    own: dict[str, Keyword] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    keywords: dict[str, Any] = {
        name: _counted(name, own.get(name, keyword))
        for name, keyword in kind.VALIDATORS.items()
        if name not in _SKIPPED
    }
    made: Any = extend(kind, keywords)  # type: ignore[no-untyped-call]
    for name in _SKIPPED:
        made.VALIDATORS.pop(name, None)
    made.evolve = _evolve
    return made


def _evolve(self: Any, *, schema: Any = None, _resolver: Any = None) -> Any:
    """The same validator at a part of its schema. The library's own takes another class where the part asks for it."""
    schema = self.schema if schema is None else schema
    return type(self)(schema, registry=self._registry, _resolver=self._resolver if _resolver is None else _resolver)


def _counted(name: str, keyword: Keyword) -> Keyword:
    listed, leads = name in _LISTS, name in _REFERENCES

    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        kind = type(value)
        if listed and kind is not list:
            return
        if _spent.depth >= MAX_DEPTH:
            raise _GivenUp
        _spend(1 + len(value) // 8 if kind is list or kind is dict else 1)
        if leads and kind is str and value != "#" and not value.startswith("#/"):
            _spend(_SEARCH)
        _spent.depth += 1
        try:
            for error in keyword(validator, value, instance, schema) or ():
                _spend(1 + len(error.message) // 100)  # it quotes the instance
                yield error
        except (_GivenUp, RecursionError):
            raise
        except Exception:  # a reference out of the schema, a type that there is none of, a bound that is no number …
            return
        finally:
            _spent.depth -= 1

    return counted


def _spend(steps: int) -> None:
    _spent.left -= steps
    if _spent.left < 0:
        raise _GivenUp


def _found(pattern: Any, text: str) -> bool:
    """Whether `text` fits `pattern`; so does every text where the pattern cannot be checked."""
    compiled = _linear(pattern)
    if compiled is None:
        return True
    _spend(1 + compiled.programsize * len(text) // _LINEAR)
    return compiled.search(text.encode("utf-8", "replace").decode()) is not None


def _linear(pattern: Any) -> Any:
    """`bounds.linear_pattern`, compiled once a check: up to 50 ms where repeated classes make it large."""
    if not isinstance(pattern, str):
        return None
    compiled = bounds.linear_pattern(pattern)
    if pattern not in _spent.patterns:
        _spent.patterns.add(pattern)
        _spend(bounds.compile_cost(pattern))
    return compiled


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not _found(pattern, instance):
        yield ValidationError(f"{instance[:MAX_ERROR_CHARACTERS]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, below in patterns.items():
        if _linear(pattern) is not None:
            for name, value in instance.items():
                if _found(pattern, name):
                    yield from validator.descend(value, below, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not isinstance(instance, dict) or allowed is True:
        return
    named, patterns = schema.get("properties", {}), list(schema.get("patternProperties", {}))
    extra = [n for n in instance if n not in named and not any(_found(pattern, n) for pattern in patterns)]
    if isinstance(allowed, dict):
        for name in extra:
            yield from validator.descend(instance[name], allowed, path=name)
    elif not allowed and extra:
        listed = ", ".join(repr(name[:40]) for name in extra[:3])
        yield ValidationError(f"additional properties are not allowed: {listed}")


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if wanted and isinstance(instance, list):
        _spend(bounds.count_values(instance) // 8)
        seen = {json.dumps(_plain(item), sort_keys=True) for item in instance}
        if len(seen) < len(instance):
            yield ValidationError("there are items that are not unique")


def _plain(value: Any) -> Any:
    """Numbers that are equal in one form; `bounds.DEEPEST` levels at most."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
