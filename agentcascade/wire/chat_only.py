"""Conversations of other APIs as any chat model may be sent them: without what Chat Completions has no place for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentcascade.messages import text_of
from agentcascade.types import Message, Tool
from agentcascade.wire.anthropic_blocks import DETAILS, is_plain

RESULT_IMAGES = "The images of the results above:"
ERROR = "Error: "


def as_chat(messages: Sequence[Message], *, caches: bool = False) -> Sequence[Message]:
    """The messages as Chat Completions has them; the same object where there is nothing to change.

    Documents become files or texts, images in tool results go into a message of the user behind them, and a failed call
    says so in its text. Marks of caches stay only with `caches`, for what reads them in parts of messages.
    """
    marks = frozenset({"cache_control"} if caches else ())
    if not any(DETAILS in message for message in messages):
        return messages
    written: list[Message] = []
    images: list[Mapping[str, Any]] = []
    for message in messages:
        if images and message.get("role") != "tool":
            written.append({"role": "user", "content": [{"type": "text", "text": RESULT_IMAGES}, *images]})
            images = []
        if DETAILS not in message:
            written.append(message)
            continue
        details = message[DETAILS]
        plain = {k: v for k, v in message.items() if k != DETAILS and (k in marks or k != "cache_control")}
        content = message.get("content")
        if isinstance(content, list):
            parts = [
                {**_plain_part(part), **{k: part[k] for k in marks & part.keys()}}
                for part in content
                if isinstance(part, Mapping)
            ]
            if message.get("role") == "tool":
                images += [p for p in parts if p["type"] == "image_url"]
                parts = [p for p in parts if p["type"] == "text"] or [{"type": "text", "text": "(an image)"}]
            texts = all(p.keys() == {"type", "text"} for p in parts)
            plain["content"] = "\n".join(p["text"] for p in parts) if texts else parts
        if isinstance(details, Mapping) and details.get("is_error") and "error" not in text_of(plain)[:200].lower():
            plain["content"] = f"{ERROR}{text_of(plain)}"
        written.append(plain)
    if images:
        written.append({"role": "user", "content": [{"type": "text", "text": RESULT_IMAGES}, *images]})
    return written


def tools_as_chat(tools: Sequence[Tool] | None, *, caches: bool = False) -> Sequence[Tool] | None:
    """The tools as Chat Completions has them; the same object where there is nothing to change."""
    if not tools or not any(DETAILS in tool for tool in tools):
        return tools
    left_out = {DETAILS} if caches else {DETAILS, "cache_control"}
    return [{k: v for k, v in t.items() if k not in left_out} if DETAILS in t else t for t in tools]


def _plain_part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": str(part.get("text") or "")}
    if kind == "image_url":
        return {"type": "image_url", "image_url": part.get("image_url")}
    if kind == "document":
        return _plain_document(part)
    if kind == "search_result":
        title, source = part.get("title") or "", part.get("source") or ""
        return {"type": "text", "text": f"{title}\n{source}\n{text_of({'content': part.get('content')})}"}
    if is_plain(part):
        return part
    return {"type": "text", "text": f"({kind} that this model cannot be shown)"}


def _plain_document(part: Mapping[str, Any]) -> Mapping[str, Any]:
    found = part.get("source")
    source: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    named = str(part.get("title") or "document")
    if source.get("type") == "base64" and isinstance(source.get("data"), str):
        data = f"data:{source.get('media_type')};base64,{source['data']}"
        return {"type": "file", "file": {"filename": named, "file_data": data}}
    if source.get("type") == "text":
        return {"type": "text", "text": f"{named}\n{source.get('data') or ''}"}
    if source.get("type") == "content":
        return {"type": "text", "text": f"{named}\n{text_of({'content': source.get('content')})}"}
    return {"type": "text", "text": f"(the document {named!r}, which this model cannot be shown)"}
