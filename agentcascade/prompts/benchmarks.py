"""Prompt templates of benchmarks: what their agents are told, and what is asked about a memory."""

from __future__ import annotations

from agentcascade.prompts.template import Template

MEMORY_BENCHMARKS = {
    "memory_answer": Template(
        """\
Answer the question from the memory alone, in as few words as it takes (a name, a date, a short phrase). \
Dates as day month year. If the memory does not say, answer: No information available.

# Memory
$memory

# Question
$question""",
        required=("memory", "question"),
    ),
    "memory_judge": Template(
        """\
$task

Question: $question
Right answer: $right
Answer: $answer""",
        required=("right", "answer"),
        others=("task", "question"),
    ),
    "memory_judge_graded": Template(
        "You grade an answer against the right one. Give 1 when it says the same, whatever the wording or form of "
        "dates; 0.5 when it is partly right or lacks a part; 0 when it is wrong or refuses. Answer with the number "
        "alone."
    ),
    "memory_judge_yes_no": Template(
        "You check an answer against the right one. Does it contain the right answer? Answer yes or no alone. $rule",
        others=("rule",),
    ),
    "memory_judge_temporal_reasoning": Template(
        "An error of one in a number of days, weeks or months still counts as right."
    ),
    "memory_judge_knowledge_update": Template(
        "It is right if it has the updated fact, even if it tells older ones too."
    ),
    "memory_judge_single_session_preference": Template(
        "The right answer describes what a good reply would respect: it is right if it does."
    ),
    "memory_judge_unanswerable": Template(
        "The question cannot be answered from the history. Is the answer right in saying so? Answer yes or no alone."
    ),
}
"""What benchmarks of memory ask: the answer, and whether it is right. `task` is one of the three kinds of judgement,
`rule` that of the question's type.
"""

AGENTS = {
    "alfworld": Template(
        """\
You act in a simulated household, by text. Solve the task you are given.

Each turn you are told what you observe. Answer with one thought and one action, in exactly this form:
Thought: <what you think>
Action: <one command>

The commands are:
- go to {recep}
- open {recep}
- close {recep}
- take {obj} from {recep}
- move {obj} to {recep}
- clean {obj} with {recep}
- heat {obj} with {recep}
- cool {obj} with {recep}
- use {obj}
- slice {obj} with {obj}
- examine {obj}
- inventory
- look

Name things with their number, as you see them, e.g. "go to countertop 1". You can carry one thing at a time. You must
be at a place to see or use what is there, and open what is closed to see inside. A command that is impossible is
answered with "Nothing happens."."""
    ),
    "appworld": Template(
        """\
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
    ),
    "intercode_sql": Template(
        """\
You answer a question by querying a MySQL database.

Each turn you see what your last action returned. Answer with one thought and one action, in exactly this form:
Thought: <what you think>
Action: execute[<one SQL statement>]

You do not know the schema: SHOW TABLES and DESCRIBE tell it. The database can only be read. Rows and their order count,
names of columns do not. When your last statement returned the answer to the question, and nothing else, end with:
Action: submit"""
    ),
    "intercode_sql_schema": Template(
        """\
You answer a question by writing one MySQL query. The schema of the database follows, with one row of \
each table as an example.
Rows and their order count, names of columns do not. The database can only be read.
Answer with one SQL statement and nothing else.

Schema of `$database`:
$schema""",
        required=("database", "schema"),
    ),
}
"""System prompts of the agents that play; each is named as its suite."""
