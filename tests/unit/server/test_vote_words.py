"""Votes side by side in words: nobody has the most of a tie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentcascade.ledger.episode_pages import EpisodeStep
from agentcascade.server.dashboard.votes import rounds_of, teachers_ballot

VOTES = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 4), min_size=1)


def step(votes: dict[str, int], teacher: str | None = None) -> EpisodeStep:
    decision: Any = SimpleNamespace(votes=votes, invalid_samples=0, action=teacher, answered_by="teacher")
    drawn = tuple(SimpleNamespace(action=a, weight=n, invalid=None, member="") for a, n in votes.items())
    made: dict[str, Any] = {"decision": decision, "struck": {}, "rungs": (), "kind": "shadow", "drawn": drawn}
    return EpisodeStep.model_construct(**made, verification=None, teacher_action=teacher)


@given(VOTES)
def test_a_tie_is_called_one_wherever_votes_stand(votes: dict[str, int]) -> None:
    leading = {action for action in votes if votes[action] == max(votes.values())}
    for shown in rounds_of(step(votes)):
        for ballot in shown.ballots:
            says = "differs"
            if ballot.action in leading:
                says = "agrees" if len(votes) == 1 else "most votes" if len(leading) == 1 else "tied"
            assert (ballot.says, ballot.agrees) == (says, says in ("agrees", "most votes"))
    for action in [*votes, "none of them"]:
        told = teachers_ballot(step(votes, action))
        assert told is not None
        assert told[2] == (action in leading)
        assert ("tied" in told[1]) == (len(leading) > 1)
