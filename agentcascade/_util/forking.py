"""Fork safety: locks, connections, loops and threads of the parent are left alone in a child process (`os.fork`)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakMethod, WeakSet

_locks: WeakSet[Any] = WeakSet()
_hooks: dict[str, list[WeakMethod[Callable[[], None]]]] = {"before": [], "parent": [], "child": []}


def lock() -> Any:
    """A `threading.Lock` that is free in a child process, whoever held it when the parent forked."""
    new_lock = threading.Lock()
    _locks.add(new_lock)
    return new_lock


def rlock() -> Any:
    """The same of `threading.RLock`."""
    new_lock = threading.RLock()
    _locks.add(new_lock)
    return new_lock


def on_fork(
    child: Callable[[], None], *, before: Callable[[], None] | None = None, parent: Callable[[], None] | None = None
) -> None:
    """Call these methods around every fork, for as long as the object that they belong to lives."""
    for name, method in (("before", before), ("parent", parent), ("child", child)):
        if method is not None:
            _hooks[name] = [ref for ref in _hooks[name] if ref() is not None] + [WeakMethod(method)]


def _call(name: str) -> None:
    for reference in list(_hooks[name]):
        method = reference()
        if method is not None:
            with suppress(Exception):  # the others have theirs to do
                method()


def _child() -> None:
    for held_lock in list(_locks):
        held_lock._at_fork_reinit()
    _call("child")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _call("before"), after_in_parent=lambda: _call("parent"), after_in_child=_child)
