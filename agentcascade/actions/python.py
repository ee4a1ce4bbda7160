"""Action keys for Python code: programs that differ only in how they are written have one key.

Normalised are formatting, comments, quotes and forms of numbers, the order of keyword arguments and of imports,
`not a in b`, and the names of variables that the program binds itself before it reads them; of functions that are only
called, the annotations and docstrings. A name that may hold something from an earlier step keeps its name:
`total = total + 1` is not `count = count + 1`. Classes are left as they are: their annotations, names and docstrings
are what dataclasses and pydantic make fields of.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from agentcascade._util.bounds import escape_surrogates
from agentcascade.actions.base import readable
from agentcascade.errors import InvalidAction
from agentcascade.types import Action, Message, Tool

LONGEST = 50_000
"""Characters of a program that is still normalised"""
DEEPEST = 100
"""Levels of nesting of its syntax"""
MOST = 20_000
"""Nodes of its syntax"""
NAMED = "<action>"
warnings.filterwarnings("ignore", module=re.escape(NAMED))  # a program's odd escapes are not ours to report
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(r"^[ \t*]*(?:Action|Code)\**:\**[ \t]*\n?", re.IGNORECASE | re.MULTILINE)
_WORD = re.compile(r"[^\W\d]\w*")
_THOUGHT = re.compile(r"^[\s*]*(?:Thought|Reasoning)\**:\**\s*", re.IGNORECASE)
_NAMES_MATTER = {"eval", "exec", "locals", "globals", "vars", "dir", "__import__", "__main__", "get_ipython"}
_SEEN = {"__annotations__", "__doc__", "__name__", "__qualname__", "__code__", "__signature__", "__dict__"}
_SEEN |= {"_getframe", "f_locals", "f_globals", "currentframe"}
"""Attributes by which a program sees how it is written"""
_LOOKS = {"help", "inspect", "get_type_hints", "get_annotations", "getdoc", "signature", "docopt", "doctest", "pydoc"}
_IN_ORDER = {"dict", "OrderedDict", "defaultdict", "Counter", "update", "namedtuple", "SimpleNamespace", "DataFrame"}
_IN_ORDER |= {"assign", "make_dataclass", "TypedDict", "Namespace", "dumps", "print_kwargs"}
"""Callables that show their keyword arguments in the order in which they were given"""
_FINDS = {"query", "eval", "sql", "sqldf", "execute", "from_df"}
"""Callables that look names up in their caller's variables: `df.query("a > @limit")`, `duckdb.sql("… FROM frame")`"""
_TYPES = {name for name, value in vars(builtins).items() if isinstance(value, type)}


class PythonActions:
    """The last fenced block is the action; else what follows ``Action:`` or ``Code:``; else the whole text.

    Raises `InvalidAction` for what does not compile.
    """

    at_once = 500

    def parse(self, message: Message, tools: Sequence[Tool] | None = None) -> Action:
        text = escape_surrogates(readable(message))
        block, label = _last(_FENCE, text), _last(_LABEL, text)
        if block:
            before, code = text[: block.start()], block[1]
        elif label:
            before, code = text[: label.start()], text[label.end() :]
        else:
            before, code = "", text
        code = code.strip("\n").rstrip()
        thought = _THOUGHT.sub("", _LABEL.sub("", before).strip())
        return Action(key=canonical_python(code), text=code, reasoning=thought)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


@lru_cache(maxsize=1024)
def canonical_python(code: str) -> str:
    """The key of a program. Raises `InvalidAction` where it does not compile, does nothing, or is too long."""
    if len(code) > LONGEST:
        raise InvalidAction(f"a program of {len(code):,} characters: {LONGEST:,} is the most")
    try:
        tree = ast.parse(code, NAMED)
        _measure(tree)
        compile(tree, NAMED, "exec", dont_inherit=True)
    except InvalidAction:
        raise
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError, SystemError) as error:
        said = str(getattr(error, "msg", None) or error)[:200]
        raise InvalidAction(escape_surrogates(f"not Python: {said}: {code[:80]!r}")) from error
    try:
        unseen = _only_called(tree)
        tree = _Plainer(unseen).visit(tree)
        own = _own_names(tree, unseen)
        tree = ast.fix_missing_locations(_Renamed(own).visit(tree))
        key = ast.unparse(_sorted_imports(tree))
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:  # a number of too many digits …
        raise InvalidAction(f"not Python that can be read: {code[:80]!r}") from error
    if not key.strip():
        raise InvalidAction("the program does nothing")
    return escape_surrogates(key)


def _measure(tree: ast.AST) -> None:
    """Raises `InvalidAction` for syntax that nests too deep, or is too much."""
    level, count, depth = [tree], 0, 0
    while level:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        count, depth = count + len(level), depth + 1
        if depth > DEEPEST or count > MOST:
            raise InvalidAction(f"a program of more than {DEEPEST} levels or {MOST:,} nodes")


def _only_called(tree: ast.Module) -> set[int]:
    """Functions (by identity) of which nobody sees annotations, docstrings or names of arguments.

    They are not decorated, stand in no class, and their names occur where they are called alone.
    """
    called: set[int] = set()
    named: set[str] = set()
    inside: set[int] = set()
    functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called.add(id(node.func))
            if any(k.arg is None for k in node.keywords):  # names of arguments may be in a mapping
                return set()
        elif isinstance(node, ast.Name) and id(node) not in called:
            named.add(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in _SEEN:
            return set()
        elif isinstance(node, ast.ClassDef):
            inside |= {id(n) for n in ast.walk(node)} if id(node) not in inside else set()
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions.append(node)
        if isinstance(node, (ast.Name, ast.Attribute, ast.alias)) and _said(node) & _LOOKS:
            return set()
    if named & _NAMES_MATTER:
        return set()
    return {id(f) for f in functions if not f.decorator_list and f.name not in named and id(f) not in inside}


def _callee(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else str(getattr(node.func, "attr", ""))


def _said(node: ast.Name | ast.Attribute | ast.alias) -> set[str]:
    if isinstance(node, ast.alias):
        return {*node.name.split(".")}
    return {node.id if isinstance(node, ast.Name) else node.attr}


def _shows(annotation: ast.AST | None) -> bool:
    """Whether evaluating an annotation may do something or fail: what is built in does not."""
    if annotation is None:
        return False
    plain = (ast.Constant, ast.Name, ast.Subscript, ast.Tuple, ast.List, ast.BinOp, ast.BitOr, ast.expr_context)
    return any(
        not isinstance(part, plain) or (isinstance(part, ast.Name) and part.id not in _TYPES)
        for part in ast.walk(annotation)
    )


class _Plainer(ast.NodeTransformer):
    """What changes no meaning, statement by statement. `unseen`: functions whose looks nobody sees."""

    def __init__(self, unseen: set[int]) -> None:
        self._unseen, self._within = unseen, 0

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _callee(node) in _IN_ORDER:
            return node
        if all(k.arg for k in node.keywords) and sum(map(_acts, (k.value for k in node.keywords))) <= 1:
            node.keywords.sort(key=lambda k: k.arg or "")
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        inner = node.operand
        if isinstance(node.op, ast.Not) and isinstance(inner, ast.Compare) and len(inner.ops) == 1:
            negated = {ast.In: ast.NotIn, ast.Is: ast.IsNot}.get(type(inner.ops[0]))
            if negated is not None:
                return ast.Compare(inner.left, [negated()], inner.comparators)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        if all(isinstance(part, ast.Constant) for part in node.values):
            return ast.Constant("".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        if not node.simple or node.value is None or (not self._within and _shows(node.annotation)):
            return node
        return ast.Assign([node.target], node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self._within += 1  # annotations of local variables are never evaluated
        self.generic_visit(node)
        self._within -= 1
        if id(node) in self._unseen:
            arguments = [a for a in ast.walk(node.args) if isinstance(a, ast.arg)]
            if not any(_shows(a.annotation) for a in arguments) and not _shows(node.returns):
                node.returns = None
                for argument in arguments:
                    argument.annotation = None
            node.body = _without_docstring(node.body)
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self.generic_visit(node)
        seen = any(isinstance(n, ast.Name) and n.id in ("__doc__", *_LOOKS) for n in ast.walk(node))
        if node.body and not seen:  # the last one may be shown
            node.body = [*(s for s in node.body[:-1] if not _is_text(s)), node.body[-1]]
        return node

    def visit_Import(self, node: ast.Import) -> Any:
        return [ast.Import([alias]) for alias in node.names]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    return (body[1:] or [ast.Pass()]) if _is_text(body[0]) else body


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, or a comment in quotes."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _acts(node: ast.AST) -> bool:
    """Whether evaluating it may do something, so that its place matters."""
    kinds = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr, ast.Subscript, ast.Attribute)
    return any(isinstance(part, kinds) for part in ast.walk(node))


class _Use(NamedTuple):
    """A name where it is bound or read; `block` are the places that need not be reached, from the outermost."""

    name: str
    binds: bool
    block: tuple[int, ...]


def _own_names(tree: ast.AST, unseen: set[int]) -> dict[str, str]:
    """Names that are bound before they can be read, numbered in the order in which they are bound."""
    uses: dict[str, list[_Use]] = {}
    for use in _uses(tree, ()):
        uses.setdefault(use.name, []).append(use)
    if uses.keys() & (_NAMES_MATTER | _LOOKS):
        return {}
    fixed: set[str | None] = {name for name in uses if name.startswith("__")}
    finds = any(isinstance(n, ast.Call) and _callee(n) in _FINDS for n in ast.walk(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) or (isinstance(node, ast.Attribute) and node.attr in _SEEN):
            return {}  # its names are attributes
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            return {}  # it may bind any of them again
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            fixed |= {*node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and finds:
            fixed |= {*_WORD.findall(node.value)}
        elif isinstance(node, ast.Call):
            fixed |= {k.arg for k in node.keywords}
        elif isinstance(node, (ast.MatchAs, ast.MatchStar)):
            fixed.add(node.name)
        elif isinstance(node, ast.MatchMapping):
            fixed.add(node.rest)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and id(node) not in unseen:
            fixed |= {node.name, *(a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg))}
    own = [name for name, found in uses.items() if name not in fixed and _is_own(found)]
    return {name: f"§{i}" for i, name in enumerate(own)}


def _is_own(uses: Sequence[_Use]) -> bool:
    first = uses[0]
    return first.binds and all(use.block[: len(first.block)] == first.block for use in uses)


_OPTIONAL = (
    *(ast.For, ast.AsyncFor, ast.While, ast.If, ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.Match),
    *(ast.IfExp, ast.BoolOp),
)


def _uses(node: ast.AST, block: tuple[int, ...]) -> Iterator[_Use]:
    """In the order of evaluation, as far as it matters which use of a name comes first."""
    if isinstance(node, ast.Name):
        yield _Use(node.id, isinstance(node.ctx, ast.Store), block)
    elif isinstance(node, ast.arg):
        yield _Use(node.arg, True, block)
    elif isinstance(node, ast.alias):
        yield _Use((node.asname or node.name).split(".")[0], node.asname is not None, block)
    elif isinstance(node, ast.AugAssign):
        target = node.target
        if isinstance(target, ast.Name):  # it is read first
            yield _Use(target.id, False, block)
        else:
            yield from _uses(target, block)
        yield from _uses(node.value, block)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for part in (*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            yield from _uses(part, block)
        yield _Use(node.name, True, block)
        inner = (*block, id(node))
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                yield from _uses(argument, inner)
        for statement in node.body:
            yield from _uses(statement, inner)
    elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        yield from _uses(node.generators[0].iter, block)
        inner = (*block, id(node))
        for i, generator in enumerate(node.generators):
            for part in (*((generator.iter,) if i else ()), generator.target, *generator.ifs):
                yield from _uses(part, inner)
        values = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for value in values:
            yield from _uses(value, inner)
    elif isinstance(node, ast.Lambda):
        for default in (*node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            yield from _uses(default, block)
        inner = (*block, id(node))
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                yield from _uses(argument, inner)
        yield from _uses(node.body, inner)
    elif isinstance(node, ast.ExceptHandler):
        inner = (*block, id(node))
        if node.type is not None:
            yield from _uses(node.type, inner)
        if node.name:
            yield _Use(node.name, True, inner)
        for statement in node.body:
            yield from _uses(statement, inner)
    else:
        yield from _in_order(node, block)


def _in_order(node: ast.AST, block: tuple[int, ...]) -> Iterator[_Use]:
    """Values before the targets that they are bound to; what is in a loop or a branch may not be reached."""
    for name in _ORDER.get(type(node), node._fields):
        value = getattr(node, name, None)
        optional = isinstance(node, _OPTIONAL) and name not in ("test", "iter", "items")
        inner = (*block, hash((id(node), "body" if name == "target" else name))) if optional else block
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                yield from _uses(part, inner)


_ORDER: dict[type, tuple[str, ...]] = {
    ast.Assign: ("value", "targets"),
    ast.NamedExpr: ("value", "target"),
    ast.For: ("iter", "target", "body", "orelse"),
    ast.AsyncFor: ("iter", "target", "body", "orelse"),
    ast.IfExp: ("test", "body", "orelse"),
}


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._names.get(node.arg, node.arg)
        return node

    def visit_alias(self, node: ast.alias) -> ast.AST:
        if node.asname:
            node.asname = self._names.get(node.asname, node.asname)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = self._names.get(node.name, node.name)
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = self._names.get(node.name, node.name)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.generic_visit(node)
        if node.name:
            node.name = self._names.get(node.name, node.name)
        return node


def _sorted_imports(tree: ast.Module) -> ast.Module:
    """Imports that follow each other, in one order."""
    made: list[ast.stmt] = []
    run: list[ast.stmt] = []
    for statement in [*tree.body, None]:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            run.append(statement)
            continue
        made += sorted(run, key=ast.unparse) if _commute(run) else run
        run = []
        if statement is not None:
            made.append(statement)
    tree.body = made
    return tree


def _commute(imports: Sequence[ast.stmt]) -> bool:
    """Whether no two of them bind one name."""
    bound = [
        a.asname or a.name.split(".")[0]
        for i in imports
        if isinstance(i, (ast.Import, ast.ImportFrom))
        for a in i.names
    ]
    return len({*bound}) == len(bound) and "*" not in bound
