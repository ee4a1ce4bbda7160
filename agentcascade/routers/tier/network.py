"""Actor-critic network of the policy router in torch, for training; `policy` does the same arithmetic in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from agentcascade.errors import MissingExtra
from agentcascade.memory.combinations import STAGES
from agentcascade.routers.tier.policy import HEAD, WIDTH
from agentcascade.types import MODULES

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

Tensor: TypeAlias = Any
"""torch's; it is imported only when something is trained."""


def torch_module() -> Any:
    try:
        return import_module("torch")
    except ImportError as error:
        raise MissingExtra("torch", "train", "training a tier router") from error


class Network:
    """Network weights by name, with the module descriptions among them (they begin as the encoder's vectors)."""

    def __init__(self, descriptions: Vector, seed: int, *, conditioned: bool, width: int = WIDTH) -> None:
        self.torch = torch = torch_module()
        self.conditioned = conditioned
        dimension = descriptions.shape[1]
        generator = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator().manual_seed(seed + 1)
        shapes = {
            "state": (width, 2 * dimension),
            "description": (width, dimension),
            "hidden1": (width, 2 * width),
            "hidden2": (width, width),
            "actor1": (HEAD, width),
            "actor2": (3, HEAD),
            "critic1": (HEAD, width),
            "critic2": (1, HEAD),
        }
        gains = {"actor2": 0.01, "critic2": 1.0}
        self.weights: dict[str, Tensor] = {"descriptions": torch.tensor(descriptions, dtype=torch.float32)}
        for name, shape in shapes.items():
            weight = torch.empty(shape)
            torch.nn.init.orthogonal_(weight, gains.get(name, 2**0.5), generator=generator)
            self.weights[f"{name}.weight"], self.weights[f"{name}.bias"] = weight, torch.zeros(shape[0])
        self.weights["tradeoff.weight"] = torch.zeros(width)
        self._require()

    def _require(self) -> None:
        for name, weight in self.weights.items():
            weight.requires_grad_(name != "tradeoff.weight" or self.conditioned)

    def parameters(self) -> list[Tensor]:
        return [w for w in self.weights.values() if w.requires_grad]

    def state(self, query: Tensor, read: Tensor, tradeoff: Tensor) -> Tensor:
        """(batch, width) of query (batch, d), read (batch, d) and λ (batch,)."""
        w, relu = self.weights, self.torch.relu
        seen = self.torch.cat([query, read], dim=1) @ w["state.weight"].T + w["state.bias"]
        return relu(seen + tradeoff.sqrt()[:, None] * w["tradeoff.weight"])

    def blurred(self, vectors: Tensor, noise: float) -> Tensor:
        """`vectors` with normal noise on every component."""
        return vectors + noise * self.torch.randn(vectors.shape, generator=self.noise) if noise else vectors

    def hidden(self, state: Tensor, module: int) -> Tensor:
        """(batch, width): what the network makes of a state for one module."""
        w, relu = self.weights, self.torch.relu
        description = relu(w["descriptions"][module] @ w["description.weight"].T + w["description.bias"])
        both = self.torch.cat([state, description.expand(len(state), -1)], dim=1)
        inner = relu(both @ w["hidden1.weight"].T + w["hidden1.bias"])
        return relu(inner @ w["hidden2.weight"].T + w["hidden2.bias"])

    def actor(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (batch, 3)."""
        w = self.weights
        inner = self.torch.relu(hidden @ w["actor1.weight"].T + w["actor1.bias"])
        return self.torch.log_softmax(inner @ w["actor2.weight"].T + w["actor2.bias"], dim=1)

    def critic(self, hidden: Tensor) -> Tensor:
        """Value (batch,) of a state at the first decision."""
        w = self.weights
        inner = self.torch.relu(hidden @ w["critic1.weight"].T + w["critic1.bias"])
        return (inner @ w["critic2.weight"].T + w["critic2.bias"])[:, 0]

    def joint(self, query: Tensor, reads: Tensor, tiers: Tensor, tradeoff: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(log-probability of all tiers, their entropy, value), each (batch,).

        `reads` (batch, 3, d) is what was read at the filter, by the extractors, by the summary; `tiers` is
        (batch, modules).
        """
        total = entropy = 0.0
        value = None
        states = [self.state(query, reads[:, stage], tradeoff) for stage in range(3)]
        for module in range(len(MODULES)):
            hidden = self.hidden(states[STAGES[module]], module)
            value = self.critic(hidden) if value is None else value
            log = self.actor(hidden)
            total = total + log.gather(1, tiers[:, module : module + 1])[:, 0]
            entropy = entropy - (log.exp() * log).sum(dim=1)
        return total, entropy, value

    def arrays(self) -> dict[str, Vector]:
        """All weights as numpy arrays of their own."""
        return {name: weight.detach().numpy().copy() for name, weight in self.weights.items()}

    def load(self, arrays: Mapping[str, Vector]) -> None:
        """Copy weights in place, so that an optimizer keeps its references."""
        with self.torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.torch.from_numpy(np.array(arrays[name])))
