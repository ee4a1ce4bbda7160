"""Foreign logs become steps: who was asked the same, what could not be used, and whose tokens they were."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.errors import InvalidRequest
from agentcascade.steplog import foreign
from agentcascade.steplog.files import read_log
from agentcascade.steplog.matching import match_calls

ASK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "book a flight"}]


def call(name: str, called: str = "c1", **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": called, "type": "function", "function": function}],
    }


def transcript(*answers: dict[str, Any], model: str, **more: Any) -> dict[str, Any]:
    messages: list[dict[str, Any]] = list(ASK)
    for answer in answers:
        messages.append(answer)
        for made in answer.get("tool_calls") or ():
            messages.append({"role": "tool", "tool_call_id": made["id"], "content": "ok"})
    return {"model": model, "messages": messages, **more}


def written(path: Path, rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_transcripts_are_matched_as_long_as_they_are_asked_the_same(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.jsonl",
        [
            transcript(call("find", "x1", to="Rome"), call("book", "x2", id=1), model="big", reward=1.0),
            transcript(call("find", "y1", to="Rome"), call("book", "y2", id=2), model="small"),
            transcript(call("find", "z1", to="Bari"), call("book", "z2", id=1), model="small"),
        ],
    )
    found = match_calls(foreign.read_model_calls(path), "big")
    first, second = found.steps
    assert first.teacher == 'find({"to":"Rome"})'
    assert [s.action for s in first.student.samples] == ['find({"to":"Rome"})', 'find({"to":"Bari"})']
    assert first.goal == "book a flight"
    assert first.success is True
    assert [s.action for s in second.student.samples] == ['book({"id":2})']  # the third went another way
    assert second.step == 1
    assert found.left_out == {"calls that the teacher did not answer too": 1}


def test_a_students_refusal_is_no_vote_in_a_foreign_log_and_the_teachers_is_its_answer(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "I'm sorry, but I can't assist with that."}
    rows = [transcript(said, model=model) for model in ("big", "small", "small")]
    (step,) = match_calls(foreign.read_model_calls(written(tmp_path / "t.jsonl", rows)), "big").steps
    assert step.teacher == said["content"]
    assert [(s.action, s.text) for s in step.student.samples] == [(None, said["content"])] * 2
    assert str(step.student.samples[0].invalid).startswith("a refusal")


def test_taubench_trajectories_are_transcripts(tmp_path: Path) -> None:
    rows = [{"task_id": 3, "trial": t, "reward": 0.0, "traj": [*ASK, call("find")]} for t in range(2)]
    path = tmp_path / "gpt.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    one, two = foreign.read_model_calls(path)
    assert (one.model, one.episode, one.success) == ("gpt", "task 3 trial 0", False)
    assert two.episode == "task 3 trial 1"


def test_payloads_that_litellm_itself_wrote(tmp_path: Path) -> None:
    from litellm.integrations.custom_logger import CustomLogger

    from agentcascade.models.litellm_setup import import_litellm

    litellm = import_litellm()
    seen: list[Any] = []

    class Logger(CustomLogger):  # type: ignore[misc]
        def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            seen.append(kwargs["standard_logging_object"])

    before = litellm.callbacks
    litellm.callbacks = [Logger()]
    try:
        for model, answer, n in (("gpt-4o", "yes", 1), ("gpt-4o-mini", "no", 3)):
            litellm.completion(model=model, messages=ASK, mock_response=answer, n=n, temperature=0.7)
        for _ in range(1200):
            if len(seen) == 2:
                break
            time.sleep(0.05)
    finally:
        litellm.callbacks = before
    path = tmp_path / "litellm.jsonl"
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in seen), encoding="utf-8")
    (step,) = match_calls(foreign.read_model_calls(path, "litellm"), "gpt-4o").steps
    assert step.teacher == "yes"
    assert [s.action for s in step.student.samples] == ["no"] * 3
    assert step.student.temperature == 0.7
    assert step.student.prompt is not None
    assert step.student.prompt.input == seen[1]["prompt_tokens"]
    assert step.teacher_usage is not None
    assert step.teacher_usage.output == seen[0]["completion_tokens"]
    assert step.student.price is not None
    assert step.created_at is not None


def test_langfuse_in_both_spellings(tmp_path: Path) -> None:
    api = {
        "id": "o1", "traceId": "t", "type": "GENERATION", "model": "openai/big", "input": ASK,
        "output": {"role": "assistant", "content": "yes"}, "startTime": "2026-01-01T10:00:00.000Z",
        "usageDetails": {"input": 100, "input_cached_tokens": 50, "output": 7, "total": 157},
    }  # fmt: skip
    blob = {
        "id": "o2", "trace_id": "u", "type": "GENERATION", "provided_model_name": "small",
        "input": json.dumps({"messages": ASK}), "output": json.dumps("yes"), "start_time": "2026-01-01 10:00:01",
        "usage_details": json.dumps({"input": 100, "output": 2}), "model_parameters": json.dumps({"temperature": 0.2}),
    }  # fmt: skip
    span = {"id": "o3", "type": "SPAN", "input": "x", "output": "y"}
    (step,) = match_calls(foreign.read_model_calls(written(tmp_path / "l.jsonl", [api, blob, span])), "big").steps
    assert step.teacher == "yes"
    assert step.teacher_usage is not None
    assert (step.teacher_usage.input, step.teacher_usage.cached_input, step.teacher_usage.output) == (100, 50, 7)
    assert (step.student.model, step.student.temperature) == ("small", 0.2)
    assert step.episode == "t"


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.jsonl",
        [
            {"model": "big", "messages": ASK, "response": {"choices": []}},
            {
                "model": "big",
                "messages": [{"content": "no role"}],
                "response": {"choices": [{"message": {"content": "a"}}]},
            },
            {"model": "big", "messages": ASK, "response": {"choices": [{"message": {"content": "a"}}]}},
            {"model": "big", "messages": ASK, "response": {"choices": [{"message": {"content": "b"}}]}},
            {"model": "small", "messages": ASK, "response": {"choices": [{"message": {"content": ""}}]}},
        ],
    )
    found = match_calls(foreign.read_model_calls(path), "big")
    assert len(found.steps) == 1
    assert found.steps[0].student.samples[0].invalid
    assert dict(found.left_out) == {
        "calls without an answer": 1,
        "calls whose messages cannot be read": 1,
        "further answers of the teacher": 1,
    }
    with pytest.raises(InvalidRequest, match="no call of the teacher 'large': it knows big, small"):
        match_calls(foreign.read_model_calls(path), "large")


def logged(model: str, asked: Any, answer: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": asked}],
            "response": {"choices": [{"message": {"content": answer}}]}, **more}  # fmt: skip


def image(url: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]


CUT = "a long ... (litellm_truncated skipped 900 chars. See the documentation) ... text"


@pytest.mark.parametrize(
    ("rows", "samples", "reason"),
    [
        ([logged("small", "q", "b", cache_hit=True), logged("small", "q", "c")], ["c"], "answers from a cache"),
        ([logged("small", "q", "b", cache_hit="True"), logged("small", "q", "c")], ["c"], "answers from a cache"),
        ([logged("small", "q", "b", id="7")] * 2, ["b"], "calls that were there already"),
        ([logged("small", "q", "b", request_id="7")] * 2, ["b"], "calls that were there already"),
        ([logged("small", "q", "redacted-by-litellm")], None, "calls whose text was redacted or cut off"),
        ([logged("big", CUT, "a"), logged("small", CUT, "b")], None, "calls whose text was redacted or cut off"),
        ([logged("big", image("1"), "a"), logged("small", image("2"), "b")], None, "calls that the teacher did"),
        ([logged("small", ["q"], "b")], None, "calls whose messages cannot be read"),
    ],
)
def test_what_would_look_like_agreement_and_is_none(
    rows: list[Any], samples: list[str] | None, reason: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.jsonl", [logged("big", "q", "a"), *rows])
    found = match_calls(foreign.read_model_calls(path, "litellm"), "big", ["small"] if samples else ())
    assert [[s.action for s in step.student.samples] for step in found.steps] == ([samples] if samples else [])
    assert any(left.startswith(reason) for left in found.left_out)


def test_the_same_image_is_the_same_request(tmp_path: Path) -> None:
    rows = [logged("big", image("1"), "a"), logged("small", image("1"), "b")]
    assert len(match_calls(foreign.read_model_calls(written(tmp_path / "x.jsonl", rows)), "big").steps) == 1


def test_who_is_teacher_and_who_is_student(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", [logged("a/llm", "q", "yes"), logged("b/llm", "q", "no")])
    (step,) = match_calls(foreign.read_model_calls(path), "a/llm", ["b/llm"]).steps
    assert (step.teacher, step.student.model) == ("yes", "b/llm")
    with pytest.raises(InvalidRequest, match="'a/llm' is student and teacher"):
        match_calls(foreign.read_model_calls(path), "llm", ["a/llm"])
    with pytest.raises(InvalidRequest, match="no call of the student 'lm': it knows a/llm, b/llm"):
        match_calls(foreign.read_model_calls(path), "a/llm", ["lm"])


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ('{"a": 1}', "auto", "entry 1: neither"),
        ('{"messages": []}\n{', "auto", "line 2 is not JSON"),
        ('{"messages": 3}', "litellm", "entry 1 is not of format litellm"),
        ("{}", "langfuze", "did you mean 'langfuse'"),
    ],
)
def test_a_file_that_is_something_else(text: str, form: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=message):
        list(foreign.read_model_calls(path, form))


def test_the_command_imports_shows_and_tunes(tmp_path: Path) -> None:
    rows = []
    for i in range(120):
        ask = [{"role": "user", "content": f"question {i}"}]
        for model, answers in (("big", ["yes"]), ("small", ["yes"] * 3)):
            choices = [{"message": {"role": "assistant", "content": a}} for a in answers]
            usage = {"prompt_tokens": 100, "completion_tokens": 5 * len(answers)}
            rows.append({"model": model, "messages": ask, "response": {"choices": choices, "usage": usage}})
    run = CliRunner().invoke
    source, log = written(tmp_path / "calls.jsonl", rows), tmp_path / "log.parquet"
    done = run(main, ["log", "import", str(source), "--teacher", "big", "--out", str(log)])
    assert done.exit_code == 0, done.output
    assert "wrote 120 steps" in done.output
    assert len(read_log(log)) == 120
    shown = run(main, ["log", "show", str(log)]).output
    assert "120 of 120 (100.0%)" in shown
    assert "small (120)" in shown
    prices = ["--teacher-price", "3/15", "--student-price", "0.4/1.6"]
    tuned = run(main, ["tune", "--log", str(log), "--max-risk", "0.05", "--out", str(tmp_path / "t"), *prices])
    assert tuned.exit_code == 0, tuned.output
    assert json.loads((tmp_path / "t" / "certificate.json").read_text())["observed"]["unit"] == "dollars"
    assert "--teacher says which" in run(main, ["log", "import", str(source), "--out", str(log)]).output
    again = run(main, ["log", "import", str(log), "--out", str(tmp_path / "log.jsonl")])
    assert "wrote 120 steps" in again.output
