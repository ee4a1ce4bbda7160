"""The public API: what stands in an `__all__` is documented, described and typed, and nothing else is public."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import agentcascade

PACKAGE = Path(agentcascade.__file__).parent
FOLDERS = (
    PACKAGE,
    *(PACKAGE / name for name in ("envs", "retrievers", "routers")),
)  # links, which rglob does not follow
HOOKS = PACKAGE.parent / "docs" / "hooks"


def names_in(body: list[ast.stmt]) -> Iterator[list[str]]:
    """Each ``__all__`` that a type checker can read: a list of literals."""
    for node in body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            yield ast.literal_eval(node.value)


FILES = {
    ".".join(("agentcascade", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): file
    for folder in FOLDERS
    for file in sorted(folder.rglob("*.py"))
}
PUBLIC = {
    module: names
    for module, file in FILES.items()
    if "__all__" in (text := file.read_text(encoding="utf-8"))
    for names in names_in(ast.parse(text).body)
}


@pytest.fixture(scope="module")
def pages() -> Iterator[ModuleType]:
    """The hook of the documentation that makes the pages of Python names."""
    before = {*sys.modules}
    sys.path.insert(0, str(HOOKS))
    try:
        yield import_module("python_api")
    finally:
        sys.path.remove(str(HOOKS))
        for name in {"cells", "python_api"} - before:
            sys.modules.pop(name, None)


def test_modules_with_public_names_are_those_of_the_documentation(pages: ModuleType) -> None:
    assert PUBLIC.keys() - {"agentcascade"} == pages.MODULES.keys()
    private = [module for module in PUBLIC if any(part.startswith("_") for part in module.split("."))]
    assert private == []


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_there_sorted_and_not_private(module: str) -> None:
    loaded, names = import_module(module), PUBLIC[module]
    assert names == sorted(set(names)) == loaded.__all__
    assert [name for name in names if name.startswith("_")] == []
    assert [name for name in names if not hasattr(loaded, name)] == []


def test_names_that_are_loaded_late_are_those_that_are_public() -> None:
    """What `__getattr__` finds, what is imported for type checkers, and `__all__` are three lists of the same names."""
    late = [module for module in PUBLIC if "public_names(" in FILES[module].read_text(encoding="utf-8")]
    assert len(late) >= 10
    for module in ["agentcascade", *late]:
        tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
        seen = {a.asname for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names if a.asname}
        keys = {
            k.value for n in ast.walk(tree) if isinstance(n, ast.Dict) for k in n.keys if isinstance(k, ast.Constant)
        }
        assert seen - {"__version__"} == {*PUBLIC[module]} == keys, module


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_say_what_they_are(module: str, pages: ModuleType) -> None:
    assert import_module(module).__doc__
    assert [name for name in PUBLIC[module] if not pages.docstring(module, name)] == []
    for name in PUBLIC[module]:
        value = getattr(import_module(module), name)
        if inspect.isclass(value):
            assert [key for key, method in methods(value) if not inspect.getdoc(method)] == [], name


def methods(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """Those of one's own, and properties."""
    for key, value in [*vars(kind).items()]:  # pydantic adds to them when it is asked
        function = inspect.unwrap(getattr(value, "__func__", None) or getattr(value, "fget", None) or value)
        if not key.startswith("_") and inspect.isfunction(function) and function.__module__ == kind.__module__:
            yield key, getattr(kind, key)


def test_every_public_name_stands_on_a_page_once(pages: ModuleType) -> None:
    text = pages.page() + pages.modules_page()
    directives = [line.removeprefix("::: ") for line in text.splitlines() if line.startswith("::: ")]
    assert len(directives) == len({*directives})
    for module, names in PUBLIC.items():
        for name in names:
            is_error = isinstance(value := getattr(import_module(module), name), type) and issubclass(value, Exception)
            listed = f"<code>{name.replace('_', '&#95;')}</code>" in text
            assert is_error or listed or ".".join(pages.home(module, name)) in directives, f"{module}.{name}"


def test_a_name_without_a_docstring_is_found(
    tmp_path: Path, pages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "undescribed.py").write_text(
        'RATE = 1\n"""A rate."""\nBARE = 2\ndef bare(): ...\nclass Bare(int): ...\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert pages.docstring("undescribed", "RATE") == "A rate."
    assert [pages.docstring("undescribed", name) for name in ("BARE", "bare", "Bare")] == [None] * 3
