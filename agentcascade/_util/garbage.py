"""Garbage collection in a process of our own: modules are none, and are looked through seldom, and not at its end.

A program that imports us keeps its own settings.
"""

from __future__ import annotations

import atexit
import gc

GC_THRESHOLD = 10_000
"""Objects made, less those freed, before the youngest are looked through. Python's own 700 are reached hundreds of
times while a server is loaded; later, most of so few belong to requests that are under way."""


def spare_modules() -> None:
    """Settings for the rest of the process. Nothing that must be done at exit may wait for an object to be found."""
    young, *older = gc.get_threshold()
    gc.set_threshold(max(young, GC_THRESHOLD), *older)
    atexit.register(gc.freeze)
