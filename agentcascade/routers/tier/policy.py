"""Policy router: a learned tier router, one small network for all modules, in numpy (BudgetMem, section "router").

    state   = relu(W_s [query, read] + w_λ √λ + b_s)          (width)
    module  = relu(W_d description + b_d)                    (width), the same for every question: computed once
    hidden  = relu(W_2 relu(W_1 [state, module] + b_1) + b_2)
    logits  = A_2 relu(A_1 hidden + a_1) + a_2               (3)

Training is in `ppo`, which needs torch; deciding needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.errors import ConfigError
from agentcascade.memory.types import Probabilities, State
from agentcascade.routers.tier import checkpoints
from agentcascade.routers.tier.baselines import check_tradeoff
from agentcascade.types import MODULES, ModuleName

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

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
"""Shapes of the weights that deciding needs; a checkpoint also has the critic's, to train on"""


class PolicyRouter:
    """Tier router with a trained policy network.

    Args:
        path: its ``.safetensors`` file, with the card ``.json`` beside it.
        greedy: the likeliest tier is certain; without it tiers are drawn as in training, which explores.

    Raises:
        ConfigError: the file is no policy of these modules, or does not match its card.
        MissingExtra: safetensors is not installed.
    """

    name = "policy"

    def __init__(self, path: str | Path, greedy: bool = True) -> None:
        weights, self.card = checkpoints.load_checkpoint(Path(path), self.name, tuple(SHAPES))
        _check_shapes(Path(path), weights)
        self.greedy = greedy
        self._prepare(weights)

    @classmethod
    def of(cls, weights: Mapping[str, Vector], card: Mapping[str, Any], greedy: bool = True) -> PolicyRouter:
        """A policy router from weights in memory."""
        router = cls.__new__(cls)
        router.greedy = greedy
        router.card = dict(card)
        router._prepare(weights)
        return router

    def _prepare(self, weights: Mapping[str, Vector]) -> None:
        w = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}
        d = w["descriptions"].shape[1]
        self.dimension = d
        self._query = w["state.weight"][:, :d].copy()
        self._read = w["state.weight"][:, d:].copy()
        self._bias = w["state.bias"]
        self._tradeoff = w["tradeoff.weight"]
        width = len(self._bias)
        self._from_state = w["hidden1.weight"][:, :width].copy()
        descriptions = np.maximum(w["descriptions"] @ w["description.weight"].T + w["description.bias"], 0)
        constant = descriptions @ w["hidden1.weight"][:, width:].T + w["hidden1.bias"]
        self._module = dict(zip(MODULES, constant))
        self._hidden = w["hidden2.weight"]
        self._hidden_bias = w["hidden2.bias"]
        self._actor1 = w["actor1.weight"]
        self._actor1_bias = w["actor1.bias"]
        self._actor2 = w["actor2.weight"]
        self._actor2_bias = w["actor2.bias"]
        self._last: tuple[Vector | None, float, Vector] = (None, 0.0, self._bias)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        """Softmax of the actor's logits, or certainty of the likeliest tier."""
        last_query, last_tradeoff, question_part = self._last
        if last_query is not state.query or last_tradeoff != tradeoff:  # one question is asked about five times
            check_tradeoff(tradeoff)
            question_part = self._query @ state.query + self._bias + self._tradeoff * np.float32(tradeoff**0.5)
            self._last = state.query, tradeoff, question_part
        hidden = question_part + self._read @ state.read
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
        checkpoints.check_encoder(self.card, encoder, dimension)


def _softmax(low: float, mid: float, high: float) -> Probabilities:
    from math import exp

    top = max(low, mid, high)
    a, b, c = exp(low - top), exp(mid - top), exp(high - top)
    total = a + b + c
    return a / total, b / total, c / total


def _check_shapes(path: Path, weights: Mapping[str, Vector]) -> None:
    dimension, width = weights["descriptions"].shape[-1], weights["state.bias"].size
    sizes = {"width": width, "dimension": dimension, "state": 2 * dimension, "both": 2 * width, "tiers": 3}
    sizes |= {"modules": len(MODULES), "head": weights["actor1.bias"].size}
    for name, shape in SHAPES.items():
        wanted = tuple(sizes[part] for part in shape)
        if weights[name].shape != wanted:
            raise ConfigError(f"{path}: {name} has shape {weights[name].shape}, not {wanted}: it is no tier router")
