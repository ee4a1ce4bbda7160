"""LangChain's own standard tests of chat models, over a rule-based model that answers what they ask."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langchain_tests", reason="needs langchain-tests")
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from agentcascade import build
from agentcascade.integrations.langchain import ChatAgentCascade
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.types import Completion, Message, Tool

PRICE = Price(input=Decimal(1), output=Decimal(2))


@pytest.fixture
def vcr() -> None:
    """Of pytest-recording, which is not loaded (`addopts` in pyproject.toml): the test that names it is skipped."""


class RuleModel(ScriptedModel):
    """Calls the tool that it is offered, with numbers and words found in the question; else it talks."""

    def __init__(self) -> None:
        super().__init__(lambda messages, _: self._answer(messages), name="rules", price=PRICE)
        self._offered: Sequence[Tool] = ()
        self._choice: Any = None
        self._format: dict[str, Any] = {}

    async def complete(self, messages: Sequence[Message], *, tools: Any = None, **options: Any) -> Completion:
        self._offered, self._choice = tools or (), options.get("tool_choice")
        self._format = options.get("response_format") or {}
        return await super().complete(messages, **options)

    def _answer(self, messages: Sequence[Message]) -> Message | str:
        asked = messages[-1]
        if self._format.get("type") == "json_schema":
            return json.dumps(value(self._format["json_schema"]["schema"], str(asked["content"]), {}))
        if self._format.get("type") == "json_object":
            return json.dumps(dict.fromkeys(re.findall(r"'(\w+)'", str(asked["content"])), "cats"))
        if not self._offered or asked["role"] == "tool" or self._choice == "none":
            return "Hello! Here is an answer of several words, one two three."
        text = str(asked.get("content"))
        calls = [self._call(i, tool, text) for i, tool in enumerate(self._tools(text))]
        return {"role": "assistant", "content": "", "tool_calls": calls}

    def _tools(self, text: str) -> list[Tool]:
        if isinstance(self._choice, dict):
            wanted = self._choice["function"]["name"]
            return [t for t in self._offered if t["function"]["name"] == wanted]
        return list(self._offered[:1])

    def _call(self, index: int, tool: Tool, text: str) -> dict[str, Any]:
        function = tool["function"]
        arguments = value(function.get("parameters") or {}, text, {})
        return {
            "id": f"call_{index}",
            "type": "function",
            "function": {"name": function["name"], "arguments": json.dumps(arguments)},
        }


def value(schema: dict[str, Any], text: str, definitions: dict[str, Any]) -> Any:
    """Something that fits the schema."""
    definitions = definitions | schema.get("$defs", {})
    if "$ref" in schema:
        return value(definitions[schema["$ref"].rsplit("/", 1)[-1]], text, definitions)
    if "anyOf" in schema:
        return value(schema["anyOf"][0], text, definitions)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        needed = schema.get("required", list(schema.get("properties", {})))
        return {n: value(s, text, definitions) for n, s in schema.get("properties", {}).items() if n in needed}
    if kind == "array":
        return [value(schema.get("items", {"type": "string"}), text, definitions)]
    numbers = re.findall(r"\d+", text) or ["3"]
    words = re.findall(r"[^\x00-\x7f]+", text) or ["cats"]
    return {"integer": int(numbers[0]), "number": float(numbers[0]), "boolean": True}.get(kind, words[0])


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("langchain")
    with build(
        teacher=RuleModel(),
        student=RuleModel(),
        mode="cascade",
        prompt={"min_demonstrations": 0},
        bank={"url": f"sqlite:///{folder}/a.db"},
        retrieval={"embedder": "hashing", "index": "exact"},
    ) as built:
        yield built


class Shape:
    """What both suites are told."""

    _cascade: Any

    @pytest.fixture(autouse=True)
    def _given(self, cascade: Any) -> None:
        type(self)._cascade = cascade

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatAgentCascade

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"cascade": self._cascade}


class TestUnit(Shape, ChatModelUnitTests):
    """The suite without calls."""


class TestIntegration(Shape, ChatModelIntegrationTests):
    """The suite with calls."""

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True
