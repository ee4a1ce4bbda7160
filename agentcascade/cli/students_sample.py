"""``agentcascade students sample``: what a student would have said at every step of a log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade.cli.batching import batch_options
from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.settings import database_options, ray_option
from agentcascade.cli.students_engine import engine_options, engine_settings
from agentcascade.cli.terminal import say

if TYPE_CHECKING:
    from agentcascade.actions.base import ActionFormat
    from agentcascade.bench.sampling import StepPrompt
    from agentcascade.config.load import CascadeConfig
    from agentcascade.models.pricing import Price
    from agentcascade.vllm.offline import SamplingSettings

FORMATS = ("auto", "steps", "openai", "litellm", "langfuse")
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("model")
@click.option("--log", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="See below.")
@click.option("--out", type=FILE, required=True, help="A file; .parquet for Parquet, else JSON lines.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="auto", show_default=True, help="Of --log.")
@click.option("--teacher", help="The model of a transcript that counts as the teacher. Default: its only one.")
@click.option("--name", help="Of the student, in the log. Default: the last part of MODEL.")
@click.option("--n", type=click.IntRange(1), default=10, show_default=True, help="Samples per step.")
@click.option("--temperature", type=FiniteRange(0, 2), default=0.7, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Of an answer.")
@click.option("--actions", help="Format of actions. Default: the configuration's.")
@click.option(
    "--k", type=click.IntRange(0), default=0, show_default=True, help="Demonstrations, of the database's bank."
)
@click.option("--student-price", metavar="IN/OUT", help="Dollars per million tokens. Default: a served student's.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--at-once", type=click.IntRange(1), default=256, show_default=True, help="Steps handed over at a time.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Engines; each needs a GPU.")
@batch_options
@ray_option
@engine_options
@database_options
@click.argument("extra", nargs=-1)
def sample(model: str, log: Path, out: Path, extra: Sequence[str], **options: Any) -> None:
    """Sample MODEL at every step of a log, without a server: the log of both models that `tune` needs.

    A transcript (OpenAI's, litellm's, Langfuse's) brings the whole conversation and the teacher's answer. Of a log of
    steps, goal and observation are asked. What was sampled is kept in OUT.partial: the same command goes on there.

    With --batch MODEL is a provider's, such as openai/gpt-4.1-mini, asked by its batch interface: at half the price
    as a rule, within a day. The same command goes on where one was stopped; see `agentcascade batch`.
    """
    from agentcascade._util.files import cache_folder
    from agentcascade.actions.formats import make_format
    from agentcascade.bench.sampling import SamplingPlan, sample_steps
    from agentcascade.cli.logs import price_option
    from agentcascade.cli.settings import load_config
    from agentcascade.errors import InvalidRequest
    from agentcascade.models.quirks import HOSTED_VLLM
    from agentcascade.vllm.offline import SamplingSettings, environment_python
    from agentcascade.vllm.registry import Registry

    config = load_config(options["config"], options["url"])
    formats = make_format(
        options["actions"] or config.actions.format,
        config.actions.pattern,
        fold=config.actions.fold,
        ordered=config.tools.side_effects,
    )
    called = options["name"] or Path(model).name
    if not options["batch"]:
        environment_python(options["vllm"])  # said before a long log is read
    items, left_out = _items(log, options["form"], options["teacher"], formats)
    for reason, number in left_out.most_common():
        say(f"left out: {number:,} {reason}")
    if not items:
        raise InvalidRequest(f"{log} holds no step that a student could be asked")
    if options["k"]:
        items = _demonstrated(items, config, options["k"], formats)
    sampling = SamplingSettings(
        options["n"], options["temperature"], options["max_tokens"], None if options["batch"] else _structured(config)
    )
    price = price_option(options["student_price"], "student")
    if options["batch"]:
        from agentcascade.cli.students_batch import batched_samples

        if extra:
            raise InvalidRequest(f"{extra[0]!r} is for vLLM: with --batch the provider serves {model}")

        def write(answers: Mapping[str, dict[str, Any]], listed: Price | None) -> None:
            write_samples(out, items, answers, sampling, model, formats, price or listed)

        batched_samples(model, items, sampling, config, options, write)
        return
    plan = SamplingPlan(
        environment_python(options["vllm"]),
        engine_settings(model, called, options, extra),
        sampling,
        cache_folder("students") / f"{called}-offline.log",
        options["wait"],
        options["seed"],
    )
    partial = out.with_name(f"{out.name}.partial")
    answers = sample_steps(
        items,
        plan,
        partial,
        at_once=options["at_once"],
        workers=options["workers"],
        ray=options["ray"],
        on_progress=lambda done, of: say(f"{done:,} of {of:,} steps", err=True),
    )
    served = Registry().all().get(called)
    rates = price or (served.price if served else None)
    name = HOSTED_VLLM + called
    write_samples(out, items, answers, sampling, name, formats, rates)
    partial.unlink()


def write_samples(
    out: Path,
    items: Sequence[StepPrompt],
    answers: Mapping[str, dict[str, Any]],
    sampling: SamplingSettings,
    model: str,
    formats: ActionFormat,
    price: Price | None,
) -> None:
    """The log with the samples of `model`, written to `out`; why steps have none is said."""
    from agentcascade.bench.sampling import step_key, with_samples
    from agentcascade.steplog.files import write_log

    steps = [
        with_samples(item, answers[step_key(item.step)], sampling, model=model, formats=formats, price=price)
        for item in items
    ]
    say(f"wrote {write_log(out, steps):,} steps to {out}")
    failed = Counter(a["error"] for a in answers.values() if "error" in a)
    for reason, number in failed.most_common(3):
        say(f"{number:,} steps have no samples: {reason}")


def _items(log: Path, form: str, teacher: str | None, formats: ActionFormat) -> tuple[list[StepPrompt], Counter[str]]:
    from agentcascade.bench.sampling import StepPrompt
    from agentcascade.cli.log import is_steps
    from agentcascade.steplog import foreign
    from agentcascade.steplog.files import read_log as read
    from agentcascade.steplog.matching import teacher_steps

    if form == "steps" or (form == "auto" and is_steps(log)):
        steps = read(log)
        texts = ("\n\n".join(dict.fromkeys(t for t in (s.goal, s.observation) if t)) for s in steps)
        items = [StepPrompt(step, [{"role": "user", "content": text}]) for step, text in zip(steps, texts) if text]
        return items, +Counter({"steps without goal and observation": len(steps) - len(items)})
    taught, left_out = teacher_steps(foreign.read_model_calls(log, form), teacher or "", formats=formats)
    return [StepPrompt(step, messages) for step, messages in taught], left_out


def _demonstrated(
    items: Sequence[StepPrompt], config: CascadeConfig, k: int, formats: ActionFormat
) -> list[StepPrompt]:
    """The items with what the bank shows at their steps, as a cascade would show it."""
    import asyncio

    from agentcascade import conversation
    from agentcascade.assembly import components
    from agentcascade.cli.settings import database
    from agentcascade.models.tokens import token_counter
    from agentcascade.prompts import demonstrations
    from agentcascade.prompts.prompts import prompts_of

    count = token_counter()

    async def shown() -> list[StepPrompt]:
        demonstrated = []
        for item in items:
            step = item.step
            situation = conversation.read(item.messages, formats, namespace=config.bank.namespace, episode=step.episode)
            retrieved = await bank.retrieve(situation, k)
            prompts, room = prompts_of(config.prompt), config.prompt.token_budget
            prompt = demonstrations.build(
                item.messages,
                retrieved.demonstrations,
                budget=room,
                count=count,
                prompts=prompts,
                task=situation.goal,
            )
            windows = tuple(f"{d.trajectory}:{d.start}-{d.start + len(d.steps)}" for d in prompt.shown)
            similarity = max((d.score for d in prompt.shown), default=None)
            demonstrated.append(
                item._replace(messages=prompt.messages, k=k, demonstrations=windows, similarity=similarity)
            )
        return demonstrated

    with database(config) as opened:
        bank = components.open_bank(config, opened, components.make_embedder(config.retrieval.embedder))
        return asyncio.run(shown())


def _structured(config: CascadeConfig) -> dict[str, Any] | None:
    """The form of `sampling.constrain`, as vLLM takes it. Raises `ConfigError`."""
    from agentcascade.errors import ConfigError
    from agentcascade.models import structured_output
    from agentcascade.models.quirks import HOSTED_VLLM

    sampling = config.sampling
    if sampling.constrain == "choice":
        raise ConfigError("sampling.constrain 'choice': a log does not say what was admissible; set it to none")
    structured_output.check_config(sampling, config.actions, [])
    asked = structured_output.vllm_option(sampling, config.actions, HOSTED_VLLM, {})
    return asked.get(structured_output.OPTION)
