"""A configuration's own templates, as a user writes them: in every prompt, with hostile texts in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import comparable, play

from agentcascade.assembly.cascade import build_all
from agentcascade.bench.suites.protocol import Task
from agentcascade.config.load import CascadeConfig
from agentcascade.prompts.quoting import FENCED
from tests.inline_pool import plays_here  # noqa: F401
from tests.prompt_recording import HOSTILE, record

TEMPLATES = {
    "demonstrations": "=== Seen before, up to $mark ===\n$examples\n$mark\n=== Now ===",
    "heading": "--- $number ---",
    "example": "Wanted: $goal (steps $first-$last/$length)\n$steps",
    "step": "* $observation => $action",
    "plan": "PLAN! It may cost $$5.",
    "planned": "Your way:\n$plan",
    "judge": "You judge this:\n$episode\nSo, $question",
    "episode": "[wanted] $goal [done]\n$steps",
    "verifier": "Same or not?\n$candidates",
    "memory": "You remember:\n$memory",
    "memory_system": "You are a memory.",
    "memory_filter": "Rate each passage.",
    "memory_summary": "At most $words words.",
    "memory_task": "$task\n\n$history\n\n$question",
    "shorten": "Shorter!\n$steps",
}
GONE = (
    *("# Examples", "# Your task\nContinue", "(steps 1 to", "Before you act: write the plan", "Your plan:"),
    *("Did the agent reach its goal? Judge only by what the observations show. Answer yes or no.\n\n<episode",),
    *("An agent works on this task", "# Memory\nFrom earlier", "You prepare the memory", "Rate how much each"),
    "Below are steps of a task",
)
"""Words of the default templates."""


async def test_a_file_of_templates_replaces_every_prompt(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(yaml.safe_dump(TEMPLATES), encoding="utf-8")
    sent = await record(tmp_path, "fenced", template=str(file))
    said = {model: [str(m["content"]) for r in requests for m in r] for model, requests in sent.items()}

    def holding(model: str, words: str) -> list[str]:
        return [text for text in said[model] if words in text]

    for text in (t for texts in said.values() for t in texts):
        assert not [words for words in GONE if words in text]
    quoted = FENCED.text(HOSTILE)
    shown = holding("student", "=== Seen before")
    assert len(shown) == len(sent["student"])
    for text in shown:
        assert "--- 1 ---\nWanted: " in text
        assert f"* {quoted} " in text, "what is put in is neither expanded nor changed"
        assert text.count("$examples") == text.count(HOSTILE[-9:]), "the template's own field is filled"
        mark = text.partition("up to ")[2].partition(" ===")[0]
        assert text.endswith(f"\n{mark}\n=== Now ===")
    assert holding("teacher", "PLAN! It may cost $5.")
    assert holding("teacher", f"Your way:\n{quoted}")
    assert all(t.startswith("You judge this:\n") and t.endswith("Answer yes or no.") for t in said["judge"])
    assert holding("judge", f"[wanted] {FENCED.text(f'find {HOSTILE}')} [done]\n* ")
    assert all(t.startswith("Same or not?\n") for t in said["verifier"])
    assert holding("student", "You remember:\n")
    assert {m["content"] for r in sent["memory"] for m in r if m["role"] == "system"} == {"You are a memory."}
    assert holding("memory", "Rate each passage.\n\n")
    assert holding("memory", "At most 300 words. Write one fact")
    (shorter,) = said["editor"]
    assert shorter.startswith('Shorter!\n{"goal"')
    assert json.loads(shorter.partition("\n")[2])["steps"]


AGENTS = TEMPLATES | {"alfworld": "Play, and spend no $$."}
TOLD = {"dollars", "teacher_dollars", "input"}
"""What the length of a prompt changes: tokens and their price."""


def decided(value: Any) -> Any:
    """A record without what hangs on the length of prompts."""
    if isinstance(value, dict):
        return {k: decided(v) for k, v in value.items() if k not in TOLD}
    return [decided(v) for v in value] if isinstance(value, list) else value


@pytest.mark.usefixtures("plays_here")
def test_a_stand_in_decides_the_same_whatever_the_templates_say(tmp_path: Path) -> None:
    default = comparable(play(tmp_path / "default", workers=1, seeds=(0,)))
    own = comparable(play(tmp_path / "own", workers=1, seeds=(0,), prompt={"template": AGENTS}))
    assert decided(own) == decided(default)
    assert own != default, "the prompts have other lengths"
    assert any(d["answered_by"] == "student" and d["demonstrations"] for r in own for d in r["decisions"])


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.usefixtures("plays_here")
def test_alfworlds_stand_ins_play_the_same_whatever_the_templates_say(tmp_path: Path) -> None:
    pytest.importorskip("alfworld")
    from agentcascade.envs.alfworld.dataset import load_games

    games = [Task(g.id, str(g.path), g.task_type) for g in load_games("valid_unseen", 4, 6, root=tmp_path / "games")]
    settings: dict[str, Any] = {
        "policies": ("cascade",),
        "seeds": (0,),
        "demos": games[1:],
        "tasks": games[:1],
        "workers": 1,
        "suite": "agentcascade.bench.suites.alfworld:AlfworldSuite",
        "teacher": "offline/expert",
        "student": {"name": "offline/imitator"},
    }
    default, own = (
        comparable(play(tmp_path / str(n), **settings, prompt={"template": texts}))
        for n, texts in enumerate(({}, AGENTS))
    )
    assert decided(own) == decided(default)
    assert own != default
    assert all(record["success"] and not record["error"] for record in own)


async def test_cascades_of_one_configuration_have_their_own(tmp_path: Path) -> None:
    both = CascadeConfig.load(
        mode="student",
        student={"name": "agentcascade.models.scripted:ScriptedModel", "options": {"script": ["a"]}},
        retrieval={"k": 0, "embedder": "hashing"},
        memory={"enabled": True},
        bank={"url": f"sqlite:///{tmp_path}/a.db"},
        prompt={"template": {"judge": "Base: $episode"}},
        cascades={
            "own": {"prompt": {"template": {"planned": "Own: $plan"}}},
            "base": {},
            "plain": {"prompt": {"quoting": "plain"}},
            "twin": {},
        },
    )
    made, resources = build_all(both)
    try:
        memories = {name: id(c.context.memory) for name, c in made.items()}
        renders: dict[str, Any] = {
            name: (c.context.prompts.render("judge", episode="e"), c.context.prompts.render("planned", plan="p"))
            for name, c in made.items()
            if name in ("own", "base")
        }
    finally:
        resources.close()
    assert renders == {"own": ("Base: e", "Own: p"), "base": ("Base: e", "Your plan:\np")}
    assert memories["twin"] == memories["base"]
    assert len({*memories.values()}) == 3, "a memory asks its models in the words of its cascade"
