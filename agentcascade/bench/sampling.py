"""Sample a student at the steps of a log, offline: vLLM in worker processes, here or on a Ray cluster.

Answers are kept line by line beside the log that is made, so that a stopped run resumes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NamedTuple

from agentcascade._util.files import append_to, write_atomically
from agentcascade.actions.base import ActionFormat, parse_as
from agentcascade.actions.refusals import refusal
from agentcascade.bench.pools.base import WorkersDied
from agentcascade.bench.pools.open import open_pool
from agentcascade.errors import EnvironmentFailed, InvalidAction, InvalidRequest
from agentcascade.models.pricing import Price
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample, Message, Usage
from agentcascade.vllm.engine import EngineSettings
from agentcascade.vllm.offline import OfflineEngine, SamplingSettings, SeededPrompt

MAX_UNANSWERED = 100
"""Steps without an answer that end a run which has no answer at all"""


class StepPrompt(NamedTuple):
    """Prompt of a step: its messages, and the demonstrations in them."""

    step: LoggedStep
    messages: Sequence[Message]
    k: int = 0
    demonstrations: tuple[str, ...] = ()
    similarity: float | None = None


@dataclass(frozen=True)
class SamplingPlan:
    """Plan of a sampling run: engine and sampling parameters; picklable."""

    python: Path
    settings: EngineSettings
    sampling: SamplingSettings
    log: Path
    wait: float = 600.0
    seed: int = 0


def sample_steps(
    items: Sequence[StepPrompt],
    plan: SamplingPlan,
    path: Path,
    *,
    at_once: int = 256,
    workers: int = 1,
    ray: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, dict[str, Any]]:
    """Sample each item; returns the answers by `step_key`. The file at `path` keeps them, and is read first.

    Raises `InvalidRequest` where the file is of another run, `EnvironmentFailed`, and what `open_pool` raises.
    """
    prompts = {step_key(item.step): seeded_prompt(item, plan.seed) for item in items}
    answers = _open_answers(path, _run_digest(plan, prompts), prompts)
    on_progress(len(answers), len(prompts))
    left = [one for name, one in prompts.items() if name not in answers]
    chunks = [left[i : i + at_once] for i in range(0, len(left), at_once)]
    if not chunks:
        return answers
    try:
        with (
            append_to(path) as file,
            open_pool(min(workers, len(chunks)), _start, plan, ray=ray) as pool,
        ):
            for batch in pool.map(_sample, chunks):
                for answer in batch:
                    file.write(json.dumps(answer) + "\n")
                    answers[answer["id"]] = answer
                file.flush()
                on_progress(len(answers), len(prompts))
                if len(answers) >= min(len(prompts), MAX_UNANSWERED) and all(
                    "error" in answer for answer in answers.values()
                ):
                    raise EnvironmentFailed(
                        f"none of the first {len(answers)} steps was answered "
                        f"({next(iter(answers.values()))['error']}): "
                        f"see the model and its log beside {plan.log}"
                    )
    except WorkersDied as error:
        raise EnvironmentFailed(
            f"a worker died ({error}); {len(answers)} of {len(prompts)} steps are kept in {path}: see memory, and run "
            "again"
        ) from error
    return answers


def with_samples(
    item: StepPrompt,
    answer: dict[str, Any],
    sampling: SamplingSettings,
    *,
    model: str,
    formats: ActionFormat,
    price: Price | None,
) -> LoggedStep:
    """The item's step with the student's samples, which replace earlier ones of `model`."""
    samples: list[LoggedSample] = []
    for sample in answer.get("samples", ()):
        message: Message = {"role": "assistant", "content": sample["text"]}
        details = {
            "logprob": None if sample["logprob"] is None else min(0.0, sample["logprob"]),
            "tokens": sample["tokens"],
        }
        try:
            action = parse_as(formats, message, None)
        except InvalidAction as error:
            samples.append(LoggedSample(action=None, text=sample["text"], invalid=str(error), **details))
        else:
            refused = refusal(message, action)
            key = None if refused else action.key
            samples.append(LoggedSample(action=key, text=action.text, invalid=refused, **details))
    if not samples:
        samples = [LoggedSample(action=None, invalid=answer["error"])] * sampling.n
    prompt, cached = answer.get("prompt", 0), answer.get("cached", 0)
    student = StudentSamples(
        model=model,
        samples=tuple(samples),
        n=sampling.n,
        temperature=sampling.temperature,
        k=item.k,
        demonstrations=item.demonstrations,
        similarity=item.similarity,
        prompt=Usage(input=prompt - cached, cached_input=cached) if prompt else None,
        price=price,
    )
    others = tuple(d for d in item.step.students if d.model != model)
    return item.step.model_copy(update={"students": (*others, student)})


def step_key(step: LoggedStep) -> str:
    return f"{step.namespace}/{step.id}"


def seeded_prompt(item: StepPrompt, seed: int) -> SeededPrompt:
    """The item's prompt with the seed that is its own."""
    name = step_key(item.step)
    seed_bytes = blake2b(f"{seed} {name}".encode(), digest_size=4).digest()
    return SeededPrompt(id=name, messages=list(item.messages), seed=int.from_bytes(seed_bytes) >> 1)


def _run_digest(plan: SamplingPlan, prompts: dict[str, SeededPrompt]) -> str:
    """Digest of everything that the answers depend on."""
    settings = [plan.settings.model, plan.settings.chat_template, plan.settings.dtype, asdict(plan.sampling), plan.seed]
    written = json.dumps([settings, list(prompts.values())], sort_keys=True, default=str)
    return blake2b(written.encode(), digest_size=12).hexdigest()


def _open_answers(path: Path, identity: str, prompts: dict[str, SeededPrompt]) -> dict[str, dict[str, Any]]:
    """Read the answers in the file at `path`, without a torn last line; a new file begins with its run's digest."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if not lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"run": identity}) + "\n")
        return {}
    good = list(_whole_lines(lines))
    if not good or good[0].get("run") != identity:
        raise InvalidRequest(
            f"{path} is what another run left, of another log, model or sampling: finish that one, or delete the file"
        )
    if len(good) < len(lines):
        write_atomically(path, "".join(lines[: len(good)]))
    return {answer["id"]: answer for answer in good[1:] if answer["id"] in prompts and "error" not in answer}


def _whole_lines(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Parsed lines up to the first that a crash cut off."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return


_engine: OfflineEngine | Exception | None = None
_plan: SamplingPlan | None = None


def _start(plan: SamplingPlan) -> None:
    """Start the engine in a worker; either ends with the other."""
    global _engine, _plan
    _plan = plan
    try:
        log = plan.log.with_name(f"{plan.log.stem}-{os.getpid()}{plan.log.suffix}")
        _engine = OfflineEngine(plan.python, plan.settings, log, plan.wait)
        Finalize(None, _engine.stop, exitpriority=10)
    except Exception as error:  # raised here it would only break the pool: `_sample` raises it where it can be read
        _engine = error


def _sample(prompts: list[SeededPrompt]) -> list[dict[str, Any]]:
    if isinstance(_engine, Exception):
        raise EnvironmentFailed(str(_engine))
    assert _engine is not None
    assert _plan is not None
    return _engine.sample(prompts, _plan.sampling)
