"""Refusals: answers that decline to answer. A student's counts as no vote, whatever its words.

Aligned models decline in the same stock phrases, so refusals agree word for word where answers would not, and that
agreement says nothing of the task. A refusal is what the provider marks as one (finish reason ``content_filter`` or the
like, the field ``refusal``), or an action whose first sentence is a stock phrase and nothing else: "I'm sorry, but I
can't assist with that." What says in words of its own that something cannot be done ("I can't cancel the order: it has
shipped") is an answer, and so is a tool call. A refusal that was meant costs one answer of the teacher; one that
counted as agreement would keep the teacher from being asked at all.
"""

from __future__ import annotations

import re
import unicodedata

from agentcascade.types import Action, Message

FINISH_REASONS = frozenset(
    {
        *("content_filter", "content_filtered", "refusal", "guardrail_intervened", "safety", "recitation"),
        *("prohibited_content", "blocklist", "spii"),
    }
)
"""In lower case: OpenAI's, Bedrock's, Anthropic's, Gemini's own where an adapter passes them on"""
REFUSED = "a refusal"
"""What the reason of every refusal begins with"""
LONGEST_SENTENCE = 300
"""Characters of a stock phrase"""

_SORRY = (
    r"(?:(?:i am|i'm|we are|we're) (?:very |so |really )?sorry|sorry|i apologi[sz]e|(?:my )?apologies|unfortunately)"
)
_AS_AN_AI = r"(?:as|i'm(?: just)?|i am(?: just)?) an? (?:responsible )?(?:ai|(?:large )?language model)[a-z ]{0,40}"
_CANNOT = (
    r"(?:can't|cannot|can not|won't|will not|(?:am|'m) (?:unable|not able|not going|not comfortable)(?: to)?"
    r"|won't be able to|(?:must|have to|need to) (?:decline|refuse)(?: to)?|(?:decline|refuse) to)"
)
_DO = (
    r"(?:assist(?:ing)?|help(?:ing)?|comply|continue|do|answer(?:ing)?|respond|engage|discuss(?:ing)?|fulfil+"
    r"|satisfy|complete|provide|generate|create|process|support)"
)
_GENERIC = (
    r"(?:you|with|to|in|on|about|for|of|it|that|this|these|those|your|the|such|a|any|an|here|further|type|kind|sort"
    r"|requests?|questions?|query|queries|tasks?|topics?|subjects?|matters?|conversation|discussion|content|information"
    r"|assistance|help|prompt|response|answer|at this time|right now|today)"
)
_STOCK_PHRASE = re.compile(
    rf"(?:{_SORRY}[,;:.]?(?: [-–—])? ?)?(?:but |however,? )?(?:{_AS_AN_AI},? (?:and |so |but )?)?"
    rf"(?:i|we)(?: |(?=')){_CANNOT}(?: {_DO}(?: {_GENERIC})*)?"
)
_SENTENCE = re.compile(r"[^.!?\n]*")
_MARKUP = " \t\r\n*_`\"'>#"


def refusal(message: Message, action: Action | None, finish_reason: str = "") -> str | None:
    """Why an answer is a refusal, in words; None where it is none.

    Args:
        message: The answer, in OpenAI's shape.
        action: What was read off it; None where it states no action.
        finish_reason: As the provider gave it.
    """
    if finish_reason.lower() in FINISH_REASONS:
        return f"{REFUSED}: finish reason {finish_reason[:40]}"
    if message.get("refusal") and not message.get("tool_calls"):
        return f"{REFUSED}: {str(message['refusal'])[:80]!r}"
    if action is not None and not message.get("tool_calls") and is_stock_phrase(action.text):
        return f"{REFUSED}: {action.text.strip()[:80]!r}"
    return None


def is_stock_phrase(text: str) -> bool:
    """Whether the first sentence of `text` declines in a stock phrase (in English), and says nothing else.

    >>> is_stock_phrase("I'm sorry, but I can't assist with that request. Is there anything else?")
    True
    >>> is_stock_phrase("I'm sorry, I can't cancel order 17: it has shipped.")
    False
    """
    opening = unicodedata.normalize("NFKC", text[: 2 * LONGEST_SENTENCE]).replace(
        "\N{RIGHT SINGLE QUOTATION MARK}", "'"
    )
    opening = opening.lstrip(_MARKUP).casefold()
    first = _SENTENCE.match(opening)
    sentence = " ".join(first[0].split()) if first else ""
    if sentence in ("sorry", "i'm sorry", "i am sorry", "i apologize", "my apologies") and first is not None:
        rest = _SENTENCE.match(opening[first.end() :].lstrip(f".!? {_MARKUP}"))
        sentence = f"{sentence}. {' '.join(rest[0].split())}" if rest else sentence
    return 0 < len(sentence) <= LONGEST_SENTENCE and _STOCK_PHRASE.fullmatch(sentence.rstrip(_MARKUP)) is not None
