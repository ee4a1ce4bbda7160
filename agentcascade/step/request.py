"""Request of a step: what the caller asks of a model, and the same with memory and demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agentcascade._util.item_results import ItemResults
from agentcascade.config.effort import Effort
from agentcascade.models.breakpoints import has_breakpoints, is_marked
from agentcascade.models.prompt_cache import PromptParts, prompt_parts
from agentcascade.models.tokens import TOKENS_PER_MESSAGE
from agentcascade.prompts.bounded import Bounded
from agentcascade.protocols import TokenCounter
from agentcascade.types import Account, CacheUse, Delta, Message, Tool

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """The caller's messages and options. What a step adds to them makes another request (`with_memory`, …).

    Attributes:
        messages: As the caller sent them.
        n: Answers asked for; several come from the teacher.
        on_delta: Gets the parts of a teacher's answer as they come.
        accounts: Budgets that the step's calls must fit into.
        cache_use: What the caller says of the response cache.
        why: Why the teacher is to answer, where the mode alone does not say it.
        temperature: Of the student, in place of the configuration's.
        k: Demonstrations, in place of the configuration's.
        ceiling: The most effort that a model may be asked at.
        window: Steps before and after the one that matches in each, likewise.
        remembered: `messages` with a memory, where there is one.
        prompt: `remembered` with demonstrations, where there are some.
        memory_tokens: Of the memory in `remembered`.
        demonstration_tokens: Of the demonstrations in `prompt`.
        bounded: How `remembered` was bounded, where older steps stand in it as a carried state.
        is_warm: Whether `prompt` was just sent to the same model, whose prompt cache holds it at every effort.
        known: Of `messages`, from the steps before.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    n: int = 1
    on_delta: Callable[[Delta], None] | None = None
    accounts: tuple[Account, ...] = ()
    cache_use: CacheUse = "auto"
    why: str = ""
    temperature: float | None = None
    k: int | None = None
    window: tuple[int, int] | None = None
    ceiling: Effort | None = None
    remembered: Sequence[Message] = ()
    prompt: Sequence[Message] = ()
    memory_tokens: int = 0
    demonstration_tokens: int = 0
    bounded: Bounded | None = None
    is_warm: bool = False
    known: ItemResults[Message] = field(default_factory=ItemResults, repr=False, compare=False)
    _read: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.remembered:
            object.__setattr__(self, "remembered", self.messages)
        if not self.prompt:
            object.__setattr__(self, "prompt", self.remembered)

    def parts(self, count: TokenCounter) -> PromptParts:
        """Parts of `remembered`, made once for the step."""
        return self._once("parts", lambda: prompt_parts(self.remembered, count, self.known))

    def tokens(self, count: TokenCounter) -> int:
        """Tokens of `remembered`, as `count_messages` counts them, off the parts: once for the step."""
        return self.parts(count).ends[-1] + TOKENS_PER_MESSAGE

    @property
    def has_breakpoints(self) -> bool:
        """Whether the caller set prompt-cache breakpoints, looked up once for the step."""
        return self._once("breakpoints", self._find_breakpoints)

    def _find_breakpoints(self) -> bool:
        return any(self.known.of(is_marked, self.messages)) or has_breakpoints((), self.tools, [self.options])

    def _once(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._read:
            self._read[name] = make()
        made: T = self._read[name]
        return made

    def with_memory(self, messages: Sequence[Message], tokens: int) -> Request:
        """The same with `messages`, which hold a memory of so many tokens."""
        return self._changed(remembered=messages, prompt=messages, memory_tokens=tokens)

    def with_bounded_history(self, bounded: Bounded) -> Request:
        """The same with a bounded history in place of `remembered`."""
        return self._changed(remembered=bounded.messages, prompt=bounded.messages, bounded=bounded)

    def with_demonstrations(self, messages: Sequence[Message], tokens: int) -> Request:
        """The same with `messages`, which hold demonstrations of so many tokens beside the memory."""
        return self._changed(prompt=messages, demonstration_tokens=tokens, _read=self._read)

    def sent_before(self) -> Request:
        """The same, which the model's prompt cache holds."""
        return self._changed(is_warm=True, _read=self._read)

    def for_step(self, options: Mapping[str, Any], accounts: tuple[Account, ...], ceiling: Effort | None) -> Request:
        """The same with the step's options, budgets and ceiling."""
        return self._changed(options=options, accounts=accounts, ceiling=ceiling)

    def _changed(self, **fields: Any) -> Request:
        """As `dataclasses.replace`, which looks at every field, in a tenth of its time; nothing is read of it yet."""
        changed = object.__new__(Request)
        changed.__dict__.update(self.__dict__, _read={})
        changed.__dict__.update(fields)
        return changed

    def behind(
        self, *, temperature: float | None = None, k: int | None = None, window: tuple[int, int] | None = None
    ) -> Request:
        """What the caller asked, for a shadow or an audit: one answer, of which nobody hears."""
        return Request(
            self.messages,
            self.tools,
            self.seed,
            self.options,
            accounts=self.accounts,
            cache_use=self.cache_use,
            temperature=temperature,
            k=k,
            window=window,
            ceiling=self.ceiling,
            known=self.known,
        )
