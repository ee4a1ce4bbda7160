"""The benchmarks' published files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentcascade.envs.memory_qa import hotpotqa, locomo, longmemeval
from agentcascade.errors import InvalidRequest

LOCOMO = Path(__file__).parents[4] / "shared" / "data" / "locomo" / "locomo10.json"


def write(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def dialogue() -> dict[str, Any]:
    return {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bob",
            "session_2_date_time": "not a time",
            "session_2": [{"speaker": "Bob", "dia_id": "D2:1", "text": "Bye", "blip_caption": "a photo of a dog"}],
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "I adopted Rex"},
                {"speaker": "Bob", "dia_id": "D1:2", "text": "Great"},
            ],
        },
        "qa": [
            {"question": "Who is Rex?", "answer": "a dog", "evidence": ["D1:1"], "category": 4},
            {"question": "When?", "answer": 2023, "evidence": ["D1:01; D2:1", "D", "D9:9"], "category": 2},
            {"question": "Why?", "adversarial_answer": "for fun", "evidence": [], "category": 5},
        ],
    }


def test_locomo(tmp_path: Path) -> None:
    (found,) = locomo.load_conversations(write(tmp_path / "l.json", [dialogue()]))
    assert [(t.id, t.session, t.speaker) for t in found.turns] == [
        ("D1:1", "session_1", "Ann"),
        ("D1:2", "session_1", "Bob"),
        ("D2:1", "session_2", "Bob"),
    ]
    assert found.turns[2].text == "Bye [shares a photo of a dog]"
    assert found.turns[0].at is not None
    assert found.turns[0].at.isoformat() == "2023-05-08T13:56:00+00:00"
    assert found.turns[2].at is None
    single, temporal, adversarial = found.questions
    assert (single.category, single.evidence, single.answers) == ("single-hop", ("D1:1",), ("a dog",))
    assert (temporal.category, temporal.answers, temporal.evidence) == ("temporal", ("2023",), ("D1:1", "D2:1"))
    assert not adversarial.answerable
    assert len([p for p in found.problems if "evidence" in p]) == 3
    assert any("'not a time' does not parse" in p for p in found.problems)


@pytest.mark.skipif(not LOCOMO.exists(), reason="the real LoCoMo lies beside the checkout only where it is developed")
def test_the_real_locomo() -> None:
    found = locomo.load_conversations(LOCOMO)
    questions = [q for c in found for q in c.questions]
    assert len(found) == 10
    assert (len(questions), sum(q.answerable for q in questions)) == (1986, 1540)
    assert sum(q.answerable and not q.evidence for q in questions) == 4
    assert all(t.at is not None for c in found for t in c.turns)
    assert all(set(q.evidence) <= {t.id for t in c.turns} for c in found for q in c.questions)
    assert 5 < sum(len(c.problems) for c in found) < 20


def haystack(name: str = "q1", marked: bool = True) -> dict[str, Any]:
    return {
        "question_id": name,
        "question_type": "temporal-reasoning",
        "question": "When did I buy the bike?",
        "answer": "in May",
        "question_date": "2023/06/20 (Tue) 02:21",
        "haystack_session_ids": ["s1", "s2", "s1"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "sometime", "2023/05/22 (Mon) 10:00"],
        "haystack_sessions": [
            [{"role": "user", "content": "I bought a bike", **({"has_answer": True} if marked else {})}],
            [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}],
            [{"role": "user", "content": "the same session again"}],
        ],
        "answer_session_ids": ["s1"],
    }


def test_longmemeval(tmp_path: Path) -> None:
    data = [haystack(), haystack("q2", marked=False), haystack("q3_abs", marked=False)]
    first, second, absent = longmemeval.load_conversations(write(tmp_path / "m.json", data))
    (question,) = first.questions
    assert question.evidence == ("s1:0",)
    assert [t.id for t in first.turns] == ["s1:0", "s2:0", "s2:1", "s1#2:0"]
    assert first.turns[0].at is not None
    assert first.turns[0].at.isoformat() == "2023-05-20T02:21:00+00:00"
    assert first.turns[1].at is None
    assert question.asked_at is not None
    assert second.questions[0].evidence == ("s1:0", "s1#2:0")
    assert any("no turn is marked" in p for p in second.problems)
    assert not absent.questions[0].answerable
    assert absent.questions[0].evidence == ()


def test_a_huge_file_is_read_entry_by_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.json", [haystack(f"q{i}") for i in range(300)])
    read: list[int] = []
    monkeypatch.setattr("agentcascade.envs.memory_qa.files.PIECE", 2000)
    original = longmemeval._conversation

    def counted(entry: Any, where: str) -> Any:
        read.append(1)
        return original(entry, where)

    monkeypatch.setattr(longmemeval, "_conversation", counted)
    stream = longmemeval.iterate_conversations(path)
    assert next(stream).id == "q0"
    assert len(read) == 1
    assert [c.id for c in stream] == [f"q{i}" for i in range(1, 300)]


def paragraph_question() -> dict[str, Any]:
    return {
        "_id": "h1",
        "question": "Were both born in Rome?",
        "answer": "yes",
        "type": "comparison",
        "level": "hard",
        "supporting_facts": [["Ann", 0], ["Bob", 1], ["Ann", 7]],
        "context": [
            ["Ann", ["Born in Rome.", "A painter."]],
            ["Bob", ["A cook.", "Born in Rome."]],
            ["Ann", ["Other."]],
        ],
    }


def test_hotpotqa(tmp_path: Path) -> None:
    (found,) = hotpotqa.load_conversations(write(tmp_path / "h.json", [paragraph_question()]))
    assert [t.id for t in found.turns] == ["Ann:0", "Ann:1", "Bob:0", "Bob:1", "Ann#2:0"]
    assert found.questions[0].evidence == ("Ann:0", "Bob:1")
    assert found.questions[0].category == "comparison"
    assert any("names no sentence" in p for p in found.problems)


def as_columns(entry: dict[str, Any]) -> dict[str, Any]:
    """The layout of Hugging Face's copy."""
    titles, sentences = zip(*entry["context"])
    facts, places = zip(*entry["supporting_facts"])
    columns = {
        "context": {"title": list(titles), "sentences": list(sentences)},
        "supporting_facts": {"title": list(facts), "sent_id": list(places)},
    }
    return {k: v for k, v in entry.items() if k != "_id"} | columns


def test_both_published_layouts_of_hotpotqa_say_the_same(tmp_path: Path) -> None:
    pairs, columns = paragraph_question(), as_columns(paragraph_question())
    (first,), (second,) = (hotpotqa.load_conversations(write(tmp_path / "h.json", [e])) for e in (pairs, columns))
    assert second.turns == first.turns
    assert second.questions[0].model_copy(update={"id": "h1"}) == first.questions[0]
    (named,) = hotpotqa.load_conversations(write(tmp_path / "h.json", [columns | {"id": "h9"}]))
    assert (named.id, named.questions[0].id) == ("h9", "h9")
    other = hotpotqa.load_conversations(write(tmp_path / "h.json", [columns, columns | {"question": "Or in Bonn?"}]))
    assert len({c.id for c in other} | {first.id}) == 3  # without an id, what is asked names it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": {"title": ["Ann"]}}, "lacks 'sentences'"),
        ({"context": {"title": ["Ann"], "sentences": []}}, "not two lists of one length"),
        ({"context": [["Ann"]]}, "paragraph 0 is not"),
        ({"context": {"title": ["Ann"], "sentences": ["Born."]}}, "paragraph 0 is not"),
        ({"context": "Ann was born"}, "neither a list of pairs nor columns"),
        ({"supporting_facts": ["Ann"]}, "the supporting fact 'Ann' is not"),
        ({"supporting_facts": {"title": ["Ann"], "sent_id": 0}}, "not two lists of one length"),
    ],
)
def test_a_third_layout_of_hotpotqa_is_refused_by_entry_and_field(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=rf"h\.json entry 1 .*{message}"):
        hotpotqa.load_conversations(write(tmp_path / "h.json", [paragraph_question(), paragraph_question() | change]))


HOTPOT = LOCOMO.parents[1] / "hotpotqa"


@pytest.mark.skipif(not HOTPOT.exists(), reason="the real HotpotQA lies beside the checkout only where it is developed")
def test_the_real_hotpotqa() -> None:
    for file, count in (("hotpot_train_500.json", 500), ("hotpot_dev_100.json", 100)):
        found = hotpotqa.load_conversations(HOTPOT / file)
        assert len({c.id for c in found}) == len(found) == count
        assert sum(len(c.problems) for c in found) <= count / 100
        assert all(len({t.session for t in c.turns}) > 1 and len(c.questions[0].evidence) > 1 for c in found)


@pytest.mark.parametrize("module", [locomo, longmemeval, hotpotqa])
@pytest.mark.parametrize(("text", "message"), [("{", "JSON|list"), ("{}", "list"), ("[1]", "lacks"), ("[{}]", "lacks")])
def test_other_files_are_refused_by_name(module: Any, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=message):
        module.load_conversations(path)
    with pytest.raises(InvalidRequest, match=r"missing\.json"):
        module.load_conversations(tmp_path / "missing.json")
