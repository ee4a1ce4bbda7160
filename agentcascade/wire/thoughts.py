"""Thinking of a model inside another API's opaque field, so that a client without a place for it carries it back.

The packet names the model by a digest: what one model thought is given to no other. It is not signed, and holds nothing
that a client could not send by the chat API.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Any

PREFIX = "agentcascade.1."
MOST_PACKED, MOST_UNPACKED = 4_000_000, 16_000_000
"""Characters of a packet, and of what is inside."""


def pack(model: str, fields: Mapping[str, Any]) -> str:
    """The packet of a message's `fields` that only `model` may be given back; "" where it would be too large."""
    data = json.dumps({"by": _digest(model), "fields": fields}, separators=(",", ":"), default=str)
    if len(data) > MOST_UNPACKED:
        return ""
    packet = PREFIX + base64.urlsafe_b64encode(zlib.compress(data.encode(errors="replace"))).decode()
    return packet if len(packet) <= MOST_PACKED else ""


def unpack(packet: object, models: Collection[str]) -> dict[str, Any] | None:
    """The fields that one of `models` thought; empty for those of another; None for what is no packet."""
    if not isinstance(packet, str) or not packet.startswith(PREFIX) or len(packet) > MOST_PACKED:
        return None
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.urlsafe_b64decode(packet[len(PREFIX) :]), MOST_UNPACKED)
        if inflate.unconsumed_tail or not inflate.eof:
            return {}
        content = json.loads(data)
    except (binascii.Error, zlib.error, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("by") not in {_digest(model) for model in models}:
        return {}
    fields = content.get("fields")
    return fields if isinstance(fields, dict) else {}


def _digest(model: str) -> str:
    return blake2b(model.encode(errors="replace"), digest_size=8).hexdigest()
