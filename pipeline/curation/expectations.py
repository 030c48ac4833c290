"""The expectation suite as data: what must hold for every row of a snapshot, from the params and the task.

Each entry is a dict of `type` (a Great Expectations expectation), `kwargs` and `note`. All of them are asked row by row, so a
table can be asked in pieces. What is about the snapshot as a whole (row floors, shares, labels) is steps/validate.py's, since
Great Expectations passes when there is nothing to look at. No tool enters here.
"""

from __future__ import annotations

from typing import Any

from pipeline.domain.data import KINDS_OF_TASK, Task
from pipeline.params import ValidateParams

ASKED = ("id", "group", "input", "output", "kind")
"""The columns of an example that the suite looks at. Two more join them: `blank`, which of input and output says nothing though
the row's kind has something there; for classify `label_rows`, how many rows in all have this row's label."""


def suite(params: ValidateParams, task: Task) -> list[dict[str, Any]]:
    """The expectations that a snapshot of `task` must meet."""
    expectations = [_expect("expect_column_values_to_not_be_null", "each row has it", column=column) for column in ASKED]
    expectations += [
        _expect("expect_column_values_to_be_unique", "no example comes twice", column="id"),
        _expect("expect_column_values_to_match_regex", "ids are digests of the content", column="id", regex="^[0-9a-f]{32}$"),
        _lengths("input", params.max_input_chars, "validate.max_input_chars"),
        _lengths("output", params.max_output_chars, "validate.max_output_chars"),
        _expect("expect_column_values_to_be_in_set", "what must say something does", column="blank", value_set=["neither"]),
        _expect(
            "expect_column_values_to_be_in_set",
            f"what the task {task} knows",
            column="kind",
            value_set=sorted(kind.value for kind in KINDS_OF_TASK[task]),
        ),
    ]
    if task is Task.GENERATE:
        messages = r'^(?:$|\[\{"content":|\{"messages":\[\{"content":)'
        expectations.append(
            _expect("expect_column_values_to_match_regex", "a conversation, or nothing", column="input", regex=messages)
        )
    if task is Task.CLASSIFY and params.labels is not None:
        expectations.append(
            _expect("expect_column_values_to_be_in_set", "validate.labels", column="output", value_set=sorted(params.labels))
        )
    if task is Task.CLASSIFY and params.min_rows_per_label:
        expectations.append(
            _expect(
                "expect_column_values_to_be_between",
                "validate.min_rows_per_label",
                column="label_rows",
                min_value=params.min_rows_per_label,
            )
        )
    return expectations


def _lengths(column: str, most: int, note: str) -> dict[str, Any]:
    return _expect("expect_column_value_lengths_to_be_between", note, column=column, max_value=most)


def _expect(type: str, note: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": type, "kwargs": kwargs, "note": note}
