"""Your own agent loop, wrapped. What agentcascade needs is marked; the rest is any agent.

python examples/01_wrap_your_loop.py
python examples/01_wrap_your_loop.py anthropic/claude-sonnet-4-5      # the same with a real teacher
"""

import sys
import tempfile
from pathlib import Path

from warehouse import SYSTEM, Warehouse, expert

import agentcascade

teacher = sys.argv[1] if len(sys.argv) > 1 else agentcascade.ScriptedModel(expert, name="scripted-expert")
database = f"sqlite:///{Path(tempfile.mkdtemp())}/agentcascade.db"  # your own would stay where it is

with agentcascade.build(
    teacher=teacher, mode="collect", actions={"format": "react"}, bank={"url": database}
) as cascade:
    world = Warehouse(seed=1)
    episode = cascade.sync_episode(goal=world.goal)  # <- one per run of your agent
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": world.start()}]
    while not world.done:
        answer = episode.complete(messages).choices[0].message.content  # <- instead of your client's own call
        print(answer.splitlines()[-1])
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": world.act(answer)}]
    banked = episode.finish(success=world.success)  # <- how it went; a success becomes a demonstration
    print(f"{'solved' if world.success else 'not solved'} in {world.steps} steps, banked: {banked}")
