"""`offline/copier`: a stand-in for a cheap student that writes code. It copies from the demonstrations in its prompt.

It is not a language model, and sees nothing but its prompt: it takes the demonstrated step that followed the most alike
step of the most alike task, and puts what its own task says in place of what theirs said. At a temperature above 0 it
draws from its scores, and writes the same code in various ways, as models do. Its tokens are counted and billed like a
model's, at prices that the user names.
"""

from __future__ import annotations

import ast
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import SequenceMatcher
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from agentcascade.actions.python import PythonActions, canonical_python
from agentcascade.envs.offline.stand_in import StandIn
from agentcascade.errors import InvalidAction, InvalidRequest
from agentcascade.messages import text_of
from agentcascade.models.tokens import count_messages
from agentcascade.prompts.additions import by_default
from agentcascade.prompts.demonstrations import Shown, demonstrations_in, without_demonstrations
from agentcascade.prompts.read_back import with_structure
from agentcascade.protocols import TokenCounter
from agentcascade.types import Completion, Message, Tool, Usage

DOUBT = 0.02
RESTYLED = 0.5
"""Share of samples above temperature 0 that are written in another way"""
_TOKEN = re.compile(r"'[^']*'|[\w.:~/-]*\w|[^\w\s]")


@dataclass(frozen=True)
class Demonstrated:
    """A demonstrated step: what was seen, thought and written, and what had been written just before."""

    goal: str
    seen: str
    thought: str
    code: str
    before: str | None
    """None where the demonstration does not show it; empty at the episode's start"""


@dataclass(frozen=True)
class Candidate:
    thought: str
    code: str
    score: float


class Copier(StandIn):
    """Implements `ChatModel`. The same messages, seed and temperature give the same answers in any process."""

    name = "offline/copier"

    def __init__(self, count: TokenCounter, dollars: Callable[[Usage], Decimal | None], seed: int = 0) -> None:
        super().__init__(count, dollars)
        self._seed = seed

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """`n` independent draws with seeds `seed`, `seed` + 1 …; the prompt is billed once.

        Raises `InvalidRequest` without messages.
        """
        if not messages:
            raise InvalidRequest("messages is empty: send at least one user message")
        started = time.perf_counter()
        messages = with_structure(messages)  # it may have come over HTTP
        found = candidates(messages)
        words = json.dumps([by_default(m) for m in messages], sort_keys=True, default=str)
        digest = blake2b(words.encode(), digest_size=8).hexdigest()
        texts = []
        for sample in range(n):
            rng = random.Random(f"{self._seed} {(seed or 0) + sample} {digest}")
            chosen = draw(found, temperature or 0.0, rng)
            code = restyled(chosen.code, rng) if temperature and rng.random() < RESTYLED else chosen.code
            texts.append(f"Thought: {chosen.thought}\nAction:\n```python\n{code}\n```")
        return Completion(
            model=self.name,
            messages=tuple({"role": "assistant", "content": text} for text in texts),
            finish_reasons=("stop",) * n,
            usage=(usage := Usage(input=count_messages(messages, self._count), output=sum(map(self._count, texts)))),
            dollars=self.dollars(usage),
            seconds=time.perf_counter() - started,
        )


def candidates(messages: Sequence[Message]) -> list[Candidate]:
    """What the demonstrations suggest to write now, best first; without any, a look around and then the end."""
    shown = next((shown for m in messages if m["role"] == "user" and (shown := demonstrations_in(m))), None)
    messages = [by_default(without_demonstrations(m)) for m in messages]
    own = next((text_of(m) for m in messages if m["role"] == "user"), "")
    goal = own.partition("Your task is to: ")[2].strip() or own.strip()
    written = [code for m in messages if m["role"] == "assistant" and (code := _code(text_of(m)))]
    done, last = {key(code) for code in written}, key(written[-1]) if written else ""
    seen = text_of(messages[-1]) if messages[-1]["role"] != "assistant" and len(messages) > 2 else ""
    best: dict[str, Candidate] = {}
    for step in _steps(shown) if shown else ():
        names = aligned(step.goal, goal)
        code = renamed(step.code, names)
        score = 0.05 + 0.95 * kinship(step.goal, goal) ** 2
        if step.before is None:
            score *= 0.4
        else:
            score *= 1.0 if key(renamed(step.before, names)) == last else 0.1
        score *= 0.5 + 0.5 * likeness(step.seen, seen) if step.before else 1.0
        score *= 0.02 if key(code) in done else 1.0
        if code not in best or best[code].score < score:
            best[code] = Candidate(renamed(step.thought, names), code, score)
    if not best:
        look = "print(apis.api_docs.show_app_descriptions())", "I look at what apps there are."
        end = "apis.supervisor.complete_task()", "I do not know what else to do."
        code, thought = end if written else look
        return [Candidate(thought, code, 0.0)]
    return sorted(best.values(), key=lambda c: (-c.score, c.code))


def draw(found: Sequence[Candidate], temperature: float, rng: random.Random) -> Candidate:
    """The best at temperature 0, else one drawn with probability ∝ (score + doubt)^(1/temperature)."""
    if temperature <= 0:
        return found[0]
    weights = [((c.score + DOUBT) / (found[0].score + DOUBT)) ** (1 / temperature) for c in found]
    return rng.choices(found, weights)[0]


def _steps(shown: Shown) -> Iterator[Demonstrated]:
    """The steps of all demonstrations in a prompt."""
    for demonstration in shown.demonstrations:
        goal = shown.text(demonstration.goal).partition("\n")[0]
        before = None if demonstration.start else ""
        for step in demonstration.steps:
            code = shown.text(step.action).strip("\n")
            yield Demonstrated(goal, shown.text(step.observation), shown.text(step.reasoning), code, before)
            before = code


@lru_cache(maxsize=4096)
def aligned(theirs: str, own: str) -> Mapping[str, str]:
    """What one's own task says where theirs says something else."""
    a, b = _TOKEN.findall(theirs), _TOKEN.findall(own)
    pairs: dict[str, str] = {}
    for tag, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "replace" and j - i == m - k:
            pairs |= {x.strip("'"): y.strip("'") for x, y in zip(a[i:j], b[k:m])}
    return pairs


@lru_cache(maxsize=4096)
def kinship(theirs: str, own: str) -> float:
    """How much two tasks are worded alike, 0 to 1."""
    return SequenceMatcher(None, _TOKEN.findall(theirs), _TOKEN.findall(own), autojunk=False).ratio()


@lru_cache(maxsize=4096)
def likeness(a: str, b: str) -> float:
    """Share of words that two outputs have in common, 0 to 1."""
    mine, theirs = set(re.findall(r"[a-z_]+", a.lower())), set(re.findall(r"[a-z_]+", b.lower()))
    return len(mine & theirs) / len(mine | theirs) if mine | theirs else 1.0


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with each of `names` replaced, all at once and as whole words."""
    if not names:
        return text
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first)
    return re.sub(pattern, lambda match: names[match[0]], text)


@lru_cache(maxsize=8192)
def key(code: str) -> str:
    try:
        return canonical_python(code)
    except InvalidAction:
        return code


@lru_cache(maxsize=4096)
def _code(text: str) -> str:
    try:
        return PythonActions().parse({"role": "assistant", "content": text}).text
    except InvalidAction:
        return ""


def restyled(code: str, rng: random.Random) -> str:
    """The same program, written in another way."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and rng.random() < 0.3:
            rng.shuffle(node.keywords)
    inner = {n.target.id for n in ast.walk(tree) if isinstance(n, ast.comprehension) and isinstance(n.target, ast.Name)}
    new = {name: rng.choice((name, "item", "entry")) for name in sorted(inner)}
    if len({*new.values()}) == len(new):
        for node in ast.walk(tree):
            if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
                for name in _names(node):
                    name.id = new.get(name.id, name.id)
    text = ast.unparse(tree)
    return f"# next step\n{text}" if rng.random() < 0.3 else text


def _names(tree: ast.AST) -> Iterator[ast.Name]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Name))
