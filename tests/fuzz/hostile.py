"""Every parser of text that models, clients, worlds or files wrote, and a generator of hostile texts for them.

    python tests/fuzz/hostile.py [--inputs 5000] [--seed 0] [PARSER ...]

prints for each parser how many inputs it was given, how many it parsed and refused, how many raised anything else, and
the slowest (CPU seconds, its input's length). `tests/unit/test_fuzz.py` runs a short form.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

SLOW = 2.0
"""CPU seconds of one input that are too many"""
SEEDS = {
    "text": ["Thought: I look.\nAction: go to desk 1", "**Action:** `take` x", "Action: \nAction: *", "\r\n \ufeff"],
    "json": ['{"a": [1, 2.0, {"b": null}], "c": "\\ud800"}', "[true, 1e999, NaN]", '"x"', '```json\n{"a": 1}\n```'],
    "sql": [
        "SELECT a, COUNT(*) AS n FROM t AS x JOIN u ON x.i = u.i WHERE a = 'b' AND (c > 3 OR d IN (1, 2)) GROUP BY a",
        "SELECT * FROM (SELECT a FROM t UNION ALL SELECT b FROM u) AS s ORDER BY 1 DESC LIMIT 3 -- why",
        "WITH a AS (SELECT CASE WHEN x THEN 1 ELSE 2 END FROM t) SELECT CAST(x AS DATE), a.* FROM a",
        "SHOW FULL COLUMNS FROM `t` LIKE 'a%'; INSERT INTO t VALUES ('x', X'41', DATE '2020-01-01') /*! x */",
    ],
    "python": [
        "import a, b as c\nfrom d import *\nfor x in f(k=1, *y, **z):\n    print(f'{x!r:>{w}}', [i for i in x if i])",
        "@dataclass\nclass A(B):\n    'doc'\n    x: int = 3\n    def f(self, *a: int, k: str = '') -> None: ...",
        "try:\n    async_ = lambda q: (yield)\nexcept (E, F) as e:\n    raise\nfinally:\n    del e",
        "match p:\n    case {'k': [x, *_], **rest} if x: global g\n    case A(b=1) | None: x += 1",
    ],
    "lines": [
        "- Ann moved to Rome [1, 2-3]",
        "Passage 3: 8\n4 = 7.5",
        "Result: x\n**Result:** y",
        "[[1, 3], [2]] yes. No.",
    ],
    "rows": [
        '{"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 1, "tools": [], "seed": 3}',
        '{"id": 7, "gold": "18", "student": ["18", {"action": "x", "tokens": 3}], "teacher": 18}',
        '[{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}]',
        '{"response": {"choices": [{"message": {}}], "usage": {"input_tokens": 1e400}}, "messages": "[{"}',
        '{"model": "m", "input": "[]", "output": {"a": 1}, "type": "GENERATION", "startTime": 1e300}',
        '{"input": "", "output": "x", "usage": {"input": 9, "output": 1e999}}',
    ],
    "dates": ["2020-02-30T10:00:00Z", "last monday in June 2021", "the 3rd of march, 2020", "12/13/14 yesterday"],
    "schema": [
        '{"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"pattern": "^(x+)+$"}}}',
        '{"anyOf": [{"$ref": "#"}, {"items": {"$dynamicRef": "#x"}}], "$schema": "http://json-schema.org/draft-04/schema#"}',
        '{"patternProperties": {"(a|aa)+$": {"uniqueItems": true}}, "unevaluatedProperties": {"not": {"$ref": "http://x"}}}',
        '{"if": {"const": 1}, "then": {"multipleOf": 0}, "else": {"enum": [[], {}]}, "dependentSchemas": {"a": {}}}',
    ],
    "regex": ["(a+)+$", r"(?=a)\1(b|bb)*", r"\w+\s?\u00e9", "((a{0,100}){0,100}){0,100}", "[[:alpha:]--z]|(?P<x>.)"],
}
TOKENS = [
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        "`",
        "```\n",
        "\n",
        " ",
        "\t",
        "*",
        ":",
        ",",
        ";",
        "-",
        ".",
        "\\",
        "$",
        "%",
    ),
    *(
        "a",
        "1",
        "9" * 400,
        "0x",
        "é",
        "e\u0301",
        "\ud800",
        "\u202e",
        "\x00",
        "😀",
        "Action:",
        "Action",
        "Thought: ",
        "SELECT ",
    ),
    *(
        "FROM ",
        "((DATE ",
        "CASE WHEN ",
        "NOT ",
        " OR a=1",
        "lambda: ",
        "f(",
        "not ",
        "if 1:\n ",
        "Result:",
        "result ",
        "yes ",
    ),
    *(
        '{"a":',
        "[1,",
        '"$ref":"#"',
        '"allOf":[',
        "[1] ",
        "3: 8\n",
        "\nAction",
        "/*",
        "--",
        "execute[",
        "1 ",
        "of ",
        "A ",
        "<think>",
    ),
]


def text(rng: random.Random, kind: str, longest: int = 20_000) -> str:
    """A seed that was cut, spliced, nested, repeated and salted."""
    made = rng.choice(SEEDS[kind]) if rng.random() < 0.8 else ""
    for _ in range(rng.randint(0, 4)):
        at = rng.randint(0, len(made))
        match rng.randrange(7):
            case 0:
                made = made[:at] + rng.choice(TOKENS) + made[at:]
            case 1:
                made = made[:at] + made[rng.randint(at, len(made)) :]
            case 2:
                pump = "".join(rng.choice(TOKENS) for _ in range(rng.randint(1, 3)))
                made = made[:at] + pump * rng.choice((3, 20, 100, longest // (len(pump) or 1))) + made[at:]
            case 3:
                other = rng.choice(SEEDS[rng.choice([*SEEDS])])
                made = made[:at] + other[rng.randint(0, len(other)) :]
            case 4:
                n = rng.choice((5, 30, 99, 400))
                left, right = rng.choice(
                    ("()", "[]", "{}", ('{"a":', "}"), ("f(", ")"), ('{"not":', "}"), ("(SELECT ", ")"))
                )
                made = left * n + made + right * n
            case 5:
                made *= rng.choice((2, 50))
            case 6:
                made = made[:at] + "".join(
                    chr(rng.choice((rng.randrange(128), rng.randrange(0xFFFF)))) for _ in range(9)
                )
    return made[:longest]


class Parser(NamedTuple):
    kinds: tuple[str, ...]
    parse: Callable[[str, random.Random], Any]
    refuses: tuple[type[BaseException], ...]


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


@lru_cache
def parsers() -> dict[str, Parser]:
    from agentcascade import conversation
    from agentcascade._util import bounds
    from agentcascade._util.bounds import Pattern
    from agentcascade.actions import python, sql
    from agentcascade.actions.base import parse_as
    from agentcascade.actions.equivalence import grouping
    from agentcascade.actions.formats import make_format
    from agentcascade.envs.alfworld import agent as alfworld
    from agentcascade.envs.appworld import agent as appworld
    from agentcascade.envs.intercode_sql import agent as intercode
    from agentcascade.envs.intercode_sql.dialect import Rejected, translate
    from agentcascade.envs.memory_qa import judging as qa
    from agentcascade.errors import ConfigError, InvalidAction, InvalidRequest
    from agentcascade.memory import dates, llm, tokenization
    from agentcascade.models import json_schema, usage
    from agentcascade.prompts import planning
    from agentcascade.prompts.yes_no import verdict
    from agentcascade.redaction import redactor as redactor_module
    from agentcascade.server import wire
    from agentcascade.server.errors import Refused
    from agentcascade.steplog import foreign, jsonl
    from agentcascade.steplog.matching import match_calls

    folder = Path(tempfile.mkdtemp())
    formats = {name: make_format(name) for name in ("text", "react", "json", "tools", "python", "sql", "auto")}
    folded = make_format("auto", fold=True)
    slow = make_format("regex", r"Action: ((?:\w+\s?)+)$")
    redactor = redactor_module.Redactor(patterns={"words": r"(?:\w+\s?)+:", "name": r"\b[A-Z]\w+ [A-Z]\w+\b"})

    def tools(text: str, rng: random.Random) -> Any:
        schema = _value(rng, "schema")
        known = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": text}}
        return formats["tools"].parse(said(None, tool_calls=[call] * rng.randint(1, 3)), known)

    def shapes(text: str, rng: random.Random) -> Any:
        value = _value(rng, "json", text)
        message = said(
            rng.choice((value, [value], text)), tool_calls=rng.choice((value, [value], [{"function": value}]))
        )
        return formats["auto"].parse(message, [{"type": "function", "function": value}, value])

    def schema(text: str, rng: random.Random) -> Any:
        return json_schema.check(_value(rng, "json"), _value(rng, "schema", text), "it")

    def asked(text: str, rng: random.Random) -> Any:
        wanted = {
            "type": "json_schema",
            "json_schema": rng.choice((_value(rng, "schema"), {"schema": _value(rng, "schema")})),
        }
        return parse_as(formats["auto"], said(text), None, wanted)

    def own_pattern(text: str, rng: random.Random) -> Any:
        return [m.group() for m in Pattern(text[:200]).finditer("a" * rng.randint(0, 5_000) + "!")]

    def conversed(text: str, rng: random.Random) -> Any:
        value = _value(rng, "json", text)
        messages = [{"role": "user", "content": text}, rng.choice((value, said(value), said(text)))]
        conversation.check(messages)
        return conversation.read(messages, rng.choice([*formats.values()]))

    def file(text: str, read: Callable[[Path], Any]) -> Any:
        path = folder / "log.jsonl"
        path.write_text(text, encoding="utf-8", errors="replace")
        return read(path)

    def logged(path: Path) -> Any:
        return match_calls(foreign.read_model_calls(path), "m", (), formats=formats["auto"])

    def used(text: str, rng: random.Random) -> Any:
        found = usage.usage_from(_value(rng, "rows", text))
        assert found is None or (found.prompt >= 0 and found.completion >= 0)

    def shortened(text: str, rng: random.Random) -> Any:
        del rng
        start, end = text.find("{"), text.rfind("}")
        return bounds.loads(text[start : end + 1]) if 0 <= start < end else None

    def plain(function: Callable[[str], Any]) -> Callable[[str, random.Random], Any]:
        return lambda text, rng: function(text)

    invalid, request = (InvalidAction,), (InvalidRequest,)
    model = ("text", "json", "lines", "python", "sql")
    return {
        **{
            f"actions.{n}": Parser(model, plain(lambda t, f=f: f.parse(said(t))), invalid)  # type: ignore[misc]
            for n, f in formats.items()
            if n != "tools"
        },
        "actions.tools": Parser(("json",), tools, invalid),
        "actions.fold": Parser(model, plain(lambda t: folded.parse(said(t))), invalid),
        "actions.regex": Parser(model, plain(lambda t: slow.parse(said(t))), invalid),
        "actions.shapes": Parser(("json",), shapes, invalid),
        "actions.response_format": Parser(("json",), asked, invalid),
        "sql_keys": Parser(("sql",), plain(sql.canonical_sql.__wrapped__), invalid),
        "sql_keys.postgres": Parser(("sql",), plain(lambda t: sql.canonical_sql.__wrapped__(t, "postgres")), invalid),
        "python_keys": Parser(("python",), plain(python.canonical_python.__wrapped__), invalid),
        "schemas": Parser(("schema",), schema, invalid),
        "bounds.Pattern": Parser(("regex",), own_pattern, (ValueError,)),
        "redaction": Parser(model, plain(redactor.text), (ValueError,)),
        "redaction.builtin": Parser(model, plain(redactor_module.Redactor().text), ()),
        "conversation": Parser(("json", "text"), conversed, request),
        "merging": Parser(("lines", "json"), plain(lambda t: grouping(t, 3)), ()),
        "judge": Parser(("lines", "text"), plain(verdict), ()),
        "planning": Parser(("text",), plain(planning.first_thought), ()),
        "shortening": Parser(("json",), shortened, (ValueError,)),
        "usage": Parser(("rows",), used, ()),
        "memory.result": Parser(("lines", "text"), plain(llm.extract_result), ()),
        "memory.facts": Parser(("lines", "text"), plain(lambda t: llm.parse_facts(t, range(9))), invalid),
        "memory.ratings": Parser(("lines", "text"), plain(lambda t: llm.parse_ratings(t, range(9))), invalid),
        "memory.dates": Parser(("dates", "text"), plain(dates.parse_timestamp), ()),
        "memory.periods": Parser(("dates", "text"), plain(dates.named_periods), ()),
        "memory.expressions": Parser(("dates", "text"), plain(dates.time_expressions.__wrapped__), ()),
        "memory.words": Parser(
            ("text", "lines"),
            plain(lambda t: (tokenization.proper_names.__wrapped__(t), tokenization.content_phrases(t))),
            (),
        ),
        "steplog.jsonl": Parser(("rows",), lambda t, rng: file(t, jsonl.read_jsonl), request),
        "steplog.foreign": Parser(("rows",), lambda t, rng: file(t, logged), request),
        "wire": Parser(
            ("rows", "json"), plain(lambda t: wire.parse_body(t.encode(errors="replace"), wire.ChatRequest)), (Refused,)
        ),
        "alfworld": Parser(("text",), plain(alfworld.parse_action), ()),
        "appworld": Parser(("python", "text"), plain(appworld.parse_code), ()),
        "intercode": Parser(("sql", "text"), plain(intercode.parse_action), ()),
        "intercode.translate": Parser(("sql",), plain(translate.__wrapped__), (Rejected,)),
        "memory_qa.judge": Parser(("lines",), lambda t, rng: qa.parse_judgement(t, rng.random() < 0.5), invalid),
        "config.pattern": Parser(("regex",), plain(lambda t: make_format("regex", t)), (ConfigError,)),
    }


def _value(rng: random.Random, kind: str, given: str | None = None) -> Any:
    """A JSON value: what the text says, if it says one, else a small one."""
    try:
        return json.loads(text(rng, kind, 3_000) if given is None else given)
    except (ValueError, RecursionError):
        return rng.choice(
            (None, 7, "x", [], {"a": [{}]}, {"function": []}, {"name": {}}, {"type": "text", "text": 3}, True)
        )


class Tally(NamedTuple):
    inputs: int
    parsed: int
    refused: int
    raised: list[str]
    slowest: float
    length: int


def run(name: str, inputs: int, seed: int, longest: int = 20_000) -> Tally:
    parser = parsers()[name]
    parsed = refused = length = 0
    raised: list[str] = []
    slowest = 0.0
    for i in range(inputs):
        rng = random.Random(f"{name} {seed} {i}")
        given = text(rng, rng.choice(parser.kinds), longest)
        began = time.thread_time()
        try:
            parser.parse(given, rng)
            parsed += 1
        except parser.refuses:
            refused += 1
        except Exception as error:
            raised.append(f"input {i}: {type(error).__name__}: {str(error)[:100]!r} on {given[:60]!r}…")
        spent = time.thread_time() - began
        if spent > slowest:
            slowest, length = spent, len(given)
        if spent > SLOW:
            raised.append(f"input {i}: {spent:.1f} s on {given[:60]!r}… ({len(given):,} characters)")
    return Tally(inputs, parsed, refused, raised, slowest, length)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*")
    options.add_argument("--inputs", type=int, default=5000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    bad = total = 0
    for name in given.names or parsers():
        found = run(name, given.inputs, given.seed)
        total, bad = total + found.inputs, bad + len(found.raised)
        print(
            f"{name:24} {found.inputs:6,} inputs {found.parsed:6,} parsed {found.refused:6,} refused "
            f"{len(found.raised):3} other; slowest {found.slowest:6.3f} s ({found.length:,} characters)",
            flush=True,
        )
        for line in found.raised[:5]:
            print("   ", line, flush=True)
    print(f"{total:,} inputs, {bad} raised another error or took more than {SLOW:g} s")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
