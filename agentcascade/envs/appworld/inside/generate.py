"""Makes an AppWorld root with small worlds and tasks of our own: `python generate.py ROOT SEED train=30 dev=10 …`.

For machines without AppWorld's data. What is written is what AppWorld itself writes: databases saved by its models,
documentation built from its apps, tasks that its own evaluator judges.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from society import BEFORE, NOW, Person, furnish, people
from templates import CHALLENGE, NORMAL, Instance, Template

TASKS_A_SCENARIO = 3
"""As in AppWorld"""


def main(root: str, seed: str, *splits: str) -> None:
    os.environ["APPWORLD_ROOT"] = root
    Path(root, "data", "base_dbs").mkdir(parents=True)
    from appworld.apps import get_all_apps
    from appworld.apps.api_lib import set_local_date_and_time, unset_local_date_and_time
    from appworld.collections.api_docs import ApiDocCollection
    from appworld.collections.models import ModelCollection

    apps = get_all_apps()
    docs = ApiDocCollection.build(tuple(get_all_apps(skip_admin=True)))
    write_docs(Path(root, "data", "api_docs", "standard"), docs)
    rng = random.Random(f"people {seed}")
    everybody = people(rng)
    clock = set_local_date_and_time(BEFORE)
    base = ":memory:base"
    models = ModelCollection.load(to_db_home_path=base, from_db_home_path=base, load_apps=apps, create_db=True)
    furnish(models, everybody, rng)
    for doc in (doc for apis in docs.values() for doc in apis.values()):
        models.api_docs.ApiDoc.create_save(app_name_=doc["app_name"], **{k: doc[k] for k in doc if k != "app_name"})
    models.save(str(Path(root, "data", "base_dbs")), delete_if_exists=True)
    wanted = {name: int(count) for name, _, count in (s.partition("=") for s in splits)}
    groups = {
        "normal": scenarios(NORMAL, models, everybody, seed),
        "challenge": scenarios(CHALLENGE, models, everybody, seed),
    }
    models.close()
    unset_local_date_and_time(clock)
    made = 0
    total = sum(wanted.values())
    datasets = Path(root, "data", "datasets")
    datasets.mkdir()
    for split, count in wanted.items():
        source = groups["challenge" if split == "test_challenge" else "normal"]
        ids = []
        for number, (template, tasks) in zip(range(count), source):
            scenario = f"{split.replace('_', '')}{number:03}"
            for i, task in enumerate(tasks, 1):
                write(root, f"{scenario}_{i}", template, task, apps)
                ids.append(f"{scenario}_{i}")
            made += 1
            print(json.dumps({"made": made, "of": total}), flush=True)
        (datasets / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))


def write_docs(folder: Path, docs: Any) -> None:
    """Files that AppWorld reads documentation from; its own writer wants more packages than its reader."""
    from appworld.common.constants import CANARY_STRING

    folder.mkdir(parents=True)
    for app, apis in docs.items():
        marked = {name: {**doc, "canary_string": CANARY_STRING} for name, doc in apis.items()}
        (folder / f"{app}.json").write_text(json.dumps(marked))


def scenarios(
    kinds: tuple[Template, ...], models: Any, everybody: list[Person], seed: str
) -> Iterator[tuple[Template, list[Instance]]]:
    """Groups of tasks of one kind, kinds taking turns; no task twice."""
    left = {}
    for kind in kinds:
        found = list(kind.instances(models, everybody))
        random.Random(f"{kind.name} {seed}").shuffle(found)
        left[kind] = found
    return _dealt(left)


def _dealt(left: dict[Template, list[Instance]]) -> Iterator[tuple[Template, list[Instance]]]:
    while any(len(found) >= TASKS_A_SCENARIO for found in left.values()):
        for kind, found in left.items():
            if len(found) >= TASKS_A_SCENARIO:
                yield kind, [found.pop() for _ in range(TASKS_A_SCENARIO)]


def write(root: str, task_id: str, template: Template, task: Instance, apps: list[str]) -> None:
    """A task's folder: its databases as changes of the common ones, what is asked, and how it is judged."""
    from appworld.apps.api_lib import set_local_date_and_time, unset_local_date_and_time
    from appworld.apps.model_lib import CachedDBHandler
    from appworld.collections.models import ModelCollection
    from appworld.common.constants import DB_VERSION

    folder = Path(root, "data", "tasks", task_id)
    truth = folder / "ground_truth"
    truth.mkdir(parents=True)
    clock = set_local_date_and_time(NOW)
    home = f":memory:task_input-{task_id}"
    models = ModelCollection.load(
        to_db_home_path=home, from_db_home_path=str(Path(root, "data", "base_dbs")), load_apps=apps
    )
    person = task.person
    supervisor = models.supervisor.Supervisor.create_save(**person.identity, birthday=person.birthday, sex=person.sex)
    models.supervisor.Task.create_save(supervisor_id=supervisor.id, instruction=task.instruction)
    for app, password in person.passwords.items():
        models.supervisor.AccountPassword.create_save(supervisor_id=supervisor.id, account_name=app, password=password)
    models.save(str(folder / "dbs"), format="changes", app_names=list(apps), delete_if_exists=True)
    models.close()
    CachedDBHandler.reset()
    unset_local_date_and_time(clock)
    specification = {
        "instruction": task.instruction,
        "supervisor": person.identity,
        "datetime": NOW.isoformat(),
        "db_version": DB_VERSION,
    }
    asked = [
        ("The task is completed, with the answer that was asked for, or with none.", "no_op_fail"),
        ("Nothing changed but what the task is about.", "no_op_pass"),
        *((f"What changed in {name} is what was asked for.", "no_op_fail") for name in sorted(task.tables)),
    ]
    metadata = {
        "mode": "minimal",
        "difficulty": template.difficulty,
        "num_apps": len(template.apps),
        "num_apis": len(template.apps),
        "num_solution_code_lines": sum(code.count("\n") + 1 for _, code in task.steps),
        "template": template.name,
        "generated": True,
    }
    (folder / "specs.json").write_text(json.dumps(specification))
    files = {
        "public_data.json": {},
        "private_data.json": {"tables": task.tables, "along": list(task.along)},
        "answer.json": task.answer,
        "test_data.json": [{"requirement": r, "label": label} for r, label in asked],
        "metadata.json": metadata,
        "solution.json": [{"thought": thought, "code": code} for thought, code in task.steps],
    }
    for name, content in files.items():
        (truth / name).write_text(json.dumps(content))
    shutil.copy(Path(__file__).with_name("evaluation.py"), truth / "evaluation.py")


if __name__ == "__main__":
    main(*sys.argv[1:])
