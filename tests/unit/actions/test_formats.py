import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.base import (
    AutoActions,
    JsonActions,
    RegexActions,
    TextActions,
    ToolCallActions,
    canonical_json,
    canonical_text,
    folded_text,
    one_of,
)
from agentcascade.actions.formats import make_format
from agentcascade.errors import ConfigError, InvalidAction
from agentcascade.types import Action, Situation

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "book",
            "parameters": {
                "type": "object",
                "properties": {"flight": {"type": "string"}, "seats": {"type": "integer", "minimum": 1}},
                "required": ["flight"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}},
]


def said(text):
    return {"role": "assistant", "content": text}


def called(*calls, content=None):
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ],
    }


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def shuffled(value):
    """The same JSON value with every object's keys in reverse order."""
    if isinstance(value, dict):
        return {k: shuffled(v) for k, v in reversed(value.items())}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


@given(json_values)
def test_canonical_json_ignores_key_order_and_survives_a_round_trip(value):
    key = canonical_json(value)
    assert canonical_json(shuffled(value)) == key
    assert canonical_json(json.loads(key)) == key


@pytest.mark.parametrize("canonical", [canonical_text, folded_text])
@given(text=st.text())
def test_keys_of_text_are_idempotent_and_can_be_stored(canonical, text):
    assert canonical(canonical(text)) == canonical(text)
    canonical(text).encode()


@pytest.mark.parametrize("text", ["Go to desk 1", " go  to desk 1.", "`go to DESK 1`"])
def test_where_a_world_folds_texts_formatting_does_not_split_votes(text):
    assert TextActions(fold=True).parse(said(text)).key == "go to desk 1"
    assert make_format("react", fold=True).parse(said(f"Action: {text}")).key == "go to desk 1"


@pytest.mark.parametrize("wrap", ["{}", "Action: {}", "answer"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cd ..", "cd ."),
        ("rm -rf build/*", "rm -rf build/"),
        ("cat README", "cat readme"),
        ("echo 'a  b'", "echo 'a b'"),
        ("`date`", "date"),
        ('"ls -l"', "ls -l"),
        ("touch \ufb01le", "touch file"),
        ("cat caf\u00e9", "cat cafe\u0301"),
        ("echo \u2460", "echo 1"),
        ("kill -9 1", "kill -9 1."),
    ],
)
def test_texts_that_mean_different_things_have_different_keys(wrap, one, other):
    formats = TextActions() if wrap == "{}" else RegexActions() if "{}" in wrap else ToolCallActions()
    keys = {formats.parse(said(wrap.format(text) if "{}" in wrap else text)).key for text in (one, other)}
    assert len(keys) == 2


@given(st.text(), st.sampled_from(["", " ", "\n", "\t ", "\r\n"]), st.sampled_from(["", "\n", "  \n"]))
def test_white_space_around_a_text_does_not_split_votes(text, before, after):
    assert canonical_text(before + text + after) == canonical_text(text)


@given(st.text(), st.text())
def test_texts_that_differ_within_never_join(one, other):
    plain = [text.strip().replace("\r\n", "\n") for text in (one, other)]
    assert (canonical_text(one) == canonical_text(other)) == (plain[0] == plain[1])


def test_an_empty_message_is_no_action():
    with pytest.raises(InvalidAction, match="empty"):
        TextActions().parse(said("  \n"))


def test_react_takes_the_last_action_and_keeps_the_reasoning():
    action = RegexActions().parse(said("Thought: an Action: in prose\nso go\nAction: go to desk 1\n"))
    assert (action.key, action.reasoning) == ("go to desk 1", "an Action: in prose\nso go")


@pytest.mark.parametrize(
    "text", ["\n" * 300_000 + "x", ("\n" + " " * 1000) * 300, "\n" + " *" * 200_000, "\nAction" * 50_000]
)
def test_react_takes_time_linear_in_the_text(text):
    """Each took from seconds to hours when white space was crossed from every line's start."""
    with pytest.raises(InvalidAction):
        RegexActions().parse(said(text))


def test_a_pattern_that_takes_too_long_makes_the_answer_invalid():
    with pytest.raises(InvalidAction, match="write it without repetitions"):
        RegexActions(r"Act: ((?:a|aa)+)$").parse(said("Act: " + "a" * 60 + "!"))


def test_react_may_be_set_in_bold():
    action = RegexActions().parse(said("**Thought:** so be it\n**Action:** go to desk 1"))
    assert (action.key, action.reasoning) == ("go to desk 1", "so be it")


def test_an_answer_that_comes_again_is_not_parsed_again(monkeypatch):
    parsed: list[str] = []
    react, folding = RegexActions(), RegexActions(fold=True)
    for formats in (react, folding):

        def finditer(text, matching=formats._pattern.finditer):
            parsed.append(text)
            return matching(text)

        monkeypatch.setattr(formats._pattern, "finditer", finditer)
    text = "Thought: so be it\nAction: Go to desk 1"
    assert react.parse(said(text)) == react.parse(said([{"type": "text", "text": text}]))
    assert (react.parse(said(text)).key, folding.parse(said(text)).key) == ("Go to desk 1", "go to desk 1")
    for i in range(40):  # more than is remembered
        react.parse(said(f"{text} {i} {'x' * 100_000}"))
    assert react.parse(said(text)).key == "Go to desk 1"
    assert parsed.count(text) == 3
    with pytest.raises(InvalidAction):
        react.parse(said("I am lost"))
    with pytest.raises(InvalidAction):
        react.parse(said("I am lost"))


def test_react_without_action_names_the_text():
    with pytest.raises(InvalidAction, match="no action in 'I am lost'"):
        RegexActions().parse(said("I am lost"))


@pytest.mark.parametrize(("pattern", "message"), [("(", "not a regular expression"), ("abc", "needs a group")])
def test_a_bad_pattern_is_a_config_error(pattern, message):
    with pytest.raises(ConfigError, match=message):
        RegexActions(pattern)


def test_tool_arguments_are_compared_as_values():
    one = ToolCallActions().parse(called(("book", '{"flight": "A1", "seats": 2}')), TOOLS)
    two = ToolCallActions().parse(called(("book", '{"seats":2.0,"flight":"A1"}')), TOOLS)
    assert one.key == two.key == 'book({"flight":"A1","seats":2})'


def test_parallel_calls_are_a_set():
    a, b = ("book", '{"flight":"A1"}'), ("search", "{}")
    assert ToolCallActions().parse(called(a, b), TOOLS).key == ToolCallActions().parse(called(b, a), TOOLS).key
    twice = ToolCallActions().parse(called(b, b), TOOLS)
    assert twice.key != ToolCallActions().parse(called(b), TOOLS).key


def test_calls_with_side_effects_do_not_commute():
    a, b = ("book", '{"flight":"A1"}'), ("search", "{}")
    formats = make_format("tools", ordered=["book"])
    assert formats.parse(called(a, b), TOOLS).key != formats.parse(called(b, a), TOOLS).key


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("book", "{flight:"), "not JSON"),
        (("book", '{"flight": 7}'), "at flight: 7 is not of type 'string'"),
        (("book", '{"flight":"A","seats":0}'), "at seats"),
        (("book", '{"flight":"A","extra":1}'), "extra"),
        (("bok", "{}"), "did you mean 'book'"),
        (("search", "[1]"), "is not of type 'object'"),
    ],
)
def test_impossible_tool_calls_are_dropped_with_a_reason(call, message):
    with pytest.raises(InvalidAction, match=message):
        ToolCallActions().parse(called(call), TOOLS)


def test_a_broken_schema_does_not_reject_calls():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}]
    assert ToolCallActions().parse(called(("f", "{}")), tools).key == "f({})"


def test_without_tools_given_calls_are_taken_as_they_are():
    assert ToolCallActions().parse(called(("anything", '{"x":1}'))).key == 'anything({"x":1})'


def test_a_final_answer_differs_from_a_call():
    assert ToolCallActions().parse(said("Done."), TOOLS).key == "answer:Done."
    with pytest.raises(InvalidAction):
        ToolCallActions().parse(said(None), TOOLS)


@pytest.mark.parametrize("text", ['{"b": 1, "a": [1.0]}', '```json\n{"a":[1],"b":1}\n```'])
def test_json_answers_agree_on_values(text):
    assert JsonActions().parse(said(text)).key == '{"a":[1],"b":1}'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("1", "true"),
            ("0", "false"),
            ("1", '"1"'),
            ("null", '""'),
            ("[1,2]", "[2,1]"),
            ('"a"', '"A"'),
            ("[[]]", "[]"),
        ),
        *(
            ('"\u00e9"', '"e\u0301"'),
            ('"a b"', '"a  b"'),
            ('{"a":null}', "{}"),
            ("9007199254740993", "9007199254740992.0"),
        ),
    ],
)
def test_json_values_that_differ_have_different_keys(one, other):
    assert JsonActions().parse(said(one)).key != JsonActions().parse(said(other)).key


@given(json_values, json_values)
def test_json_keys_are_equal_exactly_where_the_values_are(one, other):
    def strict(value):
        if isinstance(value, dict):
            return {k: strict(v) for k, v in value.items()}
        return [strict(v) for v in value] if isinstance(value, list) else (isinstance(value, bool), value)

    assert (canonical_json(one) == canonical_json(other)) == (strict(one) == strict(other))


HOSTILE = [
    *("{", "", "NaN", '{"a": Infinity}', "[" * 100_000, "[" * 600 + "]" * 600, '{"a":' * 600 + "1" + "}" * 600),
    *("1" * 5000, "1e999", '{"a":1,"a":2}', "[" + "1," * 300_000 + "1]", '"' + "x" * 2_000_000 + '"'),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_arguments_are_invalid_and_nothing_else(text):
    with pytest.raises(InvalidAction) as found:
        ToolCallActions().parse(called(("f", text or "[")))
    assert len(str(found.value)) < 500


@pytest.mark.parametrize(
    "calls",
    [
        7,
        "x",
        [7],
        [{"function": 7}],
        [{"function": {"name": ["f"]}}],
        [{"function": {"name": "f", "arguments": 7e999}}],
    ],
)
def test_tool_calls_of_no_shape_are_invalid(calls):
    with pytest.raises(InvalidAction):
        ToolCallActions().parse(
            {"role": "assistant", "content": [7, {"type": "text", "text": None}], "tool_calls": calls}, TOOLS
        )


def test_half_characters_in_arguments_become_text_that_can_be_stored():
    action = ToolCallActions().parse(called(("f", '{"a": "\\ud800"}')))
    assert action.key.encode() == rb'f({"a":"\ud800"})'


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_not_json_is_invalid(text):
    with pytest.raises(InvalidAction):
        JsonActions().parse(said(text))


def test_multi_part_content_is_read():
    parts = [{"type": "text", "text": "go to desk 1"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    assert AutoActions().parse(said(parts)).key == "go to desk 1"


def test_unknown_format_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'react'"):
        make_format("raect")


def test_admissible_commands_validate():
    check = one_of(lambda situation: ["go to desk 1", "look"])
    here = Situation(goal="g")
    assert check(Action(key="look", text="look"), here) is None
    assert check(Action(key="Look", text="Look"), here) is not None
    assert one_of(lambda situation: ["Look"], fold=True)(Action(key="look", text="look!"), here) is None
    assert "not an admissible command" in (check(Action(key="fly", text="fly"), here) or "")


def test_a_zero_below_nothing_is_not_zero() -> None:
    assert canonical_json({"a": -0.0}) != canonical_json({"a": 0})
    assert canonical_json({"a": 0.0}) == canonical_json({"a": 0})
