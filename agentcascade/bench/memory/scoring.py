"""Score memories: by the evidence they hold, or by the answer that a model gives from them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from agentcascade.bench.early_stop import check_models_answer
from agentcascade.billing.door import Door, Tab
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ModelConfig, PromptConfig
from agentcascade.envs.memory_qa import scoring
from agentcascade.envs.memory_qa.types import Question
from agentcascade.errors import BenchError, describe
from agentcascade.messages import text_of
from agentcascade.prompts.additions import Composed, Rendered
from agentcascade.prompts.prompts import DEFAULT, Prompts, prompts_of
from agentcascade.prompts.quoting import FENCED
from agentcascade.types import Call

if TYPE_CHECKING:
    from agentcascade.protocols import ChatModel

RewardName = Literal["evidence", "f1", "em", "judge"]

ANSWER_SECONDS = 600.0


class MemoryScore(NamedTuple):
    """Score of a memory from 0 to 1, with its metrics; `answer` is empty where no model was asked."""

    score: float
    answer: str
    metrics: dict[str, float]
    calls: tuple[Call, ...] = ()

    @property
    def dollars(self) -> Decimal | None:
        prices = [call.dollars for call in self.calls]
        return None if None in prices else sum((p for p in prices if p is not None), Decimal(0))


class MemoryScorer:
    """Scorer of one suite's memories, with a chat model that answers and, for reward ``judge``, one that judges.

    Equal memories of a question are answered once.
    """

    def __init__(
        self,
        suite: str,
        reward: RewardName,
        answerer: ChatModel | None = None,
        judge: ChatModel | None = None,
        prompts: Prompts = DEFAULT,
    ) -> None:
        self._prompts = prompts
        self.suite = suite
        self.reward = reward
        self._answerer = answerer
        self._judge = judge or answerer
        self._known: dict[tuple[str, str], tuple[str, tuple[Call, ...]]] = {}

    async def __call__(self, question: Question, text: str, sources: tuple[str, ...]) -> MemoryScore:
        """The score of a memory with this text, drawn from these turns."""
        metrics: dict[str, float] = {}
        if question.evidence:
            evidence = scoring.score_evidence(sources, question.evidence)
            if evidence is not None:
                metrics = {"precision": evidence.precision, "recall": evidence.recall, "evidence": evidence.f1}
        if self._answerer is None:
            return MemoryScore(metrics.get("evidence", 0.0), "", metrics)
        answer, calls = await self._answer(question, text)
        metrics["f1"] = scoring.answer_f1(self.suite, answer, question)
        metrics["em"] = float(scoring.exact_match(self.suite, answer, question))
        if self.reward == "judge":
            judged = await self._judged(question, answer)
            metrics["judge"], calls = judged.score, (*calls, *judged.calls)
            metrics["judge readable"] = float(judged.readable)
        return MemoryScore(metrics.get(self.reward, 0.0), answer, metrics, calls)

    async def _answer(self, question: Question, text: str) -> tuple[str, tuple[Call, ...]]:
        known = self._known.get((question.id, text))
        if known is not None:
            return known
        assert self._answerer is not None
        date_note = f" (asked on {question.asked_at:%d %B %Y})" if question.asked_at else ""
        values = {"memory": FENCED.text(text) or "(nothing)", "question": f"{FENCED.text(question.text)}{date_note}"}
        prompt = self._prompts.render("memory_answer", **values)
        messages = [Composed({"role": "user", "content": ""}, prompt, Rendered("memory_answer", values))]
        try:
            options = {"temperature": 0.0, "max_tokens": 64}
            completion = await Door().call(
                self._answerer, messages, options, role="teacher", purpose="act", bill=Tab(), seconds=ANSWER_SECONDS
            )
            text_of_answer = text_of(completion.messages[0])
        except Exception as error:
            raise _failed("answer", self._answerer, error) from error
        answer = text_of_answer.strip(), (Call.of("teacher", "act", completion),)
        self._known[question.id, text] = answer
        return answer

    async def _judged(self, question: Question, answer: str) -> Any:
        from agentcascade.envs.memory_qa.judging import judge_answer

        assert self._judge is not None
        try:
            return await judge_answer(self._judge, question, answer, self.suite, self._prompts)
        except Exception as error:
            raise _failed("judge", self._judge, error) from error


def _failed(role: str, model: ChatModel, error: Exception) -> BenchError:
    return BenchError(
        f"the {role} model {model.name} failed ({describe(error)}): see its name, key, --api-base and --timeout"
    )


def scoring_models(
    answerer: str | None,
    judge: str | None,
    price: Mapping[str, Any] | None = None,
    api_base: str | None = None,
    timeout: float | None = None,
) -> dict[str, ModelConfig | None]:
    """Configurations of the scoring models by role; `price` and `api_base` are the answering model's."""
    limit = {} if timeout is None else {"timeout_seconds": timeout}
    return {
        "answer model": ModelConfig(name=answerer, price=price, api_base=api_base, **limit) if answerer else None,
        "judge": ModelConfig(name=judge, **limit) if judge else None,
    }


def make_scorer(
    suite: str, reward: RewardName, answerer: str | None, judge: str | None, prompt: PromptConfig, **settings: Any
) -> MemoryScorer:
    """Make a scorer whose models are named as in a configuration; `settings` are those of `scoring_models`."""
    from agentcascade.assembly.components import make_model
    from agentcascade.models.tokens import token_counter

    configs = scoring_models(answerer, judge, **settings).values()
    answering, judging = (None if c is None else make_model(c, token_counter()) for c in configs)
    return MemoryScorer(suite, reward, answering, judging, prompts_of(prompt))


def check_models(config: CascadeConfig, scoring: Mapping[str, ModelConfig | None]) -> None:
    """Check that all models of a memory benchmark answer. Raises `BenchError`."""
    from agentcascade.memory.tiers import make_modules, needs_chat_models

    needed = needs_chat_models(make_modules(config.memory.axis, config.memory.tiers))
    tiers = {f"memory's {size} model": model for size, model in config.memory.models.items() if needed}
    check_models_answer({**scoring, **tiers})
