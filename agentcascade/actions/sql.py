"""Action keys for SQL: queries that differ only in how they are written have one key.

Normalised are case and quoting of names as far as the dialect does not tell them apart, white space and comments,
aliases of tables and of projected columns, the order of conditions and of a comparison's sides, `INNER`, `AS`, `ASC`,
`<>`, `COUNT(1)`. What may change a result is not: the order of tables, of columns, of rows.
"""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from agentcascade._util.bounds import escape_surrogates
from agentcascade.actions.base import canonical_text, folded_text, readable
from agentcascade.errors import ConfigError, InvalidAction, MissingExtra
from agentcascade.types import Action, Message, Tool

SUBMIT = "submit"
LONGEST = 20_000
"""Characters of a statement that is still normalised"""
MOST_TOKENS = 4_000
ADVANCES = 20
"""How often a parser may read each token; once for most; for a hostile one, twice as often per word"""
_ACTION = re.compile(r"^[ \t*]*Action(?: \d{1,6})?\**:\**[ \t]*", re.IGNORECASE | re.MULTILINE)
_THOUGHT = re.compile(r"^[\s*]*Thought(?: \d{1,6})?\**:\**\s*", re.IGNORECASE)
_EXECUTE = re.compile(r"execute\s*\[(.*)\]\s*$", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```(?:\w*)[ \t]*\n(.*?)```", re.DOTALL)
_COLUMNS = re.compile(r"(?:desc|describe|show(?: full)? (?:columns|fields) (?:from|in)) (\S+)", re.IGNORECASE)
_PLAIN = re.compile(r"[^\W\d]\w*")
_WORDS = {
    "tables",
    "columns",
    "fields",
    "databases",
    "schemas",
    "index",
    "indexes",
    "keys",
    "full",
    "from",
    "in",
    "like",
}
"""Words of `SHOW` that the parser may take for names"""


class SqlActions:
    """One statement after ``Action:``, bare, fenced, or in ``execute[…]``; or ``submit``. The rest is reasoning.

    Without ``Action:`` the whole text is the statement. `fold`: names are the same in any case. Raises `InvalidAction`
    for what does not parse in `dialect`.
    """

    at_once = 200

    def __init__(self, dialect: str = "mysql", fold: bool = False) -> None:
        self._dialect, self._fold = dialect, fold

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        text = escape_surrogates(readable(message))
        last = next(iter(deque(_ACTION.finditer(text), maxlen=1)), None)
        reasoning, said = (text[: last.start()], text[last.end() :]) if last else ("", text)
        statement = statement_of(said)
        if not statement:
            raise InvalidAction(f"no statement in {text[:80]!r}")
        submits = len(statement) < 80 and folded_text(statement) == SUBMIT
        key = SUBMIT if submits else canonical_sql(statement, self._dialect, self._fold)
        thought = _THOUGHT.sub("", reasoning.strip())
        return Action(key=key, text=SUBMIT if submits else f"execute[{statement}]", reasoning=thought)


def statement_of(text: str) -> str:
    """The statement in an action's text, without what wraps it."""
    if fenced := _FENCE.search(text):
        text = fenced[1]
    text = text.strip()
    if wrapped := _EXECUTE.match(text):
        text = wrapped[1]
    return text.strip().rstrip(";").strip()


@lru_cache(maxsize=1024)
def canonical_sql(statement: str, dialect: str = "mysql", fold: bool = False) -> str:
    """The key of one statement. Raises `InvalidAction` where it does not parse, and `MissingExtra` without sqlglot."""
    _, exp = parser()
    statement = statement.rstrip("; \t\r\n")
    trees, tokens = parsed(statement, dialect)
    plain = " ".join(statement.split())
    if found := _COLUMNS.fullmatch(plain):
        name = found[1].strip("`")
        return f"describe {name.lower() if fold else name}"
    if not trees:
        raise InvalidAction("the statement is empty")
    if any(isinstance(tree, exp.Command) for tree in trees):  # what the parser does not know
        raise InvalidAction(f"not SQL: {statement[:80]!r}")
    if "/*!" in statement:  # MySQL runs such a comment
        return canonical_text(statement)
    if not all(isinstance(tree, exp.Query) for tree in trees):
        return _words(tokens, fold)
    try:
        return "; ".join(_canonical(tree, exp, dialect, fold).sql(dialect=dialect, comments=False) for tree in trees)
    except _dialect(dialect)[2]:
        return canonical_text(statement)


def parsed(statement: str, dialect: str) -> tuple[list[Any], list[Any]]:
    """A text's statements as trees, and its tokens; in time linear in its length. Raises `InvalidAction`."""
    if len(statement) > LONGEST:
        raise InvalidAction(f"a statement of {len(statement):,} characters: {LONGEST:,} is the most")
    spoken, counted, failures = _dialect(dialect)
    try:
        tokens = spoken.tokenize(statement)
        if len(tokens) > MOST_TOKENS:
            raise InvalidAction(f"a statement of {len(tokens):,} words: {MOST_TOKENS:,} is the most")
        reader = counted(dialect=spoken)
        reader.left = ADVANCES * len(tokens) + 1_000
        trees = reader.parse(tokens, statement)
    except InvalidAction:
        raise
    except failures as error:
        raise InvalidAction(f"not SQL: {statement[:80]!r}") from error
    return [tree for tree in trees if tree is not None], tokens


@lru_cache(maxsize=16)
def _dialect(name: str) -> tuple[Any, Any, Any]:
    """A dialect of sqlglot; its parser, which gives up where it reads the same tokens again and again; its errors."""
    parser()
    from sqlglot.dialects.dialect import Dialect
    from sqlglot.errors import SqlglotError

    try:
        spoken = Dialect.get_or_raise(name)
    except ValueError as error:
        raise ConfigError(f"actions.pattern '{name}' is no dialect of SQL that sqlglot knows: {error}") from error

    class Counted(spoken.parser_class):  # type: ignore[misc, name-defined]
        left = 0

        def _advance(self, times: int = 1) -> None:
            self.left -= 1
            if self.left <= 0:
                raise InvalidAction("a statement that takes too long to parse")
            super()._advance(times)

    failures = SqlglotError, ValueError, TypeError, AttributeError, LookupError, RecursionError
    return spoken, Counted, failures


def _words(tokens: Sequence[Any], fold: bool) -> str:
    """A statement that is no query: its words, of which only keywords are the same in any case."""
    said = []
    for token in tokens:
        kind, text = token.token_type.name, token.text
        if "STRING" in kind:
            said.append(("" if kind == "STRING" else kind) + json.dumps(text, ensure_ascii=False))
        elif kind == "IDENTIFIER":
            said.append(f"`{text.lower() if fold else text}`")
        else:
            named = kind == "VAR" and text.lower() not in _WORDS and not fold
            said.append(text if named else text.lower())
    return " ".join(said)


def _canonical(tree: Any, exp: Any, dialect: str, fold: bool) -> Any:
    spoken, _, _ = _dialect(dialect)
    aliases = {made.alias.lower() for made in tree.find_all(exp.Alias)} if dialect.startswith("sqlite") else None
    for identifier in tree.find_all(exp.Identifier):
        if aliases is not None and _may_be_text(identifier, exp) and identifier.name.lower() not in aliases:
            continue
        if fold or (dialect.startswith("mysql") and not _names_table(identifier, exp)):
            identifier.set("this", identifier.name.lower())
        else:
            spoken.normalize_identifier(identifier)
        identifier.set("quoted", _PLAIN.fullmatch(identifier.name) is None)
    _without_table_aliases(tree, exp)
    if isinstance(tree, exp.Select):
        _without_column_aliases(tree, exp)
    for node in list(tree.find_all(exp.Join, exp.Ordered, exp.Count)):
        if isinstance(node, exp.Join) and node.kind == "INNER":
            node.set("kind", None)
        elif isinstance(node, exp.Ordered):
            node.set("desc", bool(node.args.get("desc")))
        elif isinstance(node, exp.Count) and isinstance(node.this, exp.Literal):
            node.set("this", exp.Star())
    for node in reversed(list(tree.find_all(exp.Paren, exp.EQ, exp.NEQ, exp.GT, exp.GTE))):
        _ordered_sides(node, exp)
    for node in reversed(list(tree.find_all(exp.And, exp.Or))):
        if node.parent is None or not isinstance(node.parent, type(node)):
            _sorted_conditions(node)
    return tree


def _may_be_text(identifier: Any, exp: Any) -> bool:
    """Whether SQLite takes it for a text where there is no such column: `name = "Alice"`."""
    column = identifier.parent
    alone = isinstance(column, exp.Column) and not column.table and identifier.arg_key == "this"
    return alone and bool(identifier.args.get("quoted"))


def _names_table(identifier: Any, exp: Any) -> bool:
    """Whether it names a table, a database or an alias of them: in MySQL their case may matter, that of columns not."""
    parent, place = identifier.parent, identifier.arg_key
    if isinstance(parent, exp.Column):
        return bool(place != "this")
    return isinstance(parent, exp.Table) or (isinstance(parent, exp.TableAlias) and place == "this")


def _without_table_aliases(tree: Any, exp: Any) -> None:
    """Tables go by their names; where a name is twice in a statement, by their places. One table needs no name."""
    tables = [t for t in tree.find_all(exp.Table) if t.name]
    names = [t.name for t in tables]
    taken = {*names, *(made.alias for made in tree.find_all(exp.CTE, *_derived(exp)))}
    renamed: dict[int, dict[str, str]] = {}  # by the select that a table is in
    for made in tree.find_all(*_derived(exp)):  # its alias stays, and hides that of a table further out
        renamed.setdefault(id(made.parent_select), {})[made.alias] = made.alias
    for table in tables:
        name = table.name
        if names.count(name) > 1:
            name = next(n for i in range(1, len(names) * 2 + len(taken) + 2) if (n := f"{table.name}{i}") not in taken)
            taken.add(name)
        renamed.setdefault(id(table.parent_select), {})[table.alias_or_name] = name
    for column in list(tree.find_all(exp.Column)):
        select = column.parent_select
        while column.table and select is not None and column.table not in renamed.get(id(select), {}):
            select = select.parent_select
        if column.table and select is not None:
            column.set("table", exp.to_identifier(renamed[id(select)][column.table]))
    for table in tables:
        name = renamed[id(table.parent_select)][table.alias_or_name]
        table.set("alias", None if name == table.name else exp.TableAlias(this=exp.to_identifier(name)))
    if len(tables) == 1 and len(list(tree.find_all(exp.Select))) == 1:
        for column in tree.find_all(exp.Column):
            column.set("table", None)


def _without_column_aliases(select: Any, exp: Any) -> None:
    """Of the outermost query: names of columns are not part of its rows. Where they are used, so is what they name.

    An alias stays where it may not be what a clause means: in `GROUP BY name` a column of that name comes first.
    """
    aliases = [e for e in select.expressions if isinstance(e, exp.Alias)]
    named = {e.alias: e.this for e in aliases}
    known = {c.name for e in select.expressions for c in e.find_all(exp.Column)}
    kept = {name for name in named if sum(e.alias == name for e in aliases) > 1}
    for part in ("group", "having", "order", "qualify", "where"):
        clause = select.args.get(part)
        for column in list(clause.find_all(exp.Column)) if clause is not None else ():
            if column.table or column.name not in named or column.name in kept:
                continue
            alone = part == "order" and isinstance(column.parent, exp.Ordered)
            counted = part == "having" and named[column.name].find(exp.AggFunc) and column.name not in known
            if alone or counted:
                column.replace(named[column.name].copy())
            else:
                kept.add(column.name)
    shown = [e.this if isinstance(e, exp.Alias) and e.alias not in kept else e for e in select.expressions]
    select.set("expressions", shown)


def _derived(exp: Any) -> tuple[Any, ...]:
    return exp.Subquery, exp.Values, exp.Lateral, exp.Unnest


def _ordered_sides(node: Any, exp: Any) -> None:
    """No needless brackets; `1 = a` as `a = 1`, `1 < a` is `a > 1`."""
    if isinstance(node, exp.Paren):
        atom = isinstance(node.this, (exp.Column, exp.Literal, exp.Boolean, exp.Null, exp.Paren))
        test = not isinstance(node.this, (exp.Connector, exp.Binary))
        if node.parent is not None and (
            atom or (test and isinstance(node.parent, (exp.Connector, exp.Where, exp.Having, exp.Paren)))
        ):
            node.replace(node.this)
        return
    if isinstance(node.this, exp.Binary) or isinstance(node.expression, exp.Binary):
        return  # without brackets, other sides are another question: `a > b > c` is not `c < b < a`
    flipped = {exp.GT: exp.LT, exp.GTE: exp.LTE}.get(type(node))
    if flipped is not None:
        node.replace(flipped(this=node.expression, expression=node.this))
    elif node.this.sql() > node.expression.sql():
        one, other = node.this, node.expression
        node.set("this", other)
        node.set("expression", one)


def _sorted_conditions(node: Any) -> None:
    """Operands of a chain of AND, or of OR, in one order."""
    parts = sorted((part.copy() for part in node.flatten(unnest=False)), key=lambda part: str(part.sql()))
    made = parts[0]
    for part in parts[1:]:
        made = type(node)(this=made, expression=part)
    node.set("this", made.this)
    node.set("expression", made.expression)


@lru_cache(maxsize=1)
def parser() -> tuple[Any, Any]:
    """sqlglot and its expressions. Raises `MissingExtra`."""
    try:
        import sqlglot
        from sqlglot import exp
    except ImportError as error:
        raise MissingExtra("sqlglot", "sql", "actions.format sql") from error
    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of every statement that it does not know
    return sqlglot, exp
