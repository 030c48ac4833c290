"""Files whose rows change on the way: fields renamed, types mixed, ids repeated, parts empty. Each has a defined outcome."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.domain.data import Task
from pipeline.errors import BadInput


def test_a_batch_whose_fields_have_other_names_is_refused_and_says_which_there_are(bench: Any, make_rows: Any) -> None:
    bench.put("1.jsonl", make_rows(5))
    before = bench.take()
    bench.put("2.jsonl", [{"question": row["prompt"], "reply": "x"} for row in make_rows(5, start=9)])
    with pytest.raises(BadInput, match="'question', 'reply'") as caught:
        bench.take(format="prompt_completion")
    assert "ingest.columns" in str(caught.value.fix)
    assert bench.snapshot == before
    assert bench.snapshot.rows == 5


def test_fields_that_go_or_change_their_type_on_the_way_take_only_their_own_rows_along(bench: Any) -> None:
    good = [{"prompt": f"q{i}", "completion": "a"} for i in range(3)]
    odd: list[tuple[dict[str, Any], str]] = [
        ({"prompt": "q", "answer": "a"}, "missing_field"),
        ({"prompt": "q", "completion": 7}, "wrong_type"),
        ({"prompt": "q", "completion": True}, "wrong_type"),
        ({"prompt": {"text": "q"}, "completion": "a"}, "wrong_type"),
        ({"prompt": "q", "completion": ["a"]}, "wrong_type"),
        ({"prompt": None, "completion": "a"}, "blank"),
        ({"prompt": "q", "completion": ""}, "blank"),
        ({"messages": []}, "missing_field"),
    ]
    bench.put("a.jsonl", [good[0], *(row for row, _ in odd), *good[1:]])
    snapshot = bench.take()
    assert bench.codes == [code for _, code in odd]
    assert [e.line for e in bench.examples] == [1, len(odd) + 2, len(odd) + 3]
    assert snapshot.sources[0].read == len(good) + len(odd)


def test_the_first_row_that_is_of_a_format_tells_it_for_its_file_alone(bench: Any) -> None:
    bench.put("a.jsonl", [{"note": "x"}, {"prompt": "q", "completion": "a"}, {"text": "a document"}])
    bench.put("b.jsonl", [{"text": "another"}])
    bench.take()
    assert [e.kind for e in bench.examples] == ["answer", "text"]
    assert bench.codes == ["missing_field", "missing_field"]


def test_parquet_with_types_that_are_no_texts(bench: Any) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", "b", None, "d"]),
            "label": pa.array([1, 2, 3, None], pa.int64()),
            "score": pa.array([0.5, None, 1.0, 2.0]),
            "seen": pa.array([True, None, False, True]),
        }
    )
    pq.write_table(table, bench.inbox / "a.parquet")
    bench.take(task=Task.CLASSIFY)
    assert [(e.input, e.output, json.loads(e.meta)) for e in bench.examples] == [
        ("a", "1", {"score": "0.5", "seen": "true"}),
        ("b", "2", {}),
    ]
    assert bench.codes == ["blank", "blank"]


@pytest.mark.parametrize("name", ["b.jsonl", "b.json", "b.csv", "b.txt"])
def test_a_part_of_no_bytes_among_others_is_a_source_without_rows(bench: Any, make_rows: Any, name: str) -> None:
    bench.put("a.jsonl", make_rows(2))
    bench.put("c.jsonl", make_rows(2, start=5))
    bench.put(name, b"")
    sources = [bench.inbox / each for each in ("a.jsonl", name, "c.jsonl")]
    snapshot = bench.take(sources=sources)
    assert [source.read for source in snapshot.sources] == [2, 0, 2]
    assert snapshot.rows == 4


def test_the_same_content_under_two_ids_is_one_example_and_other_content_under_one_id_is_two(bench: Any) -> None:
    rows = [
        {"id": "1", "prompt": "q", "completion": "a"},
        {"id": "2", "prompt": "q", "completion": "a"},
        {"id": "1", "prompt": "q", "completion": "b"},
    ]
    bench.put("a.jsonl", rows)
    snapshot = bench.take()
    assert (snapshot.rows, snapshot.sources[0].duplicate) == (2, 1)
    assert [json.loads(e.meta)["id"] for e in bench.examples] == ["1", "1"]
    assert len({e.group for e in bench.examples}) == 1, "one prompt, so both stay on one side of the split"


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_ends_within_cells_are_kept_and_between_rows_are_not(bench: Any, ending: str) -> None:
    bench.put("a.csv", ending.join(["prompt,completion", '"q\r\n1","a\n\r\n"', 'r,"b\r"', ""]).encode())
    bench.take()
    [one, other] = bench.examples
    assert json.loads(one.input)[0]["content"] == "q\r\n1"
    assert (one.output, other.output) == ("a\n\r\n", "b\r")


def test_a_deep_or_long_value_within_a_document_takes_only_its_own_row_along(bench: Any) -> None:
    good = '{"prompt": "q%d", "completion": "a"}'
    deep, long = "[" * 100_000 + "]" * 100_000, json.dumps({"prompt": "x" * 5000, "completion": "a"})
    bench.put("a.json", '{"rows": [' + ",".join([good % 1, deep, good % 2, long, good % 3]) + "]}")
    snapshot = bench.take(records=("rows",), max_line_bytes=2048)
    assert bench.codes == ["too_long", "too_long"]
    assert snapshot.rows == 3
    bench.put("b.json", '{"rows": [' + ",".join([good % 4, "[" * 100 + "]" * 100]) + "]}")
    assert bench.take(records=("rows",)).rows == 4
    assert bench.codes[-1] == "too_deep"
