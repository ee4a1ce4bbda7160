"""A ReAct agent that writes code for AppWorld. What answers it is the caller's business."""

from __future__ import annotations

from agentcascade.actions.python import PythonActions
from agentcascade.envs import react
from agentcascade.envs.react import Complete, EpisodeResult
from agentcascade.errors import InvalidAction
from agentcascade.messages import text_of
from agentcascade.protocols import Environment
from agentcascade.types import Message

SYSTEM = """\
You do everyday tasks for your supervisor, by writing Python code that uses the supervisor's apps.

Each turn you see what your last code printed. Answer with one thought and one block of code, in exactly this form:
Thought: <what you think>
Action:
```python
<code>
```

Apps are called as apis.<app>.<api>(...), arguments by name. Variables live on from block to block. You know no API by
heart: these calls tell you what there is.
print(apis.api_docs.show_app_descriptions())
print(apis.api_docs.show_api_descriptions(app_name='...'))
print(apis.api_docs.show_api_doc(app_name='...', api_name='...'))

The supervisor's account passwords, addresses and cards are in the app supervisor. Lists come in pages: go through all
of them. Only what is printed is seen. Do no more than the task asks, ask nobody, and write no code that only pretends.
When the task is done, call apis.supervisor.complete_task(); where it asks a question, complete_task(answer=...) with
the bare answer: a name, a number, yes or no."""


async def play(environment: Environment, task: str, complete: Complete, *, max_steps: int = 50) -> EpisodeResult:
    """Do one task. `complete` gets the whole conversation and returns the assistant's text."""
    return await react.play(environment, task, complete, system=SYSTEM, parse=parse_code, max_steps=max_steps)


def parse_code(answer: str) -> str:
    """The last block; what is no program as it is, since the world says what is wrong with it."""
    try:
        return PythonActions().parse({"role": "assistant", "content": answer}).text
    except InvalidAction:
        return answer.rpartition("Action:")[2].strip().removeprefix("```python").removesuffix("```").strip("\n")


def goal(messages: list[Message]) -> str:
    """The task's instruction."""
    return text_of(messages[1]).partition("Your task is to: ")[2].strip()
