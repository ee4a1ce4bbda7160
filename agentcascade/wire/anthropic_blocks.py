"""Content blocks of Anthropic's Messages API as parts of chat messages, and back.

Texts and images have a form in both. Any other block stays as it is, as a part that only Anthropic's models are sent:
see `chat_only`. What a block says beside its content, such as ``cache_control``, stays in its part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, TypeAlias

from agentcascade.errors import InvalidRequest

Block: TypeAlias = dict[str, Any]
Part: TypeAlias = dict[str, Any]

DETAILS = "anthropic"
"""Field of a message, tool or answer for what Chat Completions has no place for. Where it is, the rest of the message
may hold parts and fields that no other API knows."""
UNSIGNED = "agentcascade:"
"""Begins the signature of thinking that a model without signatures did; the name of its field follows."""
INVALID_JSON = "_invalid_json"
"""Of a tool call's input, the arguments of a model that wrote no JSON object."""

THINKING = frozenset({"thinking", "redacted_thinking"})
PLAIN = {"text": frozenset({"type", "text"}), "image_url": frozenset({"type", "image_url"})}
"""Parts that any chat model takes, and their fields."""
DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
TOOL_ID = re.compile(r"[a-zA-Z0-9_-]{1,200}")
"""Ids of tool calls that Anthropic takes."""


def part_of(block: Block, where: str) -> Part:
    """The part of a chat message for a block. Raises `InvalidRequest`, which says `where`, for a malformed one."""
    kind = block.get("type")
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise InvalidRequest(f"{where}.text: a text block needs a text")
        return dict(block)
    if kind == "image":
        source = block.get("source")
        url = _image_url(source) if isinstance(source, Mapping) else None
        if url is None:
            return dict(block)
        return {"type": "image_url", "image_url": {"url": url}, **_beside(block, "source")}
    return dict(block)


def block_of(part: Mapping[str, Any], where: str) -> Block:
    """The block for a part of a chat message. Raises `InvalidRequest` for a part that Anthropic has no block for."""
    kind = part.get("type")
    if kind == "text":
        return {**part, "text": str(part.get("text") or "")}
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": str(part.get("text") or "")}
    if kind == "refusal":
        return {"type": "text", "text": str(part.get("refusal") or "")}
    if kind in ("image_url", "input_image"):
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        if not isinstance(url, str):
            raise InvalidRequest(f"{where}.image_url.url: an image needs an address or a data: URL")
        return {"type": "image", "source": _image_source(url), **_beside(part, "image_url", "detail")}
    if kind == "file":
        return {**_document(part.get("file"), where), **_beside(part, "file")}
    if kind in ("input_audio", "audio", "audio_url", "video_url", "video"):
        raise InvalidRequest(f"{where}: Anthropic's models take no part of type '{kind}'")
    return dict(part)


def is_plain(part: Mapping[str, Any]) -> bool:
    """Whether any chat model takes the part as it is."""
    return part.keys() <= PLAIN.get(str(part.get("type")), frozenset())


def simplified(parts: list[Part]) -> str | list[Part]:
    """The parts as a message's content: a text where that is all there is."""
    if len(parts) == 1 and parts[0].keys() == PLAIN["text"] and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    return parts


def parts_in(content: object) -> list[Mapping[str, Any]]:
    """The parts of a message's content, whichever form it has."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [p for p in content if isinstance(p, Mapping)] if isinstance(content, list) else []


def arguments_of(input: object) -> str:
    """A tool call's input as the JSON text that chat models write."""
    if isinstance(input, Mapping) and input.keys() == {INVALID_JSON} and isinstance(input[INVALID_JSON], str):
        invalid: str = input[INVALID_JSON]
        return invalid
    return json.dumps({} if input is None else input, ensure_ascii=False)


def input_of(arguments: object) -> dict[str, Any]:
    """The JSON text of a tool call's arguments as an input, which is always an object."""
    if isinstance(arguments, Mapping):
        return dict(arguments)
    text = arguments if isinstance(arguments, str) else ""
    if not text.strip():
        return {}
    try:
        input = json.loads(text)
    except (ValueError, RecursionError):
        return {INVALID_JSON: text}
    return input if isinstance(input, dict) else {INVALID_JSON: text}


def tool_id(id: object) -> str:
    """The id of a tool call as Anthropic takes it: the same for the same id."""
    text = str(id or "")
    if TOOL_ID.fullmatch(text):
        return text
    return f"toolu_{blake2b(text.encode(errors='surrogatepass'), digest_size=12).hexdigest()}"


def is_said(block: Mapping[str, Any]) -> bool:
    """Whether Anthropic takes the block: it refuses texts of nothing but spaces."""
    return block.get("type") != "text" or bool(str(block.get("text") or "").strip())


def join_texts(blocks: Iterable[Mapping[str, Any]]) -> str:
    """The text of an answer."""
    return "".join(str(b.get("text") or "") for b in blocks if b.get("type") == "text")


def _beside(given: Mapping[str, Any], *without: str) -> dict[str, Any]:
    return {k: v for k, v in given.items() if k != "type" and k not in without}


def _image_url(source: Mapping[str, Any]) -> str | None:
    if source.get("type") == "base64" and isinstance(source.get("data"), str):
        return f"data:{source.get('media_type')};base64,{source['data']}"
    if source.get("type") == "url" and isinstance(source.get("url"), str):
        url: str = source["url"]
        return None if url.startswith("data:") else url
    return None


def _image_source(url: str) -> dict[str, Any]:
    data = DATA_URL.match(url)
    if data is None:
        return {"type": "url", "url": url}
    return {
        "type": "base64",
        "media_type": data[1].lower().replace("image/jpg", "image/jpeg"),
        "data": url[data.end() :],
    }


def _document(file: object, where: str) -> Block:
    """OpenAI's part for a file as a document."""
    file = file if isinstance(file, Mapping) else {}
    named = {"title": file["filename"]} if isinstance(file.get("filename"), str) else {}
    data = file.get("file_data")
    if not isinstance(data, str):
        raise InvalidRequest(f"{where}.file: Anthropic's models take files by file_data alone, as a data: URL")
    found = DATA_URL.match(data)
    kind, content = (found[1], data[found.end() :]) if found else ("application/pdf", data)
    return {"type": "document", "source": {"type": "base64", "media_type": kind, "data": content}, **named}
