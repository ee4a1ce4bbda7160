"""The example notebook in a real Jupyter kernel: its event loop runs, and values show themselves as tables."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="Jupyter's client is not installed: pip install nbclient ipykernel")
nbformat = pytest.importorskip("nbformat", reason="Jupyter's client is not installed: pip install nbclient ipykernel")
pytest.importorskip("ipykernel", reason="Jupyter's kernel is not installed: pip install nbclient ipykernel")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "07_in_a_notebook.ipynb"
IN_OUR_SESSION = {"start_new_session": False, "process_group": 0}
TRAP = """\
from agentcascade import Turn
Turn(text="<script>alert(1)</script>")"""
SHADOWS = """\
models = {"teacher": ScriptedModel(["look"]), "student": ScriptedModel(["look"], name="student")}
with agentcascade.build(**models, mode="shadow", retrieval={"k": 0}, bank={"url": URL}) as shadowed:
    blocking = shadowed.sync_episode(goal="in a running loop")
    chunks = list(blocking.stream([{"role": "user", "content": "Go."}]))
    print(chunks[-1]["agentcascade"].answered_by, blocking.finish(success=True))
memory = agentcascade.build_memory(stored=False, retrieval={"embedder": "hashing"})
memory.append_sync("ann", ["My dog is called Rex."])
print(memory.recall_sync("What is the dog called?", "ann").text)
memory.close()"""


def outputs(cell: Any, kind: str) -> str:
    found = [o["data"][kind] for o in cell["outputs"] if kind in o.get("data", {})]
    found += [o["text"] for o in cell["outputs"] if o["output_type"] == "stream" and kind == "text/plain"]
    return "".join(found)


def test_the_notebook_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_client import launcher
    from jupyter_client.manager import AsyncKernelManager

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    # a group of its own, but no session: Linux gives each session the same share of the CPUs, however many wait in it
    monkeypatch.setattr(launcher, "Popen", lambda *a, **k: Popen(*a, **{**k, **IN_OUR_SESSION}))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    notebook.cells += [nbformat.v4.new_code_cell(TRAP), nbformat.v4.new_code_cell(SHADOWS)]
    manager = AsyncKernelManager()
    assert manager.kernel_spec is not None
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    nbclient.NotebookClient(notebook, km=manager, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    decision, episode, waited, ledger, trap, shadowed = cells[2], cells[3], cells[4], cells[5], cells[-2], cells[-1]
    assert "agreement 2/3" in outputs(decision, "text/html")
    assert "answered by" in outputs(episode, "text/html")
    assert "open the drawer" in outputs(waited, "text/plain")
    assert "Ledger by mode" in outputs(ledger, "text/html")
    assert "unknown" not in outputs(ledger, "text/html")
    assert "&lt;script&gt;" in outputs(trap, "text/html")
    assert "<script" not in outputs(trap, "text/html")
    assert "teacher" in outputs(shadowed, "text/plain")
    assert "Rex" in outputs(shadowed, "text/plain")
