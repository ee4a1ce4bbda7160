"""Microsoft Presidio as a hook of a redactor: names, places and more."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from agentcascade.errors import ConfigError, MissingExtra

UNWANTED_ENTITIES = {"DATE_TIME", "URL", "EMAIL_ADDRESS", "NRP", "ORGANIZATION"}
"""What Presidio is not asked for: agents act on dates and links, and addresses are replaced before."""


def presidio_hook(engine: Any = None, *, threshold: float = 0.5) -> Callable[[str], str]:
    """Microsoft Presidio as a hook of a `Redactor`: entities become ``[person]``, ``[location]`` ….

    Exercised with presidio-analyzer 2.2.366 on its pattern recognizers (an engine on `NoOpNlpEngine`), not with a spaCy
    model's names.

    Args:
        engine: An `AnalyzerEngine`; by default one on the largest English spaCy model that is installed. Nothing is
            downloaded.
        threshold: The score in [0, 1] from which an entity is replaced.

    Returns:
        A function from a text to the redacted text.

    Raises:
        MissingExtra: Without presidio-analyzer.
        ConfigError: Where no English spaCy model is installed.
    """
    engine = engine or _engine()
    entities = sorted(set(engine.get_supported_entities(language="en")) - UNWANTED_ENTITIES)

    def hook(text: str) -> str:
        entities_found = engine.analyze(text=text, language="en", entities=entities, score_threshold=threshold)
        placeholders = [m.span() for m in re.finditer(r"\[[\w .-]{1,60}\]", text)]
        parts, at = [], 0
        for result in sorted(entities_found, key=lambda r: (r.start, -r.end)):
            if result.start >= at and not any(start < result.end and result.start < end for start, end in placeholders):
                parts += [text[at : result.start], f"[{result.entity_type.lower()}]"]
                at = result.end
        return "".join([*parts, text[at:]])

    return hook


def _engine() -> Any:
    try:
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError as error:
        raise MissingExtra("presidio-analyzer", "redaction", "redaction.presidio") from error
    models = [m for m in ("en_core_web_lg", "en_core_web_md", "en_core_web_sm") if find_spec(m)]
    if not models:
        raise ConfigError(
            "redaction.presidio finds no English spaCy model: python -m spacy download en_core_web_lg, or pass "
            "presidio_hook(engine) of your own analyzer as one of the hooks"
        )
    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": models[0]}]}
    return AnalyzerEngine(nlp_engine=NlpEngineProvider(nlp_configuration=settings).create_engine())
