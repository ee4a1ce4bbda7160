"""Cache key of a model call: digests of all of an exact request that can change its answer, and of nothing else.

In it: the namespace, the model as it is asked (`asked_with` of its adapter: name, address, options), messages with
thoughts and images, tools, and every option (tool_choice, response_format, stop, seed, limits, sampling, n, user).
Not in it: what only routes, bills, times or labels a request (`LABELS`, prompt-cache marks, metadata), and the ids of
tool calls, which say no more than which result belongs to which call: they are numbered in their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol, runtime_checkable

from agentcascade.models.breakpoints import FIELD, WHOLE_REQUEST
from agentcascade.models.tool_call_ids import tool_calls_of
from agentcascade.storage.cached_responses import Sealed
from agentcascade.types import CacheUse, Message
from agentcascade.wire.responses_request import NATIVE

FORMAT = 1
"""Of key and entry: what another version kept is not found."""
LABELS = frozenset(
    {
        *("metadata", "timeout", "stream", "stream_options", "api_key", "num_retries", "max_retries"),
        *("prompt_cache_key", "prompt_cache_retention", "service_tier", "litellm_metadata", *WHOLE_REQUEST),
    }
)
"""Options that change where, when or at what price a request is answered, and not what the answer is."""
LABEL_HEADERS = ("x-agentcascade-", "x-stainless-", "x-request-id", "traceparent", "tracestate", "idempotency-key")
"""Beginnings of headers that label a request. All others are in the key, credentials among them."""
KEEPS_STATE = frozenset(
    {
        *("store", "previous_response_id", "conversation", "background", "container", "mcp_servers", "plugins"),
        *("web_search_options", "search_parameters", "audio"),
    }
)
"""Options whose answers depend on more than the request, or are no more than a handle: such answers are not kept."""
BODIES = ("extra_body", NATIVE)
"""Options that hold fields of the request's body."""
OWN_TOOLS = ("function", "custom")
"""Types of tools that the agent runs. A provider's own see the world, which changes."""
ID_FIELDS = frozenset({"id", "call_id", "tool_call_id", "tool_use_id"})
GIVEN_WHOLE = frozenset({"arguments", "input", "parameters", "input_schema", "json_schema", "schema"})
"""Fields whose values are the agent's own data, in which no field is a label."""
MOST_WRAPPERS = 10
ADDRESS = "http://", "https://"


@runtime_checkable
class Cacheable(Protocol):
    """A model whose answers may be kept: it says all that it sends beside the messages."""

    def asked_with(self, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The options as they are sent, and under other names address and name; None: its answers are not kept."""
        ...


def cache_key(
    namespace: str, model: object, messages: Sequence[Message], options: Mapping[str, Any], use: CacheUse = "auto"
) -> Sealed | None:
    """Digests of a call; None where its answer may neither be kept nor have been.

    Args:
        namespace: Whose call it is: no other's is answered from what is kept for it.
        model: Who is asked.
        messages: The conversation.
        options: What goes with it.
        use: ``auto``: only at temperature 0, and only of what cannot change behind an address.
    """
    ask = getattr(model, "asked_with", None)
    if use == "no-store" or ask is None:
        return None
    sent = ask(options)
    if sent is None or (use == "auto" and _temperature(sent) != 0):
        return None
    if _keeps_state(sent):
        return None
    if use == "auto" and any(_names_an_address(message) for message in messages):
        return None
    ids: dict[str, str] = {}
    for message in messages:
        for call in tool_calls_of(message):
            ids.setdefault(str(call.get("id")), f"call {len(ids)}")
    try:
        said = json.dumps([_plain(m, ids) for m in messages], separators=(",", ":"))
        asked = json.dumps(sorted(_labelless(sent).items()), separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return None  # what is no JSON has no exact form
    name: str = model.name  # type: ignore[attr-defined]
    text = json.dumps([FORMAT, namespace, _kinds(model), name, asked, said]).encode()
    row = blake2b(text, digest_size=32, person=b"ac-answer-row").hexdigest()
    return Sealed(row, blake2b(text, digest_size=32, person=b"ac-answer-key").digest())


def _kinds(model: object) -> list[str]:
    """The classes of a model and of those inside it, outermost first: what stands around one reads its answers."""
    kinds: list[str] = []
    inner: Any = model
    while inner is not None and not isinstance(inner, str) and len(kinds) < MOST_WRAPPERS:
        kinds.append(type(inner).__qualname__)
        fields = getattr(inner, "__dict__", {})
        inner = fields.get("_model", fields.get("model"))
    return kinds


def _bodies(sent: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield sent
    for name in BODIES:
        if isinstance(body := sent.get(name), Mapping):
            yield body


def _temperature(sent: Mapping[str, Any]) -> Any:
    """As the last to set it says; None: the provider's own."""
    said = [body["temperature"] for body in _bodies(sent) if body.get("temperature") is not None]
    return said[-1] if said and not isinstance(said[-1], bool) else None


def _keeps_state(sent: Mapping[str, Any]) -> bool:
    for body in _bodies(sent):
        if any(body.get(name) not in (None, False, [], {}) for name in KEEPS_STATE):
            return True
        if body.get("modalities") not in (None, [], ["text"]):
            return True
        tools = body.get("tools") or ()
        if not isinstance(tools, list | tuple) or any(_is_foreign(tool) for tool in tools):
            return True
    return False


def _is_foreign(tool: Any) -> bool:
    """Whether the provider runs it; one without a type is the agent's by its name, unlike Gemini's ``googleSearch``."""
    if not isinstance(tool, Mapping):
        return True
    kind = tool.get("type")
    return kind not in OWN_TOOLS if kind is not None else "function" not in tool and "name" not in tool


def _names_an_address(message: Message) -> bool:
    """Whether a part is an image or file at an address or by an id: what is behind it may change."""
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, Mapping) or part.get("type") == "text":
            continue
        for value in (part, part.get("source"), part.get("image_url"), part.get("file")):
            if isinstance(value, str) and value.startswith(ADDRESS):
                return True
            if isinstance(value, Mapping) and (
                value.get("file_id") or any(str(value.get(k) or "").startswith(ADDRESS) for k in ("url", "file_url"))
            ):
                return True
    return False


def _plain(value: Any, ids: Mapping[str, str]) -> Any:
    """The message without marks of prompt caches and what we added of ourselves, its tool calls' ids numbered."""
    if isinstance(value, Mapping):
        plain: dict[Any, Any] = {}
        for k, v in value.items():
            if k in GIVEN_WHOLE:
                plain[k] = v
            elif k in ID_FIELDS and isinstance(v, str):
                plain[k] = ids.get(v, f"other {v}")
            elif k not in (FIELD, "agentcascade"):
                plain[k] = _plain(v, ids)
        return plain
    return [_plain(item, ids) for item in value] if isinstance(value, (list, tuple)) else value


def _labelless(sent: Mapping[str, Any]) -> dict[str, Any]:
    """The options without labels; the order inside a value, such as that of a schema's properties, is its own."""
    kept: dict[str, Any] = {}
    for name, value in sent.items():
        if name in LABELS or value is None:
            continue
        if name in BODIES and isinstance(value, Mapping):
            value = _labelless(value)
            if not value:
                continue
        elif name == "extra_headers" and isinstance(value, Mapping):
            headers = {str(k).lower(): v for k, v in value.items()}
            value = {k: v for k, v in sorted(headers.items()) if not k.startswith(LABEL_HEADERS)}
            if not value:
                continue
        elif name == "tools":
            value = _plain(value, {})
        kept[name] = value
    return kept
