"""BFCL's single-turn tasks: questions, functions as OpenAI tools, and the possible answers of the official check.

Editions differ in ids and form: of August 2024, `multiple_function_7` with one dictionary of possible answers by name;
later, `multiple_7` with a list of them. Both are read; the ids are the later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field

from agentcascade.envs.bfcl import rows
from agentcascade.envs.recorded.rows import read
from agentcascade.errors import EnvironmentFailed, did_you_mean
from agentcascade.types import Frozen, Message, Tool

Category = Literal[
    "simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple", "irrelevance"
]
Language = Literal["Python", "Java", "JavaScript"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
_LATER: dict[str, Category] = {
    "simple": "simple_python",
    "java": "simple_java",
    "javascript": "simple_javascript",
    "multiple_function": "multiple",
    "parallel_function": "parallel",
    "parallel_multiple_function": "parallel_multiple",
    "relevance": "irrelevance",
}
_JSON = {
    **dict.fromkeys(("integer", "byte", "short", "long", "Bigint"), "integer"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("boolean", "bool", "Boolean"), "boolean"),
    **dict.fromkeys(("array", "list", "tuple", "ArrayList", "Array", "Queue", "Stack"), "array"),
    **dict.fromkeys(("object", "dict", "HashMap", "Hashtable"), "object"),
}
"""BFCL's names of types in JSON schema's; every other is a string"""
DEEPEST = 20
"""Levels of a parameter's schema"""


class Expected(NamedTuple):
    """One call that a right answer holds."""

    function: dict[str, Any] | None
    """As BFCL writes it; None where the possible answers name one that the task has not: then no answer is right"""
    values: dict[str, list[Any]]
    """Possible values of each argument; "" among them: it may be left out"""


class Task(Frozen):
    id: str = Field(description="in the later edition's form, e.g. simple_python_7")
    category: Category
    messages: tuple[Message, ...]
    functions: tuple[dict[str, Any], ...] = Field(description="as BFCL writes them")

    @property
    def language(self) -> Language:
        return language(self.category)

    @property
    def tools(self) -> list[Tool]:
        """As the official harness gives them to models that call tools: no dots in names, types of JSON schema."""
        return [tool(function, self.language) for function in self.functions]


def language(category: str) -> Language:
    """Of a category's functions."""
    return "Java" if category == "simple_java" else "JavaScript" if category == "simple_javascript" else "Python"


def mangled(name: str) -> str:
    """A function's name as a tool's: providers refuse dots."""
    return name.replace(".", "_")


def canonical(id: str) -> str:
    """An id in the later edition's form. Raises `EnvironmentFailed` for one of no known category."""
    category, _, number = id.rpartition("_")
    category = _LATER.get(category, category)
    if category not in CATEGORIES or not (number.isascii() and number.isdigit()) or len(number) > 9:
        raise EnvironmentFailed(
            f"'{id[:80]}' is not an id such as simple_python_7: {did_you_mean(category, CATEGORIES)}"
        )
    return f"{category}_{int(number)}"


@cache
def tasks() -> dict[str, Task]:
    """All tasks by id, in the file's order. Raises `EnvironmentFailed`."""
    found: dict[str, Task] = {}
    for where, row in read(rows.source("questions")):
        task = _task(where, row)
        if task.id in found:
            raise EnvironmentFailed(f"{where}: task '{task.id}' is there twice")
        found[task.id] = task
    return found


def task(id: str) -> Task:
    """One task. Raises `EnvironmentFailed` that names the nearest id."""
    found = tasks().get(canonical(id))
    if found is None:
        raise EnvironmentFailed(f"there is no task '{id[:80]}' in {rows.source('questions')}: {_near(id, tasks())}")
    return found


def _near(id: str, known: Mapping[str, Any]) -> str:
    category = canonical(id).rpartition("_")[0]
    return did_you_mean(canonical(id), [name for name in known if name.rpartition("_")[0] == category])


def _task(where: str, row: dict[str, Any]) -> Task:
    id = _id(where, row)
    question, functions = row.get("question"), row.get("function")
    if isinstance(question, list) and question and isinstance(question[0], list):
        question = question[0]  # turns of a conversation: here there is one
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    if not isinstance(messages, list) or not messages or not all(_is_message(m) for m in messages):
        raise EnvironmentFailed(f"{where}: the question of '{id}' is neither text nor a list of messages")
    functions = [functions] if isinstance(functions, dict) else functions
    if not isinstance(functions, list) or not functions or not all(_is_function(f) for f in functions):
        raise EnvironmentFailed(f"{where}: the functions of '{id}' are no list of functions with names and parameters")
    names = [mangled(f["name"]) for f in functions]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise EnvironmentFailed(f"{where}: two functions of '{id}' are called '{twice[:80]}' without dots")
    return Task(
        id=id,
        category=id.rpartition("_")[0],
        messages=tuple(messages),
        functions=tuple(functions),
    )


def _id(where: str, row: dict[str, Any]) -> str:
    if not isinstance(row.get("id"), str):
        raise EnvironmentFailed(f"{where}: a row without an id")
    try:
        return canonical(row["id"])
    except EnvironmentFailed as error:
        raise EnvironmentFailed(f"{where}: {error}") from None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _is_function(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return False
    parameters = value.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    required = parameters.get("required") if isinstance(parameters, dict) else None
    if isinstance(required, list) and not all(isinstance(name, str) for name in required):
        return False
    return isinstance(properties, dict) and all(isinstance(p, dict) for p in properties.values())


@cache
def possible_answers() -> dict[str, tuple[Expected, ...]]:
    """The calls of a right answer by task; none for `irrelevance`, where no call is right. Raises `EnvironmentFailed`.

    For verdicts as of August 2024 the questions must be of that edition too: some were mended later.
    """
    known = tasks()
    found: dict[str, tuple[Expected, ...]] = {id: () for id, task in known.items() if task.category == "irrelevance"}
    for where, row in read(rows.source("possible_answers")):
        id = _id(where, row)
        if id not in known:
            raise EnvironmentFailed(f"{where}: possible answers of '{id}', which is no task: {_near(id, known)}")
        if id in found:
            raise EnvironmentFailed(f"{where}: possible answers of '{id}' are there twice, or it is of `irrelevance`")
        found[id] = tuple(_expected(where, name, v, known[id]) for name, v in _named(where, row.get("ground_truth")))
    return found


def _named(where: str, truth: Any) -> list[tuple[str, Any]]:
    calls = truth if isinstance(truth, list) else [truth]
    if not calls or not all(isinstance(call, dict) and call for call in calls):
        raise EnvironmentFailed(f"{where}: ground_truth is no call and no list of calls")
    return [item for call in calls for item in call.items()]


def _expected(where: str, name: str, values: Any, task: Task) -> Expected:
    """`name` may have a number behind it: calls of one function in one dictionary. A task's only function is meant
    whatever the name.
    """
    same = [f for f in task.functions if f["name"] == name] or [f for f in task.functions if f["name"] in name]
    same = same or list(task.functions if len(task.functions) == 1 else ())
    if not same:
        return Expected(None, {})
    if not isinstance(values, dict) or not all(isinstance(v, list) for v in values.values()):
        raise EnvironmentFailed(f"{where}: possible values of '{name[:80]}' are no lists by argument")
    return Expected(same[0], values)


def tool(function: dict[str, Any], language: Language = "Python") -> Tool:
    """A function as a tool of OpenAI's shape. Arguments of Java and JavaScript are strings that hold their source."""
    given = function["parameters"]
    properties = {
        str(name): _schema(schema, 0) if language == "Python" else _spelt(schema, language)
        for name, schema in given["properties"].items()
    }
    required = given.get("required")
    required = [name for name in required if name in properties] if isinstance(required, list) else []
    return {
        "type": "function",
        "function": {
            "name": mangled(function["name"]),
            "description": str(function.get("description") or ""),
            "parameters": {"type": "object", "properties": properties, "required": required},
        },
    }


def _schema(given: Mapping[str, Any], depth: int) -> dict[str, Any]:
    made = dict(given)
    kind = str(given.get("type") or "")
    made["type"] = _JSON.get(kind, "string")
    if kind == "float":
        made["format"] = "float"
        made["description"] = f"{given.get('description') or ''} This is a float type value.".lstrip()
    if depth >= DEEPEST:
        return {"type": made["type"]}
    if isinstance(given.get("items"), Mapping):
        made["items"] = _schema(given["items"], depth + 1)
    elif made["type"] == "array":
        made["items"] = {}
    if isinstance(given.get("properties"), Mapping):
        made["properties"] = {
            str(name): _schema(below, depth + 1)
            for name, below in given["properties"].items()
            if isinstance(below, Mapping)
        }
    return made


def _spelt(given: Mapping[str, Any], language: Language) -> dict[str, Any]:
    kind = str(given.get("type") or "any")
    of = "any type of" if kind == "any" else f"type {kind} of"
    told = [str(given.get("description") or ""), f"A string that holds {language} source: {of} {language}."]
    if isinstance(given.get("items"), Mapping):
        told.append(f"Its elements are of type {given['items'].get('type')}.")
    return {"type": "string", "description": " ".join(told).strip()}
