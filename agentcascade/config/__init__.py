"""Configuration: YAML, environment and keywords, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

if TYPE_CHECKING:
    from agentcascade.config.load import CascadeConfig as CascadeConfig
    from agentcascade.config.load import variants as variants
    from agentcascade.config.sections import ModelConfig as ModelConfig
    from agentcascade.config.sections import RouterConfig as RouterConfig

__all__, __getattr__, __dir__ = public_names(
    __name__,
    {
        "CascadeConfig": "load",
        "ModelConfig": "sections",
        "RouterConfig": "sections",
        "variants": "load",
    },
)
