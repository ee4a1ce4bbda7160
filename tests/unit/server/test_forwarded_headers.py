import pytest

from agentcascade.errors import InvalidKey
from agentcascade.server.passthrough import forwarded


def test_what_a_clients_sdk_tells_itself_is_not_forwarded() -> None:
    """Ours would hand on a raw response in place of an answer: langchain-openai asks for one each time."""
    sent = {"authorization": "Bearer sk-mine", "x-stainless-lang": "python", "x-stainless-raw-response": "true"}
    told = {name.lower() for name in forwarded(sent, "chat")}
    assert told == {"authorization", "x-stainless-lang"}


def test_a_request_without_a_key_of_the_provider_is_refused() -> None:
    with pytest.raises(InvalidKey):
        forwarded({"x-stainless-lang": "python"}, "responses")
