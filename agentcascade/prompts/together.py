"""Several questions of one kind in one prompt (batch prompting), and the answers read back by number and nonce.

Models that are asked several questions at once think shorter about each (DRQA, arXiv 2508.17803, section 2), and the
instructions are paid once. What is asked about was written by others: each text stands in a fence of its own, whose
nonce follows from all texts of the call and occurs in none of them. An answer counts only in a line that begins with
its number and nonce, so no text can write, or make a model copy, the answer to another. An answer that is missing,
said twice in two ways, or in another form is none: it is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from agentcascade.messages import text_of
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.quoting import mark_of
from agentcascade.prompts.yes_no import THINKING
from agentcascade.types import Message

MOST_CHARACTERS = 1_000_000
"""Of an answer that are read, from its end."""
LINE = re.compile(
    r"(?m)^[ \t>*_`\"'-]{0,20}(\d{1,4})-([0-9a-f]{6,32})[ \t*_`\"']{0,10}[:=][ \t*_`\"']{0,10}(yes|no)"
    r"[ \t*_`\"'.!]{0,10}\r?$",
    re.IGNORECASE,
)


class SharedPrompt(NamedTuple):
    """A prompt of several questions.

    Args:
        text: What the model is asked.
        codes: Of each question, by which its answer is known: ``2-4f09c1`` is the second one's.
    """

    text: str
    codes: tuple[str, ...]


def nonces(texts: Sequence[str]) -> tuple[str, ...]:
    """The code of each text: its number, and a word that follows from all texts and occurs in none.

    For equal calls they are equal, so that a batch is found again and a cached answer fits; who writes one of the texts
    cannot put its call's nonces into it, since these would be others then.

    >>> codes = nonces(["Goal: tea", "Goal: coffee"])
    >>> [code.partition("-")[0] for code in codes], codes == nonces(["Goal: tea", "Goal: coffee"])
    (['1', '2'], True)
    """
    whole = blake2b(digest_size=16)
    for text in texts:
        part = text.encode(errors="surrogatepass")
        whole.update(f"{len(part)}:".encode() + part)
    return tuple(f"{i}-{mark_of(f'{i}:{whole.hexdigest()}', texts)}" for i in range(1, len(texts) + 1))


def share_verdicts(question: str, episodes: Sequence[str], prompts: Prompts = DEFAULT) -> SharedPrompt:
    """One prompt that asks the same yes-or-no question of several episodes.

    Args:
        question: Asked of each.
        episodes: Their texts, quoted as `prompts` quotes.
        prompts: Whose templates ``judge_together`` and ``judge_note_together`` are rendered.
    """
    codes = nonces(episodes)
    body = "\n\n".join(f"<episode {code}>\n{text}\n</episode {code}>" for code, text in zip(codes, episodes))
    text = prompts.render(
        "judge_together",
        count=str(len(codes)),
        question=question,
        episodes=body,
        note=prompts.render("judge_note_together"),
        answer=f"{codes[0]}:",
    )
    return SharedPrompt(text, codes)


def read_verdicts(answer: str, codes: Sequence[str]) -> list[bool | None]:
    """The verdict on each question of a shared prompt; None where the answer holds none, or two.

    >>> read_verdicts("1-4f09c1: yes\\n2-a3b0c2: **no**\\n2: yes", ["1-4f09c1", "2-a3b0c2"])
    [True, False]
    >>> read_verdicts("1-4f09c1: yes\\n1-4f09c1: no\\nyes", ["1-4f09c1", "2-a3b0c2"])
    [None, None]
    """
    said: dict[str, set[bool]] = {}
    for number, nonce, word in LINE.findall(THINKING.sub("", answer[-MOST_CHARACTERS:])):
        said.setdefault(f"{int(number)}-{nonce.lower()}", set()).add(word.lower() == "yes")
    found = (said.get(code, set()) for code in codes)
    return [next(iter(words)) if len(words) == 1 else None for words in found]


def share_situations(conversations: Sequence[Sequence[Message]], prompts: Prompts = DEFAULT) -> SharedPrompt:
    """One prompt that asks for the assistant's next answer in each of several conversations, all of them texts.

    Args:
        conversations: Each of them from its first message on, without what all of them begin with.
        prompts: Whose template ``act_together`` is rendered, and whose quoting is used.
    """
    quote = prompts.quoting.text
    texts = [
        "\n\n".join(f"{str(message['role']).title()}:\n{quote(text_of(message))}" for message in conversation)
        for conversation in conversations
    ]
    codes = nonces(texts)
    body = "\n\n".join(f"<situation {code}>\n{text}\n</situation {code}>" for code, text in zip(codes, texts))
    answer = f"<{codes[0]}>\n...\n</{codes[0]}>"
    text = prompts.render("act_together", count=str(len(codes)), situations=body, answer=answer)
    return SharedPrompt(text, codes)


def read_answers(answer: str, codes: Sequence[str]) -> list[str | None]:
    """The answer in each situation of a shared prompt; None where there is none, or where it is said twice.

    >>> read_answers("<1-4f09c1>\\nlook\\n</1-4f09c1>\\n<2-a3b0c2>wait", ["1-4f09c1", "2-a3b0c2"])
    ['look', None]
    """
    text = answer[-MOST_CHARACTERS:]
    if thought := THINKING.match(text.lstrip()):
        text = text.lstrip()[thought.end() :]
    found: list[str | None] = []
    for code in codes:
        opening, closing = f"<{code}>", f"</{code}>"
        _, _, behind = text.partition(opening)
        inside, end, _ = behind.partition(closing)
        once = bool(end) and text.count(opening) == text.count(closing) == 1
        found.append(inside.strip("\r\n") if once and not any(other in inside for other in codes) else None)
    return found
