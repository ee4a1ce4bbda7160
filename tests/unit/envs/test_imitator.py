"""The imitator: it copies by analogy from its prompt, and knows nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentcascade.envs.alfworld.agent import SYSTEM
from agentcascade.envs.offline.analogy import candidates
from agentcascade.envs.offline.imitator import Imitator
from agentcascade.envs.offline.prompt_parser import parse_prompt
from agentcascade.envs.offline.step_features import releasing_verbs
from agentcascade.errors import InvalidRequest
from agentcascade.models.tokens import count_messages
from agentcascade.prompts import demonstrations
from agentcascade.protocols import ChatModel
from agentcascade.types import Completion, Demonstration, Message, Step


def words(text: str) -> int:
    return len(text.split())


def demonstration(goal: str, *steps: tuple[str, str, str], start: int = 0, length: int = 0) -> Demonstration:
    """Of (observation, thought, action)s; `start` steps are not shown."""
    return Demonstration(
        trajectory=f"tr {goal} {start}",
        goal=goal,
        steps=tuple(Step(observation=o, reasoning=t, action=a) for o, t, a in steps),
        start=start,
        match=start,
        length=length or start + len(steps),
        score=1.0,
    )


def room(places: str, goal: str) -> str:
    return f"You are in the middle of a room. Looking quickly around you, you see {places}.\n\nYour task is to: {goal}"


MUG = demonstration(
    "put a mug in desk.",
    (
        room("a cabinet 1, a countertop 1, and a desk 1", "put a mug in desk."),
        "I need the mug; it may be at the countertop. I go to the countertop.",
        "go to countertop 1",
    ),
    (
        "You arrive at countertop 1. On the countertop 1, you see a pan 1.",
        "I need the mug; it may be at the cabinet. I go to the cabinet.",
        "go to cabinet 1",
    ),
    ("You arrive at cabinet 1. The cabinet 1 is closed.", "The cabinet is closed. I open it.", "open cabinet 1"),
    (
        "You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 1.",
        "I see the mug I need. I take it.",
        "take mug 1 from cabinet 1",
    ),
    (
        "You pick up the mug 1 from the cabinet 1.",
        "I carry the mug; it belongs at the desk. I go to the desk.",
        "go to desk 1",
    ),
    (
        "You arrive at desk 1. On the desk 1, you see nothing.",
        "I am at the desk. I put the mug here.",
        "move mug 1 to desk 1",
    ),
)
BOOK = room("a drawer 1, a drawer 2, a shelf 1, and a sidetable 1", "put a book in shelf.")
TURNS = [
    ("go to drawer 1", "You arrive at drawer 1. The drawer 1 is closed."),
    ("open drawer 1", "You open the drawer 1. The drawer 1 is open. In it, you see a pen 3, and a book 2."),
    ("take book 2 from drawer 1", "You pick up the book 2 from the drawer 1."),
    ("go to shelf 1", "You arrive at shelf 1. On the shelf 1, you see a vase 1."),
]


def prompt(
    turns: Sequence[tuple[str, str]] = (), *, shown: Sequence[Demonstration] = (MUG,), first: str = BOOK
) -> list[Message]:
    """What a student is sent in its own task, after (action, observation) `turns`."""
    messages: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": first}]
    for action, observation in turns:
        messages.append({"role": "assistant", "content": f"Thought: I go on.\nAction: {action}"})
        messages.append({"role": "user", "content": observation})
    return demonstrations.build(messages, shown, budget=10**6, count=words).messages


def ask(messages: Sequence[Message], **options: Any) -> Completion:
    model = Imitator(words, lambda usage: Decimal(usage.prompt + 1000 * usage.output))
    return asyncio.run(model.complete(messages, **options))


def texts(messages: Sequence[Message], **options: Any) -> list[str]:
    return [m["content"] for m in ask(messages, **options).messages]


def action(messages: Sequence[Message], **options: Any) -> str:
    return texts(messages, **options)[0].partition("\nAction: ")[2]


def test_it_is_a_chat_model_that_cannot_be_bound_to_a_world() -> None:
    model = Imitator(words, lambda usage: None)
    assert isinstance(model, ChatModel)
    assert not hasattr(model, "bind")
    assert model.supports_n


@pytest.mark.parametrize("temperature", [None, 0.0, 0.1, 1.0])
def test_the_same_request_gives_the_same_answers(temperature: float | None) -> None:
    first = texts(prompt(TURNS[:1]), n=5, seed=3, temperature=temperature)
    ask(prompt(TURNS[:2]), n=2)  # what was asked in between leaves no trace
    assert texts(prompt(TURNS[:1]), n=5, seed=3, temperature=temperature) == first


def test_another_process_gives_the_same_answers_whatever_its_hashes() -> None:
    code = (
        "import asyncio, json, sys; from agentcascade.envs.offline.imitator import Imitator\n"
        "answer = Imitator(len, lambda usage: None).complete(json.load(sys.stdin), n=20, seed=3, temperature=2)\n"
        "print(json.dumps([m['content'] for m in asyncio.run(answer).messages]))"
    )
    messages = prompt(TURNS[:1], shown=())
    for seed in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(messages),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        assert json.loads(output) == texts(messages, n=20, seed=3, temperature=2)


def test_draws_are_independent_and_bill_the_prompt_once() -> None:
    messages = prompt(TURNS[:1])
    one, three = ask(messages, temperature=1, seed=1), ask(messages, n=3, temperature=1, seed=1)
    assert len(three.messages) == len(three.finish_reasons) == 3
    assert three.usage.prompt == one.usage.prompt == count_messages(messages, words)
    assert three.usage.output == sum(words(m["content"]) for m in three.messages)
    assert three.messages[0] == one.messages[0]
    assert three.dollars == three.usage.prompt + 1000 * three.usage.output
    assert three.model == "offline/imitator"
    assert len(set(texts(messages, n=50, temperature=2, seed=1))) > 3


def test_in_whatever_requests_they_come_the_draws_are_the_same() -> None:
    messages = prompt(TURNS[:1])
    at_once = texts(messages, n=8, temperature=2, seed=5)
    one_by_one = [text for i in range(8) for text in texts(messages, n=1, temperature=2, seed=5 + i)]
    in_waves = texts(messages, n=3, temperature=2, seed=5) + texts(messages, n=5, temperature=2, seed=8)
    assert at_once == one_by_one == in_waves
    assert len(set(at_once)) > 1


def test_an_unknown_price_stays_unknown() -> None:
    assert asyncio.run(Imitator(words, lambda usage: None).complete(prompt())).dollars is None


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_at_temperature_zero_it_always_says_what_fits_best(seed: int | None) -> None:
    messages = prompt(TURNS[:1], shown=())
    best, second = candidates(parse_prompt(messages))[:2]
    assert best.action != second.action
    assert texts(messages, n=4, seed=seed) == [f"Thought: {best.thought}\nAction: {best.action}"] * 4
    assert texts(messages, n=4, seed=seed, temperature=0.0) == texts(messages, n=4)


def test_at_temperature_one_seeds_differ_and_good_fits_are_drawn_more_often() -> None:
    unsure, sure = prompt(TURNS[:1], shown=()), prompt(TURNS[:2])
    drawn = {action(unsure, seed=seed, temperature=1) for seed in range(20)}
    assert len(drawn) > 5
    assert len({action(unsure, seed=seed, temperature=0.1) for seed in range(20)}) > 1
    best = action(sure)
    shares = [
        sum(action(sure, seed=seed, temperature=temperature) == best for seed in range(60)) / 60
        for temperature in (0.1, 1, 2)
    ]
    assert shares[0] == 1.0 > shares[1] > shares[2] > 0


@pytest.mark.parametrize(
    ("done", "expected", "thought"),
    [
        (1, "open drawer 1", "The drawer is closed. I open it."),
        (2, "take book 2 from drawer 1", "I see the book I need. I take it."),
        (3, "go to shelf 1", "I carry the book; it belongs at the shelf. I go to the shelf."),
        (4, "move book 2 to shelf 1", "I am at the shelf. I put the book here."),
    ],
)
def test_it_does_as_the_demonstration_with_its_own_things(done: int, expected: str, thought: str) -> None:
    assert texts(prompt(TURNS[:done]), n=3, temperature=0.1) == [f"Thought: {thought}\nAction: {expected}"] * 3


def test_what_it_does_comes_from_the_demonstration() -> None:
    """The same situations without one, or with one that does something else, end otherwise."""
    assert action(prompt(TURNS[:2], shown=())) != "take book 2 from drawer 1"
    odd = MUG.model_copy(
        update={"steps": tuple(s.model_copy(update={"action": s.action.replace("take", "fetch")}) for s in MUG.steps)}
    )
    assert action(prompt(TURNS[:2], shown=[odd])) == "fetch book 2 from drawer 1"


def test_where_the_thing_is_not_it_looks_elsewhere_and_in_every_place_once() -> None:
    first = BOOK.replace("drawer", "cabinet")
    turns: list[tuple[str, str]] = []
    for place in ("sidetable 1", "cabinet 1", "cabinet 2"):
        turns.append((f"go to {place}", f"You arrive at {place}. On the {place}, you see a pen 1."))
    assert action(prompt(turns[:1], first=first)) == "go to cabinet 1"
    assert action(prompt(turns[:2], first=first)) == "go to cabinet 2"
    places = [c.action for c in candidates(parse_prompt(prompt(turns, first=first))) if c.action.startswith("go to ")]
    assert places[0] == "go to shelf 1"  # the only one it has not been to


def test_it_goes_back_to_where_it_saw_the_next_thing() -> None:
    two = demonstration(
        "put two mug in desk.",
        ("You arrive at desk 1. On the desk 1, you see nothing.", "I put the mug here.", "move mug 1 to desk 1"),
        ("You move the mug 1 to the desk 1.", "I need another mug. I go to the cabinet.", "go to cabinet 1"),
        ("You arrive at cabinet 1. On the cabinet 1, you see a mug 2.", "I take it.", "take mug 2 from cabinet 1"),
        start=4,
    )
    first = BOOK.replace("put a book", "put two book")
    for drawer, other in (("drawer 1", "drawer 2"), ("drawer 2", "drawer 1")):
        turns = [
            (f"go to {other}", f"You arrive at {other}. On the {other}, you see a pen 1."),
            (f"go to {drawer}", f"You arrive at {drawer}. On the {drawer}, you see a book 1, and a book 4."),
            (f"take book 4 from {drawer}", f"You pick up the book 4 from the {drawer}."),
            ("go to shelf 1", "You arrive at shelf 1. On the shelf 1, you see nothing."),
            ("move book 4 to shelf 1", "You move the book 4 to the shelf 1."),
        ]
        assert action(prompt(turns, shown=[two], first=first)) == f"go to {drawer}"


def test_an_action_that_just_failed_is_not_tried_again() -> None:
    failed = (*TURNS[:2], ("take book 2 from drawer 1", "Nothing happens."))
    assert action(prompt(failed)) != "take book 2 from drawer 1"


INVENTED = demonstration(
    "bring two mug to desk.",
    ("You reach cabinet 1. There is a mug 1.", "There is a mug.", "grab mug 1 at cabinet 1"),
    ("You hold the mug 1.", "The sinkbasin makes it wet.", "walk to sinkbasin 1"),
    ("You reach sinkbasin 1. There is nothing.", "I wet the mug.", "wet mug 1 at sinkbasin 1"),
    ("The mug 1 is wet.", "It belongs on the desk.", "walk to desk 1"),
    ("You reach desk 1. There is nothing.", "I leave the mug here.", "leave mug 1 at desk 1"),
    ("The mug 1 is on desk 1.", "I need another mug.", "walk to countertop 1"),
    ("You reach countertop 1. There is a mug 2.", "There is a mug.", "grab mug 2 at countertop 1"),
    ("You hold the mug 2.", "It belongs on the desk.", "walk to desk 1"),
    ("You reach desk 1. There is a mug 1.", "I leave the mug here.", "leave mug 2 at desk 1"),
    start=1,
)


def test_it_learns_from_the_demonstrations_which_verbs_release_a_thing() -> None:
    def releasing(*shown: Demonstration) -> frozenset[str]:
        return releasing_verbs(parse_prompt(prompt(shown=shown)).examples)

    assert releasing(INVENTED) == {"leave at"}
    assert releasing(MUG) == {"move to"}
    assert releasing(MUG, INVENTED) == {"leave at", "move to"}
    wet = demonstration("wet a mug.", ("You reach sinkbasin 1.", "I wet the mug.", "wet mug 1 at sinkbasin 1"), start=5)
    assert releasing(wet) == {"wet at"}
    assert releasing(wet, INVENTED) == {"leave at"}  # after wetting it, that one kept the mug
    unfinished = MUG.model_copy(update={"length": MUG.length + 3})  # its last action may be the last one or not
    assert releasing(unfinished) == frozenset()


def test_with_the_thing_in_hand_it_goes_to_the_goals_place_and_with_empty_hands_it_does_not() -> None:
    first = "There are a chest 1, a crate 1, and a rack 1.\n\nYour task is to: bring two book to rack."
    turns = [
        ("walk to chest 1", "You reach chest 1. There is a book 2."),
        ("grab book 2 at chest 1", "You hold the book 2."),
        ("walk to rack 1", "You reach rack 1. There is nothing."),
        ("leave book 2 at rack 1", "The book 2 is on rack 1."),
    ]

    def best(done: int) -> str:
        return action(prompt(turns[:done], shown=[INVENTED], first=first))

    assert [best(1), best(2), best(3)] == ["grab book 2 at chest 1", "walk to rack 1", "leave book 2 at rack 1"]
    assert best(4) == "walk to crate 1"


COMMANDS = {line[2:].split(" {")[0] for line in SYSTEM.splitlines() if line.startswith("- ")}


@pytest.mark.parametrize("done", range(5))
def test_without_demonstrations_it_answers_with_commands_of_the_instructions(done: int) -> None:
    messages = prompt(TURNS[:done], shown=())
    shown = " ".join(m["content"] for m in messages[1:])
    for text in texts(messages, n=40, temperature=2):
        said = text.partition("\nAction: ")[2]
        assert any(said == verb or said.startswith(f"{verb} ") for verb in COMMANDS)
        for name in ("drawer", "shelf", "sidetable", "book", "pen", "vase"):
            for number in range(1, 5):
                assert f"{name} {number}" not in said or f"{name} {number}" in shown


def test_without_instructions_or_demonstrations_it_looks_around() -> None:
    assert action([{"role": "user", "content": "hello"}]) == "look"


def test_no_messages_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one user message"):
        ask([])


def test_parts_of_a_content_read_like_one_text() -> None:
    """Demonstrations come as a part of their own where the user's message has parts."""
    parts = prompt(TURNS[:2], shown=())
    parts[1] = {"role": "user", "content": [{"type": "text", "text": parts[1]["content"]}, {"type": "image_url"}]}
    built = demonstrations.build(parts, [MUG], budget=10**6, count=words).messages
    assert [part["type"] for part in built[1]["content"]] == ["text", "image_url", "text"]
    assert action(built) == "take book 2 from drawer 1"


PIECES = st.sampled_from(
    [
        *("mug 1", "desk 2", "\n", " ", "Nothing happens.", "Your task is to: ", "(steps 1 to 2 of 3)\n"),
        *("Action: ", "Action: go to mug 1", "Thought: x", "Observation: ", "Goal: put a mug in desk\n"),
        *("- go to {recep}\n", "- take {obj} from {recep}\n", "\n## Example 1\n"),
        *(f"\n{demonstrations.HEADER}\n", demonstrations.FOOTER),
        "\n## Example 2\nGoal: mug\n(steps 1 to 1 of 1)\nObservation: mug 1\nAction: put mug 1 in desk 1\n",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join)
PARTS = st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]), "text": TEXTS}), max_size=3)
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
CONVERSATIONS = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": TEXTS | PARTS | st.none()}), min_size=1, max_size=6
)


@settings(suppress_health_check=list(HealthCheck))
@given(CONVERSATIONS, st.sampled_from([None, 0.0, 0.1, 2.0]))
def test_any_conversation_is_answered(messages: list[Message], temperature: float | None) -> None:
    said = texts(messages, n=2, temperature=temperature)
    assert len(said) == 2
    assert all(text.startswith("Thought: ") and "\nAction: " in text for text in said)


@given(st.text(), st.text(), st.text())
def test_any_text_in_its_place_is_answered(system: str, user: str, answer: str) -> None:
    messages = [("system", system), ("user", user), ("assistant", answer), ("user", user)]
    assert texts([{"role": role, "content": text} for role, text in messages])


def test_a_demonstrated_action_that_names_a_thing_twice_is_survived() -> None:
    steps = ((BOOK, "", "go to drawer 1"), ("You arrive at drawer 1.", "", "rub mug 1 against mug 1"))
    assert action(prompt(TURNS[:1], shown=[demonstration("rub a mug.", *steps)]))


def test_a_number_beyond_all_measure_is_survived() -> None:
    assert action([{"role": "user", "content": f"mug {'1' * 5000}"}]) == "look"
