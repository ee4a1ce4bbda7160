"""The learned tier router: one small network for all five modules, in numpy (BudgetMem, section "router").

    state   = relu(W_s [query, read] + w_λ √λ + b_s)          (width)
    module  = relu(W_d description + b_d)                    (width), the same for every question: computed once
    hidden  = relu(W_2 relu(W_1 [state, module] + b_1) + b_2)
    logits  = A_2 relu(A_1 hidden + a_1) + a_2               (3)

Training is in `ppo`, which needs torch; deciding needs numpy alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.errors import ConfigError, MissingExtra, describe
from agentcascade.memory.types import MODULES, ModuleName, Probabilities, State

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

FORMAT = 1
WIDTH, HEAD = 256, 128

SHAPES: Mapping[str, tuple[str, ...]] = {
    "state.weight": ("width", "state"),
    "state.bias": ("width",),
    "tradeoff.weight": ("width",),
    "description.weight": ("width", "dimension"),
    "description.bias": ("width",),
    "descriptions": ("modules", "dimension"),
    "hidden1.weight": ("width", "both"),
    "hidden1.bias": ("width",),
    "hidden2.weight": ("width", "width"),
    "hidden2.bias": ("width",),
    "actor1.weight": ("head", "width"),
    "actor1.bias": ("head",),
    "actor2.weight": ("tiers", "head"),
    "actor2.bias": ("tiers",),
}
"""Of every weight that deciding needs; the critic's are kept beside them for training on."""


class PolicyRouter:
    """A trained policy. `path` is its ``.safetensors`` file, with the card ``.json`` beside it.

    `greedy`: the likeliest tier is certain; without, tiers are drawn as in training, which logs what others are worth.
    Raises `ConfigError` for a file that is no policy of these five modules, or was changed since the card was written.
    """

    name = "policy"

    def __init__(self, path: str | Path, greedy: bool = True) -> None:
        weights, self.card = load(Path(path))
        self.greedy = greedy
        self.encoder: str = self.card["encoder"]
        self._prepare(weights)

    @classmethod
    def of(cls, weights: Mapping[str, Vector], card: Mapping[str, Any], greedy: bool = True) -> PolicyRouter:
        """A policy from its weights, without a file."""
        made = cls.__new__(cls)
        made.greedy = greedy
        made.card, made.encoder = dict(card), str(card["encoder"])
        made._prepare(weights)
        return made

    def _prepare(self, weights: Mapping[str, Vector]) -> None:
        w = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}
        d = w["descriptions"].shape[1]
        self.dimension = d
        self._query, self._read = w["state.weight"][:, :d].copy(), w["state.weight"][:, d:].copy()
        self._bias, self._tradeoff = w["state.bias"], w["tradeoff.weight"]
        width = len(self._bias)
        self._from_state = w["hidden1.weight"][:, :width].copy()
        told = np.maximum(w["descriptions"] @ w["description.weight"].T + w["description.bias"], 0)
        constant = told @ w["hidden1.weight"][:, width:].T + w["hidden1.bias"]
        self._module = dict(zip(MODULES, constant))
        self._hidden, self._hidden_bias = w["hidden2.weight"], w["hidden2.bias"]
        self._actor1, self._actor1_bias = w["actor1.weight"], w["actor1.bias"]
        self._actor2, self._actor2_bias = w["actor2.weight"], w["actor2.bias"]
        self._last: tuple[Vector | None, float, Vector] = (None, 0.0, self._bias)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        """Softmax of the actor's logits, or all on the likeliest."""
        seen, at, asked = self._last
        if seen is not state.query or at != tradeoff:  # one question is asked about five times
            asked = self._query @ state.query + self._bias + self._tradeoff * np.float32(tradeoff**0.5)
            self._last = state.query, tradeoff, asked
        hidden = asked + self._read @ state.read
        np.maximum(hidden, 0, out=hidden)
        hidden = self._from_state @ hidden + self._module[module]
        np.maximum(hidden, 0, out=hidden)
        hidden = self._hidden @ hidden + self._hidden_bias
        np.maximum(hidden, 0, out=hidden)
        hidden = self._actor1 @ hidden + self._actor1_bias
        np.maximum(hidden, 0, out=hidden)
        low, mid, high = (self._actor2 @ hidden + self._actor2_bias).tolist()
        if self.greedy:
            return (
                (1.0, 0.0, 0.0) if low >= mid and low >= high else (0.0, 1.0, 0.0) if mid >= high else (0.0, 0.0, 1.0)
            )
        return _softmax(low, mid, high)

    def check(self, encoder: str, dimension: int) -> None:
        """Raises `ConfigError` when questions are embedded by another encoder than the policy was trained on."""
        if (encoder, dimension) != (self.encoder, self.dimension):
            raise ConfigError(
                f"the tier router was trained on vectors of {self.encoder} ({self.dimension} dimensions), the memory "
                f"embeds with {encoder} ({dimension}): set memory.embedder, or train a router for it"
            )


def _softmax(low: float, mid: float, high: float) -> Probabilities:
    from math import exp

    top = max(low, mid, high)
    a, b, c = exp(low - top), exp(mid - top), exp(high - top)
    total = a + b + c
    return a / total, b / total, c / total


def save(path: Path, weights: Mapping[str, Vector], card: Mapping[str, Any]) -> None:
    """Write ``path`` (safetensors) and the readable card beside it, each whole or not at all."""
    save_file = _safetensors().save_file
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, str(temporary))
    known = {"format": FORMAT, "modules": list(MODULES), **card, "sha": _digest(temporary)}
    temporary.replace(path)
    text = json.dumps(known, indent=2, ensure_ascii=False, default=str) + "\n"
    written = card_path(path).with_suffix(".tmp.json")
    written.write_text(text, encoding="utf-8")
    written.replace(card_path(path))


def load(path: Path) -> tuple[dict[str, Vector], dict[str, Any]]:
    """Weights and card, checked; raises `ConfigError` that names what does not fit."""
    load_file = _safetensors().load_file
    try:
        card = json.loads(card_path(path).read_text(encoding="utf-8"))
        weights: dict[str, Vector] = load_file(str(path))
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no file {error.filename or path}: train one with `agentcascade memory train`"
        ) from None
    except Exception as error:
        raise ConfigError(f"{path} is not a tier router ({describe(error)})") from error
    if card.get("format") != FORMAT:
        raise ConfigError(f"{path} has format {card.get('format')!r}, this version reads {FORMAT}: train it again")
    if card.get("modules") != list(MODULES):
        raise ConfigError(
            f"{path} was trained for the modules {', '.join(map(str, card.get('modules') or ()))}; this memory has "
            f"{', '.join(MODULES)}: train a router for these"
        )
    if card.get("sha") != _digest(path):
        raise ConfigError(f"{path} is not the file that its card {card_path(path).name} describes: copy both together")
    _check_shapes(path, weights)
    return weights, card


def card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _check_shapes(path: Path, weights: Mapping[str, Vector]) -> None:
    missing = SHAPES.keys() - weights.keys()
    if missing:
        raise ConfigError(f"{path} lacks the weights {', '.join(sorted(missing))}: it is no tier router")
    dimension, width = weights["descriptions"].shape[1], len(weights["state.bias"])
    sizes = {"width": width, "dimension": dimension, "state": 2 * dimension, "both": 2 * width, "tiers": 3}
    sizes |= {"modules": len(MODULES), "head": len(weights["actor1.bias"])}
    for name, shape in SHAPES.items():
        wanted = tuple(sizes[part] for part in shape)
        if weights[name].shape != wanted:
            raise ConfigError(f"{path}: {name} has shape {weights[name].shape}, not {wanted}: it is no tier router")
        if not np.isfinite(weights[name]).all():
            raise ConfigError(f"{path}: {name} holds values that are no numbers: train it again")


def _digest(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _safetensors() -> Any:
    try:
        from safetensors import numpy as safetensors
    except ImportError as error:
        raise MissingExtra("safetensors", "memory", "a trained tier router") from error
    return safetensors
