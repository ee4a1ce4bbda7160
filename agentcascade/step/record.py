"""Builder of a `Decision`: what it is written from, gathered while the step runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from agentcascade.errors import describe
from agentcascade.prompts.demonstrations import Prompt
from agentcascade.types import (
    Action,
    Call,
    CarriedHistory,
    Completion,
    Decision,
    Message,
    Mode,
    Purpose,
    Role,
    Rung,
    Sample,
    Situation,
    Tally,
    Usage,
    Verification,
    new_id,
    total,
)

RUNG_PURPOSES = ("act", "sample", "verify", "score")
"""Of the calls on a rung's bill."""


class StepRecord:
    """One step in progress; `close` makes the `Decision`, whatever happened."""

    def __init__(self, situation: Situation, mode: Mode, before: Sequence[Call] = (), cascade: str = "") -> None:
        self.id: str = new_id("de")
        self.situation: Situation = situation
        self.cascade: str = cascade
        self.mode = mode
        self.reason = "not decided"
        self.answered_by: Role = "student" if mode in ("cascade", "student") else "teacher"
        self._started = time.perf_counter()
        self._model_seconds = self._embedding_seconds = 0.0
        self._under_way, self._waiting_since = 0, 0.0
        self._calls: list[Call] = list(before)
        self._answers: list[tuple[Call, int]] = []
        """The student's calls, each with how many answers it gave."""
        self._failures: list[str] = []
        self._fields: dict[str, Mapping[str, Any]] = {}
        self._votes: Tally | None = None
        self._samples: Sequence[Sample] = ()
        self._fed_back: Sequence[Sample] = ()
        self._prompts = 1
        self._prompt: Prompt | None = None
        self._chosen: Sample | None = None
        self._raised, self._teacher_shown, self._teacher_drafts = False, 0, 0
        self._rungs: list[Rung] = []
        self._history: CarriedHistory | None = None
        self._teacher_spared = 0
        self._verification: Verification | None = None

    @contextmanager
    def model_time(self) -> Iterator[None]:
        """Time inside is the models', not ours; that of several calls at once counts once."""
        if not self._under_way:
            self._waiting_since = time.perf_counter()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._model_seconds += time.perf_counter() - self._waiting_since

    def add_embedding(self, seconds: float) -> None:
        """Seconds that embedding the query took."""
        self._embedding_seconds += seconds

    def add_demonstrations(self, prompt: Prompt) -> None:
        """The prompt that the student is shown."""
        self._prompt = prompt

    def add_history(self, carried: CarriedHistory) -> None:
        """Older steps that a prompt of the step holds as a carried state."""
        self._history = carried

    def add_call(self, role: Role, purpose: Purpose, completion: Completion | None) -> None:
        """Add a call to the bill; a failed call that carries no completion has none we know of."""
        if completion is not None:
            self._calls.append(Call.of(role, purpose, completion))
            if purpose == "sample":
                self._answers.append((self._calls[-1], len(completion.messages)))
            if role == "student" and purpose == "sample":
                self._fields[completion.model] = completion.fields

    def add_failure(self, what: str, error: BaseException, member: str = "") -> None:
        """Something broke, of one `member` where a committee was asked."""
        self._failures.append(f"{what}: {describe(error)}" + (f" ({member})" if member else ""))
        self.reason = f"{what} failed: {type(error).__name__}"

    def add_note(self, note: str) -> None:
        """Something was worked around, and the step went on as it would have."""
        if note not in self._failures:
            self._failures.append(note)

    def end_in(self, error: BaseException) -> None:
        """The step itself ends in `error`."""
        self._failures.append(f"step: {describe(error)}")
        self._raised = True

    def add_votes(self, votes: Tally, samples: Sequence[Sample]) -> None:
        """The student's samples, and how they agree."""
        self._votes = votes
        self._samples = samples

    def add_verification(self, verification: Verification) -> None:
        """What the verifier said of the candidate."""
        self._verification = verification

    def add_prompts(self, prompts: int) -> None:
        """Samples are drawn from so many different prompts."""
        self._prompts = max(self._prompts, prompts)

    @property
    def prompts(self) -> int:
        return self._prompts

    def add_fed_back(self, samples: Sequence[Sample]) -> None:
        """Samples, all invalid, whose fault was fed back: those that are voted on came after it."""
        self._fed_back = samples

    @property
    def fed_back(self) -> Sequence[Sample]:
        return self._fed_back

    @contextmanager
    def rung(self, model: str, role: Role, several: bool) -> Iterator[None]:
        """Inside, one rung of a ladder is asked, where there are `several`: its votes and its bill begin here."""
        billed, below, completed = len(self._calls), self._votes, False
        try:
            yield
            completed = True
        finally:
            if several:
                own = None if self._votes is below else self._votes
                took = self.answered_by == role and (role == "teacher" or self._chosen is not None)
                self._rungs.append(
                    Rung(
                        model=model,
                        role=role,
                        votes=own.counts if own else {},
                        samples=len(self._samples) if own else 0,
                        agreement=own.agreement if own else None,
                        dollars=total([call for call in self._calls[billed:] if call.purpose in RUNG_PURPOSES]),
                        accepted=completed and took,
                    )
                )

    @property
    def has_rungs(self) -> bool:
        """Whether several students are asked in turn, and one was."""
        return bool(self._rungs)

    def accept(self, chosen: Sample, reason: str) -> None:
        """The step is the student's."""
        self.answered_by = "student"
        self.reason = reason
        self._chosen = chosen

    def defer(self, reason: str) -> None:
        """The step is the teacher's."""
        self.answered_by = "teacher"
        self.reason = reason

    def add_teacher_action(self, sample: Sample, shown_tokens: int, drafts: int = 0, *, bounded: bool = False) -> None:
        """The teacher's own action, the tokens of demonstrations and drafts that it was shown, and how many drafts.

        `bounded`: its history was, too.
        """
        self._chosen = sample
        self._teacher_spared = self._spared if bounded else 0
        self._teacher_shown, self._teacher_drafts = shown_tokens, drafts

    def completion(self, messages: Sequence[Message], answered: Completion | None = None) -> Completion:
        """The answer that the caller gets, with the usage of the model that answered.

        `answered` is that model's own completion, whose finish reasons and other fields are handed on.
        """
        of_role = [c for c in self._calls if c.role == self.answered_by and c.purpose in ("act", "sample")]
        own = self._of_chosen(of_role) or [c for c in of_role if c.model == of_role[-1].model]
        return Completion(
            model=own[-1].model,
            messages=tuple(messages),
            finish_reasons=(answered.finish_reasons if answered else ())
            or ("tool_calls" if messages[0].get("tool_calls") else "stop",),
            fields=answered.fields if answered else self._fields.get(own[-1].model, {}),
            choice_fields=answered.choice_fields if answered else (),
            usage=own[0].usage if len(own) == 1 else sum((c.usage for c in own), Usage()),
            dollars=total(own),
            seconds=self._model_seconds,
            calls=len(own),
        )

    def _of_chosen(self, calls: Sequence[Call]) -> list[Call]:
        """Those of the committee's member whose sample was chosen."""
        member = self._chosen.member if self._chosen else ""
        return [c for c in calls if member and c.model == member]

    @property
    def samples(self) -> Sequence[Sample]:
        """The student's, as far as they were voted on."""
        return self._samples

    @property
    def action(self) -> Action | None:
        """Of the answer, as far as it was parsed."""
        return self._chosen.action if self._chosen else None

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(self._calls)

    @property
    def failures(self) -> tuple[str, ...]:
        return tuple(self._failures)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @property
    def demonstrations(self) -> tuple[str, ...]:
        """'trajectory:start-end' of the windows shown."""
        shown = self._prompt.shown if self._prompt else ()
        return tuple(f"{d.trajectory}:{d.start}-{d.start + len(d.steps)}" for d in shown)

    @property
    def similarity(self) -> float | None:
        """Score of the best demonstration shown."""
        return max((d.score for d in self._prompt.shown), default=None) if self._prompt else None

    def agreement_on(self, chosen: Sample) -> str:
        """How many of the votes say what `chosen` says, and whose sample it is where a committee votes."""
        assert self._votes is not None
        assert chosen.action is not None
        said = f"agreement {self._votes.counts[chosen.action.key]}/{self._votes.total}"
        said += ", after a fault was fed back" if self._fed_back else ""
        return f"{said}, answer of {chosen.member}" if chosen.member else said

    def close(self, teacher_dollars: Decimal | None = None, cache_regret: Decimal | None = None) -> Decision:
        """The decision, with what the teacher alone would have cost, and what its abandoned cache did."""
        wall = self.seconds
        prompt, votes = self._prompt, self._votes
        return Decision(
            id=self.id,
            episode=self.situation.episode,
            namespace=self.situation.namespace,
            step=self.situation.step,
            goal=self.situation.goal[:300],
            cascade=self.cascade,
            mode=self.mode,
            answered_by=self.answered_by,
            reason=self.reason,
            agreement=votes.agreement if votes else None,
            votes=votes.counts if votes else {},
            samples=len(self._fed_back) + len(self._samples),
            invalid_samples=len(self._fed_back) + sum(s.action is None for s in self._samples),
            struck=_struck([*self._fed_back, *self._samples]),
            prompts=self._prompts,
            retried=len(self._samples) if self._fed_back else 0,
            rungs=tuple(self._rungs),
            verification=self._verification,
            action=self.action.key if self.action else None,
            demonstrations=self.demonstrations,
            dropped_demonstrations=prompt.dropped if prompt else 0,
            teacher_drafts=self._teacher_drafts,
            history_carried=self._history,
            calls=self.calls,
            dollars=total(self._calls),
            teacher_dollars=teacher_dollars,
            cache_regret=cache_regret,
            overhead_ms=max(0.0, wall - self._model_seconds - self._embedding_seconds) * 1000,
            embedding_ms=self._embedding_seconds * 1000,
            seconds=wall,
            failures=self.failures,
        )

    @property
    def has_cost_nothing(self) -> bool:
        """Whether the step failed before anything was called: it cost nothing, as it would with the teacher alone."""
        return self._raised and not self._calls

    @property
    def is_cached(self) -> bool:
        """Whether the response cache gave the answer: the teacher's, or all samples of the student."""
        answers = self.acts or [c for c in self._calls if c.purpose == "sample"]
        return bool(answers) and all(c.cached_response for c in answers)

    @property
    def acts(self) -> list[Call]:
        """The teacher's calls that took the step."""
        return [c for c in self._calls if c.role == "teacher" and c.purpose == "act"]

    @property
    def teacher_shown(self) -> int:
        """Tokens of the demonstrations and drafts that the teacher was shown."""
        return self._teacher_shown

    @property
    def teacher_spared(self) -> int:
        """Tokens of the history that the teacher was not sent, since it was bounded."""
        return self._teacher_spared

    @property
    def _spared(self) -> int:
        return 0 if self._history is None else self._history.tokens_before - self._history.tokens_after

    def answer_usage(self) -> Usage | None:
        """Tokens of one request with the whole history and without demonstrations, and of one answer, of the student
        asked last or, in a committee, of the one chosen; None where none was sampled."""
        extra = (self._prompt.tokens if self._prompt else 0) - self._spared
        sampled = [call for call, _ in self._answers]
        own = self._of_chosen(sampled) or [call for call in sampled if call.model == sampled[-1].model]
        if not own:
            return None
        answers = sum(count for call, count in self._answers if call in own)
        spoken, thought = (
            round(sum(getattr(call.usage, part) for call in own) / max(1, answers)) for part in ("output", "reasoning")
        )
        prompt = round(own[0].usage.prompt / own[0].requests)
        return Usage(input=max(0, prompt - extra), output=spoken, reasoning=thought)


def _struck(samples: Sequence[Sample]) -> dict[str, int]:
    """Votes by action key of the samples that repeat a known failure."""
    votes: dict[str, int] = {}
    for sample in samples:
        if sample.struck is not None:
            votes[sample.struck] = votes.get(sample.struck, 0) + sample.weight
    return votes
