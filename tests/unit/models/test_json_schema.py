"""Schemas of clients: what they may not do, and that what they say is still checked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade._util import bounds
from agentcascade.errors import InvalidAction, InvalidRequest
from agentcascade.models import json_schema


def fits(value, schema):
    try:
        json_schema.check(value, schema, "it")
    except InvalidAction:
        return False
    return True


@pytest.fixture(scope="module")
def internal():
    """An address that counts who asks it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"enum": ["INTERNAL-7"]}')

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.mark.parametrize(
    "around",
    [
        lambda url: {"$ref": f"{url}/a"},
        lambda url: {"$ref": f"{url}/a#/definitions/b"},
        lambda url: {"$id": f"{url}/base/", "$ref": "below"},
        lambda url: {"$id": f"{url}/base/", "properties": {"a": {"$ref": "other#x"}}},
        lambda url: {"$dynamicRef": f"{url}/a"},
        lambda url: {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": f"{url}/a"},
        lambda url: {"$schema": f"{url}/a"},
        lambda url: {
            "allOf": [{"$schema": "http://json-schema.org/draft-03/schema#", "extends": {"$ref": f"{url}/a"}}]
        },
        lambda url: {"$ref": "#/$defs/b", "$defs": {"b": {"$ref": f"{url}/a"}}},
        lambda url: {"properties": {"a": {"$id": f"{url}/x/", "items": {"$ref": "y"}}}},
    ],
)
def test_a_reference_out_of_the_schema_is_not_followed_and_checks_nothing(internal, tmp_path, around):
    url, asked = internal
    file = tmp_path / "a"
    file.write_text('{"enum": ["FILE-8"]}')
    for there in (url, f"file://{tmp_path}", "file:///dev/zero", "ftp://127.0.0.1", f"{tmp_path}"):
        fits({"a": [1]}, around(there))
    assert not asked


def test_what_stands_beside_such_a_reference_is_still_checked(internal):
    url, asked = internal
    schema = {"properties": {"a": {"$ref": f"{url}/a"}, "b": {"type": "string"}}}
    with pytest.raises(InvalidAction, match="it at b: 7 is not of type 'string'"):
        json_schema.check({"a": 1, "b": 7}, schema, "it")
    assert not asked


@pytest.mark.parametrize("ref", ["#", "#/$defs/a", "#here"])
def test_local_references_lead_where_they_say(ref):
    schema = {
        "type": "object",
        "properties": {"b": {"$ref": ref}},
        "$defs": {"a": {"type": "object", "$anchor": "here"}},
    }
    assert fits({"b": {}}, schema)
    assert not fits({"b": 7}, schema)


DOUBLING = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)} | {"a40": {}}
ENDLESS = [
    {"$ref": "#"},
    {"$dynamicRef": "#"},
    {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#"},
    {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    {"not": {"$ref": "#"}},
    {"$defs": DOUBLING, "$ref": "#/$defs/a0"},
    {"$defs": {"a": {"items": {"anyOf": [{"$ref": "#/$defs/a"}] * 3}, "not": {}}}, "$ref": "#/$defs/a"},
    {"allOf": [{"type": "string"}] * 5000},
    {"allOf": [{"$ref": "#nowhere"}] * 5000},
    {"allOf": [{"pattern": "(x{1000})+y", "type": "array"}] * 900},
    {"properties": {"a": {"allOf": [{"uniqueItems": True}] * 900}}},
]


@pytest.mark.parametrize("schema", ENDLESS, ids=range(len(ENDLESS)))
@pytest.mark.parametrize(
    "value", [[[[[[[[]]]]]]], "x" * 100_000, {"a": [[i] for i in range(20_000)]}], ids=["deep", "long", "wide"]
)
def test_no_schema_takes_more_than_so_many_steps(monkeypatch, schema, value):
    taken = 0
    spend = json_schema._spend

    def counting(steps):
        nonlocal taken
        taken += 1
        spend(steps)

    monkeypatch.setattr(json_schema, "_spend", counting)
    fits(value, schema)
    assert taken <= 2 * json_schema.MAX_STEPS


PATTERNS = [
    r"^(a+)+$",
    r"(a|aa)+$",
    r"(\w+\s?)*:",
    "a{1000}" * 30,
    "(" * 5000 + ")" * 5000,
    "((a{0,1000}){0,1000}){0,1000}",
]


@pytest.mark.parametrize("pattern", [*PATTERNS, "(", r"(?=a)b", r"(a)\1", 7, None, ["x"]], ids=range(12))
@pytest.mark.parametrize(
    "schema",
    [
        lambda p: {"pattern": p},
        lambda p: {"patternProperties": {str(p): False}, "additionalProperties": False},
        lambda p: {"patternProperties": {str(p): {}}, "unevaluatedProperties": False},
        lambda p: {"format": "regex", "propertyNames": {"pattern": p}},
        lambda p: {"allOf": [{"$schema": "http://json-schema.org/draft-04/schema#", "pattern": p}]},
        lambda p: {"$schema": "http://json-schema.org/draft-04/schema#", "patternProperties": {str(p): {"pattern": p}}},
    ],
    ids=range(6),
)
def test_patterns_are_matched_in_linear_time_wherever_they_stand(pattern, schema):
    """With the standard library's engine the first of them alone takes 2⁴⁰⁰⁰ steps."""
    hostile = "a" * 4000 + "!"
    for value in (hostile, {hostile: hostile}):
        fits(value, schema(pattern))


def test_patterns_are_ecmascripts():
    assert fits("\u00e9", {"pattern": r"^\u00e9$"})
    assert not fits("e", {"pattern": r"^\u00e9$"})
    assert not fits("\u0663", {"pattern": r"^\d$"})  # a digit elsewhere
    assert not fits("a\n", {"pattern": "^a$"})


def test_a_pattern_that_cannot_be_checked_fits_everything():
    assert fits("b", {"pattern": r"^(?=a)"})
    assert not fits(7, {"pattern": r"^(?=a)", "type": "string"})
    assert fits({"b": 1}, {"patternProperties": {r"^(?=a)": {"type": "string"}}, "additionalProperties": False})


@pytest.mark.parametrize(
    "broken", [{"type": 7}, {"type": "nonsense"}, {"required": "abc"}, {"enum": "abc"}, {"minimum": "3"}]
)
def test_a_keyword_that_makes_no_sense_checks_nothing_and_the_others_do(broken):
    assert fits({"a": 7}, broken)
    assert not fits({"a": 7}, {**broken, "properties": {"a": {"type": "string"}}})


@pytest.mark.parametrize("schema", [None, True, [], "x", {"a": {1, 2}}, {"x": "y" * 300_000}, {"a": [[]] * 20_000}])
def test_what_is_no_schema_or_too_large_checks_nothing(schema):
    assert fits({"a": 7}, schema)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"uniqueItems": True}, [1, True, "1", [1]], [{"a": 1}, {"a": 1.0}]),
        ({"patternProperties": {"^x": {"type": "string"}}}, {"x": "1", "y": 2}, {"x1": 2}),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, {"x1": 1}, {"y": 1}),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "string"}}, {"a": 1, "b": ""}, {"a": 1, "b": 1}),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"c": 1}, {"a": 1}),
        ({"oneOf": [{"type": "string"}, {"maxLength": 3}]}, "long enough", "abc"),
        ({"contains": {"const": 3}, "minContains": 2}, [3, 3], [3, 4]),
        ({"prefixItems": [{"type": "string"}], "items": False}, ["a"], ["a", 1]),
    ],
)
def test_the_specification_is_still_kept(schema, good, bad):
    assert fits(good, schema)
    assert not fits(bad, schema)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("abx!", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
parts = st.recursive(
    st.sampled_from(
        [
            *({}, {"type": "string"}, {"type": ["object", "integer"]}, {"enum": [1, "a"]}, {"minimum": 0}),
            *({"required": ["a"]}, {"maxLength": 2}, {"minItems": 1}, {"uniqueItems": True}, {"$ref": "#/$defs/d"}),
            {"pattern": "^[ab]+$"},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda x: {"items": x}, inner),
        st.builds(lambda x: {"properties": {"a": x}, "additionalProperties": False}, inner),
        st.builds(lambda x, y: {"anyOf": [x, y]}, inner, inner),
        st.builds(lambda x, y: {"allOf": [x, y]}, inner, inner),
        st.builds(lambda x: {"not": x}, inner),
    ),
    max_leaves=5,
)


@given(parts, parts, plain)
def test_the_verdict_is_that_of_the_library(schema, definition, value):
    import jsonschema

    if "$ref" in json.dumps(definition):
        return
    whole = {"allOf": [schema], "$defs": {"d": definition}}
    assert fits(value, whole) == jsonschema.Draft202012Validator(whole).is_valid(value)


@pytest.mark.parametrize("type_", ["strng", 5, {}, ["strng"], [5], [{"type": "strng"}]])
@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-03/schema#", "https://json-schema.org/draft/2020-12/schema"]
)
def test_an_error_beside_a_type_that_there_is_none_of_is_told(type_, draft):
    schema = {"$schema": draft, "properties": {"a": {"type": type_, "minLength": 5, "enum": ["b"]}}}
    assert not fits({"a": "x"}, schema)


@pytest.mark.parametrize("pattern", [r"\pL{300}", r"\pL{30}", "(?i)" + r"[\pL\pN]{20}" * 10, r"\pL" * 300])
@pytest.mark.parametrize(
    "around", [lambda p: {"allOf": [{"pattern": x} for x in p]}, lambda p: {"patternProperties": {x: {} for x in p}}]
)
def test_patterns_that_take_long_to_compile_are_few(monkeypatch, pattern, around):
    import re2

    bounds._linear.cache_clear()
    compiling = Mock(wraps=re2.compile)
    monkeypatch.setattr(re2, "compile", compiling)
    schema = around([f"{pattern}{i}" for i in range(150)])
    assert not fits("x" if "allOf" in schema else {"x": 1}, schema)
    assert 0 < compiling.call_count < 40


def test_many_ordinary_patterns_are_checked():
    schema = {"items": {"allOf": [{"pattern": f"^[a-z0-9_-]{{1,20}}(?:-{i})?$"} for i in range(100)]}}
    assert fits(["ab"] * 5, schema)
    assert not fits(["ab"] * 4 + ["!"], schema)


def test_references_that_explode_when_they_are_inlined_are_refused():
    defs = {
        f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}, "b": {"$ref": f"#/$defs/d{i + 1}"}}}
        for i in range(40)
    }
    all_in_all = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{j}"} for j in range(12)]} for i in range(12)}
    large = {"d1": {"enum": ["x" * 60_000]}, "d0": {"anyOf": [{"$ref": "#/definitions/d1"}] * 50}}
    for bomb in ({"$defs": defs}, {"$defs": all_in_all}, {"definitions": large}):
        with pytest.raises(InvalidRequest, match="inlined"):
            json_schema.check_inlined([{"function": {"parameters": bomb | {"$ref": "#/$defs/d0"}}}], "tools")
    tree = {"type": "object", "properties": {"kids": {"items": {"$ref": "#/$defs/t"}}, "next": {"$ref": "#/$defs/t"}}}
    json_schema.check_inlined({"$defs": {"t": tree}, "$ref": "#/$defs/t"}, "tools")
    json_schema.check_inlined({"$ref": 5, "$defs": [], "definitions": {"a": 3}}, "tools")


def test_a_long_value_leaves_what_is_wrong_with_it_in_the_message() -> None:
    with pytest.raises(InvalidAction) as raised:
        json_schema.check(
            {"x": {"type": "array", "note": "n" * 500}}, {"properties": {"x": {"type": "array"}}}, "arguments of 'f'"
        )
    assert str(raised.value).startswith("arguments of 'f' at x: {'type': 'array'")
    assert str(raised.value).endswith("is not of type 'array'")
    assert len(str(raised.value)) < 160
