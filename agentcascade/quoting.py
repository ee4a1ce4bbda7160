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
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

WORDS = (
    *("s", "bos", "eos", "pad", "unk", "mask", "cls", "sep", "sop", "eop", "eod", "eot", "think", "thinking"),
    *("start_of_turn", "end_of_turn", "start_of_image", "end_of_image", "image_soft_token", "image"),
    *("tool_call", "tool_calls", "tool_response", "tool_result", "tools", "function_call", "function_calls"),
    *("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "file_sep", "repo_name", "endoftext", "begin_of_text"),
    *("BOS_TOKEN", "EOS_TOKEN", "SPECIAL_[0-9]{1,4}", "unused[0-9]{1,4}", "reserved_[0-9]{1,4}", "extra_id_[0-9]{1,4}"),
    "0x[0-9A-F]{2}",
)
"""In angle brackets, of Llama 1 and 2, Mistral, Gemma, T5, Cohere, GLM, StarCoder, Nemotron, Hermes, Qwen, DeepSeek."""
BRACKETED = (
    *("INST", "SYSTEM_PROMPT", "AVAILABLE_TOOLS", "TOOL_CALLS", "TOOL_RESULTS", "TOOL_CONTENT", "ARGS", "CALL_ID"),
    *("IMG", "IMG_BREAK", "IMG_END", "BEGIN_AUDIO", "AUDIO", "PREFIX", "MIDDLE", "SUFFIX", "THINK", "MODEL_SETTINGS"),
    *("gMASK", "sMASK", "MASK", "CLS", "SEP", "PAD", "UNK", "BOS", "EOS"),
)
"""In square brackets, of Mistral, GLM and BERT."""
OPEN, CLOSE, BAR = "[<＜]", "[>＞]", "[|｜¦∣]"
TOKENS = re.compile(
    rf"(?:{OPEN}(?={BAR}[^|｜¦∣<>＜＞\r\n]{{1,64}}{BAR}{CLOSE})"  # Llama 3, Qwen, Phi, GPT, DeepSeek, Cohere, Granite …
    rf"|{OPEN}(?=[/／]?(?:{'|'.join(WORDS)}){CLOSE})"
    rf"|<(?=</?SYS>>)"
    rf"|\[(?=/?(?:{'|'.join(BRACKETED)})\])"
    r"|\[(?=\|[^|\[\]\r\n]{1,64}\|\])"  # EXAONE
    r"|\](?=~!?b[\[\]])|\[(?=e~\[))",  # MiniMax
    re.IGNORECASE,
)
STARTS = re.compile(r"[<＜\[\]]")

BREAK = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
UNSEEN = r"\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
OURS = (
    rf"(?=(?:[^\S{BREAK}]|[{UNSEEN}]){{0,200}}(?:"
    r"[#＃]{1,6}(?:[^\S\n\r]|[" + UNSEEN + r"]){0,20}"
    r"(?i:examples?|your\s+(?:task|plan)|memory|question|system|user|assistant|instructions?|response|input|output"
    r"|history|tools?|rules?|end)\b"
    r"|(?:Goal|Plan|Your plan|Observation|Thought|Action|Human|Assistant|System|User|Question|Answer|Right answer"
    r"|Result|What happened|Passage\s\d{1,6})[ \t]{0,20}[:：]"
    r"|\(steps\s|\[\d{1,6}\]|\d{1,6}:\s*$"
    r"|</?(?:examples?|quoted|task|observation|candidate|episode|history|memory|question|answer|plan)\b))"
)
FIRST, LATER = re.compile(OURS), re.compile(rf"[{BREAK}]{OURS}")
"""The first line, and others with the break before them: a search for few characters is fast."""
MARK = "> "


def neutral(text: str) -> str:
    """`text` without a token of any known chat template."""
    return TOKENS.sub(lambda m: f"{m[0]} ", text) if STARTS.search(text) else text


def framed_off(text: str) -> str:
    """`text` with a mark before every line that could be taken for the prompt's own."""
    if FIRST.match(text):
        text = MARK + text
    return text if text.isprintable() else LATER.sub(lambda m: m[0] + MARK, text)


def mark_of(key: str, texts: Sequence[str]) -> str:
    """A short word that occurs in none of `texts`: for the same conversation the same, if it can be."""
    for attempt in range(1000):
        mark = blake2b(f"{attempt}\0{key}".encode(errors="surrogatepass"), digest_size=3).hexdigest()
        if not any(mark in text or mark.upper() in text for text in texts):
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
