"""Users' code, read by mypy and never run: what it takes for granted of the public names is typed so.

Each `type: ignore` marks a mistake that must be found; mypy complains of one that it does not need.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, assert_type

import anthropic
import openai
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

import agentcascade
from agentcascade.bench.suites.protocol import Defaults, Outcome, PlayableSuite, Source, Task
from agentcascade.config import CascadeConfig, ModelConfig, RetrievalConfig
from agentcascade.config.keywords import ConfigKeywords, RetrievalKeywords, ShadowKeywords
from agentcascade.episodes.responses import CascadeCompletion
from agentcascade.integrations.langchain import ChatAgentCascade
from agentcascade.integrations.litellm import Provider, register
from agentcascade.integrations.openai import Wrapped
from agentcascade.protocols import Environment
from agentcascade.routers.tuning import Risk, Settings, certificate, fragment, tune
from agentcascade.step.context import StepContext
from agentcascade.steplog.jsonl import parse_line

# Parts of one's own fit the protocols without a base class.


class EchoModel:
    name = "echo"
    supports_n = True

    async def complete(
        self,
        messages: Sequence[agentcascade.Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[agentcascade.Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> agentcascade.Completion:
        return agentcascade.Completion(model=self.name, messages=tuple(messages[-1:]) * n, usage=agentcascade.Usage())

    def dollars(self, usage: agentcascade.Usage) -> Decimal | None:
        return Decimal(usage.prompt) / 10**6


class HalfRouter:
    name = "half"

    def samples(self, situation: agentcascade.Situation) -> int:
        return 4

    def judge(
        self, situation: agentcascade.Situation, tally: agentcascade.Tally, remaining: int
    ) -> agentcascade.Verdict | None:
        if remaining:
            return None
        return agentcascade.Verdict.ACCEPT if tally.agreement > 0.5 else agentcascade.Verdict.DEFER


class LowerCase:
    name = "lower case"

    async def merge(
        self, situation: agentcascade.Situation, actions: Sequence[agentcascade.Action], ask: agentcascade.Ask
    ) -> Mapping[str, str]:
        return {action.key: action.key.lower() for action in actions}


class Printer:
    def record(self, decision: agentcascade.Decision) -> None:
        print(decision.answered_by, decision.dollars)

    def record_shadow(self, shadow: object) -> None: ...
    def record_draft(self, draft: object) -> None: ...
    def record_end(self, end: object) -> None: ...
    def record_recall(self, recall: agentcascade.Recall) -> None: ...
    def flush(self, seconds: float | None = None) -> bool:
        return True

    def close(self, seconds: float | None = None) -> None: ...


@dataclass
class MazeSuite:
    """Mazes."""

    size: int = 5
    name = "maze"
    actions: Mapping[str, str] = field(default_factory=lambda: {"format": "text"})
    stop = ("\n",)
    defaults = Defaults("big", "small", splits=("test",), episodes=9, demonstrations=9, k=3)
    dropped = ()
    packages = ()
    group = ""

    def environment(self, *, expert: bool) -> Environment:
        raise NotImplementedError

    def goal(self, messages: list[agentcascade.Message]) -> str:
        return str(messages[0]["content"])

    async def play(self, environment: Environment, path: str, complete: Callable[..., Any]) -> Outcome:
        raise NotImplementedError

    def check(self) -> None: ...

    def tasks(
        self, split: str, count: int, seed: int, *, workers: int, on_progress: Callable[[int, int], None]
    ) -> tuple[list[Task], Source]:
        return [Task(f"maze-{i}", str(i)) for i in range(count)], "generated"

    def notes(self, source: Source, models: Sequence[str]) -> list[str]:
        return []


def no_rm(action: agentcascade.Action, situation: agentcascade.Situation) -> str | None:
    return "not that" if action.key.startswith("rm") else None


async def solved(trajectory: agentcascade.Trajectory) -> bool:
    return trajectory.steps[-1].action == "done"


def parts() -> None:
    model: agentcascade.ChatModel = EchoModel()
    router: agentcascade.Router = HalfRouter()
    merger: agentcascade.Merger = LowerCase()
    recorder: agentcascade.Recorder = Printer()
    validator: agentcascade.Validator = no_rm
    judge: agentcascade.Judge = solved
    suite: PlayableSuite = MazeSuite()
    print(model, router, merger, recorder, validator, judge, suite)

    print(agentcascade.Cascde)  # type: ignore[attr-defined]
    print(agentcascade.config.RetrivalConfig)  # type: ignore[attr-defined]
    wrong_model: agentcascade.ChatModel = HalfRouter()  # type: ignore[assignment]
    wrong_judge: agentcascade.Judge = no_rm  # type: ignore[assignment]
    print(wrong_model, wrong_judge)


# Configuration


def building(path: str, parsed_json: dict[str, Any]) -> None:
    cascade = agentcascade.build(
        path,
        cascade="shop",
        teacher={"name": "anthropic/claude-sonnet-4-5", "price": {"input": 3, "output": "15"}},
        student=EchoModel(),
        students=["openai/gpt-4.1-nano", {"name": "openai/gpt-4.1-mini", "router": {"name": "unanimity"}}],
        validators=[no_rm],
        mergers=[LowerCase(), agentcascade.DryRun(lambda action: action.text)],
        choices=lambda situation: ["look", situation.goal],
        recorder=Printer(),
        judge=solved,
        mode="shadow",
        retrieval={"k": 4, "weights": {"goal": 2}, "sticky": "auto"},
        prompt={"template": {"planned": "You plan to:\n$plan"}},
        budgets={"per_episode": 0.5, "per_namespace": Decimal(100), "period": "day"},
        router={"name": "threshold", "options": {"n": 5, "threshold": 0.8}},
        memory={"enabled": True, "models": {"large": ModelConfig(name="openai/gpt-4.1")}},
        deadline_seconds=60,
    )
    assert_type(cascade, agentcascade.Cascade)
    agentcascade.build(RetrievalConfig(k=3))  # type: ignore[arg-type]
    agentcascade.build(CascadeConfig.load(path), observer=None)
    agentcascade.build(teacher=ModelConfig(name="openai/gpt-4.1"), judge={"model": {"name": "openai/gpt-4.1"}})
    agentcascade.build(retrieval=RetrievalConfig(**parsed_json))
    agentcascade.build(**parsed_json)

    agentcascade.build(studnet="openai/gpt-4.1-mini")  # type: ignore[call-arg]
    agentcascade.build(mode="casacde")  # type: ignore[arg-type]
    agentcascade.build(seed="4")  # type: ignore[arg-type]
    agentcascade.build(teacher=HalfRouter())  # type: ignore[arg-type]
    agentcascade.build(retrieval={"kk": 4})  # type: ignore[arg-type]
    agentcascade.build(retrieval={"k": "four"})  # type: ignore[arg-type]
    agentcascade.build(router=HalfRouter())  # type: ignore[arg-type]
    agentcascade.build(recorder=print)  # type: ignore[arg-type]

    retrieval: RetrievalKeywords = {"embedder": "hashing"}
    shadow: ShadowKeywords = {"temperatures": (0.1, 0.7)}
    settings: ConfigKeywords = {"retrieval": retrieval, "shadow": shadow, "mode": "shadow"}
    assert_type(CascadeConfig.load(path, **settings), CascadeConfig)


# Episodes


async def episodes(cascade: agentcascade.Cascade, messages: list[agentcascade.Message]) -> None:
    episode = cascade.episode("find the mug", mode="collect", id="ep_1", category="household", plan="look around")
    assert_type(episode, agentcascade.Episode)
    answer = await episode.complete(messages, temperature=0.2, max_tokens=100, stop=["\n"], n=2)
    assert_type(answer, CascadeCompletion)
    assert_type(answer.agentcascade, agentcascade.Decision)
    assert_type(answer.choices[0].message.content, str | None)
    typed: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Go."}]
    await episode.complete(typed, tool_choice="auto", response_format={"type": "json_object"}, choices=["a", "b"])
    await episode.complete(messages, top_k=20, thinking={"type": "enabled"}, extra_body={"min_p": 0.1})
    async with episode.stream(messages, temperature=0.2, stream_options={"include_usage": True}, top_k=20) as stream:
        async for chunk in stream:
            assert_type(chunk, dict[str, Any])
    completion, _, decision = await episode.answer(messages, options={"temperature": 0.2})
    assert_type(completion, agentcascade.Completion)
    assert_type(decision.dollars, Decimal | None)
    assert_type(await episode.finish(success=True), bool)
    assert_type(cascade.twin(teacher=EchoModel(), router=HalfRouter()), agentcascade.Cascade)
    assert_type(cascade.context, StepContext)

    cascade.episode(gaol="find the mug")  # type: ignore[call-arg]
    cascade.episode(mode="cascades")  # type: ignore[arg-type]
    cascade.twin(teachers=EchoModel())  # type: ignore[call-arg]
    cascade.twin(teacher="openai/gpt-4.1")  # type: ignore[arg-type]
    await episode.complete(messages, temperature="warm")  # type: ignore[arg-type]
    await episode.complete("Go.")  # type: ignore[arg-type]
    await episode.complete(messages, tools={"type": "function"})  # type: ignore[arg-type]
    episode.stream(messages, max_tokens=1.5)  # type: ignore[arg-type]
    await episode.finish(sucess=True)  # type: ignore[call-arg]


def blocking(cascade: agentcascade.Cascade, messages: list[agentcascade.Message]) -> Iterator[str]:
    with cascade:
        episode = cascade.sync_episode(goal="find the mug", mode="cascade", seed=4)
        assert_type(episode, agentcascade.SyncEpisode)
        assert_type(episode.complete(messages, temperature=0.2, top_k=20), CascadeCompletion)
        for chunk in episode.stream(messages, stop="\n"):
            yield chunk["object"]
        assert_type(episode.trajectory(success=True), agentcascade.Trajectory)
        assert_type(episode.finish(), bool)

    cascade.sync_episode(modes="cascade")  # type: ignore[call-arg]
    episode.complete(messages, n="2")  # type: ignore[arg-type]
    for _ in episode.stream(messages, stop=3):  # type: ignore[arg-type]
        pass


# Clients


class Room(BaseModel):
    name: str


def clients(cascade: agentcascade.Cascade) -> None:
    wrapped = agentcascade.wrap(openai.OpenAI(), student="client/gpt-4.1-mini", mode="shadow", retrieval={"k": 4})
    assert_type(wrapped, openai.OpenAI)
    answer = wrapped.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "Go."}])
    assert isinstance(answer, CascadeCompletion)
    assert_type(answer.agentcascade, agentcascade.Decision)
    parsed = wrapped.chat.completions.parse(model="gpt-4.1", messages=[], response_format=Room)
    assert_type(parsed.choices[0].message.parsed, Room | None)
    with Wrapped.of(wrapped) as control, control.episode(goal="find the mug") as running:
        assert_type(control.finish(running, success=True), bool)
    Wrapped.of(agentcascade.wrap(anthropic.AsyncAnthropic()))
    assert_type(agentcascade.wrap(openai.AsyncOpenAI()), openai.AsyncOpenAI)
    assert_type(agentcascade.wrap(openai.AzureOpenAI(), "a.yaml", student=EchoModel()), openai.AzureOpenAI)
    model = ChatAgentCascade(cascade=cascade, temperature=0.2)
    assert_type(register("agentcascade.yaml"), Provider)
    model.invoke("Go.")

    agentcascade.wrap("gpt-4.1")  # type: ignore[type-var]
    agentcascade.wrap(openai.OpenAI(), studnet="client/gpt-4.1-mini")  # type: ignore[call-arg]
    agentcascade.wrap(openai.OpenAI(), teacher=EchoModel())  # type: ignore[arg-type]
    agentcascade.wrap(openai.OpenAI(), shadow={"rate": "all"})  # type: ignore[arg-type]
    register(4)  # type: ignore[arg-type]


# Memory


async def remembering() -> None:
    async with agentcascade.build_memory(stored=False, memory={"token_budget": 500}) as memory:
        assert_type(memory, agentcascade.Memory)
        await memory.append("ann", ["My dog is called Rex.", agentcascade.Turn(text="I work in Rome.")])
        recall = await memory.recall("Where do I work?", "ann", token_budget=200, max_dollars=Decimal("0.01"))
        assert_type(recall, agentcascade.Recall)
        assert_type(memory.recall_sync("Where do I work?", "ann", tradeoff=0.5), agentcascade.Recall)
        assert_type(await memory.remove("ann"), bool)

        await memory.append("ann", [4])  # type: ignore[list-item]
        await memory.recall("Where?", token_budgets=3)  # type: ignore[call-arg]
        memory.recall_sync("Where?", "ann", deadline="soon")  # type: ignore[call-arg]
    agentcascade.build_memory(memory={"token_budgets": 500})  # type: ignore[arg-type]
    agentcascade.build_memory(router={"name": "fixed"})  # type: ignore[arg-type]


# Tuning, errors


def tuning(lines: list[dict[str, Any]]) -> Mapping[str, Any] | None:
    tuned = tune([parse_line(line) for line in lines], Settings(max_risk=0.05, risk=Risk("teacher-disagreement")))
    print(certificate(tuned)["statement"])
    if tuned.chosen is None:
        return None
    rule = fragment(tuned.chosen.rule)
    agentcascade.build("agentcascade.yaml", **rule)
    Settings(max_risks=0.05)  # type: ignore[call-arg]
    return rule


async def failing(ask: Callable[[], Awaitable[CascadeCompletion]]) -> CascadeCompletion | None:
    try:
        return await ask()
    except agentcascade.BudgetExceeded as error:
        assert_type(error.scope, str)
    except agentcascade.ProviderError as error:
        assert_type(error.status_code, int)
    except agentcascade.AgentCascadeError as error:
        print(error)
    return None
