"""The learned tier network at work: the same arithmetic as in training, and files that are what they say they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.memory.types import State
from agentcascade.routers.tier import checkpoints
from agentcascade.routers.tier.network import Network
from agentcascade.routers.tier.policy import SHAPES, PolicyRouter
from agentcascade.routers.tier.values import ValueRouter
from agentcascade.types import MODULES

D = 12
CARD = {"encoder": "hash-12", "dimension": D, "reward": {"cheap": 1.0, "dear": 9.0, "scale": 0.5}}
TRADEOFFS = (0.0, 0.05, 0.3, 0.9)


def units(n: int, seed: int = 0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(n, D))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn.astype(np.float32)


def network(seed: int = 0) -> Network:
    """One that has opinions: fresh networks have none, and do not look at λ. Skips the test where there is no torch."""
    if find_spec("torch") is None:
        pytest.skip("needs torch")
    new = Network(units(5, seed), seed, conditioned=True, width=32)
    weights = new.arrays()
    rng = np.random.default_rng(seed)
    weights["actor2.weight"] *= 1000
    weights |= {
        name: rng.normal(size=weights[name].shape).astype(np.float32) for name in ("tradeoff.weight", "state.bias")
    }
    new.load(weights)
    return new


def value_router(seed: int = 0) -> ValueRouter:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"mean": (D,), "weights": (486, D), "constants": (486,)}
    return ValueRouter.of({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, CARD)


def made(kind: str) -> PolicyRouter | ValueRouter:
    return value_router() if kind == "values" else PolicyRouter.of(network().arrays(), CARD, greedy=False)


def saved(path: Path, seed: int = 0, **card: Any) -> Path:
    checkpoints.save_checkpoint(path, "policy", network(seed).arrays(), {**CARD, **card})
    return path


def test_numpy_decides_as_torch_does() -> None:
    trained, torch = network(), pytest.importorskip("torch")
    router = PolicyRouter.of(trained.arrays(), CARD, greedy=False)
    queries, reads = units(40, 1), 0.6 * units(40, 2)
    likeliest = set()
    for strength in TRADEOFFS:
        for place, module in enumerate(MODULES):
            with torch.no_grad():
                state = trained.state(torch.from_numpy(queries), torch.from_numpy(reads), torch.full((40,), strength))
                wanted = trained.actor(trained.hidden(state, place)).exp().numpy()
            found = np.array([router.probabilities(module, State("", q, r), strength) for q, r in zip(queries, reads)])
            assert np.abs(found - wanted).max() < 1e-5
            assert found.sum(axis=1) == pytest.approx(1)
            likeliest |= {(module, int(best)) for best in found.argmax(axis=1)}
    assert {tier for _, tier in likeliest} == {0, 1, 2}, "the network of this test has opinions"
    assert len(likeliest) >= 8


def test_the_greedy_policy_is_certain_of_the_likeliest() -> None:
    weights = network().arrays()
    doubting, sure = PolicyRouter.of(weights, CARD, greedy=False), PolicyRouter.of(weights, CARD)
    for q, r in zip(units(50, 3), units(50, 4)):
        for module in MODULES:
            chances = doubting.probabilities(module, State("", q, r), 0.3)
            assert sure.probabilities(module, State("", q, r), 0.3) == tuple(float(p == max(chances)) for p in chances)


@pytest.mark.parametrize("kind", ["policy", "values"])
def test_the_order_of_questions_and_tradeoffs_does_not_matter(kind: str) -> None:
    """What is kept of the question before must not show."""
    router = made(kind)
    asked = [(State("", q, r), t, m) for q, r in zip(units(6, 5), units(6, 6)) for t in TRADEOFFS for m in MODULES]
    first = [router.probabilities(m, s, t) for s, t, m in asked]
    order = np.random.default_rng(0).permutation(len(asked))
    again = {int(i): router.probabilities(asked[i][2], asked[i][0], asked[i][1]) for i in order}
    assert [again[i] for i in range(len(asked))] == first
    assert len(set(first)) > 2


@pytest.mark.parametrize("tradeoff", [float("nan"), -0.1, float("inf")])
@pytest.mark.parametrize("kind", ["policy", "values"])
def test_a_tradeoff_that_is_no_weight_is_refused(kind: str, tradeoff: float) -> None:
    with pytest.raises(InvalidRequest, match="λ is the weight of cost against quality"):
        made(kind).probabilities("filter", State("", units(1)[0], units(1)[0]), tradeoff)


ELSEWHERE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_policy import answers, opened
print("\\n".join(answers(opened(Path(sys.argv[1])))))
assert "torch" not in sys.modules, "deciding needs no torch"
"""


def opened(path: Path) -> PolicyRouter | ValueRouter:
    return ValueRouter(path) if checkpoints.checkpoint_kind(path) == "values" else PolicyRouter(path, greedy=False)


def answers(router: PolicyRouter | ValueRouter) -> list[str]:
    """All bits of what it says of 200 states, and what the value router thinks of every combination."""
    found = []
    for number, (q, r) in enumerate(zip(units(200, 7), units(200, 8))):
        at = TRADEOFFS[number % 4]
        found += [" ".join(p.hex() for p in router.probabilities(m, State("", q, r), at)) for m in MODULES]
        if isinstance(router, ValueRouter):
            found.append(router.worth(q, at).tobytes().hex())
    return found


@pytest.mark.parametrize("kind", ["policy", "values"])
def test_saved_and_loaded_in_another_process_it_decides_the_same_bit_for_bit(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "router.safetensors"
    if kind == "policy":
        saved(path)
    else:
        value_router().save(path, seed=3)
        assert json.loads(path.with_suffix(".json").read_text())["seed"] == 3
    command = [sys.executable, "-c", ELSEWHERE, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = answers(made(kind))
    assert len(set(wanted)) > 2
    assert done.stdout.split("\n")[:-1] == wanted


def test_a_saved_policy_has_a_readable_card(tmp_path: Path) -> None:
    path = saved(tmp_path / "deep" / "router.safetensors", note="λ drawn anew")
    card = json.loads((tmp_path / "deep" / "router.json").read_text(encoding="utf-8"))
    assert card["router"] == checkpoints.checkpoint_kind(path) == "policy"
    assert card["modules"] == list(MODULES)
    assert card["note"] == PolicyRouter(path).card["note"] == "λ drawn anew"
    assert sorted(p.name for p in path.parent.iterdir()) == ["router.json", "router.safetensors"]


def changed_card(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        card = path.with_suffix(".json")
        card.write_text(json.dumps(json.loads(card.read_text()) | changes))

    return change


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def another(path: Path) -> None:
    checkpoints.save_checkpoint(path.with_name("other.safetensors"), "policy", network(1).arrays(), CARD)
    path.with_name("other.safetensors").replace(path)


def no_numbers(path: Path) -> None:
    weights = network().arrays()
    weights["hidden2.weight"][3, 4] = np.nan
    checkpoints.save_checkpoint(path, "policy", weights, CARD)


def reshaped(path: Path) -> None:
    weights = network().arrays()
    checkpoints.save_checkpoint(path, "policy", weights | {"descriptions": weights["descriptions"][:4]}, CARD)


def flat(path: Path) -> None:
    weights = network().arrays()
    checkpoints.save_checkpoint(path, "policy", weights | {"descriptions": weights["descriptions"].ravel()}, CARD)


def without_actor(path: Path) -> None:
    weights = network().arrays()
    del weights["actor2.weight"]
    checkpoints.save_checkpoint(path, "policy", weights, CARD)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (torn, ["r.safetensors is not a tier router", "train"]),
        (another, ["r.safetensors is not the file that its card r.json describes", "copy both together"]),
        (no_numbers, ["hidden2.weight holds values that are no numbers", "train it again"]),
        (without_actor, ["lacks the tensors actor2.weight", "train it again"]),
        (reshaped, ["descriptions has shape (4, 12), not (5, 12)"]),
        (flat, ["state.weight has shape (32, 24), not (32, 120)", "it is no tier router"]),
        (lambda p: p.unlink(), ["there is no file", "r.safetensors", "agentcascade memory train"]),
        (lambda p: p.with_suffix(".json").unlink(), ["there is no file", "r.json", "agentcascade memory train"]),
        (lambda p: p.with_suffix(".json").write_text("{"), ["r.safetensors is not a tier router", "train"]),
        (lambda p: p.with_suffix(".json").write_text("[1]"), ["r.safetensors is not a tier router", "train"]),
        (changed_card(router="values"), ["kind 'values', not policy", "set memory.router.name"]),
        (changed_card(format=2), ["has format 2, this version reads 1", "train it again"]),
        (
            changed_card(modules=["filter", "people", "summary"]),
            ["modules filter, people, summary", "this memory has filter, entity", "train a router for these"],
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_what_to_do_said(
    spoil: Callable[[Path], Any], said: list[str], tmp_path: Path
) -> None:
    path = saved(tmp_path / "r.safetensors")
    spoil(path)
    with pytest.raises(ConfigError) as error:
        PolicyRouter(path)
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "card", "said"),
    [
        ({"weights": np.ones((12, D))}, {}, "weights have shape (12, 12), not (486, 12)"),
        ({"constants": np.ones(7)}, {}, "constants have shape (7,), not (486,)"),
        ({"mean": np.full(D, np.nan)}, {}, "mean holds values that are no numbers"),
        ({}, {"reward": None}, "card does not say how scores and costs were weighed: train it again"),
    ],
)
def test_a_value_router_that_does_not_fit_is_refused(
    tensors: dict[str, Any], card: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.safetensors"
    checkpoints.save_checkpoint(path, "values", {**value_router().weights, **tensors}, {**CARD, **card})
    with pytest.raises(ConfigError) as error:
        ValueRouter(path)
    assert said in str(error.value)


@pytest.mark.parametrize("kind", ["policy", "values"])
@pytest.mark.parametrize(("encoder", "dimension"), [("hash-12", 16), ("minilm", D)])
def test_another_encoder_than_it_was_trained_on_is_refused(kind: str, encoder: str, dimension: int) -> None:
    router = made(kind)
    router.check("hash-12", D)
    with pytest.raises(ConfigError) as error:
        router.check(encoder, dimension)
    assert "trained on vectors of hash-12 (12 dimensions)" in str(error.value)
    assert f"the memory embeds with {encoder} ({dimension}): set memory.embedder" in str(error.value)


def test_every_tensor_that_deciding_needs_is_trained() -> None:
    assert set(SHAPES) <= set(network().weights)
