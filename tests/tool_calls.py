"""Tools and calls of them, as chat messages have them."""

from __future__ import annotations

import json

TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    }
    for name in ("look", "pay")
]


def call(name, x=1, id="call_1"):
    arguments = json.dumps({"x": x})
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}],
    }
