"""A tiny world for the examples, and a rule that solves it, so that they run without a key or a network."""

import random
import re

SYSTEM = """You work in a warehouse, by text. Answer with one thought and one action:
Thought: <what you think>
Action: <one command>

The commands are:
- go to {recep}
- take {obj} from {recep}
- put {obj} on {recep}"""

PLACES = ["shelf 1", "shelf 2", "shelf 3", "crate 1", "crate 2", "desk 1", "dock 1"]
THINGS = ["drill 1", "lamp 1", "rope 1", "scanner 1", "label 1"]


class Warehouse:
    """Bring one thing from where it lies to where it belongs."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.thing, self.target = rng.choice(THINGS), rng.choice(["desk 1", "dock 1"])
        self.lies = {thing: rng.choice(PLACES[:5]) for thing in THINGS}
        self.goal = f"bring the {self.thing[:-2]} to the {self.target[:-2]}"
        self.here = self.carried = ""
        self.steps = 0
        self.success = False

    def start(self) -> str:
        return f"You are in a hall with {', '.join(f'a {p}' for p in PLACES)}.\n\nYour task is to: {self.goal}"

    def act(self, answer: str) -> str:
        """Do what the answer's last line says; returns what is observed then."""
        self.steps += 1
        action = answer.rsplit("Action:", 1)[-1].strip()
        if (go := re.fullmatch(r"go to (\w+ \d)", action)) and go[1] in PLACES:
            self.here = go[1]
            seen = [thing for thing, place in self.lies.items() if place == self.here]
            return f"You arrive at {self.here}. There you see {', '.join(f'a {t}' for t in seen) or 'nothing'}."
        take = re.fullmatch(r"take (\w+ \d) from (\w+ \d)", action)
        if take and not self.carried and take[2] == self.here == self.lies.get(take[1]):
            self.carried = take[1]
            del self.lies[self.carried]
            return f"You take the {self.carried}."
        put = re.fullmatch(r"put (\w+ \d) on (\w+ \d)", action)
        if put and put[1] == self.carried and put[2] == self.here:
            self.lies[self.carried], self.carried = self.here, ""
            self.success = self.lies.get(self.thing) == self.target
            return f"You put the {put[1]} on the {self.here}."
        return "Nothing happens."

    @property
    def done(self) -> bool:
        return self.success or self.steps >= 20


def expert(messages: list[dict], sample: int) -> str:
    """What a careful worker does next: look from place to place, take the thing, bring it where it belongs."""
    text = "\n".join(m["content"] for m in messages[1:])
    thing, target = re.findall(r"bring the (\w+) to the (\w+)", text)[-1]
    observation = messages[-1]["content"]
    here = (re.findall(r"You arrive at (\w+ \d)", text) or [""])[-1]
    if f"You take the {thing} 1" in text:
        if here == f"{target} 1":
            return f"Thought: I am at the {target}. I put the {thing} here.\nAction: put {thing} 1 on {here}"
        return f"Thought: I carry the {thing}; it belongs at the {target}. I go there.\nAction: go to {target} 1"
    if f"a {thing} 1" in observation and here:
        return f"Thought: I see the {thing}. I take it.\nAction: take {thing} 1 from {here}"
    place = next((p for p in PLACES if f"You arrive at {p}" not in text), PLACES[0])
    return f"Thought: I look for the {thing}. I go to the {place[:-2]}.\nAction: go to {place}"
