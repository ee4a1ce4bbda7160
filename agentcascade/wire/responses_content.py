"""Content of messages and tool results: parts of OpenAI's Responses to and from parts of chat messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentcascade.wire.unusable import UnusableField

MOST_PARTS = 10_000


def read_content(content: object, where: str) -> str | list[dict[str, Any]]:
    """Content of a message or a tool's result as chat has it; one text alone as a text.

    Raises `UnusableField` for what chat cannot express, such as files by id.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UnusableField(f"{where}: content is a text or a list of parts, not {type(content).__name__}", where)
    if len(content) > MOST_PARTS:
        raise UnusableField(f"{where}: there are {len(content):,} parts, more than {MOST_PARTS:,}", where)
    parts = [_read_part(part, f"{where}[{i}]") for i, part in enumerate(content)]
    if len(parts) == 1 and parts[0].keys() == {"type", "text"} and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts


def _read_part(part: object, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(kind, str):
        raise UnusableField(f"{where}: a part is an object with a type", where)
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": _text(part, "text", where)}
    if kind == "input_image":
        if not isinstance(part.get("image_url"), str):
            raise UnusableField(
                f"{where}: an image needs image_url, an address or a data: URL; files by id are not kept here", where
            )
        detail = {"detail": part["detail"]} if part.get("detail") is not None else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_file":
        file = {k: part[k] for k in ("file_data", "file_id", "filename") if isinstance(part.get(k), str)}
        if part.get("file_url") is not None or not file.keys() & {"file_data", "file_id"}:
            raise UnusableField(f"{where}: a file needs file_data (base64); addresses of files are not read", where)
        return {"type": "file", "file": file}
    if kind == "input_audio" and isinstance(part.get("input_audio"), Mapping):
        return {"type": "input_audio", "input_audio": dict(part["input_audio"])}
    raise UnusableField(f"{where}.type: a part of type {kind[:60]!r} cannot be used here", f"{where}.type")


def write_content(content: object, where: str = "content") -> list[dict[str, Any]]:
    """Content of a chat message as parts of Responses. Raises `UnusableField` for parts that it has not."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    parts = content if isinstance(content, list) else [{"type": "text", "text": str(content)}]
    return [_written_part(part, f"{where}[{i}]") for i, part in enumerate(parts)]


def _written_part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return {"type": "input_text", "text": str(part.get("text") or "")}
    if kind == "image_url":
        image = part.get("image_url")
        image = image if isinstance(image, Mapping) else {"url": image}
        return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
    if kind == "file" and isinstance(part.get("file"), Mapping):
        return {"type": "input_file", **part["file"]}
    if kind == "input_audio" and isinstance(part.get("input_audio"), Mapping):
        return {"type": "input_audio", "input_audio": dict(part["input_audio"])}
    raise UnusableField(f"{where}: Responses has no part of type {str(kind)[:60]!r}", where)


def write_output(content: object) -> str | list[dict[str, Any]]:
    """A tool's result: a text as it is, parts as parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return write_content(content)


def _text(part: Mapping[str, Any], name: str, where: str) -> str:
    text = part.get(name)
    if not isinstance(text, str):
        raise UnusableField(f"{where}.{name}: a text is wanted", f"{where}.{name}")
    return text
