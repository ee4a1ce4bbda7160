"""Samples that say the same in other words: layers that join action keys where writing alone does not tell.

Asked only when the router would defer, cheapest first: a dry run of candidates that do nothing but read, then a
verifier model over the distinct actions, in one call (Sarukkai et al. 2025 name an auxiliary verifier for AppWorld's
code; its prompt is not published, ours is the template ``verifier``). What fails joins nothing. Shadows and audits
compare keys as they are written, so a certificate speaks of a cascade without these layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from agentcascade._util import bounds
from agentcascade._util.lru_cache import LRUCache
from agentcascade._util.threads import apart
from agentcascade.messages import text_of
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.protocols import Ask, ChatModel, Merger
from agentcascade.types import Action, Message, Sample, Situation

CACHED = 10_000
LONGEST = 20_000
"""Characters of a verifier's answer that are read, from its end"""
OBSERVATION = 2_000
"""Characters of the last observation that a verifier is shown"""
_BEGINS = re.compile(r"\[\s*\[")


async def merged(
    samples: list[Sample],
    situation: Situation,
    mergers: Sequence[Merger],
    ask: Ask,
    failed: Callable[[str, BaseException], None],
) -> bool:
    """Give samples whose actions are the same one key, in place: that of the first of them; whether any changed.

    `failed` is told what broke; the other layers go on.
    """
    changed = False
    for merger in mergers:
        distinct: dict[str, Action] = {}
        for sample in samples:
            if sample.action is not None:
                distinct.setdefault(sample.action.key, sample.action)
        if len(distinct) < 2:
            break
        try:
            joins = await merger.merge(situation, list(distinct.values()), ask)
        except Exception as error:
            failed(merger.name, error)
            continue
        keys = {key: joins[key] if joins.get(key) in distinct else key for key in distinct}
        if len({*keys.values()}) == len(distinct):
            continue
        changed = True
        for i, sample in enumerate(samples):
            action = sample.action
            if action is not None and keys[action.key] != action.key:
                samples[i] = sample.model_copy(update={"action": action.model_copy(update={"key": keys[action.key]})})
    return changed


class DryRun:
    """Merger that tries actions, and joins those that answer the same.

    Args:
        run: Returns what an action would answer, or None where it must not be tried: where it would do more than read.
            It runs in a thread, one action after the other.

    >>> import asyncio
    >>> from agentcascade import Action, DryRun, Situation
    >>> sums = DryRun(lambda action: str(sum(map(int, action.text.split("+")))))
    >>> actions = [Action(key=text, text=text) for text in ("1+2", "2+1", "2+2")]
    >>> asyncio.run(sums.merge(Situation(goal="three"), actions, ask=None))
    {'1+2': '1+2', '2+1': '1+2', '2+2': '2+2'}
    """

    name = "dry run"

    def __init__(self, run: Callable[[Action], str | None]) -> None:
        self._run = run

    async def merge(self, situation: Situation, actions: Sequence[Action], ask: Ask) -> Mapping[str, str]:
        """Key of each action that was tried → key of the first that answers the same, as `Merger.merge` says."""
        first: dict[str, str] = {}
        joins = {}
        for action in actions:
            answer = await apart(self._run, action)
            if answer is not None:
                joins[action.key] = first.setdefault(answer, action.key)
        return joins


class Verifier:
    """Merger that asks a cheap model which actions mean the same.

    Each set of actions is asked once for a task; the call is billed to the step, as purpose ``verify``. An answer that
    is no grouping joins nothing. `actions.verifier` names one in the configuration.

    Args:
        model: Is asked.
        prompts: Templates of the question.

    >>> import asyncio
    >>> from agentcascade import Action, ScriptedModel, Situation, Verifier
    >>> verifier = Verifier(ScriptedModel(["[[1, 2], [3]]"]))
    >>> actions = [Action(key=text, text=text) for text in ("take mug", "pick up mug", "look")]
    >>> async def ask(model, messages):
    ...     return await model.complete(messages)
    >>> asyncio.run(verifier.merge(Situation(goal="take the mug"), actions, ask))
    {'take mug': 'take mug', 'pick up mug': 'take mug', 'look': 'look'}
    """

    name = "verifier"

    def __init__(self, model: ChatModel, prompts: Prompts = DEFAULT) -> None:
        self.model: ChatModel = model
        self._prompts = prompts
        self._known: LRUCache[tuple[str, str, tuple[str, ...]], Mapping[str, str]] = LRUCache(CACHED)

    async def merge(self, situation: Situation, actions: Sequence[Action], ask: Ask) -> Mapping[str, str]:
        """Key of each action → key of the first of its group, as `Merger.merge` says."""
        question = situation.goal, situation.observation[-OBSERVATION:], tuple(sorted(a.key for a in actions))
        known = self._known.get(question)
        if known is None:
            quote, (goal, observation, _) = self._prompts.quoting, question
            candidates = "\n".join(f"{i}:\n{quote.text(action.text)}" for i, action in enumerate(actions, 1))
            prompt = self._prompts.render(
                "verifier",
                goal=quote.fence("task", quote.text(goal), goal),
                observation=quote.fence("observation", quote.text(observation), goal) if observation else "nothing yet",
                candidates=quote.fence("candidates", candidates, goal),
                note=self._prompts.render("verifier_note") if quote.on else "",
            )
            message: Message = {"role": "user", "content": prompt}
            completion = await ask(self.model, [message])
            groups = grouping(text_of(completion.messages[0]), len(actions))
            known = {actions[i].key: actions[group[0]].key for group in groups for i in group}
            self._known.put(question, known)
        return known


def grouping(text: str, count: int) -> list[list[int]]:
    """The groups in a verifier's answer, counted from 0; each alone where it is no grouping of so many candidates."""
    alone = [[i] for i in range(count)]
    text = text[-LONGEST:]
    start, end = _BEGINS.search(text), text.rfind("]")
    try:
        groups = bounds.loads(text[start.start() : end + 1]) if start else None
    except ValueError:
        return alone
    if not isinstance(groups, list) or not all(isinstance(g, list) and g for g in groups):
        return alone
    numbers = [n for group in groups for n in group]
    if not all(type(n) is int for n in numbers) or sorted(numbers) != list(range(1, count + 1)):
        return alone
    return [[n - 1 for n in sorted(group)] for group in groups]
