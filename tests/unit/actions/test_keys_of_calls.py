"""Action keys of calls, of answers beside them, and of what formats are told: what no mutation may change unseen."""

from __future__ import annotations

from typing import Any

import pytest

from agentcascade._util import bounds
from agentcascade.actions.base import (
    MOST_CALLS,
    AutoActions,
    JsonActions,
    RegexActions,
    TextActions,
    ToolCallActions,
    called,
    canonical_json,
    one_of,
    parse_as,
    slow,
)
from agentcascade.errors import InvalidAction
from agentcascade.models import json_schema
from agentcascade.types import Action, Message, Situation

BOOK: Any = {"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}
SQL: Any = {"type": "custom", "custom": {"name": "sql"}}


def said(text: str | None, *calls: Any) -> Message:
    return {"role": "assistant", "content": text, "tool_calls": [*calls]}


def custom(name: str, text: str | None = None) -> Any:
    return {"id": "c", "type": "custom", "custom": {"name": name} | ({} if text is None else {"input": text})}


def function(name: str, arguments: Any = None) -> Any:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_custom_tool_is_called_with_its_text() -> None:
    message = said(None, custom("sql", "SELECT  'a';"))
    assert ToolCallActions().parse(message).key == """sql("SELECT  'a';")"""
    assert ToolCallActions().parse(message, [SQL]).key == ToolCallActions().parse(message).key
    assert (
        ToolCallActions().parse(said(None, custom("sql", "select  'a';"))).key != ToolCallActions().parse(message).key
    )
    assert ToolCallActions().parse(said(None, custom("sql"))).key == 'sql("")'
    assert called(message) == {"sql"}
    nameless: Any = {"id": "c", "type": "function", "function": {"arguments": "{}"}}
    assert ToolCallActions().parse(said(None, nameless)).key == "({})"
    assert called(said(None, custom("sql", "x"), function("book"))) == {"sql", "book"}
    with pytest.raises(InvalidAction, match="there is no tool 'sql'"):
        ToolCallActions().parse(message, [BOOK])


def test_half_a_character_in_a_name_becomes_text_that_can_be_stored() -> None:
    for call in (custom("\ud800", "x"), function("\ud800", "{}")):
        ToolCallActions().parse(said(None, call)).key.encode()


def test_what_is_offered_beside_functions_is_no_tool_that_can_be_called() -> None:
    tools: Any = [7, {"type": "web_search"}, BOOK]
    assert ToolCallActions().parse(said(None, function("book", "{}")), tools).key == "book({})"
    with pytest.raises(InvalidAction, match="there is no tool 'web_search'"):
        ToolCallActions().parse(said(None, function("web_search")), tools)


@pytest.mark.parametrize("arguments", ['{"b": 1, "a": 2}', {"b": 1, "a": 2.0}])
def test_arguments_may_have_been_parsed_by_the_provider(arguments: Any) -> None:
    assert ToolCallActions().parse(said(None, function("f", arguments))).key == 'f({"a":2,"b":1})'


@pytest.mark.parametrize("arguments", [None, "", "{}", {}])
def test_no_arguments_are_no_arguments(arguments: Any) -> None:
    assert ToolCallActions().parse(said(None, function("f", arguments))).key == "f({})"


def test_calls_are_joined_and_what_is_said_beside_them_is_reasoning() -> None:
    found = ToolCallActions().parse(said(" I book. ", function("g", "{}"), function("f", "{}")))
    assert (found.key, found.text, found.reasoning) == ("f({}); g({})", "f({}); g({})", "I book.")
    ordered = ToolCallActions(ordered=["g"]).parse(said(None, function("g", "{}"), function("f", "{}")))
    assert ordered.key == "g({}); f({})"


def test_bounds_of_calls_are_what_they_say() -> None:
    most = said(None, *[function("f", "{}")] * MOST_CALLS)
    assert ToolCallActions().parse(most).key.count("f({})") == MOST_CALLS
    with pytest.raises(InvalidAction, match="no list of at most 1,000 calls"):
        ToolCallActions().parse(said(None, *[function("f", "{}")] * (MOST_CALLS + 1)))
    assert ToolCallActions().parse(said(None, function("f" * 1000, "{}"))).key == "f" * 1000 + "({})"
    with pytest.raises(InvalidAction, match=r"'ffff.* is no name of a tool"):
        ToolCallActions().parse(said(None, function("f" * 1001, "{}")))
    with pytest.raises(InvalidAction, match="not a JSON value that can be compared: more than 200,000 values"):
        canonical_json([0] * bounds.MOST)


def test_what_is_wrong_with_arguments_is_quoted() -> None:
    with pytest.raises(InvalidAction, match=r"^arguments of 'f' are not JSON: '\{oops'$"):
        ToolCallActions().parse(said(None, function("f", "{oops")))
    with pytest.raises(InvalidAction, match=r"are not JSON: '\[\[.*\(nested too deep: 100 levels are the most\)$"):
        ToolCallActions().parse(said(None, function("f", "[" * 200 + "]" * 200)))
    with pytest.raises(InvalidAction, match="arguments of 'book'"):
        ToolCallActions().parse(said(None, function("book", "[1]")), [BOOK])
    with pytest.raises(InvalidAction, match=r"^neither a tool call nor text$"):
        ToolCallActions().parse(said(" "), [BOOK])
    with pytest.raises(InvalidAction, match=r"^not JSON: 'oops' \(Expecting value"):
        JsonActions().parse(said("oops"))
    with pytest.raises(InvalidAction, match="compared: two fields have one name"):
        canonical_json({1: 0, "1": 0})


def test_where_texts_fold_answers_fold() -> None:
    for formats in (ToolCallActions(fold=True), AutoActions(fold=True)):
        assert formats.parse(said(" It IS  done. "), [BOOK]).key == "answer:it is done"
    for formats in (ToolCallActions(), AutoActions()):
        assert formats.parse(said(" It IS  done. "), [BOOK]).key == "answer:It IS  done."
    assert AutoActions(fold=True).parse(said("Look!  Here.")).key == "look! here"
    assert AutoActions().parse(said("Look!  Here.")).key == "Look!  Here."


def test_auto_reads_calls_where_there_are_some_and_answers_where_there_could_have_been() -> None:
    calls = said("so", function("g", "{}"), function("f", "{}"))
    assert AutoActions().parse(calls).key == "f({}); g({})"
    assert AutoActions(ordered=["f"]).parse(calls).key == "g({}); f({})"
    assert AutoActions().parse(said("so"), [BOOK]).key == "answer:so"
    assert AutoActions().parse(said("so")).key == "so"
    with pytest.raises(InvalidAction, match="there is no tool 'g'"):
        AutoActions().parse(calls, [BOOK])


def test_the_last_match_of_a_pattern_is_the_action() -> None:
    said_twice = said("Action: look\nno\naction: go")
    assert RegexActions().parse(said_twice).key == "go"
    assert RegexActions().parse(said_twice).reasoning == "Action: look\nno"
    assert RegexActions(r"run (\w+) on (\w+)").parse(said("Run it on me")).key == "it"
    assert RegexActions(r"(\w+): (?P<action>\w+)").parse(said("do: it")).key == "it"
    for pattern, text in ((r"go(?: to (\w+))?", "go"), (r"go( *)", "go  ")):  # a group that took no part, or nothing
        with pytest.raises(InvalidAction, match="no action in 'go"):
            RegexActions(pattern).parse(said(text))


@pytest.mark.parametrize("text", ['```{"a":1}```', '```json{"a":1}```', '```json\n{"a":1}\n```', '{"a":1.0}'])
def test_a_fence_around_json_is_allowed(text: str) -> None:
    assert JsonActions().parse(said(text)).key == '{"a":1}'


@pytest.mark.parametrize("text", ["```1234", "1234```", "```", "````", "``````", "```json```"])
def test_half_a_fence_is_not_json(text: str) -> None:
    with pytest.raises(InvalidAction, match="not JSON"):
        JsonActions().parse(said(text))


def test_json_keys_are_written_in_their_own_letters() -> None:
    assert canonical_json({"é": ["日本", (1.0, True)]}) == '{"é":["日本",[1,true]]}'


def test_admissible_commands_are_those_of_the_situation_and_fold_only_where_asked() -> None:
    def commands(situation: Situation) -> list[str]:
        return ["Look", situation.goal]

    there = Situation(goal="go to desk 1")
    plain, folds = one_of(commands), one_of(commands, fold=True)
    for key in ("Look", "go to desk 1"):
        assert plain(Action(key=key, text=key), there) is None
    assert plain(Action(key="look", text="look"), there) == "'look' is not an admissible command"
    assert folds(Action(key="look", text="Look!"), there) is None
    assert len(plain(Action(key="x", text="x" * 9_999), there) or "") < 300
    with pytest.raises(InvalidAction, match=r"^the message is empty$"):
        TextActions().parse(said(""))


ANY, SCHEMA = {"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}


def test_json_that_was_asked_for_is_compared_as_a_value() -> None:
    one, other = said('{"a": 1, "b": 2}'), said('{"b":2.0,"a":1}')
    for asked in (ANY, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": 7}}):
        found = parse_as(AutoActions(), one, None, asked)
        assert (found.key, found.text) == ('{"a":1,"b":2}', '{"a":1,"b":2}')
        assert parse_as(AutoActions(), other, None, asked).key == found.key
    assert parse_as(AutoActions(), said("[1.0]"), None, SCHEMA).key == "[1]"
    with pytest.raises(InvalidAction, match="the answer"):
        parse_as(AutoActions(), one, None, SCHEMA)
    with pytest.raises(InvalidAction, match="not JSON"):
        parse_as(AutoActions(), said("no"), None, ANY)


def test_where_no_json_was_asked_for_or_a_format_is_set_the_format_reads() -> None:
    one = said('{"a": 1}')
    formats: tuple[Any, ...] = (None, 7, {"type": "text"}, {}, {"json_schema": {"schema": {}}})
    for asked in formats:
        assert parse_as(AutoActions(), one, None, asked).key == '{"a": 1}'
    assert parse_as(TextActions(), one, None, ANY).key == '{"a": 1}'
    assert parse_as(AutoActions(), said(None, function("book", "{}")), [BOOK], ANY).key == "book({})"
    with pytest.raises(InvalidAction, match="there is no tool 'sell'"):
        parse_as(AutoActions(), said(None, function("sell", "{}")), [BOOK], ANY)


class Careful:
    """A format that can parse ten characters in the event loop."""

    at_once = 10


def test_what_is_long_for_its_format_is_parsed_apart() -> None:
    formats: Any = Careful()
    assert not slow(formats, said("x" * 10))
    assert slow(formats, said("x" * 11))
    assert not slow(formats, said("x" * 4, function("f", "y" * 6)))
    assert slow(formats, said("x" * 4, function("f", "y" * 3), function("f", "y" * 4)))
    assert not slow(formats, said("x", function("f", {"a": "y" * 99}), 7, {"function": 7}))
    assert not slow(formats, {"role": "assistant", "content": "x", "tool_calls": "y" * 99})
    assert not slow(AutoActions(), said("x" * bounds.AT_ONCE))
    assert slow(AutoActions(), said("x" * bounds.AT_ONCE + "x"))


def test_a_schema_that_is_slow_is_checked_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_schema, "is_slow", lambda schema: schema == {"slow": True})
    book = {"type": "function", "function": {"name": "book", "parameters": {"slow": True}}}
    sell = {"type": "function", "function": {"name": "sell", "parameters": {}}}
    tools: Any = [book, sell]
    assert slow(AutoActions(), said("x", function("sell"), function("book")), tools)
    assert not slow(AutoActions(), said("x", function("sell")), tools)
    assert not slow(AutoActions(), said("x"), tools)
    assert not slow(AutoActions(), said("x", function("book")))
    asked = {"type": "json_schema", "json_schema": {"schema": {"slow": True}}}
    assert slow(AutoActions(), said("x"), None, asked)
    assert not slow(AutoActions(), said("x"), None, ANY)


def test_texts_are_bounded_and_their_line_ends_are_one() -> None:
    longest = "x" * bounds.LONGEST
    assert TextActions().parse(said(longest)).key == longest
    with pytest.raises(InvalidAction, match=r"^an answer of 1,000,001 characters: 1,000,000 is the most$"):
        TextActions().parse(said(longest + "x"))
    assert TextActions().parse(said(" a\r\nb \r\n")).key == "a\nb"
