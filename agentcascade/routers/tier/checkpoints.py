"""Checkpoints of trained tier routers: tensors in safetensors, and a JSON card with encoder, recipe and digest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade._util.files import replaceable
from agentcascade.errors import ConfigError, MissingExtra, describe
from agentcascade.types import MODULES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[Any]]

FORMAT = 1


def card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def save_checkpoint(path: Path, kind: str, tensors: Tensors, card: Mapping[str, Any]) -> None:
    """Write a checkpoint, ``path`` (safetensors) and its card, each whole or not at all."""
    try:
        from safetensors.numpy import save as to_bytes
    except ImportError as error:
        raise MissingExtra("safetensors", "memory", "saving a tier router") from error
    content: bytes = to_bytes({name: np.ascontiguousarray(value) for name, value in tensors.items()})
    known = {**card, "format": FORMAT, "router": kind, "modules": list(MODULES), "sha": _digest(content)}
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, data in (
        (path, content),
        (card_path(path), (json.dumps(known, indent=2, ensure_ascii=False, default=str) + "\n").encode()),
    ):
        target = replaceable(target)
        temporary = target.with_name(target.name + ".tmp")
        temporary.write_bytes(data)
        temporary.replace(target)


def load_checkpoint(
    path: Path, kinds: str | Sequence[str], needed: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Load the tensors and card of a router of one of `kinds`; raises `ConfigError` naming what does not fit."""
    try:
        from safetensors.numpy import load as from_bytes
    except ImportError as error:
        raise MissingExtra("safetensors", "memory", "a trained tier router") from error
    try:
        card = json.loads(card_path(path).read_text(encoding="utf-8"))
        content = path.read_bytes()
        tensors: dict[str, NDArray[Any]] = from_bytes(content)
        kind = card.get("router")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {error.filename}: train one with `agentcascade memory train`") from None
    except Exception as error:
        raise ConfigError(f"{path} is not a tier router ({describe(error)}): copy it again, or train one") from error
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if kind not in wanted:
        raise ConfigError(
            f"{path} holds a router of the kind {kind!r}, not {' or '.join(wanted)}: set memory.router.name"
        )
    if card.get("format") != FORMAT:
        raise ConfigError(f"{path} has format {card.get('format')!r}, this version reads {FORMAT}: train it again")
    if card.get("modules") != list(MODULES):
        raise ConfigError(
            f"{path} was trained for the modules {', '.join(map(str, card.get('modules') or ()))}; this memory has "
            f"{', '.join(MODULES)}: train a router for these"
        )
    if card.get("sha") != _digest(content):
        raise ConfigError(f"{path} is not the file that its card {card_path(path).name} describes: copy both together")
    missing = set(needed) - tensors.keys()
    if missing:
        raise ConfigError(f"{path} lacks the tensors {', '.join(sorted(missing))}: train it again")
    for name in needed:
        if not np.isfinite(tensors[name]).all():
            raise ConfigError(f"{path}: {name} holds values that are no numbers: train it again")
    return tensors, card


def checkpoint_kind(path: Path) -> str:
    """Registered name of the router in a checkpoint; raises `ConfigError` where its card does not say."""
    try:
        return str(json.loads(card_path(path).read_text(encoding="utf-8"))["router"])
    except FileNotFoundError as error:
        missing = error.filename if path.exists() else path
        raise ConfigError(f"there is no file {missing}: train one with `agentcascade memory train`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{card_path(path)} is not the card of a tier router ({describe(error)})") from error


def check_encoder(card: Mapping[str, Any], encoder: str, dimension: int) -> None:
    """Raises `ConfigError` when questions are embedded by another encoder than the router was trained on."""
    if (encoder, dimension) != (card.get("encoder"), card.get("dimension")):
        raise ConfigError(
            f"the tier router was trained on vectors of {card.get('encoder')} ({card.get('dimension')} dimensions), "
            f"the memory embeds with {encoder} ({dimension}): set memory.embedder, or train a router for it"
        )


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
