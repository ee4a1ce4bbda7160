"""Quote untrusted text in prompts: no chat-template tokens, no lines of the prompt's own frame, a fence with a mark.

Observations, plans, goals and actions were written by pages, tools and other people's models. Where one of them is put
into a prompt it must not be read as the prompt itself:

* tokens of chat templates (``<|im_start|>``, ``[INST]``, ``</s>`` …) get a space behind their first character, so that
  no tokenizer takes them for its own;
* lines that look like the prompt's own (``# Your task``, ``## Example 2``, ``Action: …``) begin with ``> ``;
* a block of quoted texts ends with a mark that occurs in none of them, and is the same for the same conversation, so
  that the provider's prefix cache still hits.

Texts without any of this, nearly all, stay as they are, and cost nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

WORDS = (
    *("s", "bos", "eos", "pad", "unk", "mask", "cls", "sep", "sop", "eop", "eod", "eot", "think", "thinking"),
    *("start_of_turn", "end_of_turn", "start_of_image", "end_of_image", "image_soft_token", "image"),
    *("tool_call", "tool_calls", "tool_response", "tool_result", "tools", "function_call", "function_calls"),
    *("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "file_sep", "repo_name", "endoftext", "begin_of_text"),
    *("BOS_TOKEN", "EOS_TOKEN", "SPECIAL_[0-9]{1,4}", "unused[0-9]{1,4}", "reserved_[0-9]{1,4}", "extra_id_[0-9]{1,4}"),
    *("0x[0-9A-F]{2}", "(?:seed|minimax):[a-z_]{1,40}", "ctrl[0-9]{1,3}", "_(?:end|user|system|bot)"),
    *("reserved_token_[0-9]{1,4}", "beginning_of_sentence", "end_of_sentence", "longcat_[a-z_]{1,40}"),
)
"""In angle brackets, of Llama 1 and 2, Mistral, Gemma, T5, Cohere, GLM, StarCoder, Nemotron, Hermes, Qwen, DeepSeek."""
BRACKETED = (
    *("INST", "SYSTEM_PROMPT", "AVAILABLE_TOOLS", "TOOL_CALLS", "TOOL_RESULTS", "TOOL_CONTENT", "ARGS", "CALL_ID"),
    *("IMG", "IMG_BREAK", "IMG_END", "BEGIN_AUDIO", "AUDIO", "PREFIX", "MIDDLE", "SUFFIX", "THINK", "MODEL_SETTINGS"),
    *("gMASK", "sMASK", "MASK", "CLS", "SEP", "PAD", "UNK", "BOS", "EOS"),
)
"""In square brackets, of Mistral, GLM and BERT."""
OPEN, CLOSE, BAR = "[<＜]", "[>＞]", "[|｜¦∣]"
HALF = "(?:turn|think|channel|image|audio|video|tool(?:_call|_response)?)"
TOKENS = re.compile(
    rf"(?:{OPEN}(?={BAR}[^|｜¦∣<>＜＞\r\n]{{1,64}}{BAR}{CLOSE})"  # Llama 3, Qwen, Phi, GPT, DeepSeek, Cohere, Granite …
    rf"|{OPEN}(?=[/／]?(?:{'|'.join(WORDS)}){CLOSE})"
    rf"|{OPEN}(?={BAR}{HALF}{CLOSE}|{HALF}{BAR}{CLOSE}|\[[^\[\]<>\r\n]{{1,64}}\]>)"  # Gemma 4; ERNIE
    rf"|<(?=</?SYS>>)"
    rf"|\[(?=/?(?:{'|'.join(BRACKETED)})\])"
    r"|\[(?=\|[^|\[\]\r\n]{1,64}\|\])"  # EXAONE
    r"|\](?=~!?b[\[\]]|<\][^\[\]<>\r\n]{1,64}\[>\[)|\[(?=e~\[))",  # MiniMax
    re.IGNORECASE,
)
STARTS = re.compile(r"[<＜\[\]［］]")

BREAK = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
UNSEEN = r"\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
OURS = (
    rf"(?=(?:[^\S{BREAK}]|[{UNSEEN}]){{0,200}}(?:"
    r"[#＃]{1,6}(?:[^\S\n\r]|[" + UNSEEN + r"]){0,20}"
    r"(?i:examples?|drafts?|your\s+(?:task|plan)|earlier\s+steps|memory|question|system|user|assistant|instructions?"
    r"|response|input|output|history|tools?|rules?|end|conversation|proposed)\b"
    r"|(?:Goal|Plan|Your plan|Observation|Thought|Action|Human|Assistant|System|User|Question|Answer|Right answer"
    r"|Tried before, in vain"
    r"|Result|What happened|Passage\s\d{1,6})[ \t]{0,20}[:：]"
    r"|\(steps\s|\[\d{1,6}\]|\d{1,6}:\s*$"
    r"|[<＜]\s{0,3}[/／]?\s{0,3}(?i:examples?|quoted|task|observation|candidates?|episode|history|memory|question|answer"
    r"|plan)\b))"
)
FIRST, LATER = re.compile(OURS), re.compile(rf"[{BREAK}]{OURS}")
"""The first line, and others with the break before them: a search for few characters is fast."""
HEADS = frozenset("#<[(0123456789GPYOTAHSUQRW") | {""}
"""What a line of the prompt's own begins with, or a character that is not seen."""
LINES = re.compile(rf"([{BREAK}])")
MARK = "> "

WIDE = range(0xFF01, 0xFF5F)
"""Full-width forms of ASCII."""
TAGS = range(0xE0000, 0xE01F0)
"""Tags and variation selectors."""
LETTERS = (*WIDE, *range(0x1D400, 0x1D800), *range(0x24B6, 0x24EA), *range(0x2100, 0x2150), 0xFE55)
"""Mathematical, circled and other forms of ASCII's letters, which a reader takes for those."""
CYRILLIC_AND_GREEK = str.maketrans(
    "аеорсухіјѕһԁԛԝАВЕКМНОРСТХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧοανρι∶։ː‹›",
    "aeopcyxijshdqwABEKMHOPCTXIJSABEZHIKMNOPTYXoavpi:::<>",
)


class _LookAlikes(NamedTuple):
    hidden: dict[int, str | None]
    """Characters that are not seen, and wide forms of what tokens are made of"""
    any_hidden: re.Pattern[str]
    letters: dict[int, str | None]
    """Those that are not seen, and all that is taken for a letter"""


@lru_cache(maxsize=1)
def _look_alikes() -> _LookAlikes:
    unseen = {c: None for c in range(0x80, 0x10000) if _is_unseen(chr(c))}
    wide = {c: chr(c - 0xFEE0) for c in WIDE if chr(c - 0xFEE0) not in "\"\\'"}
    letters = {
        c: plain for c in LETTERS if len(plain := unicodedata.normalize("NFKC", chr(c))) == 1 and plain.isascii()
    }
    hidden: dict[int, str | None] = {**unseen, **wide}
    some = re.compile(f"[{re.escape(''.join(map(chr, hidden)))}{chr(TAGS[0])}-{chr(TAGS[-1])}]")
    hidden |= dict.fromkeys(TAGS)
    return _LookAlikes(hidden, some, {**hidden, **letters, **{k: chr(v) for k, v in CYRILLIC_AND_GREEK.items()}})


def _is_unseen(character: str) -> bool:
    """Formats, variation selectors, fillers; also marks over or under a letter, which tokenizers may drop."""
    return unicodedata.category(character) in ("Cf", "Mn", "Me") or character in "\u115f\u1160\u3164\uffa0"


def neutral(text: str) -> str:
    """`text` without a token of any known chat template."""
    if STARTS.search(text):
        text = TOKENS.sub(lambda m: f"{m[0]} ", text)
        if not text.isascii() and _look_alikes().any_hidden.search(text):
            plain = text.translate(_look_alikes().hidden)
            if TOKENS.search(plain):  # one hides behind characters that are not seen: none of those is worth keeping
                text = TOKENS.sub(lambda m: f"{m[0]} ", plain)
    return text


def framed_off(text: str) -> str:
    """`text` with a mark before every line that could be taken for the prompt's own."""
    if FIRST.match(text):
        text = MARK + text
    if not text.isprintable():
        text = LATER.sub(lambda m: m[0] + MARK, text)
    return text if text.isascii() else "".join(map(_told_apart, LINES.split(text)))


def _told_apart(line: str) -> str:
    """The same for one line that only looks like the prompt's own."""
    if line.isascii():
        return line
    letters, begin = _look_alikes().letters, line.strip()[:300]
    if begin[:1].translate(letters) not in HEADS:
        return line
    plain = begin.translate(letters)
    return MARK + line if plain != begin and FIRST.match(plain) and not line.startswith(MARK) else line


def mark_of(key: str, texts: Sequence[str]) -> str:
    """A short word that occurs in none of `texts`: for the same conversation the same, if it can be."""
    lowered = [text.lower() for text in texts]
    for attempt in range(1000):
        mark = blake2b(f"{attempt}\0{key}".encode(errors="surrogatepass"), digest_size=3).hexdigest()
        if not any(mark in text for text in lowered):
            return mark
    return blake2b(f"{key}\0{texts}".encode(errors="surrogatepass"), digest_size=16).hexdigest()


SHORT = 1000
"""Characters of a text that is remembered quoted: an episode's demonstrations are shown at every step again."""


@lru_cache(maxsize=4096)
def _short(text: str) -> str:
    return framed_off(neutral(text))


class Quoting:
    """How texts are quoted: fenced, or (by configuration alone) plainly."""

    def __init__(self, on: bool = True) -> None:
        self.on = on

    def text(self, text: str) -> str:
        """For a place inside a fence, or at the end of a line of the prompt's own."""
        if not self.on:
            return text
        return _short(text) if len(text) <= SHORT else framed_off(neutral(text))

    def words(self, text: str) -> str:
        """For text whose form must stay, such as JSON: without template tokens alone."""
        return neutral(text) if self.on else text

    def fence(self, name: str, body: str, key: str) -> str:
        """`body`, whose texts are quoted, between two lines that only the prompt itself can write."""
        if not self.on:
            return body
        mark = mark_of(key, [body])
        return f"<{name} {mark}>\n{body}\n</{name} {mark}>"


FENCED, PLAIN = Quoting(True), Quoting(False)


def quoting_of(setting: str) -> Quoting:
    """What `prompt.quoting` names."""
    return PLAIN if setting == "plain" else FENCED
