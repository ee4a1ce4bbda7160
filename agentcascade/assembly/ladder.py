"""Prices of a ladder's rungs: whether each costs no less than the one below, by what their thinking costs as well."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from agentcascade.config.effort import effort_of, plain_name
from agentcascade.errors import ConfigError
from agentcascade.protocols import ChatModel
from agentcascade.step.committee import ANSWER_TOKENS, PROMPT_TOKENS
from agentcascade.types import Usage

log = logging.getLogger("agentcascade.ladder")


class RungPrice(NamedTuple):
    """Dollars of a rung's common call: with its thinking, and without any; None where a price is not known."""

    model: str
    expected: float | None
    plain: float | None


def rung_price(model: ChatModel, usual: Callable[[str], float | None]) -> RungPrice:
    """The dollars of a call of common length.

    Args:
        model: At its effort.
        usual: Reasoning tokens of an answer that are recorded of a model, by its name; None: nothing is.
    """
    effort = effort_of(model.name)
    if effort is None or effort.share is not None:
        recorded = usual(plain_name(model.name))
        thinking = recorded if effort is None else effort.expected_tokens(recorded)
    else:
        recorded = usual(model.name)
        thinking = effort.expected_tokens() if recorded is None else recorded
    call = Usage(input=PROMPT_TOKENS, output=ANSWER_TOKENS)
    expected = model.dollars(call + Usage(reasoning=round(thinking or 0)))
    plain = model.dollars(call)
    return RungPrice(model.name, None if expected is None else float(expected), None if plain is None else float(plain))


def check_prices(rungs: Sequence[ChatModel], usual: Callable[[str], float | None]) -> None:
    """Check that rungs climb in price; what only expected thinking says is a warning, since a call may think less.

    Raises:
        ConfigError: A rung costs more than the one above it even without any thinking.
    """
    prices = [rung_price(model, usual) for model in rungs]
    for i, (below, above) in enumerate(pairwise(prices)):
        if below.expected is None or above.expected is None or below.expected <= above.expected:
            continue
        said = (
            f"ladder.{i}: a call of {below.model} costs ${below.expected:.3g}, and one of {above.model}, the rung "
            f"above it, ${above.expected:.3g} ({PROMPT_TOKENS:,} prompt and {ANSWER_TOKENS} answer tokens, and the "
            "thinking of their efforts)"
        )
        if below.plain is not None and above.plain is not None and below.plain > above.plain:
            raise ConfigError(f"{said}: put the cheaper rung first, or leave {below.model} out")
        log.warning("%s: whatever stops at the dearer rung is no saving over asking the other at once", said)
