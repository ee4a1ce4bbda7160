"""How vLLM is started: the options that `students serve` and `students sample` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentcascade.cli.numbers import FiniteRange

if TYPE_CHECKING:
    from agentcascade.vllm.engine import EngineSettings

F = TypeVar("F", bound=Callable[..., Any])
WAIT = 600.0
FROM = "Default: $AGENTCASCADE_VLLM, else what `students install` made, else vllm on the path."


def engine_options(function: F) -> F:
    options = (
        click.option("--vllm", help=f"vLLM's executable or virtual environment. {FROM}"),
        click.option("--max-model-len", type=click.IntRange(1), help="Tokens of prompt and answer together."),
        click.option("--dtype", help="As vLLM names it."),
        click.option("--gpu-memory", type=FiniteRange(0.05, 1), help="Share of the GPU's memory."),
        click.option(
            "--cpu-memory", type=click.IntRange(1), help="GiB for keys and values, where vLLM runs on the CPU."
        ),
        click.option(
            "--tensor-parallel", type=click.IntRange(1), default=1, show_default=True, help="GPUs of one replica."
        ),
        click.option("--prefix-caching/--no-prefix-caching", default=True, show_default=True),
        click.option("--chat-template", type=click.Path(path_type=Path, exists=True, dir_okay=False)),
        click.option("--wait", type=FiniteRange(1), default=WAIT, show_default=True, help="Seconds until it is ready."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def engine_settings(
    model: str, name: str, options: Mapping[str, Any], extra: Sequence[str], *, tool_parser: str | None = None
) -> EngineSettings:
    """What the options say; `extra` goes to vLLM as it is."""
    from agentcascade.vllm.engine import EngineSettings

    template = options["chat_template"]
    return EngineSettings(
        model=str(Path(model).absolute()) if Path(model).is_dir() else model,
        name=name,
        max_model_len=options["max_model_len"],
        dtype=options["dtype"],
        gpu_memory=options["gpu_memory"],
        cpu_memory=options["cpu_memory"],
        tensor_parallel=options["tensor_parallel"],
        prefix_caching=options["prefix_caching"],
        tool_parser=tool_parser,
        chat_template=str(template.absolute()) if template else None,
        extra=tuple(extra),
    )
