"""Sticky, utility-weighted and shortened demonstrations on the ALFWorld bench: dollars, tokens and accuracy.

Run: python tests/benchmarks/bench_demonstrations.py [--episodes 40] [--demos 60] [--seed 0] [--only sticky]

The models are the offline stand-ins at the paper's prices, so the figures say what the parts do, not what a language
model would make of them. The student's provider caches prompts of 1,024 tokens or more, in steps of 128, at a quarter
of the price: what a prompt shares with the episode's earlier ones is billed as read from the cache.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from os.path import commonprefix
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from agentcascade.assembly import components
from agentcascade.bank.shortening import Shortener, WordLimits
from agentcascade.bench.records import EpisodeJob, EpisodeRecord
from agentcascade.bench.suites.alfworld import AlfworldSuite
from agentcascade.bench.worker import Setup, Worker, embedder
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ModelConfig
from agentcascade.envs.offline.editor import Editor
from agentcascade.messages import text_of
from agentcascade.models.tokens import token_counter
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.storage import open_database
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Completion, EpisodeEnd, Message, Usage, now

TEACHER = {"name": "offline/expert", "price": {"input": "3", "output": "15"}, "temperature": 0.1}
STUDENT = {"name": "offline/imitator", "price": {"input": "0.40", "cached_input": "0.10", "output": "1.60"}}
CACHED_FROM, CACHED_STEP = 1024, 128


class Caching:
    """A student behind a provider that caches prompts; with `supports_n` off every sample pays for its prompt."""

    def __init__(self, model: ChatModel, count: TokenCounter, *, supports_n: bool) -> None:
        self.model, self.count, self.name, self.supports_n = model, count, model.name, supports_n
        self._sent: list[str] = []

    def dollars(self, usage: Usage) -> Any:
        return self.model.dollars(usage)

    async def complete(self, messages: Sequence[Message], *, n: int = 1, **options: Any) -> Completion:
        prompt = "\0".join(text_of(m) for m in messages)
        shared = max((self.count(commonprefix([prompt, s])) for s in self._sent), default=0)  # noqa: RUF071 - of texts
        self._sent = [*self._sent[-3:], prompt]
        completion = await self.model.complete(messages, n=n, **options)
        whole = completion.usage.prompt
        read = min(shared, whole) // CACHED_STEP * CACHED_STEP if shared >= CACHED_FROM else 0
        times = 1 if self.supports_n else n
        usage = Usage(input=(whole - read) * times, cached_input=read * times, output=completion.usage.output)
        return completion.model_copy(update={"usage": usage, "dollars": self.dollars(usage)})


class CachingWorker(Worker):
    supports_n = True

    def _model(self, config: ModelConfig | None, count: TokenCounter) -> ChatModel | None:
        model = super()._model(config, count)
        student = model is not None and config is not None and config.name == STUDENT["name"]
        return Caching(model, count, supports_n=self.supports_n) if student else model  # type: ignore[arg-type]


def configured(**sections: dict[str, Any]) -> CascadeConfig:
    base: dict[str, Any] = {
        "mode": "cascade",
        "teacher": TEACHER,
        "student": STUDENT,
        "retrieval": {"k": 6, "embedder": "minilm", "index": "exact"},
        "router": {"name": "unanimity", "options": {"n": 3}},
        "sampling": {"temperature": 0.1, "staged": "never"},
        "prompt": {"place": "first"},  # as the figures were made; bench_caching compares places
        "actions": {"format": "react"},
        "collect": {"drop_observations": AlfworldSuite.dropped},
    }
    merged = {k: {**v, **sections.get(k, {})} if isinstance(v, dict) else v for k, v in base.items()}
    return CascadeConfig.model_validate(merged | {k: v for k, v in sections.items() if k not in base})


def play(
    config: CascadeConfig, bank: str, jobs: Sequence[EpisodeJob], *, supports_n: bool = True
) -> list[EpisodeRecord]:
    worker = CachingWorker(
        Setup("agentcascade.bench.suites.alfworld:AlfworldSuite", config, {j.seed: bank for j in jobs})
    )
    worker.supports_n = supports_n
    return [worker.play(job) for job in jobs]


def tell(name: str, records: Sequence[EpisodeRecord]) -> None:
    decisions = [d for r in records for d in r.decisions]
    calls = [c for d in decisions for c in d.calls]
    students = [c for c in calls if c.role == "student"]
    prompt = sum(c.usage.prompt for c in students)
    cached = sum(c.usage.cached_input for c in students)
    dollars = [float(r.dollars or 0) for r in records]
    half = 1.96 * float(np.std(dollars, ddof=1)) / len(dollars) ** 0.5
    print(
        f"{name:34} accuracy {np.mean([r.success for r in records]):.3f}  $/episode {np.mean(dollars):.5f} ± {half:.5f}"
        f"  deferred {np.mean([d.answered_by == 'teacher' for d in decisions]):.3f}"
        f"  steps {np.mean([r.steps for r in records]):.1f}"
        f"  prompt {prompt / max(1, len(students)):,.0f} tokens, {cached / max(1, prompt):.1%} cached"
        f"  {len(students) / len(decisions):.2f} requests a step",
        flush=True,
    )


def sticky(bank: str, jobs: Sequence[EpisodeJob]) -> None:
    for how in ("never", "always", "auto"):
        for sensitivity in (1.0, 3.0, 5.0, 10.0) if how == "auto" else (1.0,):
            retrieval = {"sticky": how, "sticky_sensitivity": sensitivity}
            records = play(configured(retrieval=retrieval), bank, jobs)
            tell(f"sticky {how}" + (f", sensitivity {sensitivity:g}" if how == "auto" else ""), records)


def waves(bank: str, jobs: Sequence[EpisodeJob]) -> None:
    for supports_n in (True, False):
        for staged in ("never", "always", "auto"):
            records = play(configured(sampling={"staged": staged}), bank, jobs, supports_n=supports_n)
            tell(f"staged {staged}, {'one prompt for n' if supports_n else 'a prompt a sample'}", records)


def utility(bank: str, jobs: Sequence[EpisodeJob], practice: Sequence[EpisodeJob]) -> None:
    """The student alone practises on other tasks; what it was shown where it succeeded then ranks higher."""
    started = now()
    records = play(configured(), bank, practice)
    with closing(open_database(bank)) as database, database.begin(write=True) as connection:
        for r in records:
            episode = r.decisions[0].episode
            end = EpisodeEnd(
                episode=episode, goal="", mode="student", success=r.success, steps=r.steps, started_at=started
            )
            write_records(connection, [*r.decisions, end])
    tell("practice", records)
    alone = [replace(j, policy="student+demos") for j in jobs]
    for weight in (0.0, 0.1, 0.5):
        config = configured(retrieval={"utility_weight": weight})
        tell(f"utility weight {weight:g}, cascade", play(config, bank, jobs))
        tell(f"utility weight {weight:g}, student alone", play(config, bank, alone))


def shortened(bank: str, jobs: Sequence[EpisodeJob]) -> None:
    count = token_counter()
    tell("as the teacher wrote it", play(configured(), bank, jobs))
    for words in (WordLimits(8, 14), WordLimits(5, 10)):
        copy = bank.replace(".db", f"-{words.easy}.db")
        shutil.copy(bank.removeprefix("sqlite:///"), copy.removeprefix("sqlite:///"))
        with closing(open_database(copy)) as database:
            config = configured()
            copied = components.open_bank(config, database, embedder("minilm"))
            price = components.make_model(ModelConfig.model_validate(TEACHER), count)
            shortener = Shortener(copied, Editor(count, price.dollars), count, words)
            print(asyncio.run(run(shortener)))
        tell(f"at most {words.easy} and {words.hard} words", play(configured(prompt={"shortened": True}), copy, jobs))


async def run(shortener: Shortener) -> Any:
    return await shortener.run(await shortener.tasks())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--demos", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("waves", "sticky", "utility", "shortened"))
    parser.add_argument("--bank", type=Path, help="Keep the demonstrations in this file, or take them from it.")
    options = parser.parse_args()

    def games(split: str, number: int, policy: str) -> list[EpisodeJob]:
        tasks, _ = AlfworldSuite().tasks(split, number, options.seed, workers=2, on_progress=lambda done, of: None)
        return [EpisodeJob(policy, options.seed, i, t.id, t.path) for i, t in enumerate(tasks)]

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/bank.db"
        if options.bank is not None and options.bank.exists():
            shutil.copy(options.bank, path)
        else:
            records = play(configured(), f"sqlite:///{path}", games("train", options.demos, "demos"))
            with closing(open_database(path)) as database:
                bank = components.open_bank(configured(), database, embedder("minilm"))
                asyncio.run(bank.add_many([r.trajectory for r in records if r.trajectory is not None]))
            if options.bank is not None:
                shutil.copy(path, options.bank)
        jobs = games("valid_unseen", options.episodes, "cascade")
        url = f"sqlite:///{path}"
        if options.only in (None, "waves"):
            waves(url, jobs)
        if options.only in (None, "sticky"):
            sticky(url, jobs)
        if options.only in (None, "shortened"):
            shortened(url, jobs)
        if options.only in (None, "utility"):
            practice = games("valid_seen", options.episodes, "student+demos")
            utility(url, jobs, practice)


if __name__ == "__main__":
    main()
