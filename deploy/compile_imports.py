"""Imports what a server imports, so that the image has its bytecode, and none of what is never imported."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import agentcascade

OTHERS = ("litellm", "openai", "numpy", "faiss", "onnxruntime", "psycopg", "pgvector.psycopg")
"""Imported late, by functions."""
SKIPPED = (".migrations.", ".inside.", "__main__")

modules = (
    found.name for found in pkgutil.walk_packages(agentcascade.__path__, "agentcascade.", onerror=lambda _: None)
)
for name in (*OTHERS, *(name for name in modules if not any(part in name for part in SKIPPED))):
    try:
        import_module(name)
    except ImportError:  # of an extra that the image is built without
        continue
