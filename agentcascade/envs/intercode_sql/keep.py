"""Keep a live student's samples as recorded answers: from the log's episodes of a run to `$INTERCODE_DATA/answers`.

    agentcascade bench intercode-sql --schema --student openai/NAME --api-base … --temperature 0.8 \\
        --policy teacher --log steps.jsonl --log-samples 10 --out run     # each answer is kept as it comes; --resume
    python -m agentcascade.envs.intercode_sql.keep run my-student        # from then on recorded/my-student
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentcascade._util.files import write_atomically
from agentcascade.envs.intercode_sql import answers, tasks
from agentcascade.envs.recorded.rows import read
from agentcascade.errors import AgentCascadeError, ConfigError, EnvironmentFailed

LOGGED = "shadow"
"""The policy whose episodes fill a log"""


def rows_of(run: Path, model: str | None = None) -> dict[int, dict[str, Any]]:
    """Rows of recorded answers by task, of the student's samples in a run's folder.

    Args:
        run: folder of `agentcascade bench intercode-sql --schema … --log`.
        model: whose samples, where a committee was logged.

    Raises:
        EnvironmentFailed: for a folder without such episodes, or of samples of several models.
    """
    found: dict[int, dict[str, Any]] = {}
    for where, record in read(run / "episodes.jsonl"):
        if record.get("policy") != LOGGED or record.get("error"):
            continue
        try:
            made = [row for shadow in record["shadows"] if (row := _row(shadow, model))]
            if made:
                found[int(str(record["task"]).rpartition("/")[2])] = made[0]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EnvironmentFailed(f"{where}: no episode of a log: {error}") from error
    if not found:
        raise EnvironmentFailed(f"{run} holds no samples{f' of {model}' if model else ''}: play it with --log")
    return found


def _row(shadow: Mapping[str, Any], model: str | None) -> dict[str, Any] | None:
    """None where nothing was sampled."""
    calls = [call for call in shadow["calls"] if call["purpose"] == "shadow" and model in (None, call["model"])]
    if len({call["model"] for call in calls}) > 1:
        raise EnvironmentFailed("several models were sampled: name one, --model NAME")
    samples = [sample for sample in shadow["samples"] if model in (None, sample.get("member") or model)]
    if not samples or not calls:
        return None
    usage = calls[0]["usage"]
    written = sum(call["usage"]["output"] + call["usage"]["reasoning"] for call in calls)
    each, over = divmod(written, len(samples))
    return {
        "prompt_tokens": sum(usage[name] for name in usage if name not in ("output", "reasoning"))
        // calls[0]["requests"],
        "samples": [
            {"text": sample["text"], "tokens": each + (i < over) if sample["tokens"] is None else sample["tokens"]}
            for i, sample in enumerate(samples)
        ],
    }


def keep(run: Path, name: str, model: str | None = None) -> Path:
    """Write a run's samples to `$INTERCODE_DATA/answers/NAME.jsonl`; returns the path.

    Raises:
        ConfigError: for a name that is taken, or without $INTERCODE_DATA.
        EnvironmentFailed: what `rows_of` raises.
    """
    folder = tasks.data_folder()
    if folder is None:
        raise ConfigError("INTERCODE_DATA names no folder: answers are kept in its folder `answers`")
    if name in answers.LIBRARY.models():
        raise ConfigError(f"there are recorded answers of '{name[:80]}' already: give these another name")
    if not name.replace("-", "").replace(".", "").replace("_", "").isalnum():
        raise ConfigError(f"'{name[:80]}' is no name of a file: letters, digits, '-', '_', '.'")
    lines = [json.dumps({"task": task, **row}) for task, row in sorted(rows_of(run, model).items())]
    path = folder / answers.FOLDER / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--model", help="whose samples, of a committee")
    given = parser.parse_args()
    try:
        path = keep(given.run, given.name, given.model)
    except (AgentCascadeError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(f"wrote {path}: recorded/{given.name}")


if __name__ == "__main__":
    main()
