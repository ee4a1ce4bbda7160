import pytest

from agentcascade import conversation
from agentcascade.actions.base import AutoActions, RegexActions
from agentcascade.errors import InvalidRequest


def test_a_react_conversation_is_read_into_steps():
    situation = conversation.read(
        [
            {"role": "system", "content": "rules"},
            {"role": "user", "content": "put a mug on the desk"},
            {"role": "assistant", "content": "Thought: I look.\nAction: look"},
            {"role": "user", "content": "a mug 1"},
        ],
        RegexActions(),
    )
    assert situation.goal == "put a mug on the desk"
    (step,) = situation.history
    assert (step.observation, step.reasoning, step.action) == ("put a mug on the desk", "I look.", "look")
    assert situation.observation == "a mug 1"
    assert situation.step == 1


def test_tool_results_are_the_observation():
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
    situation = conversation.read(
        [
            {"role": "user", "content": "find it"},
            {"role": "assistant", "content": "looking", "tool_calls": [call, {**call, "id": "2"}]},
            {"role": "tool", "tool_call_id": "1", "content": "one"},
            {"role": "tool", "tool_call_id": "2", "content": "two"},
        ],
        AutoActions(),
        goal="given",
    )
    assert situation.goal == "given"
    assert situation.history[0].action == 'find({"q":1}); find({"q":1})'
    assert situation.observation == "one\ntwo"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is empty"),
        ([{"role": "system", "content": "x"}], "only system messages"),
        ([{"content": "x"}], r"messages\[0\] needs a role"),
        (["x"], r"messages\[0\] needs a role"),
        ([{"role": "user", "content": "x"}, {"role": "narrator", "content": "x"}], r"messages\[1\]"),
    ],
)
def test_unusable_messages_are_named(messages, message):
    with pytest.raises(InvalidRequest, match=message):
        conversation.check(messages)
