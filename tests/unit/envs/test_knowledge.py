"""What the expert may know: the places of the first observation, and what it has been told since."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from agentcascade.envs.alfworld.knowledge import Knowledge

FIRST = (
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, a countertop 1, "
    "a countertop 10, a countertop 9, a desk 1, and a microwave 1.\n\nYour task is to: put a hot mug in desk."
)
ONE_MUG = """(define (problem p) (:domain alfred) (:objects mug_bar_1 - object MugType - otype PanType - otype)
(:init (objectType pan_bar_1 PanType) (objectType mug_bar_1 MugType))
(:goal (and (exists (?r - receptacle) (exists (?o - object) (and (heatable ?o) (objectType ?o MugType)
  (receptacleType ?r DeskType) (isHot ?o) (inReceptacle ?o ?r))))))"""
TWO_MUGS = """(define (problem p) (:init (objectType pan_bar_1 PanType))
(:GOAL (and (exists (?r - receptacle) (exists (?o1 - object) (and (objectType ?o1 MugType) (receptacleType ?r DeskType)
  (inReceptacle ?o1 ?r) (exists (?o2 - object) (and (not (= ?o1 ?o2)) (objectType ?o2 MugType)
  (receptacleType ?r DeskType) (inReceptacle ?o2 ?r) (objectType ?o1 MugType))))))))"""
BOOK_AND_LAMP = """(define (problem p) (:goal (and (exists (?ot - object ?r - receptacle ?a - agent ?l - location)
  (and (objectType ?ot DeskLampType) (toggleable ?ot) (isToggled ?ot)))
  (exists (?o - object ?a - agent) (and (objectType ?o BookType) (holds ?a ?o))))))"""


class Name(NamedTuple):
    name: str


class Fact(NamedTuple):
    name: str
    arguments: list[Name]


def fact(name: str, *arguments: str) -> Fact:
    return Fact(name, [Name(a) for a in arguments])


RULES = [
    fact("openable", "cabinet_bar_1"),
    fact("openable", "cabinet_bar_2"),
    fact("openable", "microwave_bar_1"),
    fact("cancontain", "cabinettype", "mugtype"),
    fact("cancontain", "countertoptype", "mugtype"),
    fact("cancontain", "desktype", "booktype"),
]


def belief(problem: str = ONE_MUG, *told: tuple[str, str]) -> Knowledge:
    made = Knowledge(FIRST, problem)
    for command, feedback in told:
        made.observe(command, feedback)
    return made


def test_it_needs_what_the_goal_speaks_of_and_nothing_of_the_rest() -> None:
    assert belief(ONE_MUG).needed == {"mug": 1}
    assert belief(TWO_MUGS).needed == {"mug": 2}
    assert belief(BOOK_AND_LAMP).needed == {"desklamp": 1, "book": 1}


def test_things_are_missing_until_enough_of_their_kind_were_seen() -> None:
    mind = belief(TWO_MUGS)
    assert (mind.seen, mind.missing()) == (set(), "mug")
    mind.observe("go to desk 1", "You arrive at desk 1. On the desk 1, you see a mug 2, and a mugtree 1.")
    assert mind.missing() == "mug"
    mind.observe("look", "You are facing the desk 1. Next to it, you see a mug 2.")  # the same one again
    assert mind.missing() == "mug"
    mind.observe("open cabinet 1", "You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 1.")
    assert mind.missing() == ""
    assert mind.seen == {"desk 1", "mug 2", "mugtree 1", "cabinet 1", "mug 1"}


def test_of_several_kinds_the_one_not_seen_is_missing() -> None:
    mind = belief(BOOK_AND_LAMP, ("go to desk 1", "You arrive at desk 1. On the desk 1, you see a desklamp 1."))
    assert mind.missing() == "book"
    mind = belief(BOOK_AND_LAMP, ("go to desk 1", "You arrive at desk 1. On the desk 1, you see a book 3."))
    assert mind.missing() == "desklamp"


def test_what_nothing_came_of_teaches_nothing() -> None:
    mind = belief(ONE_MUG, ("take mug 1 from desk 1", "Nothing happens."))
    assert (mind.seen, mind.missing()) == (set(), "mug")
    assert mind.search("mug", RULES) == belief().search("mug", RULES)


def test_it_looks_first_where_nothing_must_be_opened_in_the_order_of_the_numbers() -> None:
    mind = belief()
    went = []
    while search := mind.search("mug", RULES):
        (command,) = search
        place = command.removeprefix("go to ").removeprefix("open ")
        if command.startswith("open"):
            mind.observe(command, f"You open the {place}. The {place} is open. In it, you see nothing.")
        elif place.startswith("cabinet"):
            mind.observe(command, f"You arrive at {place}. The {place} is closed.")
        else:
            mind.observe(command, f"You arrive at {place}. On the {place}, you see nothing.")
        went.append(command)
    assert went[:3] == ["go to countertop 1", "go to countertop 9", "go to countertop 10"]
    assert went[3:7] == ["go to cabinet 1", "open cabinet 1", "go to cabinet 2", "open cabinet 2"]
    assert went[7:] == ["go to desk 1", "go to microwave 1"]  # where no mug belongs, and last


def test_where_a_kind_fits_is_the_rules_of_the_house() -> None:
    assert belief().search("book", RULES) == ["go to desk 1"]
    assert belief().search("mug", []) == ["go to cabinet 1"]  # nothing known: the first by name


def test_a_closed_place_is_opened_before_going_on() -> None:
    mind = belief(ONE_MUG, ("go to cabinet 2", "You arrive at cabinet 2. The cabinet 2 is closed."))
    assert mind.search("mug", RULES) == ["open cabinet 2"]
    mind.observe("look", "You are facing the cabinet 2. Next to it, you see nothing.")
    assert mind.search("mug", RULES) == ["open cabinet 2"]
    mind.observe("go to countertop 1", "You arrive at countertop 1. On the countertop 1, you see a pan 1.")
    assert mind.search("mug", RULES) == ["go to countertop 9"]  # it left, and the cabinet is still to be searched
    for place in ("countertop 9", "countertop 10"):
        mind.observe(f"go to {place}", f"You arrive at {place}. On the {place}, you see nothing.")
    mind.observe("go to cabinet 1", "You arrive at cabinet 1. The cabinet 1 is open. In it, you see nothing.")
    assert mind.search("mug", RULES) == ["go to cabinet 2"]


NOTHING = "Nothing happens."


@pytest.mark.parametrize(
    "told",
    [
        [("open cabinet 1", "You open the cabinet 1. The cabinet 1 is open. In it, you see a pan 1.")],
        [("open cabinet 1", NOTHING), ("examine cabinet 1", "The cabinet 1 is open. In it, you see a pan 1.")],
        [("open cabinet 1", NOTHING), ("examine cabinet 1", NOTHING)],
    ],
)
def test_two_places_at_one_spot_are_both_searched(told: list[tuple[str, str]]) -> None:
    """Going to where one stands does nothing; then the place is here, and has to be opened, or is open."""
    mind = belief(ONE_MUG, ("go to cabinet 1", NOTHING))
    for command, feedback in told:
        assert mind.search("mug", RULES) == [command]
        mind.observe(command, feedback)
    assert mind.search("mug", RULES) == ["go to countertop 1"]
    for place in ("countertop 1", "countertop 9", "countertop 10"):
        mind.observe(f"go to {place}", f"You arrive at {place}. On the {place}, you see nothing.")
    assert mind.search("mug", RULES) == ["go to cabinet 2"]


def test_what_cannot_be_opened_is_examined_where_two_places_are_at_one_spot() -> None:
    """Two burners of a stove: nothing is closed there, and the pan on the second is not seen from the first."""
    mind = belief(ONE_MUG, ("go to countertop 9", "You arrive at countertop 9. On the countertop 9, you see nothing."))
    mind.observe("go to countertop 10", NOTHING)
    assert mind.search("mug", RULES) == ["examine countertop 10"]
    mind.observe("examine pan 1", "There's nothing special about pan 1.")
    assert mind.search("mug", RULES) == ["examine countertop 10"]
    mind.observe("examine countertop 10", "On the countertop 10, you see a mug 3.")
    assert mind.missing() == ""
    mind = belief(ONE_MUG, ("go to cabinet 1", NOTHING), ("examine cabinet 1", "The cabinet 1 is closed."))
    assert mind.search("mug", RULES) == ["open cabinet 1"]


def test_a_students_impossible_commands_mislead_nobody() -> None:
    """In a cascade the student moves too, and names places that are elsewhere or nowhere."""
    told = [("open countertop 1", "Nothing happens."), ("go to spaceship 1", "Nothing happens.")]
    assert belief(ONE_MUG, *told[:1]).search("mug", RULES) == ["go to countertop 1"]
    assert belief(ONE_MUG, *told[1:]).search("mug", RULES) == ["go to countertop 1"]
    searched = ("go to cabinet 1", "You arrive at cabinet 1. The cabinet 1 is open. In it, you see nothing.")
    again = ("go to cabinet 1", "Nothing happens.")
    assert belief(ONE_MUG, searched, again).search("mug", RULES) == ["go to countertop 1"]


def test_when_every_place_was_searched_there_is_nowhere_left() -> None:
    mind = belief()
    for place in ("cabinet 1", "cabinet 2", "countertop 1", "countertop 9", "countertop 10", "desk 1", "microwave 1"):
        mind.observe(f"go to {place}", f"You arrive at {place}. The {place} is open. In it, you see nothing.")
    assert mind.search("mug", RULES) == []
    assert mind.missing() == "mug"


def test_facts_of_unseen_objects_are_not_known() -> None:
    names = {"mug_bar_1": "mug 1", "pan_bar_1": "pan 1"}
    facts = [
        fact("inreceptacle", "mug_bar_1", "desk_bar_1"),
        fact("inreceptacle", "pan_bar_1", "desk_bar_1"),
        fact("receptacletype", "desk_bar_1", "desktype"),  # of no object at all
        fact("on", "mug_bar_1", "pan_bar_1"),
    ]
    mind = belief(ONE_MUG)
    assert mind.known(facts, names) == [facts[2]]
    mind.observe("go to desk 1", "You arrive at desk 1. On the desk 1, you see a mug 1.")
    assert mind.known(facts, names) == [facts[0], facts[2]]
    mind.observe("look", "You are facing the desk 1. Next to it, you see a pan 1.")
    assert mind.known(iter(facts), names) == facts
