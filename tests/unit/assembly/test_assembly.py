"""From names to parts: what `build` makes, what it refuses and how, and that a refusal leaves nothing open."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest

import agentcascade
from agentcascade import ScriptedModel
from agentcascade.assembly.cascade import build
from agentcascade.assembly.components import make_embedder, make_model, make_retriever
from agentcascade.bank.catalog import Catalog
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import AgentCascadeError, ConfigError, MissingExtra, StorageError
from agentcascade.ledger.ledger import Ledger, MemoryRecorder
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.tokens import token_counter
from agentcascade.prompts.demonstrations import HEADER
from agentcascade.protocols import ChatModel, is_shared
from agentcascade.retrievers.faiss_index import FaissRetriever
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.retrievers.onnx import OnnxEmbedder
from agentcascade.retrievers.sentence_transformer import SentenceTransformerEmbedder
from agentcascade.routers.step.consistency import AgreementThreshold, Unanimity
from agentcascade.storage import open_database
from agentcascade.types import Message
from tests.plugins import install_here

LeftOpen: TypeAlias = Callable[[], list[str]]
TASK: list[Message] = [{"role": "system", "content": "rules"}, {"role": "user", "content": "put a mug on the desk"}]


def act(text: str) -> str:
    return f"Thought: so.\nAction: {text}"


def settings(folder: Path, **changed: Any) -> dict[str, Any]:
    """Keyword arguments that `build` takes, all of it light and local."""
    made: dict[str, Any] = {
        "teacher": ScriptedModel([act("look")], name="teacher"),
        "student": ScriptedModel([act("look")], name="student"),
        "bank": {"url": f"sqlite:///{folder}/bank.db"},
        "retrieval": {"embedder": "hashing", "index": "exact"},
        "actions": {"format": "react"},
    }
    return made | changed


@pytest.fixture
def left_open(tmp_path: Path) -> LeftOpen:
    """Says which files of the test's folder this process holds open, and which threads were started and not ended."""
    before = set(threading.enumerate())

    def look() -> list[str]:
        files = [f.path for f in psutil.Process().open_files() if f.path.startswith(str(tmp_path))]
        return files + [t.name for t in set(threading.enumerate()) - before if not t.name.startswith("asyncio")]

    return look


def test_the_parts_that_the_settings_name_are_made(tmp_path: Path, left_open: LeftOpen) -> None:
    router = {"name": "threshold", "options": {"n": 5, "threshold": 0.6}}
    with build(**settings(tmp_path, router=router, retrieval={"embedder": "hashing:64", "index": "faiss"})) as cascade:
        assert isinstance(cascade.context.router, AgreementThreshold)
        assert (cascade.context.router.n, cascade.context.router.needed) == (5, 3)
        assert cascade.bank is not None
        assert isinstance(cascade.bank.embedder, HashEmbedder)
        assert isinstance(cascade.bank.retriever, FaissRetriever)
        assert (cascade.bank.embedder.dimension, cascade.bank.retriever.dimension) == (64, 192)
    assert left_open() == []


def test_a_file_the_environment_and_keywords_all_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "agentcascade.yaml"
    url = f"sqlite:///{tmp_path}/bank.db"
    file.write_text(f"student: {{name: offline/imitator}}\nbank: {{url: '{url}', namespace: file}}\nseed: 1\n")
    monkeypatch.setenv("AGENTCASCADE_RETRIEVAL__EMBEDDER", "hashing")
    monkeypatch.setenv("AGENTCASCADE_BANK__NAMESPACE", "environment")
    price = {"input": "3", "output": "15"}
    with build(file, teacher={"name": "offline/expert", "price": price}, seed=7) as cascade:
        config = cascade.config
        assert (config.bank.url, config.bank.namespace, config.seed) == (url, "environment", 7)
        assert (
            cascade.context.teacher and cascade.context.teacher.name,
            cascade.context.student and cascade.context.student.name,
        ) == (
            "offline/expert",
            "offline/imitator",
        )
        assert isinstance(cascade.context.router, Unanimity)


def test_a_finished_config_is_taken_as_it_is_or_not_at_all(tmp_path: Path) -> None:
    models = {role: settings(tmp_path)[role] for role in ("teacher", "student")}
    config = CascadeConfig.load(**{k: v for k, v in settings(tmp_path).items() if k not in models})
    with build(config, **models) as cascade:
        assert cascade.config is config
    with pytest.raises(ConfigError, match=r"not both: use CascadeConfig\.load"):
        build(config, **models, seed=1)
    with pytest.raises(ConfigError, match="not both"):
        build(config, teacher="offline/expert")


def test_a_recorder_of_ones_own_replaces_the_databases(tmp_path: Path) -> None:
    recorder = MemoryRecorder()
    with build(**settings(tmp_path, recorder=recorder)) as cascade:
        cascade.sync_episode(mode="teacher").complete(TASK)
    assert [d.answered_by for d in recorder.decisions] == ["teacher"]
    database = open_database(tmp_path / "bank.db")
    assert Ledger(database).summary() == []
    database.close()


def test_without_retrieval_no_embedder_is_needed_except_to_collect(tmp_path: Path) -> None:
    off = {"embedder": "none such", "k": 0}
    with build(**settings(tmp_path, retrieval=off)) as cascade:
        assert cascade.bank is None
        assert cascade.sync_episode().complete(TASK).agentcascade.answered_by == "student"
    with pytest.raises(ConfigError, match="'none such' is unknown"):
        build(**settings(tmp_path, retrieval=off, mode="collect"))


MISTAKES: list[tuple[dict[str, Any], type[AgentCascadeError], str]] = [
    ({"router": {"name": "unanimty"}}, ConfigError, r"router\.name 'unanimty' is unknown: did you mean 'unanimity'\?"),
    (
        {"router": {"name": "unanimity", "options": {"m": 3}}},
        ConfigError,
        r"router\.name 'unanimity' does not take {'m': 3}",
    ),
    ({"router": {"name": "random"}}, ConfigError, r"'random' does not take {}: .*argument: 'p'"),
    ({"router": {"name": "unanimity", "options": {"n": "3"}}}, ConfigError, r"router\.n is '3'"),
    ({"router": {"name": "threshold", "options": {"threshold": "1"}}}, ConfigError, r"'threshold' does not take"),
    ({"router": {"name": "threshold", "options": {"threshold": 2}}}, ConfigError, r"router\.threshold is 2"),
    (
        {"retrieval": {"embedder": "hashin"}},
        ConfigError,
        r"retrieval\.embedder 'hashin' is unknown: did you mean 'hashing'\?",
    ),
    ({"retrieval": {"embedder": "hashing:x"}}, ConfigError, r"retrieval\.embedder 'hashing' does not take"),
    (
        {"retrieval": {"embedder": "hashing", "index": "fais"}},
        ConfigError,
        r"retrieval\.index 'fais' is unknown: did you mean 'faiss'\?",
    ),
    ({"retrieval": {"embedder": "onnx:/none"}}, ConfigError, "no model folder /none: see retrieval.embedder"),
    ({"actions": {"format": "reakt"}}, ConfigError, r"actions\.format 'reakt' is unknown: did you mean 'react'\?"),
    ({"actions": {"format": "regex", "pattern": "("}}, ConfigError, r"actions\.pattern '\(' is not a regular"),
    ({"teacher": "offline/exprt"}, ConfigError, "no model 'offline/exprt': did you mean 'offline/expert'"),
    ({"teacher": "own_models:Nope"}, ConfigError, "'own_models:Nope' cannot be loaded"),
    (
        {"teacher": {"name": "own_models:Echo", "options": {"wrd": "hi"}}},
        ConfigError,
        r"own_models:Echo.*unexpected keyword argument 'wrd'",
    ),
    ({"teacher": None}, ConfigError, r"mode 'cascade' needs a teacher: set teacher\.name"),
    ({"teacher": None, "mode": "collect"}, ConfigError, r"mode 'collect' needs a teacher: set teacher\.name"),
    ({"student": None}, ConfigError, r"mode 'cascade' needs a student: set student\.name"),
    ({"student": None, "mode": "student"}, ConfigError, r"mode 'student' needs a student: set student\.name"),
    ({"mode": "teachr"}, ConfigError, "mode: .*'teachr'"),
    ({"retrieval": {"embeder": "hashing"}}, ConfigError, r"unknown key 'retrieval\.embeder': did you mean 'embedder'"),
    ({"bank": {"url": "sqlite:////none/such/bank.db"}}, StorageError, "folder /none/such of the database"),
]

OWN_MODELS = """
from agentcascade import ScriptedModel

class Echo(ScriptedModel):
    def __init__(self, word="echo"):
        super().__init__([f"Action: {word}"], name="echo")
"""


@pytest.mark.parametrize(("changed", "kind", "message"), MISTAKES, ids=[m[:48] for _, _, m in MISTAKES])
def test_a_mistake_is_named_with_its_fix_and_nothing_stays_open(
    changed: dict[str, Any],
    kind: type[AgentCascadeError],
    message: str,
    tmp_path: Path,
    left_open: LeftOpen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "own_models.py").write_text(OWN_MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    with pytest.raises(kind, match=message):
        build(**settings(tmp_path, **changed))
    assert left_open() == []
    with build(**settings(tmp_path)) as cascade:
        assert cascade.sync_episode(mode="teacher").complete(TASK).model == "teacher"
    assert left_open() == []


@pytest.mark.parametrize(
    ("packages", "retrieval", "command"),
    [
        (["faiss"], {"embedder": "hashing", "index": "faiss"}, r'faiss-cpu: pip install "agentcascade\[faiss\]"'),
        (["onnxruntime"], {"embedder": "onnx"}, r'onnxruntime .*: pip install "agentcascade\[onnx\]"'),
        (
            ["onnxruntime", "sentence_transformers"],
            {"embedder": "minilm"},
            r'onnxruntime: pip install "agentcascade\[onnx\]"',
        ),
    ],
)
def test_a_missing_extra_names_its_pip_command(
    packages: list[str],
    retrieval: dict[str, str],
    command: str,
    tmp_path: Path,
    left_open: LeftOpen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=command):
        build(**settings(tmp_path, retrieval=retrieval))
    assert left_open() == []


def test_auto_and_minilm_take_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("sentence_transformers") is None:
        pytest.skip("needs sentence-transformers")
    assert isinstance(make_retriever("auto", 4), FaissRetriever)
    assert isinstance(fast := make_embedder("minilm"), OnnxEmbedder)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert isinstance(make_retriever("auto", 4), ExactRetriever)
    assert isinstance(slow := make_embedder("minilm"), SentenceTransformerEmbedder)
    assert (fast.name, fast.dimension) == (slow.name, slow.dimension)


SHARED_INDEX = """
    from agentcascade.retrievers.numpy_index import ExactRetriever

    class SharedIndex(ExactRetriever):
        shared, watermark = True, 0

        def __init__(self, dimension, *, database, space):
            super().__init__(dimension)
            self.database, self.space = database, space

        def reached(self, watermark):
            self.watermark = max(self.watermark, watermark)
"""


def test_a_shared_index_of_another_package_is_told_where_the_bank_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"retrievers": {"acme-shared": "acme_shared:SharedIndex"}}
    install_here(monkeypatch, tmp_path / "site", "acme_shared", SHARED_INDEX, points)
    with closing(open_database("sqlite:///:memory:")) as database:
        made: Any = make_retriever("acme-shared", 4, database, "hashing 1:1:1")
        assert (made.database, made.space) == (database, "hashing 1:1:1")
    assert is_shared(made)
    with pytest.raises(ConfigError, match="'acme-shared' is shared by all who use a bank"):
        make_retriever("acme-shared", 4)
    with build(
        **settings(tmp_path, retrieval={"embedder": "hashing", "index": "acme-shared"}), mode="collect"
    ) as cascade:
        episode = cascade.sync_episode(goal="g")
        episode.complete(TASK)
        assert episode.finish(success=True)


def test_a_model_of_ones_own_is_loaded_by_name_with_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_models.py").write_text(OWN_MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    own = {"name": "own_models:Echo", "options": {"word": "hello"}}
    with build(**settings(tmp_path, teacher=own, student="own_models:Echo", mode="teacher")) as cascade:
        assert isinstance(cascade.context.teacher, ChatModel)
        answer = cascade.sync_episode().complete(TASK)
        assert (answer.model, answer.choices[0].message.content) == ("echo", "Action: hello")


@pytest.mark.parametrize("name", ["ollama/llama3:8b", "bedrock/anthropic.claude-v2:1", "openai/gpt-5-mini"])
def test_other_names_go_to_litellm_colon_or_not(name: str) -> None:
    model = make_model(ModelConfig(name=name), token_counter())
    assert (type(model), model.name) == (LiteLLMModel, name)


def test_the_public_names_are_all_there() -> None:
    assert all(getattr(agentcascade, name) is not None for name in agentcascade.__all__)
    with pytest.raises(AttributeError, match="no attribute 'bulid'"):
        _ = agentcascade.bulid  # type: ignore[attr-defined]


@pytest.mark.parametrize("index", ["exact", "faiss"])
async def test_collected_demonstrations_let_the_student_take_the_next_steps(
    tmp_path: Path, left_open: LeftOpen, index: str
) -> None:
    """Collect with the teacher, cascade with the student, and the same once more from the file alone."""

    def know(messages: Sequence[Message], sample: int) -> str:
        return act("put mug 1 in desk 1" if "You hold" in messages[-1]["content"] else "take mug 1")

    def imitate(messages: Sequence[Message], sample: int) -> str:
        return act("take mug 1") if HEADER in messages[1]["content"] else act(f"guess {sample}")

    teacher, student = ScriptedModel(know, name="teacher"), ScriptedModel(imitate, name="student")
    retrieval = {"embedder": "hashing", "index": index}
    made = settings(tmp_path, teacher=teacher, student=student, retrieval=retrieval)
    async with build(**made) as cascade:
        early = await cascade.episode(namespace="empty").complete(TASK)
        assert (early.model, early.agentcascade.reason) == ("teacher", "0 demonstrations, 1 needed")

        collecting = cascade.episode(mode="collect", id="e1")
        first = await collecting.complete(TASK)
        answer = {"role": "assistant", "content": first.choices[0].message.content}
        await collecting.complete([*TASK, answer, {"role": "user", "content": "You hold a mug 1."}])
        assert not student.requests
        assert cascade.bank is not None
        assert len(cascade.bank.retriever) == 0
        assert await collecting.finish(success=True)
        assert len(cascade.bank.retriever) == 2

        step = await cascade.episode().complete(TASK)
        assert (step.model, step.agentcascade.reason) == ("student", "agreement 3/3")
        assert step.agentcascade.action == "take mug 1"
        assert [d.split(":")[1] for d in step.agentcascade.demonstrations] == ["0-2"]
        (asked,) = student.requests
        assert asked[0] == TASK[0]
        assert "Goal: put a mug on the desk" in asked[1]["content"]
        assert "Action: put mug 1 in desk 1" in asked[1]["content"]
        assert await cascade.episode(mode="collect").finish(success=True) is False
    assert left_open() == []

    async with build(**made) as cascade:
        again = await cascade.episode().complete(TASK)
        assert again.agentcascade.demonstrations == step.agentcascade.demonstrations
        assert again.model == "student"
    database = open_database(tmp_path / "bank.db")
    (entry,) = Catalog(database).list()
    assert (entry.goal, entry.length) == ("put a mug on the desk", 2)
    assert {s.group: (s.steps, s.deferral_share) for s in Ledger(database).summary("mode")} == {
        "cascade": (3, pytest.approx(1 / 3)),
        "collect": (2, 1.0),
    }
    database.close()


def test_no_message_about_a_configuration_shows_a_secret(tmp_path: Path) -> None:
    own = {"name": "agentcascade.models.scripted:ScriptedModel", "options": {"api_key": "hidden-in-options-1"}}
    with pytest.raises(ConfigError, match="does not take") as caught:
        build(**settings(tmp_path, teacher=own))
    assert "hidden-in-options" not in str(caught.value)
    with pytest.raises(ConfigError, match="retrieval") as caught:
        build(**settings(tmp_path, retrieval="postgresql://me:hidden-in-a-url@h/db"))
    assert "hidden-in-a-url" not in str(caught.value)
