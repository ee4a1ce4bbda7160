"""Do known failures repeat themselves? Llama-2-13B on 510 ALFWorld training tasks, through the shelf of failures.

    python tests/benchmarks/bench_failures.py [--data ../shared/data/alfworld_llm_logs/….jsonl]

The episodes are read in the order of the file. Before each step the shelf is asked whether the model's action is known
to fail; then what happened is noted. Struck steps were taken all the same in this log, so that it shows whether they
failed again. `others`: by what other episodes showed alone; `all`: by the episode's own failures as well, as live.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import beta

from agentcascade.bank.failures import FailureShelf
from agentcascade.config.sections import ContrastConfig
from agentcascade.storage import open_database
from agentcascade.types import Action, Situation, Step

DATA = Path(__file__).parents[2].parent / "shared/data/alfworld_llm_logs/KnowAgentALFWorld_llama-2-13b_D1.jsonl"
FAILED = "Nothing happens."
SAME = (
    ("observation",),
    ("observation", "before"),
    ("category", "observation"),
    ("category", "observation", "before"),
    ("goal", "observation", "before"),
)


class LoggedEpisode(NamedTuple):
    """Episode of the log: its steps, and the observation after the last one."""

    name: str
    goal: str
    category: str
    success: bool
    steps: tuple[Step, ...]
    last: str


def read_episodes(path: Path) -> Iterator[LoggedEpisode]:
    """Episodes of KnowAgent's log: lines that begin with ``>`` are the model's, thoughts and paths among them."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        head, _, rest = row["traj"].partition("\nYour task is to: ")
        goal, _, played = rest.partition("\n")
        observation, steps, action, thought = f"{head}\nYour task is to: {goal}", [], "", ""
        for turn in re.split(r"(?m)^> ", played)[1:]:
            said, _, seen = turn.partition("\n")
            if re.match(r"(?i)think|ActionPath", said):
                thought = said
                continue
            action = said.strip()
            steps.append(Step(observation=observation, reasoning=thought, action=action))
            observation, thought = seen.strip(), ""
        yield LoggedEpisode(
            row["name"], goal, row["name"].split("-")[0], bool(row["result"]), tuple(steps), observation
        )


def interval(hits: int, of: int) -> str:
    """A share with its Clopper-Pearson interval of .95, steps taken as independent."""
    if not of:
        return "none"
    low, high = beta.ppf([0.025, 0.975], [hits, hits + 1], [of - hits + 1, of - hits])
    return f"{hits / of:.4f} [{0.0 if not hits else low:.4f}, {1.0 if hits == of else high:.4f}]"


async def replay(episodes: list[LoggedEpisode], settings: ContrastConfig, own: bool) -> dict[str, int]:
    """Counts of struck and other steps, by whether they failed."""
    counts = dict.fromkeys(("failed", "worked", "struck and failed", "struck and worked"), 0)
    with closing(open_database("sqlite://")) as database:
        shelf = FailureShelf(database, lambda outcome: None, settings)
        for episode in episodes:
            results = [*(s.observation for s in episode.steps[1:]), episode.last]
            common: dict[str, Any] = {"goal": episode.goal, "category": episode.category, "episode": episode.name}
            later = []
            for i, (step, result) in enumerate(zip(episode.steps, results)):
                here = Situation(history=episode.steps[:i], observation=step.observation, **common)
                if i == 0:
                    await shelf.note(here)
                known = await shelf.complaint(Action(key=step.action, text=step.action), here)
                outcome = "failed" if FAILED in result else "worked"
                counts[outcome] += 1
                counts[f"struck and {outcome}"] += known is not None
                then = Situation(history=episode.steps[: i + 1], observation=result, **common)
                if own:
                    await shelf.note(then)
                else:
                    later.append(then)
            for then in later:
                await shelf.note(then)
    return counts


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=DATA)
    episodes = list(read_episodes(arguments.parse_args().data))
    steps = sum(len(e.steps) for e in episodes)
    print(f"{len(episodes)} episodes, {sum(e.success for e in episodes)} successes, {steps:,} steps")
    for own, times, same in product((False, True), (1, 2, 3), SAME):
        counts = asyncio.run(replay(episodes, ContrastConfig(failed=(FAILED,), times=times, same=same), own))
        failed, worked = counts["struck and failed"], counts["struck and worked"]
        print(
            f"{'all' if own else 'others':6} times {times} same {'+'.join(same):31} struck {failed + worked:5,}, "
            f"of them failed {interval(failed, failed + worked)}; "
            f"of failing steps {interval(failed, counts['failed'])}, "
            f"of good ones {interval(worked, counts['worked'])}"
        )


if __name__ == "__main__":
    main()
