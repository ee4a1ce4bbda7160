"""Programs that do the same have one key; programs that may not, have not."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.formats import make_format
from agentcascade.actions.python import canonical_python
from agentcascade.errors import InvalidAction

SAME = [
    ("def f():\n  n: Missing = 1\n  return n\nf()", "def f():\n  k = 1\n  return k\nf()"),
    ("async def f(a: int):\n  'doc'\n  return a\nawait_(f(1))", "async def g(b):\n  return b\nawait_(g(1))"),
    ("x=1\nprint( x )", "y = 1\nprint(y)  # show"),
    ("f(a=1,b=2)", "f(b=2, a=1)"),
    ("r = apis.a.b(q='x')\nprint(r)", 'res = apis.a.b(q="x")\n\nprint(res)'),
    ("for i in l:\n  print(i)", "for item in l:\n    print(item)"),
    ("print([a for a in b if a])", "print([z for z in b if z])"),
    ("import a\nimport b\nf()", "import b, a\nf()"),
    ("x: int = 3\nprint(x)", "x = 3\nprint(x)"),
    ("print(f'abc')", "print('abc')"),
    ("if not a in b: f()", "if a not in b:\n    f()"),
    ("def g(q):\n  'doc'\n  return q\nprint(g(1))", "def h(w: int) -> int:\n    return w\nprint(h(1))"),
    ("x=1_000", "y=1000"),
    ("with open('f') as f:\n  print(f.read())", "with open('f') as g:\n  print(g.read())"),
    ("try:\n  f()\nexcept E as e:\n  print(e)", "try:\n  f()\nexcept E as err:\n  print(err)"),
    ("f(lambda x: x+1)", "f(lambda y: y + 1)"),
    ("'''first, log in'''\nlogin()", "login()"),
    ("page, size = 0, 5\nprint(page, size)", "(a, b) = (0, 5)\nprint(a, b)"),
    ("import json as j\nprint(j.dumps(1))", "import json as k\nprint(k.dumps(1))"),
]
FIELDS = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: {}\n    y: int = 0\nprint(P('1'))"
MODEL = "class M(BaseModel):\n    {}\nprint(M(a='1'))"
DIFFERENT = [
    (FIELDS.format("int"), FIELDS.format("str")),
    (FIELDS.format("int"), FIELDS.format("ClassVar[int]")),
    (MODEL.format("a: int"), MODEL.format("a: str")),
    (MODEL.format("a: int = 1"), MODEL.format("a = 1")),
    (MODEL.format("a: int"), MODEL.format("pass")),
    (MODEL.format("'about'\n    a: int"), MODEL.format("a: int")),
    (MODEL.format("def f(self, a: int): ..."), MODEL.format("def f(self, a: str): ...")),
    ("@tool\ndef f(a: int):\n  'adds'\n  return a", "@tool\ndef f(a: str):\n  'adds'\n  return a"),
    ("@tool\ndef f(a):\n  'adds'\n  return a", "@tool\ndef f(a):\n  'takes'\n  return a"),
    ("@tool\ndef f(a):\n  return a", "@tool\ndef f(b):\n  return b"),
    ("def f(a: int):\n  return a\nbind([f])", "def f(a: str):\n  return a\nbind([f])"),
    ("def f():\n  'adds'\nprint(f.__doc__)", "def f():\n  'takes'\nprint(f.__doc__)"),
    ("def f(): pass\nprint(f.__name__)", "def g(): pass\nprint(g.__name__)"),
    ("def f(a):\n  return a\nf(**{'a': 1})", "def f(b):\n  return b\nf(**{'a': 1})"),
    ("def f(a: print('x')): pass\nf(1)", "def f(a): pass\nf(1)"),
    ("x: Missing = 1", "x = 1"),
    ("x: print('x') = 1", "x = 1"),
    ("def f():\n  x: int\n  return x\nf()", "def f():\n  return x\nf()"),
    ("async def f():\n  'doc'\n  return f.__doc__", "async def f():\n  return f.__doc__"),
    ("'first'\nprint(__doc__)", "'second'\nprint(__doc__)"),
    ("@a\n@b\ndef f(): pass\nf()", "@b\n@a\ndef f(): pass\nf()"),
    ("def f(x=1): return x\nf()", "def f(x=2): return x\nf()"),
    ("print(b'a')", "print('a')"),
    ("print(r'\\n')", "print('\\n')"),
    ("print(f'{x=}')", "print(f'{x}')"),
    ("print('a  b')", "print('a b')"),
    ("print('\u00e9')", "print('e\u0301')"),
    ("print(dict(a=1, b=2))", "print(dict(b=2, a=1))"),
    ("from a import x\nfrom b import x\nx()", "from b import x\nfrom a import x\nx()"),
    ("from a import *\nfrom b import *", "from b import *\nfrom a import *"),
    ("x=1\nmatch v:\n  case x: print(x)", "y=1\nmatch v:\n  case x: print(y)"),
    ("x = True", "x = 1"),
    ("x = 0.0", "x = -0.0"),
    ("def f():\n  global x\n  x = 1\nf()", "def f():\n  x = 1\nf()"),
    ("assert f(), 'a'", "assert f(), 'b'"),
    ("total = total + 1", "count = count + 1"),
    ("x += 1", "y += 1"),
    ("print(x)", "print(y)"),
    ("f(1,2)", "f(2,1)"),
    ("f(a=g(),b=h())", "f(b=h(),a=g())"),
    ("if c: x = 1\nprint(x)", "if c: y = 1\nprint(y)"),
    ("for x in l: pass\nprint(x)", "for y in l: pass\nprint(y)"),
    ("while c:\n  x = 1\nprint(x)", "while c:\n  y = 1\nprint(y)"),
    ("try:\n  x=f()\nexcept E:\n  pass\nprint(x)", "try:\n  y=f()\nexcept E:\n  pass\nprint(y)"),
    ("a and (x:=1)\nprint(x)", "a and (y:=1)\nprint(y)"),
    ("def f(a,b): return a\nf(a=1,b=2)", "def f(b,a): return b\nf(a=1,b=2)"),
    ("def f():\n  return x\nx=1\nf()", "def f():\n  return y\ny=1\nf()"),
    ("def f():\n  global x\n  x=1\nf()", "def f():\n  global y\n  y=1\nf()"),
    ("a=1\nb=2\nprint(a)", "a=1\nb=2\nprint(b)"),
    ("x = [1 for x in y]\nprint(x)", "x = [1 for z in x]\nprint(x)"),
    ("class A:\n  x = 1\nprint(A.x)", "class A:\n  y = 1\nprint(A.x)"),
    ("x = 1\nexec('print(x)')", "y = 1\nexec('print(x)')"),
    ("x=1", "x=1.0"),
    ("x='1'", "x=1"),
    ("lim=2\nprint(df.query('a > @lim'))", "top=2\nprint(df.query('a > @lim'))"),
    ("t=load()\nprint(duckdb.sql('select * from t'))", "u=load()\nprint(duckdb.sql('select * from t'))"),
    ("x=1\nfrom m import *\nprint(x)", "y=1\nfrom m import *\nprint(y)"),
    ("x=1\nget_ipython().run_cell('x')", "y=1\nget_ipython().run_cell('x')"),
    ("a.b()", "a.c()"),
    ("print(1)", "1"),
    ("del x", "del y"),
    ("import os", "import sys"),
    ("from a import b\nb()", "from a import c\nc()"),
    ("f({'a': 1})", "f({'a': 2})"),
    ("1 < x", "x < 1"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_is_only_written_otherwise_is_the_same(one: str, other: str) -> None:
    assert canonical_python(one) == canonical_python(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_may_do_something_else_is_not(one: str, other: str) -> None:
    assert canonical_python(one) != canonical_python(other)


@pytest.mark.parametrize(
    "code",
    [
        *("print(", "Let me think.", "", "# nothing", "return 1", "x = " + "(" * 500, "a" * 60_000, "\x00", "'\ud800"),
        *("x = 0x" + "f" * 40_000, "9" * 5_000, "-" * 30_000 + "1", "1" + "+1" * 9_000, "f(" * 99 + ")" * 99),
        "if 1:\n" + "".join(" " * k + "if 1:\n" for k in range(1, 99)) + " " * 99 + "1",
        *('"";' * 16_000, "a" + ".b" * 20_000),
    ],
    ids=range(17),
)
def test_what_does_not_compile_votes_for_nothing(code: str) -> None:
    with pytest.raises(InvalidAction):
        canonical_python(code)


@pytest.mark.parametrize(
    ("text", "code", "reasoning"),
    [
        ("Thought: I log in.\n```python\nprint(1)\n```", "print(1)", "I log in."),
        ("First\n```py\nx=1\n```\nthen\n```\nprint(2)\n```", "print(2)", "First\n```py\nx=1\n```\nthen"),
        ("Thought: t\nCode:\nprint(3)\n", "print(3)", "t"),
        ("print(4)", "print(4)", ""),
        ("**Thought:** t\n**Action:**\n```python\nif a:\n    b()\n", "if a:\n    b()", "t"),
    ],
)
def test_code_is_found_in_what_a_model_says(text: str, code: str, reasoning: str) -> None:
    action = make_format("python").parse({"role": "assistant", "content": text})
    assert (action.text, action.reasoning, action.key) == (code, reasoning, canonical_python(code))


names, numbers = st.sampled_from("abcd"), st.integers(0, 3).map(str)
values = st.one_of(
    names, numbers, st.builds("{} + {}".format, names, numbers), st.builds("f({}, k={})".format, names, numbers)
)
simple = st.one_of(
    st.builds("{} = {}".format, names, values),
    st.builds("{} += {}".format, names, values),
    st.builds("print({})".format, values),
    st.builds("print([{0} for {0} in range({1})], {2})".format, names, numbers, names),
)


def _indented(lines: list[str]) -> str:
    return "\n".join("    " + line for part in lines for line in part.splitlines())


blocks = st.one_of(
    simple,
    st.builds("if {}:\n{}".format, values, st.lists(simple, min_size=1, max_size=2).map(_indented)),
    st.builds(
        "for {} in range({}):\n{}".format, names, numbers, st.lists(simple, min_size=1, max_size=2).map(_indented)
    ),
    st.builds("def g({}):\n{}\ng({})".format, names, st.lists(simple, min_size=1, max_size=2).map(_indented), values),
)
programs = st.lists(blocks, min_size=1, max_size=4).map("\n".join)


def outcome(code: str) -> Any:
    """What it prints, after earlier steps have left something in every variable."""
    left = {"a": 10, "b": 20, "c": 30, "d": 40, "f": lambda x, k: x * 2 + k}
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            exec(code, left)
    except Exception as error:
        return said.getvalue(), type(error)
    return said.getvalue(), None


seen: dict[str, str] = {}


@given(programs)
def test_programs_of_one_key_do_the_same(code: str) -> None:
    """Also the key itself, as a program: normalising changes no meaning."""
    key = canonical_python(code)
    assert outcome(key.replace("§", "own_")) == outcome(code)
    first = seen.setdefault(key, code)
    assert outcome(first) == outcome(code), (first, code)
    assert canonical_python(key.replace("§", "own_")) == key
