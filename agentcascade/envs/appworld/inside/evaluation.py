"""How AppWorld's evaluator judges a generated task: copied into every task, which says in its data what must be so."""

import json
from typing import Any

STAMPS = ["updated_at", "record_hash"]


def evaluate(
    test: Any, public_data: Any, private_data: Any, main_user: Any, models: Any, ground_truth_answer: Any
) -> None:
    tables = private_data["tables"]

    with test("The task is completed, with the answer that was asked for, or with none."):
        test.answer(json.loads(models.end.supervisor.Task.all()[0].answer), ground_truth_answer)

    with test("Nothing changed but what the task is about."):
        changed = models.changed_model_names()
        test.case(changed - set(tables) - set(private_data["along"]), "==", set())

    for name, wanted in sorted(tables.items()):
        with test(f"What changed in {name} is what was asked for."):
            added, updated, removed = models.changed_records(name)
            fields = sorted(wanted["fields"])
            test.case(sorted([str(getattr(r, f)) for f in fields] for r in added), "==", sorted(wanted["added"]))
            test.case(sorted(r.id for r in removed), "==", sorted(wanted["removed"]))
            test.case(sorted(str(r.id) for r in updated), "==", sorted(wanted["updated"]))
            for record in updated:
                values = wanted["updated"][str(record.id)]
                fields_changed = models.changed_field_names(name, record.id, ignore=STAMPS)
                test.case(fields_changed, "==", set(values))
                for field, value in values.items():
                    test.case(value is None or getattr(record, field) == value, "==", True)
