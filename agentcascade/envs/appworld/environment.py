"""AppWorld environment: a task, blocks of code and AppWorld's own evaluation, behind the `Environment` protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from agentcascade.actions.python import canonical_python
from agentcascade.envs.appworld import installation
from agentcascade.envs.appworld.server import START_SECONDS, AppWorldServer, ServerGone
from agentcascade.errors import EnvironmentFailed, InvalidAction, did_you_mean
from agentcascade.types import Action

MAX_STEPS = 50
SECONDS = 60
"""Seconds that a block of code may run by AppWorld's own clock"""
GRACE = 20
MAX_CHARACTERS = 20_000
"""Characters of an observation"""
FAILED = "Execution failed."
SILENT = "Execution successful."


class ExecutedBlock(NamedTuple):
    """Block of code that was run, and its output. `lost`: its server died, with the block's effects."""

    code: str
    output: str
    lost: bool = False


class AppWorldEnvironment:
    """One task at a time, named by its id, on one server.

    A server that dies or hangs is replaced, and what the episode had run before is run again: worlds are the same from
    the same code, and where one is not, the episode fails rather than go on in another world. The block at fault is
    answered as a failed one. Not thread-safe. Raises `EnvironmentFailed` for a task that is none.
    """

    def __init__(
        self,
        *,
        server: AppWorldServer | None = None,
        max_steps: int = MAX_STEPS,
        seconds: int = SECONDS,
        experiment: str | None = None,
        expert: bool = False,
    ) -> None:
        """With `experiment` AppWorld keeps outputs under that name, for `appworld evaluate`; else they are removed."""
        self.server = server or AppWorldServer(installation.appworld_root(), keep_outputs=experiment is not None)
        self.max_steps = max_steps
        self.seconds = seconds
        self._expert = expert
        self.experiment = experiment or "agentcascade"
        self.task = ""
        self._blocks: list[ExecutedBlock] = []
        self._steps = 0
        self._verdict: dict[str, Any] | None = None

    def reset(self, task: str) -> str:
        """Start a task; returns its instruction and who asks for it."""
        known = self.server.root / "data" / "tasks"
        if not task or not (known / task / "specs.json").is_file():
            near = did_you_mean(task, sorted(f.name for f in known.glob("*")))
            raise EnvironmentFailed(f"there is no AppWorld task '{task}': {near[:500]}")
        self.task = task
        self._blocks = []
        self._steps = 0
        self._verdict = None
        started = self._call_twice(self._initialize)
        who = started["supervisor"]
        return (
            f"My name is {who['first_name']} {who['last_name']}. My personal email is {who['email']} and phone number "
            f"is {who['phone_number']}.\nYour task is to: {started['instruction']}"
        )

    def step(self, action: str) -> tuple[str, bool]:
        """Run a block of code; returns (output or error, cut to `MAX_CHARACTERS`, done)."""
        if not self.task:
            raise EnvironmentFailed("no task is running: call reset first")
        self._steps += 1
        self._verdict = None
        block = self._execute(action)
        self._blocks.append(block)
        done = self._steps >= self.max_steps or self._call_restored(lambda: self._call("task_completed"))
        return visible_output(block.output), bool(done)

    @property
    def success(self) -> bool:
        """Whether AppWorld's evaluator finds every requirement met."""
        return bool(self.verdict["success"])

    @property
    def verdict(self) -> dict[str, Any]:
        """Verdict of AppWorld's evaluator on the present world: `success`, `difficulty`, `passes`, `failures`."""
        if not self.task:
            raise EnvironmentFailed("no task is running: call reset first")
        if self._verdict is None:
            self._verdict = self._call_restored(lambda: self._call("verdict", seconds=self.seconds))
        if self._verdict is None:
            raise EnvironmentFailed(f"AppWorld's evaluator gave no verdict on {self.task} within {self.seconds} s")
        return self._verdict

    def dry_run(self, action: Action) -> str | None:
        """Dry run of code in a fork of the world: what it prints, or else the variables that it leaves.

        None where it would write to an app, fail, or do neither.
        """
        return dry_run_answer(self.trial(action.text))

    def trial(self, code: str) -> dict[str, str] | None:
        """Run code in a fork of the world: its `output`, and digests of what it `wrote` and of the variables it `left`.

        Digests are empty where there is nothing. None where the fork did not end.
        """
        arguments = {"code": encodable_code(code), "seconds": min(self.seconds, 20)}
        try:
            outcome: dict[str, str] | None = self._call_restored(lambda: self._call("dry_run", **arguments))
        except ServerGone:  # the next step brings it back
            return None
        return outcome

    def expert_steps(self) -> list[tuple[str, str]]:
        """(thought, code) of the known solution's steps that are not done yet. Raises `EnvironmentFailed`."""
        file = self.server.root / "data" / "tasks" / self.task / "ground_truth" / "solution.json"
        if not self._expert or not file.is_file():
            raise EnvironmentFailed(
                "offline/expert knows the solutions of generated worlds alone: name a model as --teacher"
            )
        done = {code_key(ran.code) for ran in self._blocks if not ran.output.startswith(FAILED)}
        steps = [(step["thought"], step["code"]) for step in json.loads(file.read_text(encoding="utf-8"))]
        return [(thought, code) for thought, code in steps if code_key(code) not in done] or steps[-1:]

    def expert_outline(self) -> str:
        """Outline of the solution."""
        return "\n".join(f"{i}. {thought}" for i, (thought, _) in enumerate(self.expert_steps(), 1))

    def expert_answer(self) -> str:
        """ReAct answer with the next step."""
        thought, code = self.expert_steps()[0]
        return agent_answer(thought, code)

    def close(self) -> None:
        self.server.stop()
        self.task = ""

    def _initialize(self) -> Any:
        limits = {"timeout_seconds": self.seconds, "max_interactions": 10**6, "experiment_name": self.experiment}
        return self.server.call("initialize", {"task_id": self.task, **limits}, START_SECONDS)  # loads all databases

    def _execute(self, code: str) -> ExecutedBlock:
        """Run code; where its server dies it is tried once more, since servers die of other things too."""
        code = encodable_code(code)
        for _ in range(2):
            try:
                return ExecutedBlock(
                    code, self._call_restored(lambda: str(self._call("execute", code=code)), retries=0)
                )
            except ServerGone as error:
                why = f"Execution timed out after {self.seconds} seconds." if error.hung else "The process ended."
                if error.hung:
                    break
        return ExecutedBlock(code, f"{FAILED} Traceback:\nException: {why}", lost=True)

    def _call_restored(self, ask: Callable[[], Any], *, retries: int = 1) -> Any:
        """Call in this episode's world, which is restored first where the server is gone."""
        for attempt in range(retries + 1):
            if self.server.pid is None:
                self._restore()
            try:
                return ask()
            except ServerGone:
                if attempt == retries:
                    raise
        raise AssertionError("unreachable")

    def _restore(self) -> None:
        """Restore the world on a new server, by running the episode's blocks again."""
        self._call_twice(self._initialize)
        for ran in self._blocks:
            if not ran.lost and not is_same_output(str(self._call("execute", code=ran.code)), ran.output):
                raise EnvironmentFailed(
                    f"task {self.task} cannot be brought back after its server went: code that is run again answers "
                    "otherwise"
                )

    def _call_twice(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ServerGone:
            return ask()

    def _call(self, method: str, **arguments: Any) -> Any:
        return self.server.call(method, {"task_id": self.task, **arguments}, self.seconds + GRACE)


def encodable_code(code: str) -> str:
    """Code in which lone surrogates, which cannot be encoded as UTF-8, are question marks."""
    return code.encode("utf-8", "replace").decode("utf-8")


def dry_run_answer(tried: dict[str, str] | None) -> str | None:
    """Answer of a dry run from a trial that only read; see `AppWorldEnvironment.dry_run`."""
    if tried is None or tried["wrote"] or tried["output"].startswith(FAILED):
        return None
    return tried["left"] or None if tried["output"].strip() == SILENT else tried["output"]


def is_same_output(output: str, before: str) -> bool:
    """Whether two outputs are equal but for memory addresses."""
    return re.sub(r"\b0x[0-9a-f]+", "0x", output) == re.sub(r"\b0x[0-9a-f]+", "0x", before)


def agent_answer(thought: str, code: str) -> str:
    """ReAct answer with a thought and a code block."""
    return f"Thought: {thought}\nAction:\n```python\n{code}\n```"


def code_key(code: str) -> str:
    """Canonical key of code; the code itself where it does not parse."""
    try:
        return canonical_python(code)
    except InvalidAction:
        return code


def visible_output(output: str) -> str:
    """Part of an output that an agent sees."""
    if len(output) <= MAX_CHARACTERS:
        return output.strip()
    return f"{output[:MAX_CHARACTERS]}\n[{len(output) - MAX_CHARACTERS:,} more characters are not shown]"
