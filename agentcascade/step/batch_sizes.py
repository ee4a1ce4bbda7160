"""Sizes of the batches in which a step buys its samples, as `sampling.staged` says."""

from __future__ import annotations

import json

from agentcascade.actions import voting
from agentcascade.protocols import Router
from agentcascade.step import variation
from agentcascade.step.caching import student_terms
from agentcascade.step.context import StepContext
from agentcascade.step.request import Request
from agentcascade.step.sample_batches import (
    MOST,
    BatchPlanner,
    BatchPrices,
    SampleStatistics,
    all_at_once,
    batch_prices,
)
from agentcascade.types import Situation, Tally, Usage


class BatchSizes:
    """All samples at once, the fewest that could settle the vote, or what costs least, planned by prices.

    Args:
        context: Its student is asked.
        statistics: Of the student's samples before this step.
        router: Judges the votes.
        n: Samples wanted in all.
        request: With the demonstrations that are shown.
    """

    def __init__(
        self,
        context: StepContext,
        statistics: SampleStatistics,
        router: Router,
        situation: Situation,
        n: int,
        request: Request,
    ) -> None:
        assert context.student is not None
        self._context, self._router, self._situation, self._n = context, router, situation, n
        self._request, self._statistics = request, statistics
        self._is_varied = variation.prompts_of(context, request) > 1
        self._staged, self._agree = context.config.sampling.staged, statistics.agree
        self._pays_once = context.student.supports_n and not self._is_varied
        self._least: BatchPrices | None = None
        """Of a prompt of its demonstrations alone, and no less where a longer one is sent; None: nothing is planned."""
        self._planner: BatchPlanner | None = None
        if self._staged == "auto" and 1 < n <= MOST and statistics.known:
            self._least = self._least_prices(request.demonstration_tokens)

    def next(self, votes: Tally) -> int:
        """Samples to buy next."""
        if self._least is not None:
            return self._planned(votes, self._least)
        if self._staged == "always" or (self._staged == "auto" and not self._pays_once):
            return voting.next_wave(self._router, self._situation, votes, self._n - votes.total)
        return self._n - votes.total

    def _planned(self, votes: Tally, least: BatchPrices) -> int:
        if not votes.total and all_at_once(self._router, self._situation, votes, self._n, least, self._agree):
            return self._n  # the prompt need not be counted: a longer one would change nothing
        if self._planner is None:
            context, request = self._context, self._request
            prompt = request.tokens(context.count) + request.demonstration_tokens
            prompt += context.count(json.dumps(request.tools)) if request.tools else 0
            prices = self._prices(prompt) or least
            self._planner = BatchPlanner(self._router, self._situation, self._n, prices, self._agree)
        return self._planner.next(votes)[0]

    def _least_prices(self, prompt: int) -> BatchPrices | None:
        """Where a longer prompt is read from the provider's cache, repeating it may cost less."""
        context, prices = self._context, self._prices(prompt)
        assert context.student is not None
        if prices is None or student_terms(context, self._request).never:
            return prices
        read = context.student.dollars(Usage(cached_input=prompt)) or 0
        return prices._replace(repeated_prompt=min(prices.repeated_prompt, float(read)))

    def _prices(self, prompt: int) -> BatchPrices | None:
        """Dollars of batches of a prompt of so many tokens."""
        context = self._context
        assert context.student is not None
        prices = batch_prices(
            context.student,
            prompt,
            self._statistics.answer_tokens,
            terms=student_terms(context, self._request),
            seconds=self._statistics.seconds,
            second_dollars=context.config.sampling.second_dollars,
        )
        if prices is not None and self._request.is_warm:  # a rung below sent it
            prices = prices._replace(prompt=prices.repeated_prompt)
        if prices is not None and self._is_varied:  # no prompt is sent twice
            prices = prices._replace(once=False, repeated_prompt=prices.prompt)
        return prices
