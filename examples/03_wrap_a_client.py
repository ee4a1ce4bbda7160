"""An agent on the OpenAI SDK that knows nothing of agentcascade, rolled out: collect, shadow, cascade.

    python examples/03_wrap_a_client.py
    python examples/03_wrap_a_client.py gpt-4.1 gpt-4.1-mini       # your key, real models

Without names the client is answered on the spot: the teacher is a rule, the student is offline/imitator.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

import openai
from offline_client import offline_client
from warehouse import SYSTEM, Warehouse

import agentcascade


def agent(client: openai.OpenAI, model: str, world: Warehouse) -> list:
    """Somebody's agent, as it was before."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": world.start()}]
    answers = []
    while not world.done:
        answer = client.chat.completions.create(model=model, messages=messages)
        answers.append(answer)
        text = answer.choices[0].message.content
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": world.act(text)}]
    return answers


def main(client: openai.OpenAI, teacher: str, student: str) -> None:
    url = f"sqlite:///{Path(tempfile.mkdtemp())}/agentcascade.db"
    for mode, seeds in (("collect", range(20)), ("shadow", range(50, 55)), ("cascade", range(100, 110))):
        wrapped = agentcascade.wrap(
            client, student=f"client/{student}", mode=mode, bank={"url": url}, actions={"format": "react"}
        )
        solved, who = 0, Counter()
        with wrapped.agentcascade as control:
            for seed in seeds:
                world = Warehouse(seed)
                with control.episode(id=f"{mode}-{seed}", goal=world.goal) as running:
                    answers = agent(wrapped, teacher, world)
                control.finish(running.id, success=world.success)
                solved += world.success
                who.update(a.agentcascade.answered_by for a in answers)
        share = who["teacher"] / who.total()
        print(f"{mode}: {solved} of {len(seeds)} solved, {share:.0%} of {who.total()} steps by the teacher")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(openai.OpenAI(), sys.argv[1], sys.argv[2])
    else:
        main(offline_client(), "expert", "imitator")
