"""Judging by the provider's batch interface: several episodes in a request, unreadable answers once more, alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentcascade.batches.run import Batches
from agentcascade.batches.types import BatchAnswer, BatchRequest
from agentcascade.episodes.judge import OPTIONS, ModelJudge
from agentcascade.errors import InvalidAction
from agentcascade.types import Account, Trajectory


class BatchVerdicts(NamedTuple):
    """Verdicts of a judge.

    Args:
        verdicts: Of each trajectory, or why there is none.
        answers: To be taken (`Batches.take`) once the verdicts are kept.
    """

    verdicts: list[bool | InvalidAction]
    answers: list[BatchAnswer]


async def judge_by_batch(
    judge: ModelJudge,
    trajectories: Sequence[Trajectory],
    batches: Batches,
    *,
    job: str,
    accounts: Callable[[str], Sequence[Account]],
) -> BatchVerdicts:
    """Judge trajectories by batches, as many in a request as `judge` asks about together; none mixes namespaces.

    Each namespace has its batches, and pays for them. A run that was cut off finds its requests again, since equal
    questions are equal requests: trajectories must keep their ids and order.

    Args:
        judge: Is asked.
        trajectories: What it is asked about.
        batches: By which.
        job: What for, to be shown.
        accounts: Budgets of a namespace.

    Raises what `Batches.complete_all` raises.
    """
    verdicts: dict[int, bool | InvalidAction] = {}
    taken: list[BatchAnswer] = []

    async def ask(namespace: str, requests: Sequence[BatchRequest]) -> list[BatchAnswer]:
        answers = await batches.complete_all(
            judge.model, requests, job=job, role="teacher", purpose="judge", namespace=namespace,
            accounts=tuple(accounts(namespace)),
        )  # fmt: skip
        taken.extend(answers)
        return answers

    groups: dict[str, list[list[int]]] = {}
    for group in judge.groups(trajectories):
        groups.setdefault(trajectories[group[0]].namespace, []).append(group)
    for namespace, of_namespace in groups.items():
        alone = [group[0] for group in of_namespace if len(group) == 1]
        shared = [group for group in of_namespace if len(group) > 1]
        prompts = [judge.share([trajectories[i] for i in group]) for group in shared]
        requests = [
            BatchRequest([{"role": "user", "content": prompt.text}], judge.options(len(group)))
            for group, prompt in zip(shared, prompts)
        ]
        for group, prompt, answer in zip(shared, prompts, await ask(namespace, requests) if requests else ()):
            read: Sequence[bool | None] = [None] * len(group)
            if answer.completion is not None:
                read = judge.read_together(answer.completion, prompt)
            verdicts.update({i: verdict for i, verdict in zip(group, read) if verdict is not None})
            alone.extend(i for i, verdict in zip(group, read) if verdict is None)
        again = [BatchRequest(judge.messages(trajectories[i]), OPTIONS) for i in alone]
        for index, answer in zip(alone, await ask(namespace, again) if again else ()):
            try:
                if answer.completion is None:
                    raise InvalidAction(f"it was not judged: {answer.error}")
                verdicts[index] = judge.read(answer.completion)
            except InvalidAction as error:
                verdicts[index] = error
    return BatchVerdicts([verdicts[index] for index in range(len(trajectories))], taken)
