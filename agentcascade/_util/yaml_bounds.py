"""Bounds of YAML between its reading and its construction: merge keys that multiply, numbers that take for ever.

PyYAML copies what ``<<`` names each time that it is named, so that a few lines of ``<<: [*a, *a]`` become billions of
pairs, and it adds up numbers in base 60 (``1:59:59…``) in time quadratic in their length. Since 6.0.4 the last of
several mappings in one ``<<`` wins, where YAML says the first, and so did it before: the order is kept here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MERGE = "tag:yaml.org,2002:merge"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
LONGEST_NUMBER = 1000
"""Characters"""


class TooMuchYaml(ValueError):
    """A document would hold more pairs than are the most, or a number that is longer."""


def load_bounded(text: str, loader: Any, most: int) -> Any:
    """What the one document of `text` holds, read by a safe `loader` of PyYAML.

    Raises `TooMuchYaml` for more than `most` pairs, merged ones counted where they are merged, and what the loader
    raises.
    """
    reader = loader(text)
    try:
        root = reader.get_single_node()
        if root is None:
            return None
        _check(root, most)
        merge = reader.flatten_mapping
        reader.flatten_mapping = lambda node: _merge(node, merge)
        return reader.construct_document(root)
    finally:
        reader.dispose()


def _check(root: Any, most: int) -> None:
    """In time linear in the nodes. An alias is the node that it names: each is looked at once."""
    seen, waiting, mappings = {id(root)}, [root], []
    while waiting:
        node = waiting.pop()
        if node.id == "scalar":
            if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
                raise TooMuchYaml(f"a number of {len(node.value):,} characters: {LONGEST_NUMBER:,} are the most")
            continue
        if node.id == "mapping":
            mappings.append(node)
        for below in (part for pair in node.value for part in pair) if node.id == "mapping" else node.value:
            if id(below) not in seen:
                seen.add(id(below))
                waiting.append(below)
    _count_pairs(mappings, most)


def _count_pairs(mappings: list[Any], most: int) -> None:
    """Pairs of all mappings once they are merged, and merges, which take time where they bring nothing, too."""
    pairs: dict[int, int] = {}
    begun: set[int] = set()
    total = 0
    for mapping in mappings:
        stack = [mapping]
        while stack:
            node = stack[-1]
            if id(node) in pairs:
                stack.pop()
                continue
            merged = _merged(node)
            missing = [source for source in merged if id(source) not in pairs]
            if not missing:
                pairs[id(node)] = len(node.value) + sum(1 + pairs[id(source)] for source in merged)
                total += pairs[id(node)]
                if total > most:
                    raise TooMuchYaml(f"more than {most:,} values, merged ones (<<) counted each time")
                stack.pop()
            elif id(node) in begun:
                raise TooMuchYaml("a mapping is merged (<<) into itself")
            else:
                begun.add(id(node))
                stack += missing


def _merge(mapping: Any, by_loader: Callable[[Any], None]) -> None:
    """Put the pairs of ``<<`` before a mapping's own, which win, as does the first of several mappings."""
    own, merged = [], []
    for key, value in mapping.value:
        if key.tag != MERGE:
            own.append((key, value))
            continue
        sources = value.value if value.id == "sequence" else [value]
        if any(source.id != "mapping" for source in sources):
            by_loader(mapping)  # raises
            return
        for source in reversed(sources):
            _merge(source, by_loader)
            merged += source.value
    mapping.value = merged + own
    by_loader(mapping)  # its other tags


def _merged(mapping: Any) -> list[Any]:
    """The mappings that are merged into this one, each as often as it is."""
    found: list[Any] = []
    for key, value in mapping.value:
        if key.tag == MERGE:
            found += [value] if value.id == "mapping" else value.value if value.id == "sequence" else []
    return [source for source in found if source.id == "mapping"]
