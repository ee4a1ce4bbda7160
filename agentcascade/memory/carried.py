"""Carried state of a run's older steps: what was done, and the exact values that later actions may need, extracted.

The low tier of `history`, without a model, and the material of the others. Each older step is one line: its action, and
of what came back the values that look as if they will be needed: ids, names, paths, addresses, dates, numbers. Which
ones fit a budget is decided by a score for each token; what the prompt shows anyway is left out. It is a pure function
of its input, and linear in it: texts of tools, pages and models are hostile, so sizes and counts are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentcascade._util import bounds
from agentcascade.messages import text_of
from agentcascade.protocols import TokenCounter
from agentcascade.types import Message

CHARACTERS = 40_000
"""Of one message that are read: half from its beginning, half from its end."""
ALL = 1_000_000
"""Of all messages together: of more of them, less of each is read."""
LEAVES = 400
"""Values of one message, the first."""
VALUES = 4_000
"""Values of all steps, the newest."""
STEPS = 2_000
"""Steps that are read, the newest."""
LONG = 160
"""Characters of a value that is no sentence."""
SHOWN = 200_000
"""Characters of what the prompt shows anyway that are looked through, the last."""
SENTENCE = 240
"""Characters of a sentence, or of an action's arguments, that are kept."""
ACTION, AGAIN = 3.0, 1.0
"""Worth of what was done, and of what was done once more later."""
SAID, OBSERVED = 4.0, 2.0
"""Worth of a sentence of a user, and of a long text."""
RECENT = 0.97
"""Of a score, for each step that it is older."""

EMAIL = r"[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,63}){1,6}"
URL = r"https?://[^\s\"'<>)\]}]{1,300}"
FILE = r"[\w-]{1,100}\.(?:py|js|ts|json|csv|txt|md|yaml|yml|pdf|sql|xml|html|sh)\b"
PATH = rf"(?:~|\.{{1,2}})?(?:/[\w.@+-]{{1,100}}){{2,20}}/?|{FILE}"
TIME = r"\d{1,2}:\d{2}(?::\d{2})?(?:\s?[AP]M)?"
DATE = rf"\d{{4}}-\d{{2}}-\d{{2}}(?:[T ]\d{{2}}:\d{{2}}(?::\d{{2}})?)?|\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{2,4}}|{TIME}"
MIXED = r"(?=[A-Za-z]{0,40}\d)(?=\d{0,40}[A-Za-z])[A-Za-z0-9]{3,64}"
CODE = rf"#?[A-Za-z0-9]{{1,64}}(?:[_-][A-Za-z0-9]{{1,64}}){{1,12}}|{MIXED}"
THING = r"[A-Za-z]{3,30} \d{1,4}\b"
NUMBER = r"[-+]?[$€£]?\d[\d,]{0,20}(?:\.\d{1,10})?%?"
QUOTED = r"\"[^\"\n]{1,80}\"|'[^'\n]{2,80}'(?!\w)"
NAME = r"[A-Z][\w'-]{1,40}(?: [A-Z][\w'-]{1,40}){1,4}"
FOUND = re.compile(
    "|".join(
        f"(?P<{kind}>{form})"
        for kind, form in (
            ("email", EMAIL),
            ("url", URL),
            ("path", PATH),
            ("date", DATE),
            ("thing", rf"\b{THING}"),
            ("code", rf"(?<!\w)(?:{CODE})(?!\w)"),
            ("quoted", QUOTED),
            ("name", rf"\b{NAME}"),
            ("number", rf"(?<!\w)(?:{NUMBER})(?!\w)"),
        )
    )
)
WORTH = {
    "email": 4.0,
    "url": 2.5,
    "path": 3.5,
    "date": 2.5,
    "thing": 2.0,
    "code": 3.5,
    "quoted": 1.5,
    "name": 2.0,
    "number": 1.0,
    "word": 1.2,
    "variable": 3.0,
    "flag": 0.3,
}
"""Of a value, by its kind."""
KEYED = re.compile(r"(?:^|_)(?:id|ids|uuid|key|token|code|number|no|name|email|path|file|url|user|date|dob)$|[a-z]Id$")
"""Fields that later calls ask for."""
ASSIGNED = re.compile(r"^([A-Za-z_]\w{0,60}(?:, ?[A-Za-z_]\w{0,60}){0,8}) ?=(?!=)", re.MULTILINE)
"""Variables that code sets at its outermost level, which later code of the run may use."""
SPLIT = re.compile(r"(?<=[.!?])\s+|\n+")
FENCE = re.compile(r"```[a-z]*\n(.*?)```", re.DOTALL)
WORDS = re.compile(r"[\w@.+/:#-]+")


class Leaf(NamedTuple):
    """A value that was seen, and the field it stood in."""

    key: str
    text: str
    kind: str


@dataclass
class Piece:
    """What may stand in the line of a step: an action, a sentence, or a value with its field."""

    step: int
    order: int
    key: str
    text: str
    worth: float


@dataclass
class _Step:
    number: int
    action: list[str] = field(default_factory=list)
    sentences: list[tuple[str, float]] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)


def carried_lines(
    messages: Sequence[Message], visible: Sequence[Message], *, budget: int, count: TokenCounter
) -> list[str]:
    """Lines of the carried state, oldest step first.

    Args:
        messages: Of the older steps: answers, and what came back.
        visible: Messages that the prompt shows anyway: what stands in them need not be carried.
        budget: Tokens of all lines, at most.
        count: Counts the tokens of a text.

    Returns:
        One line for each step of which something is kept.
    """
    steps = _steps(messages)
    pieces = _pieces(steps, _Visible(visible))
    chosen: list[Piece] = []
    headed: set[int] = set()
    keys: set[tuple[int, str]] = set()
    left = budget
    ranked = sorted(pieces, key=lambda p: (-p.worth / (2 + len(p.text) / 3.5), -p.step, p.order))
    said = ""
    """Actions and sentences that were chosen: a value in them need not stand beside them."""
    for piece in ranked:
        if piece.key and piece.text in said:
            continue
        tokens = count(piece.text) + 1
        tokens += 0 if piece.step in headed else 4
        tokens += 0 if not piece.key or (piece.step, piece.key) in keys else count(piece.key) + 1
        if tokens <= left:
            left -= tokens
            headed.add(piece.step)
            keys.add((piece.step, piece.key))
            chosen.append(piece)
            said += "" if piece.key else f"{piece.text}\n"
        if left < 3:
            break
    lines = _lines(chosen)
    while lines and count("\n".join(lines)) > budget:
        chosen.pop()
        lines = _lines(chosen)
    return lines


def lines_within(text: str, budget: int, count: TokenCounter) -> list[str]:
    """The first lines of a model's text that hold at most so many tokens; a long line is cut.

    >>> lines_within("- booked HAT001\\n\\n- wants a refund of it", 3, lambda text: len(text.split()))
    ['- booked HAT001']
    """
    lines: list[str] = []
    left = budget
    for line in text[: 40 * max(1, budget)].splitlines():
        plain = " ".join(line.split())
        tokens = count(plain) + 1 if lines else count(plain)
        if plain and tokens > left and not lines:
            plain = plain[: max(1, len(plain) * left // max(1, tokens))]
            tokens = count(plain)
        if not plain or tokens > left:
            if plain:
                break
            continue
        lines.append(plain)
        left -= tokens
    return lines


def _lines(chosen: Sequence[Piece]) -> list[str]:
    by_step: dict[int, list[Piece]] = {}
    for piece in chosen:
        by_step.setdefault(piece.step, []).append(piece)
    lines = []
    for number in sorted(by_step):
        said: list[str] = []
        fields: dict[str, list[str]] = {}
        for piece in sorted(by_step[number], key=lambda p: p.order):
            if piece.key:
                fields.setdefault(piece.key, []).append(piece.text)
            else:
                said.append(piece.text)
        said += [f"{key} {', '.join(texts)}" for key, texts in fields.items()]
        lines.append(f"{number}) {'; '.join(said)}")
    return lines


def _steps(messages: Sequence[Message]) -> list[_Step]:
    """Answers, each with what came back."""
    most = min(CHARACTERS, max(500, ALL // max(1, len(messages))))
    steps: list[_Step] = []
    for message in messages:
        role = message.get("role")
        if role == "assistant":
            steps.append(_Step(len(steps) + 1))
            _read_answer(message, steps[-1], most)
        elif role in ("tool", "function", "user") and steps:
            _read_result(_cut(text_of(message), most), steps[-1], said=role == "user")
    return steps[-STEPS:]


def _read_answer(message: Message, step: _Step, most: int) -> None:
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            arguments = _arguments(function.get("arguments"))[:most]
            step.action.append(_flat(f"{function.get('name', '')}({arguments})", SENTENCE))
            step.leaves += _found(arguments)
    text = _cut(text_of(message), most)
    if not step.action and text.strip():
        # The end of an answer is its action, in the formats that write it as text.
        last = next((line for line in reversed(text.splitlines()) if line.strip(" `\t")), "")
        step.action.append(_flat(last, SENTENCE))
    if "```" in text:
        for match in ASSIGNED.finditer(text):
            step.leaves += [Leaf("variables", name.strip(), "variable") for name in match[1].split(",")]
    step.leaves += _found(text)


def _arguments(arguments: object) -> str:
    if not isinstance(arguments, str):
        return json.dumps(arguments, default=str)[:CHARACTERS] if arguments else ""
    value = _json(arguments)
    if not isinstance(value, dict):
        return arguments[:CHARACTERS]
    return ", ".join(f"{key}={_plain(item)}" for key, item in value.items())


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _read_result(text: str, step: _Step, *, said: bool) -> None:
    value = _json(text)
    if value is None and (fenced := FENCE.search(text)) is not None:
        value = _json(fenced[1])
    if isinstance(value, (dict, list)):
        step.leaves += list(_flatten(value))[:LEAVES]
        return
    step.leaves += _found(text)
    sentences = [s for s in SPLIT.split(text) if s.strip()]
    weight = SAID if said and len(text) <= 2_000 else OBSERVED
    for sentence in [*sentences[:20], *sentences[20:][-10:]]:
        step.sentences.append((_flat(sentence, SENTENCE), weight))


def _json(text: str) -> Any:
    """A JSON value, or None; a text that holds one behind a few words counts."""
    stripped = text.strip()
    start = min((i for i in (stripped.find("{"), stripped.find("[")) if i >= 0), default=-1)
    if not 0 <= start <= 60 or stripped[-1:] not in "]}":
        return None
    try:
        return bounds.loads(stripped[start:], longest=CHARACTERS * 2)
    except ValueError:
        return None


def _flatten(value: object, key: str = "", depth: int = 0) -> Iterator[Leaf]:
    if isinstance(value, Mapping) and depth < 20:
        for name, item in value.items():
            if kind := _kind(str(name)):
                yield Leaf(key, str(name), kind)
            yield from _flatten(item, str(name) if not _kind(str(name)) else key, depth + 1)
    elif isinstance(value, list) and depth < 20:
        for item in value:
            yield from _flatten(item, key, depth + 1)
    elif isinstance(value, bool) or value is None:
        yield Leaf(key, json.dumps(value), "flag")
    elif isinstance(value, (int, float)):
        yield Leaf(key, json.dumps(value), "code" if isinstance(value, int) and abs(value) >= 10_000 else "number")
    elif isinstance(value, str) and value.strip():
        if len(value) <= LONG:
            yield Leaf(key, _flat(value, LONG), _kind(value) or "word")
        else:
            yield from _found(value)[:20]


def _kind(text: str) -> str:
    """The kind of a value that is nothing else; of a field's name that is an id, not a word."""
    found = FOUND.fullmatch(text)
    if found is None or found.lastgroup in ("name", "thing", "quoted"):
        return ""
    if found.lastgroup == "code" and not any(c.isdigit() for c in text):
        return ""
    return found.lastgroup or ""


def _found(text: str) -> list[Leaf]:
    """Values in a text that is no JSON."""
    leaves = []
    for match in FOUND.finditer(text[:CHARACTERS]):
        kind, value = match.lastgroup or "word", match[0]
        if kind == "code" and not any(c.isdigit() for c in value) and "_" not in value:
            continue
        leaves.append(Leaf("", value.strip("\"'") if kind == "quoted" else value, kind))
        if len(leaves) >= LEAVES:
            break
    return leaves


def _pieces(steps: Sequence[_Step], visible: _Visible) -> list[Piece]:
    """What may be kept, each value once: where it was seen last, and with what it is worth."""
    newest = steps[-1].number if steps else 0
    used = {value for step in steps for action in step.action for value in WORDS.findall(action)}
    done: set[str] = set()
    seen: dict[str, Piece] = {}
    pieces: list[Piece] = []
    for step in reversed(steps):
        age = RECENT ** (newest - step.number)
        crowd = 1 + len(step.leaves) / 12
        order = 0
        for action in dict.fromkeys(step.action):
            pieces.append(Piece(step.number, order, "", action, (AGAIN if action in done else ACTION) * age))
            done.add(action)
            order += 1
        for sentence, weight in step.sentences:
            order += 1
            if sentence not in seen and sentence not in visible:
                seen[sentence] = Piece(step.number, order, "", sentence, weight * age)
        for leaf in step.leaves:
            order += 1
            if len(seen) >= VALUES or leaf.text in seen or leaf.text in visible:
                continue
            worth = WORTH[leaf.kind] / crowd**0.5 * age
            worth *= 1.6 if KEYED.search(leaf.key) else 1.0
            worth *= 1.5 if leaf.text in used else 1.0
            seen[leaf.text] = Piece(step.number, order, leaf.key or leaf.kind, leaf.text, worth)
    return [*pieces, *seen.values()]


class _Visible:
    """What the prompt shows anyway."""

    def __init__(self, messages: Sequence[Message]) -> None:
        texts = [text_of(message) for message in messages]
        for message in messages:
            for call in message.get("tool_calls") or ():
                function = call.get("function") if isinstance(call, Mapping) else None
                if isinstance(function, Mapping):
                    texts.append(str(function.get("arguments")))
        self._text = "\n".join(texts)[-SHOWN:]
        self._words = set(WORDS.findall(self._text))

    def __contains__(self, text: str) -> bool:
        if WORDS.fullmatch(text):
            return text in self._words
        return text in self._text


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-(most // 2) :]}"


def _flat(text: str, most: int) -> str:
    """One line of at most so many characters."""
    flat = " ".join(text[: 4 * most].split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"
