"""BFCL's check of calls, and the reading of answers: rules, forms, and hostile texts."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentcascade.actions.base import ToolCallActions
from agentcascade.envs.bfcl import calls, source_code
from agentcascade.envs.bfcl.calls import Call, read
from agentcascade.envs.bfcl.check import check
from agentcascade.envs.bfcl.tasks import Expected
from agentcascade.errors import InvalidAction


def expected(
    kind: str, options: list[Any], items: str | None = None, required: bool = True, name: str = "f.g"
) -> Expected:
    schema = {"type": kind} | ({"items": {"type": items}} if items else {})
    parameters = {"properties": {"x": schema}, "required": ["x"] if required else []}
    return Expected({"name": name, "parameters": parameters}, {"x": options})


def verdict(value: Any, kind: str, options: list[Any], items: str | None = None, language: Any = "Python") -> bool:
    return check([Call("f_g", {"x": value})], [expected(kind, options, items)], language).right


@pytest.mark.parametrize(
    ("value", "kind", "options", "items", "right"),
    [
        (5, "integer", [5], None, True),
        (5.0, "integer", [5], None, False),
        ("5", "integer", [5], None, False),
        (True, "integer", [1], None, False),
        (5, "float", [5.0], None, True),
        (5.5, "float", [5.0, 5.5], None, True),
        ("New-York, NY", "string", ["new york ny"], None, True),
        ("it's", "string", ['it"s'], None, True),
        ("Rome", "string", ["Milan"], None, False),
        (["a b", "C"], "array", [["AB", "c"]], "string", True),
        (["c", "ab"], "array", [["ab", "c"]], "string", False),
        ([1, 2.0], "array", [[1.0, 2.0]], "float", False),
        ([1, 2], "array", [[1, 2]], "float", True),
        ((1, 2), "tuple", [[1, 2]], "integer", True),
        ((1, 2), "array", [[1, 2]], "integer", False),
        ("some_variable", "integer", ["some_variable"], None, True),
        ("Some_variable", "integer", ["some_variable"], None, False),
        ({"a": "X Y"}, "dict", [{"a": ["xy", "z"]}], None, True),
        ({"a": "q"}, "dict", [{"a": ["xy", "z"]}], None, False),
        ({"a": "z", "b": 1}, "dict", [{"a": ["z"]}], None, False),
        ({"a": {"b": 2}}, "dict", ["", {"a": {"b": [1, 2]}}], None, True),
        ({"a": 1}, "dict", [{"a": {"b": [1]}}], None, False),
        ([{"a": 1}, {"a": 2}], "array", [[{"a": [1]}, {"a": [2, 3]}]], "dict", True),
        ([{"a": 2}, {"a": 1}], "array", [[{"a": [1]}, {"a": [2]}]], "dict", False),
        ([{"a": 1}], "array", [[{"a": [1]}, {"a": [2]}]], "dict", False),
        (5, "number", [5], None, False),
    ],
)
def test_types_are_exact_and_texts_are_compared_less_case_and_punctuation(
    value: Any, kind: str, options: list[Any], items: str | None, right: bool
) -> None:
    assert verdict(value, kind, options, items) is right


@pytest.mark.parametrize(
    ("value", "kind", "options", "items", "language", "right"),
    [
        ("5", "integer", [5], None, "Java", True),
        (5, "integer", [5], None, "Java", False),
        ("5L", "long", [5], None, "Java", True),
        ("5", "long", [5], None, "Java", False),
        ("1.5f", "float", [1.5], None, "Java", True),
        ("true", "boolean", [True], None, "Java", True),
        ("new int[]{1, 2}", "Array", [[1, 2]], "integer", "Java", True),
        ('new ArrayList<String>(Arrays.asList("a", "b"))', "ArrayList", [["a", "b"]], "String", "Java", True),
        ("new ArrayList<>() {{ add(1); add(2); }}", "ArrayList", [[1, 2]], "integer", "Java", True),
        ("new ArrayList<>()", "ArrayList", [[]], "integer", "Java", True),
        ('new HashMap<String, Object>() {{ put("a", 1); }}', "HashMap", [{"a": [1]}], None, "Java", True),
        ("dataSource", "any", ["dataSource"], None, "Java", True),
        ("'abc'", "String", ["abc"], None, "JavaScript", True),
        ("12n", "Bigint", [12], None, "JavaScript", True),
        ("[1, 'b', true]", "array", [[1, "b", True]], "any", "JavaScript", False),
        ("['a', 'b']", "array", [["a", "b"]], "String", "JavaScript", True),
        ("[[1, 2], [3]]", "array", [[[1, 2], [3]]], "array", "JavaScript", True),
        (
            "{a: 1, 'b': 'x, y', c: [1, 2]}",
            "dict",
            [{"a": [1], "b": ["x, y"], "c": [[1, 2]]}],
            None,
            "JavaScript",
            True,
        ),
        ("{a: 1, 'b': 'x, y'}", "dict", [{"a": [1], "b": ["x, y"]}], None, "JavaScript", True),
        ("(a) => a", "any", ["(a)=>a"], None, "JavaScript", True),
    ],
)
def test_java_and_javascript_spell_their_values(
    value: Any, kind: str, options: list[Any], items: str | None, language: Any, right: bool
) -> None:
    assert verdict(value, kind, options, items, language) is right


def test_calls_are_matched_in_any_order_and_all_must_fit() -> None:
    a, b = expected("integer", [1]), expected("integer", [2], name="h")
    one, two = Call("f_g", {"x": 1}), Call("h", {"x": 2})

    assert check([two, one], [a, b]).right
    assert check([one], [a, b]).kind == "number of calls"
    assert check([one, one], [a, b]).kind == "no call fits"
    assert check([Call("f.g", {"x": 1})], [a]).kind == "function"
    assert check([Call("f.g", {"x": 1})], [a], dots=True).right
    assert check([Call("f_g", {})], [a]).kind == "required argument missing"
    assert check([Call("f_g", {"x": 1, "y": 2})], [a]).kind == "unexpected argument"
    assert check([Call("f_g", None)], [a]).kind == "arguments"
    assert check(None, [a]).kind == "no call could be read"
    assert check([Call("f_g", {})], [expected("integer", [1], required=False)]).kind == "optional argument missing"
    assert check([Call("f_g", {})], [expected("integer", [1, ""], required=False)]).right
    assert check([one], [Expected(None, {})]).kind == "the task lacks the expected function"


def test_where_no_function_fits_a_call_is_wrong_and_text_is_right() -> None:
    assert check(None, []).right
    assert check([], []).right
    assert check([Call("f", {})], []).kind == "a call where none fits"


FG = Call("f.g", {"x": [1, -2], "s": "a"})
EVERY_VALUE = Call("f", {"a": "b", "c": (1, 2), "d": "g(1)", "e": {1: True}, "h": {"i": {"j": 1}}})


@pytest.mark.parametrize(
    ("form", "answer", "found"),
    [
        ("tools", [{"f.g": '{"x": [1, -2], "s": "a"}'}], (FG,)),
        ("tools", "", ()),
        ("list", "[f.g(x=[1, -2], s='a')]", (FG,)),
        ("list", "f.g(x=[1, -2], s='a'), h(y=2 * 3)", (FG, Call("h", {"y": 6}))),
        ("open list", " f.g(x=[1, -2], s='a')", (FG,)),
        ("open list", "[f(a=b, c=(1, 2), d=g(1), e={1: True}, h=i(j=1))", (EVERY_VALUE,)),
        ("json", '{"tool_calls": [{"name": "f.g", "arguments": {"x": [1, -2], "s": "a"}}]}', (FG,)),
        ("json", "[]", ()),
        ("hermes", '<tool_call>\n{"name": "f.g", "arguments": {"x": [1, -2], "s": "a"}}\n</tool_call>', (FG,)),
        ("hermes", "I cannot.", ()),
        ("granite", '<function_call> {"name": "f.g", "arguments": {"x": [1, -2], "s": "a"}}', (FG,)),
        ("any", '```json\n{"name": "f.g",\n "arguments": {"x": [1, -2], "s": "a"}}\n```', (FG,)),
        ("any", '```xml\n<tool_call>\n{"name": "f.g", "arguments": {"x": [1, -2], "s": "a"}}\n</tool_call>', (FG,)),
        ("any", '[{"name": "f.g", "arguments": {"x": [1, -2], "s": "a"}}]', (FG,)),
    ],
)
def test_every_form_of_a_call_is_read(form: Any, answer: Any, found: tuple[Call, ...]) -> None:
    assert read(answer, form) == found


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ("tools", "I would call f."),
        ("tools", ["text", {"f": "{}"}]),
        ("tools", [{"f": "{"}]),
        ("tools", [{"f": '{"a": 1, "a": 2}'}]),
        ("list", "```python\n[f(x=1)]\n```"),
        ("list", "f(x=1)"),
        ("list", "[f(1)]"),
        ("list", "[f(x=1), 2]"),
        ("list", "[f(x=__import__)(y=[z for z in ()])]"),
        ("list", "[f(x=10**15**9)]"),
        ("list", "[f(x='a' * 10**9)]"),
        ("list", f"[f(x={'(' * 4}9**64{')**64' * 4})]"),
        ("list", f"[f(x={'-' * 5000}1)]"),
        ("list", f"[f(x={'[' * 150}1{']' * 150})]"),
        ("json", "null"),
        ("hermes", "<tool_call>\n{'name': }\n</tool_call>"),
        ("granite", '<function_call> {"name": "no_function", "arguments": {}}'),
        ("any", "nothing here"),
        ("any", "x" * 50_001),
    ],
)
def test_what_is_no_call_is_an_invalid_action(form: Any, answer: Any) -> None:
    with pytest.raises(InvalidAction):
        read(answer, form)


def test_source_of_java_and_javascript_is_read_by_name() -> None:
    text = '[A.b(map=new HashMap<String, Object>(), text="a, c=1", flag=true)]'

    assert read(text, "list", "Java") == (
        Call("A.b", {"map": "new HashMap<String, Object>()", "text": "a, c=1", "flag": "true"}),
    )
    assert read("[f(g=(a, b) => { return a, b; }, h={k: 'v'})]", "list", "JavaScript") == (
        Call("f", {"g": "(a, b) => { return a, b; }", "h": "{k: 'v'}"}),
    )
    for bad in ("[f(a=1]", "[f(a=(1)]", "[f(a='1)]", "[f(a=1), g(b=2)]", "[f(1)]", "[f(a=1, a=2)]"):
        with pytest.raises(InvalidAction):
            read(bad, "list", "JavaScript")
    with pytest.raises(InvalidAction):
        read("[f(a=[1])]", "list", "Java")


HOSTILE = st.one_of(st.text(max_size=200), st.text(alphabet="f(x=1)[]{}'\"<>,:-*\\\n ", max_size=200))


@given(HOSTILE, st.sampled_from(sorted(calls._READERS)), st.sampled_from(["Python", "Java", "JavaScript"]))
@example("[f(x=" + "(" * 90 + ")" * 90 + ")]", "list", "Python")
@example("[{}]", "any", "Python")
def test_any_text_is_read_or_refused_and_then_compared(text: str, form: Any, language: str) -> None:
    try:
        found = read(text, form, language)
    except InvalidAction:
        return
    assert check(found, [expected("dict", [{"a": [1]}])], language).right is False or found  # type: ignore[arg-type]
    if found:
        try:
            ToolCallActions().parse(calls.message(found))
        except InvalidAction:
            pass


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
KINDS = ["string", "integer", "float", "boolean", "array", "tuple", "dict", "any", "odd"]


@given(VALUES, st.sampled_from(KINDS), st.lists(VALUES, max_size=3), st.sampled_from([None, *KINDS]))
def test_any_value_has_a_verdict(value: Any, kind: str, options: list[Any], items: str | None) -> None:
    assert verdict(value, kind, options, items) in (True, False)


@given(HOSTILE, st.sampled_from(["Array", "ArrayList", "HashMap", "array", "dict", "float", "Bigint", "long", "any"]))
def test_any_source_has_a_value(text: str, kind: str) -> None:
    for inner in (None, "String", "integer"):
        source_code.java(text, kind, inner)
        source_code.javascript(text, kind, inner)


@pytest.mark.parametrize(
    ("form", "language", "text"),
    [
        ("list", "JavaScript", "[f(a=" + " " * 49_000 + "x)]"),
        ("list", "Java", "[f(a=" + "," * 49_000 + ")]"),
        ("list", "Java", "[f(" + "a=1," * 12_000 + ")]"),
        ("any", "Python", "```" * 16_000),
        ("any", "Python", "<tool_call>" * 4_000),
        ("any", "Python", "[" * 49_000),
        ("any", "Python", '{"name":' * 6_000),
        ("hermes", "Python", "<tool_call>\n" * 4_000),
        ("granite", "Python", "<function_call>" * 3_000),
        ("list", "Python", "[" + "f(x=1)," * 7_000 + "]"),
        ("list", "Python", "[f(x=" + "1+" * 20_000 + "1)]"),
    ],
)
def test_a_hostile_text_takes_no_quadratic_time(form: Any, language: str, text: str) -> None:
    started = time.process_time()
    try:
        read(text, form, language)
    except InvalidAction:
        pass
    assert time.process_time() - started < 5, "quadratic in 50,000 characters would take minutes"


def test_messages_have_the_shape_of_openais() -> None:
    made = calls.message((Call("a.b", {"x": (1, b"y")}),))

    assert made["tool_calls"][0]["function"]["name"] == "a_b"
    assert json.loads(made["tool_calls"][0]["function"]["arguments"]) == {"x": [1, "b'y'"]}
    assert calls.message((), "no") == {"role": "assistant", "content": "no"}
