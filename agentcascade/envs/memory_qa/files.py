"""Read published JSON files, with errors that name entry and field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from agentcascade.errors import InvalidRequest

PIECE = 1 << 20


def load_list(path: str | Path, what: str) -> list[Any]:
    """Load the JSON list in `path`; raises `InvalidRequest`."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidRequest(f"there is no file {path}: {what}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is not JSON: {error}") from error
    if not isinstance(data, list):
        raise InvalidRequest(f"{path} must hold a list, not {type(data).__name__}: {what}")
    return data


def iterate_list(path: str | Path, what: str) -> Iterator[Any]:
    """Iterate over the entries of the JSON list in `path`, one in memory at a time."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            yield from _entries(file, str(path), what)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error}): {what}") from None


def _entries(file: TextIO, path: str, what: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    text, begun = "", False
    while True:
        text = text.lstrip(" \t\r\n,") if begun else text.lstrip()
        if not begun and text:
            if not text.startswith("["):
                raise InvalidRequest(f"{path} must hold a list: {what}")
            text, begun = text[1:], True
            continue
        if begun and text.startswith("]"):
            return
        try:
            entry, end = decoder.raw_decode(text)
        except RecursionError:
            raise InvalidRequest(f"{path} nests too deep to be read: {what}") from None
        except ValueError as error:
            more = file.read(max(PIECE, len(text)))
            if not more:
                raise InvalidRequest(f"{path} is not JSON: {error}") from None
            text += more
            continue
        yield entry
        text = text[end:]


def field(entry: Any, name: str, where: str) -> Any:
    """`entry[name]`; raises `InvalidRequest` where it is missing."""
    if not isinstance(entry, Mapping) or name not in entry:
        raise InvalidRequest(f"{where} lacks '{name}'")
    return entry[name]
