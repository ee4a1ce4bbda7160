"""Action keys for SQL: queries that differ only in how they are written have one key.

Normalised are case and quoting of names, white space and comments, aliases of tables and of projected columns, the
order of conditions and of a comparison's sides, `INNER`, `AS`, `ASC`, `<>`, `COUNT(1)`. What may change a result is
not: the order of tables, of columns, of rows.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from agentcascade.actions import canonical_text, text_of
from agentcascade.errors import InvalidAction, MissingExtra
from agentcascade.types import Action, Message, Tool

SUBMIT = "submit"
_ACTION = re.compile(r"(?:^|\n)[\s*]*Action(?: \d+)?\**:\**[ \t]*", re.IGNORECASE)
_EXECUTE = re.compile(r"execute\s*\[(.*)\]\s*$", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```(?:\w*)[ \t]*\n(.*?)```", re.DOTALL)
_COLUMNS = re.compile(r"(?:desc|describe|show(?: full)? (?:columns|fields) (?:from|in)) (\S+)")


class SqlActions:
    """One statement after ``Action:``, bare, fenced, or in ``execute[…]``; or ``submit``. The rest is reasoning.

    Without ``Action:`` the whole text is the statement. Raises `InvalidAction` for what does not parse in `dialect`.
    """

    def __init__(self, dialect: str = "mysql", fold: bool = False) -> None:
        self._dialect, self._fold = dialect, fold

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        text = text_of(message)
        marks = list(_ACTION.finditer(text))
        reasoning, said = (text[: marks[-1].start()], text[marks[-1].end() :]) if marks else ("", text)
        statement = statement_of(said)
        if not statement:
            raise InvalidAction(f"no statement in {text[:80]!r}")
        key = SUBMIT if canonical_text(statement) == SUBMIT else canonical_sql(statement, self._dialect)
        thought = re.sub(r"^[\s*]*Thought(?: \d+)?\**:\**\s*", "", reasoning.strip(), flags=re.IGNORECASE)
        return Action(key=key, text=SUBMIT if key == SUBMIT else f"execute[{statement}]", reasoning=thought)


def statement_of(text: str) -> str:
    """The statement in an action's text, without what wraps it."""
    if fenced := _FENCE.search(text):
        text = fenced[1]
    text = text.strip()
    if wrapped := _EXECUTE.match(text):
        text = wrapped[1]
    return text.strip().rstrip(";").strip()


@lru_cache(maxsize=4096)
def canonical_sql(statement: str, dialect: str = "mysql") -> str:
    """The key of one statement. Raises `InvalidAction` where it does not parse, and `MissingExtra` without sqlglot."""
    sqlglot, exp = parser()
    plain = canonical_text(statement.rstrip("; \n"))
    if found := _COLUMNS.fullmatch(plain):
        return f"describe {found[1].strip('`')}"
    try:
        trees = [t for t in sqlglot.parse(statement, read=dialect) if t is not None]
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        raise InvalidAction(f"not SQL: {statement[:80]!r}") from error
    if not trees:
        raise InvalidAction("the statement is empty")
    if any(isinstance(tree, exp.Command) for tree in trees):  # what the parser does not know
        raise InvalidAction(f"not SQL: {statement[:80]!r}")
    if not all(isinstance(tree, exp.Query) for tree in trees):
        return plain
    try:
        return "; ".join(_canonical(tree, exp).sql(dialect=dialect, comments=False) for tree in trees)
    except (sqlglot.errors.SqlglotError, RecursionError):
        return plain


def _canonical(tree: Any, exp: Any) -> Any:
    tree = tree.copy()
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
        identifier.set("quoted", False)
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


def _without_table_aliases(tree: Any, exp: Any) -> None:
    """Tables go by their names; where a name is twice in a statement, by their places. One table needs no name."""
    tables = [t for t in tree.find_all(exp.Table) if t.name]
    names = [t.name for t in tables]
    renamed: dict[int, dict[str, str]] = {}  # by the select that a table is in
    for place, table in enumerate(tables):
        number = "" if names.count(table.name) == 1 else str(1 + names[:place].count(table.name))
        renamed.setdefault(id(table.parent_select), {})[table.alias_or_name] = table.name + number
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
    """Of the outermost query: names of columns are not part of its rows. Where they are used, so is what they name."""
    named = {e.alias: e.this for e in select.expressions if isinstance(e, exp.Alias)}
    select.set("expressions", [e.this if isinstance(e, exp.Alias) else e for e in select.expressions])
    for part in ("having", "order", "group"):
        clause = select.args.get(part)
        for column in list(clause.find_all(exp.Column)) if clause is not None else ():
            if not column.table and column.name in named:
                column.replace(named[column.name].copy())


def _ordered_sides(node: Any, exp: Any) -> None:
    """No needless brackets; `1 = a` as `a = 1`, `1 < a` is `a > 1`."""
    if isinstance(node, exp.Paren):
        if not isinstance(node.this, (exp.Connector, exp.Binary)) and node.parent is not None:
            node.replace(node.this)
        return
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
