"""`agentcascade bank shorten --batch` against a local server that plays OpenAI's Batch API."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from agentcascade.bank.bank import Bank
from agentcascade.bank.catalog import Catalog
from agentcascade.cli import main
from agentcascade.ledger.ledger import Ledger
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import open_database
from agentcascade.types import Step, Trajectory
from tests.batch_provider import BatchProvider, Json, completion

LONG = "I need the cup. It may be in the drawer. The drawer is closed, so before anything else I open it and look."


def shorter(body: Json) -> tuple[int, Any]:
    steps = re.findall(r'"step": (\d+)', json.dumps(body["messages"][-1]["content"]).replace("\\", ""))
    return 200, completion(body, [json.dumps(dict.fromkeys(steps, "Open the drawer."))])


def test_reasoning_is_rewritten_by_one_batch_and_billed_as_batch(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    database = open_database(url)
    bank = Bank(database, HashEmbedder(32), ExactRetriever(96))
    for i in range(3):
        step = Step(observation=f"room {i}", reasoning=LONG, action=f"open {i}")
        asyncio.run(bank.add(Trajectory(id=f"t{i}", goal=f"cup {i}", steps=(step,), success=True)))
    with BatchProvider(shorter) as provider:
        model = f'{{name: openai/gpt-4o-mini, api_base: "{provider.url}", api_key: k, price: {{input: 1, output: 2}}}}'
        config = tmp_path / "c.yaml"
        config.write_text(f"teacher: {model}\nbank: {{url: '{url}'}}\nretrieval: {{embedder: 'hashing:32'}}\n")
        arguments = [
            "bank",
            "shorten",
            "--easy-words",
            "4",
            "--batch",
            "--poll",
            "0.01",
            "--hard-words",
            "8",
            "--config",
            str(config),
        ]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        assert "of 3 trajectories" in done.output
        assert [len(held.requests) for held in provider.batches.values()] == [3]
        again = CliRunner().invoke(main, arguments)
        assert "of 0 trajectories" in again.output
        assert len(provider.batches) == 1
        (line,) = Ledger(database).summary("mode")
        assert (line.group, float(line.dollars or 0)) == ("batch", provider.dollars(0.5, 1))
    assert Catalog(database).restore() == 3
    bank.close()
    database.close()
