"""Function calls in a model's answer: tool calls, a Python list, JSON, or tags, as each of BFCL's models writes them.

Read as strictly as the official harness reads them: an answer in a Markdown fence is no call where the model was asked
for a bare list. Every text is hostile: what is too long, nests too deep or does not parse is an `InvalidAction`.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from agentcascade._util import bounds
from agentcascade.envs.bfcl import source_code
from agentcascade.errors import InvalidAction
from agentcascade.types import Message

Form = Literal["tools", "list", "open list", "json", "hermes", "granite", "any"]
"""How a model writes calls: as tool calls; as ``[f(x=1)]``; likewise, brackets forgiven; as ``{"tool_calls": […]}``;
in ``<tool_call>`` tags, a line of JSON each; after ``<function_call>``; in whichever of these ways."""
LONGEST = 50_000
"""Characters of an answer that is still read"""
DEEPEST = 100
MOST = 20_000
"""Nodes of a Python expression"""
MOST_CALLS = 200
_NAMED = "<answer>"
warnings.filterwarnings("ignore", module=re.escape(_NAMED))  # an answer's odd escapes are not ours to report
_FENCE = re.compile(r"```\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_TAG = re.compile(r"</?(?:tool_call|tool_solution|tools|function_call)>")


class Call(NamedTuple):
    name: str
    arguments: Any
    """By name; whatever the model gave instead where it gave no object"""


def read(answer: Any, form: Form = "tools", language: str = "Python") -> tuple[Call, ...]:
    """The calls of a recorded answer, which is a text or a list of ``{name: arguments}``; none where it is empty.

    Raises `InvalidAction` where it holds something else: then the model called nothing.
    """
    reader = _READERS[form]
    if isinstance(answer, str) and len(answer) > LONGEST:
        raise InvalidAction(f"an answer of {len(answer):,} characters: {LONGEST:,} is the most")
    try:
        found = tuple(reader(answer, language))
    except (KeyError, AttributeError, TypeError) as error:
        raise InvalidAction(f"not in the form of {form}: {str(answer)[:80]!r}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidAction(f"no calls in {str(answer)[:80]!r}: {str(error)[:120]}") from error
    if len(found) > MOST_CALLS:
        raise InvalidAction(f"{len(found):,} calls: {MOST_CALLS} are the most")
    return found


def message(calls: tuple[Call, ...], text: str = "") -> Message:
    """An assistant's message of OpenAI's shape: names without dots, as tools have them; ids by place."""
    made: Message = {"role": "assistant", "content": text or None}
    if calls:
        made["tool_calls"] = [
            {
                "id": f"call_{i}",
                "type": "function",
                "function": {"name": call.name.replace(".", "_"), "arguments": source_code.as_json(call.arguments)},
            }
            for i, call in enumerate(calls)
        ]
    return made


def _tools(answer: Any, language: str) -> list[Call]:
    if answer == "":
        return []
    if not isinstance(answer, list):
        raise InvalidAction(f"text: {str(answer)[:80]!r}")
    found = []
    for part in answer:
        name, arguments = next(iter(part.items()))
        found.append(Call(str(name), bounds.loads(arguments)))
    return found


def _list(answer: str, language: str) -> list[Call]:
    if language != "Python":
        return [Call(*source_code.call(answer[1:-1], language))]
    body = _expression(answer)
    if not isinstance(body, (ast.List, ast.Tuple, ast.Set)):
        raise InvalidAction(f"no list of calls: {answer[:80]!r}")
    if not all(isinstance(element, ast.Call) and element.keywords for element in body.elts):
        raise InvalidAction(
            f"not calls with arguments by name: {answer[:80]!r}"
        )  # the official reader takes f() for text
    return [_call(element) for element in body.elts]


def _open_list(answer: str, language: str) -> list[Call]:
    text = answer.removeprefix(" ")
    return _list(("" if text.startswith("[") else "[") + text + ("" if text.endswith("]") else "]"), language)


def _json(answer: str, language: str) -> list[Call]:
    value = bounds.loads(answer)
    calls = value if isinstance(value, list) else value.get("tool_calls", [])
    return [Call(str(c.get("name", "")), c.get("arguments", {})) for c in calls if isinstance(c, dict)]


def _hermes(answer: str, language: str) -> list[Call]:
    lines = answer.split("\n")
    found = []
    for before, line in pairwise(lines):
        if before == "<tool_call>" and line not in ("<tool_call>", "</tool_call>"):
            value = bounds.loads(line.replace("'", '"'))
            arguments = value["arguments"]
            if language != "Python":
                arguments = {name: str(given) for name, given in arguments.items()}
            found.append(Call(str(value["name"]), arguments))
    return found


def _granite(answer: str, language: str) -> list[Call]:
    found = []
    for part in filter(None, map(str.strip, answer.split("<function_call>"))):
        value = bounds.loads(part)
        name = value.get("name", "").strip()
        if name == "no_function":
            raise InvalidAction("it says that no function fits")
        found.append(Call(name, value.get("arguments", {})))
    return found


def _any(answer: Any, language: str) -> list[Call]:
    """For samples of small models, which write a call in whatever way: the first form that holds one."""
    if not isinstance(answer, str):
        return _tools(answer, language)
    fence = _FENCE.search(answer)
    inner = _TAG.sub("\n", fence.group(1) if fence else answer).strip()
    found: list[Call] = []
    for line in [inner] if inner.count("\n") > 50 else [inner, *inner.splitlines()]:
        if line[:1] in "{[":
            try:
                value = bounds.loads(line)
            except ValueError:
                continue
            calls = value if isinstance(value, list) else value.get("tool_calls", [value])
            found += [Call(c["name"], c.get("arguments", {})) for c in calls if isinstance(c.get("name"), str)]
            if line is inner:
                break
    if found:
        return found
    for reader in (_hermes, _granite, _open_list):
        try:
            if found := reader(answer.strip() if reader is not _open_list else inner, language):
                return found
        except (InvalidAction, ValueError, KeyError, AttributeError, TypeError):
            continue
    raise InvalidAction(f"no calls in {answer[:80]!r}")


_READERS: dict[Form, Callable[[Any, str], list[Call]]] = {
    "tools": _tools,
    "list": _list,
    "open list": _open_list,
    "json": _json,
    "hermes": _hermes,
    "granite": _granite,
    "any": _any,
}


def _expression(text: str) -> ast.expr:
    try:
        tree = ast.parse(text, _NAMED, mode="eval")
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError, SystemError) as error:
        raise InvalidAction(f"not Python: {text[:80]!r} ({str(error)[:80]})") from error
    level: list[ast.AST] = [tree.body]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if count > MOST or depth > DEEPEST:
            raise InvalidAction(f"more than {MOST:,} parts or {DEEPEST} levels: {text[:80]!r}")
        level = [below for node in level for below in ast.iter_child_nodes(node)]
    return tree.body


def _call(node: ast.AST) -> Call:
    if not isinstance(node, ast.Call):
        raise InvalidAction(f"not a call: {ast.unparse(node)[:80]!r}")
    return Call(ast.unparse(node.func), {str(k.arg): _value(k.value) for k in node.keywords})


def _value(node: ast.AST) -> Any:
    """A literal; names, and calls without keywords, stand as their text; arithmetic of numbers is worked out."""
    match node:
        case ast.Constant(value=value):
            return "..." if value is ... else value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=parts):
            return [_value(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part) for part in parts)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_hashable(_value(key)): _value(value) for key, value in zip(keys, values) if key is not None}
        case ast.Name(id=name):
            return name
        case ast.BinOp():
            return _worked_out(node)
        case ast.Call(keywords=[]) | ast.Subscript():
            return ast.unparse(node)
        case ast.Call():
            inner = _call(node)
            return {inner.name: inner.arguments}
    raise InvalidAction(f"not a value: {ast.unparse(node)[:80]!r}")


def _hashable(key: Any) -> Any:
    return key if isinstance(key, (str, int, float, bool, type(None))) else str(key)


def _worked_out(node: ast.AST) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Constant(value=str() as text):
            return text
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_worked_out(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return _applied(op, _worked_out(left), _worked_out(right))
    raise InvalidAction(f"not arithmetic: {ast.unparse(node)[:80]!r}")


def _applied(op: ast.operator, a: Any, b: Any) -> Any:
    if isinstance(a, str) or isinstance(b, str):
        if isinstance(op, ast.Add) and isinstance(a, str) and isinstance(b, str):
            return a + b
        raise InvalidAction("not arithmetic of numbers")
    if max(abs(a), abs(b)) > 1e15:
        raise InvalidAction("arithmetic of large numbers")
    try:
        match op:
            case ast.Add():
                return a + b
            case ast.Sub():
                return a - b
            case ast.Mult():
                return a * b
            case ast.Div():
                return a / b
            case ast.FloorDiv():
                return a // b
            case ast.Mod():
                return a % b
            case ast.Pow() if abs(b) <= 64:
                return a**b
    except (ArithmeticError, ValueError) as error:
        raise InvalidAction(str(error)[:120]) from error
    raise InvalidAction("not arithmetic of numbers")
