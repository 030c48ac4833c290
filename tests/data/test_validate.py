"""Validate: what must stop a snapshot, with Great Expectations really asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.backends.great_expectations import GreatExpectations
from pipeline.curation.expectations import suite
from pipeline.domain.data import CheckResult, Task, ValidationReport
from pipeline.domain.record import digest_file
from pipeline.errors import Broken, Tampered
from pipeline.params import ValidateParams
from pipeline.steps.validate import validate

Rows = Callable[..., list[dict[str, Any]]]


def check(bench: Any, **params: Any) -> ValidationReport:
    return validate(
        bench.snapshot,
        ValidateParams(**{"min_rows": 5, **params}),
        folder=bench.folder,
        out=bench.root / "out",
        expectations=GreatExpectations(),
    )


def failed(report: ValidationReport) -> set[tuple[str, str | None]]:
    return {(c.name, c.column) for c in report.failures}


class NeverAsked:
    def check(self, table: Path, suite: Sequence[Mapping[str, Any]], *, docs: Path) -> tuple[CheckResult, ...]:
        raise AssertionError("expectations were asked of data that is too little to say anything")


def test_a_good_snapshot_passes_and_leaves_its_pages(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(20))
    bench.take()
    report = check(bench)
    out = bench.root / "out"
    assert report.passed
    assert report.snapshot == bench.snapshot.digest
    assert ValidationReport.read(out / "validation.json") == report
    assert sum(c.name.startswith("expect_") for c in report.checks) == len(suite(ValidateParams(), Task.GENERATE))
    page = (out / "validation.html").read_text()
    assert "Fit to train on: 20 rows" in page
    assert "data_docs/index.html" in page
    assert (out / "data_docs" / "index.html").is_file()
    assert len(list((out / "data_docs" / "validations").rglob("*.html"))) == 1
    assert sorted(p.name for p in out.iterdir()) == ["data_docs", "validation.html", "validation.json"]


def test_the_same_snapshot_gives_the_same_bytes(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", [*make_rows(20), {"prompt": "p" * 300, "completion": "c"}])
    bench.take()
    made = []
    for _ in range(2):
        check(bench, max_input_chars=200)
        out = bench.root / "out"
        made.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert made[0] == made[1]


@pytest.mark.parametrize("content", ["", '{"prompt": "p", "completion": "c"}\n', '{"prompt": null, "completion": null}\n' * 30])
def test_too_few_rows_stop_before_anything_is_asked(bench: Any, content: str) -> None:
    bench.put("1.jsonl", content)
    bench.take()
    report = validate(bench.snapshot, ValidateParams(), folder=bench.folder, out=bench.root / "out", expectations=NeverAsked())
    assert not report.passed
    assert ("rows", None) in failed(report)
    page = (bench.root / "out" / "validation.html").read_text()
    assert "Not fit to train on" in page
    assert "Not asked" in page


def test_ninety_nine_percent_duplicates_stop(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(10) * 100)
    bench.take()
    assert failed(check(bench)) == {("duplicate_share", None)}


def test_many_quarantined_rows_stop_with_examples(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", [*make_rows(20), *[{"prompt": "<script>alert(1)</script>", "completion": None}] * 10])
    bench.take()
    report = check(bench)
    assert failed(report) == {("quarantined_share", None)}
    [failure] = report.failures
    assert failure.observed == "10 of 30 rows in the newest batch (33.3%)"
    assert failure.samples == ("inbox/1.jsonl:30: blank: completion is null",)
    page = (bench.root / "out" / "validation.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_shares_are_of_the_newest_batch_alone(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", [*make_rows(20), *[{"prompt": "p"}] * 10])
    bench.take()
    assert not check(bench).passed
    bench.put("2.jsonl", make_rows(20, start=100))
    bench.take()
    assert check(bench).passed


def test_lengths_labels_and_rare_labels_stop_with_sample_rows(bench: Any, make_labelled: Rows) -> None:
    bench.put(
        "1.jsonl", [*make_labelled(20), {"text": "odd <b>one</b>", "label": "maybe"}, {"text": "long " * 50, "label": "no"}]
    )
    bench.take(task=Task.CLASSIFY)
    report = check(bench, labels=("yes", "no"), max_input_chars=100)
    assert failed(report) == {
        ("expect_column_values_to_be_in_set", "output"),
        ("expect_column_values_to_be_between", "label_rows"),
        ("expect_column_value_lengths_to_be_between", "input"),
    }
    for failure in report.failures:
        assert failure.error is None
        assert failure.observed == "1 of 22 rows are otherwise"
        [sample] = failure.samples
        assert json.loads(sample)["id"] in {e.id for e in bench.examples}
    docs = "".join(p.read_text() for p in (bench.root / "out" / "data_docs").rglob("*.html"))
    assert "odd <b>" not in docs  # Data Docs do not escape values, so they are given none
    assert "odd &lt;b&gt;one" in (bench.root / "out" / "validation.html").read_text()


def test_one_label_is_not_enough_to_learn(bench: Any, make_labelled: Rows) -> None:
    bench.put("1.jsonl", make_labelled(20, labels=("yes",)))
    bench.take(task=Task.CLASSIFY)
    assert failed(check(bench)) == {("labels", "output")}


def test_an_id_in_two_shards_is_found(bench: Any, another_bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(10))
    one = bench.take()
    bench.put("2.jsonl", make_rows(10, start=10))
    two = bench.take()
    other = another_bench()
    other.put("3.jsonl", make_rows(10))
    forged = other.take().shards[0]
    (bench.folder / two.shards[1].path).write_bytes((other.folder / forged.path).read_bytes())
    bench.snapshot = two.model_copy(update={"shards": (one.shards[0], forged.model_copy(update={"path": two.shards[1].path}))})
    report = check(bench)
    assert ("ids_unique", None) in failed(report)
    assert ("expect_column_values_to_be_unique", "id") in failed(report)


def test_ids_that_are_no_digests_fail_their_expectation(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(10))
    snapshot = bench.take()
    path = bench.folder / snapshot.shards[0].path
    table = pq.read_table(path)
    odd = pa.array(["id 1", None, "id 1", *table["id"].to_pylist()[3:]])
    pq.write_table(table.set_column(0, "id", odd), path)
    shard = snapshot.shards[0].model_copy(update={"sha256": digest_file(path), "bytes": path.stat().st_size})
    bench.snapshot = snapshot.model_copy(update={"shards": (shard,)})
    assert {
        ("expect_column_values_to_match_regex", "id"),
        ("expect_column_values_to_not_be_null", "id"),
        ("expect_column_values_to_be_unique", "id"),
    } <= failed(check(bench))


def test_every_kind_may_be_empty_where_it_has_nothing_and_nowhere_else(bench: Any) -> None:
    tools = [{"name": "f"}]
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    files = {
        "answer": {"prompt": "q", "completion": "a"},
        "call": {"messages": [{"role": "user", "content": "q"}, call], "tools": tools},
        "preference": {"prompt": "q", "chosen": "a", "rejected": "b"},
        "feedback": {"prompt": "q", "completion": "a", "label": True},
        "ranking": {"prompt": "q", "ranked": ["a", "b"]},
        "text": {"text": "a document"},
        "prompt": {"prompt": "q"},
    }
    for kind, row in files.items():
        bench.put(f"{kind}.jsonl", [row])
    snapshot = bench.take()
    assert {e.kind for e in bench.examples} == files.keys()
    assert check(bench).passed
    path = bench.folder / snapshot.shards[0].path
    whole = pq.read_table(path)
    for column, kind in (("input", "text"), ("output", "prompt")):
        kinds = whole["kind"].to_pylist()
        emptied = pa.array([value if k == kind else " " for k, value in zip(kinds, whole[column].to_pylist(), strict=True)])
        pq.write_table(whole.set_column(whole.schema.get_field_index(column), column, emptied), path)
        shard = snapshot.shards[0].model_copy(update={"sha256": digest_file(path), "bytes": path.stat().st_size})
        bench.snapshot = snapshot.model_copy(update={"shards": (shard,)})
        report = check(bench)
        [failure] = [c for c in report.failures if c.column == "blank"]
        assert failure.observed == f"{len(files) - 1} of {len(files)} rows are otherwise"


def test_the_first_repeated_ids_are_named_in_order(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(40))
    snapshot = bench.take()
    ids = sorted(example.id for example in bench.examples)
    bench.snapshot = snapshot.model_copy(update={"shards": snapshot.shards * 3})
    [failure] = [c for c in check(bench).failures if c.name == "ids_unique"]
    assert failure.samples == tuple(ids[:5])
    assert failure.observed == "40 ids twice"


def test_a_changed_shard_is_never_validated(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(10))
    shard = bench.folder / bench.take().shards[0].path
    shard.write_bytes(shard.read_bytes()[:-1] + b"X")
    with pytest.raises(Tampered):
        check(bench)


def table_at(path: Path, count: int) -> Path:
    pq.write_table(pa.table({"id": [f"{i}" for i in range(count)], "input": ["x"] * count}), path)
    return path


def test_a_broken_expectation_is_an_error_and_neither_pass_nor_fail(tmp_path: Path) -> None:
    entries = [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "input"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "absent", "min_value": 1}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "input", "min_value": 1}},
    ]
    good, absent, wrong_type = GreatExpectations().check(table_at(tmp_path / "t.parquet", 3), entries, docs=tmp_path / "docs")
    assert good.passed
    assert good.error is None
    for broken in (absent, wrong_type):
        assert not broken.passed
        assert broken.error
    assert "absent" in str(absent.error)


def test_an_empty_table_passes_nothing(tmp_path: Path) -> None:
    entries = [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "input"}}]
    [result] = GreatExpectations().check(table_at(tmp_path / "t.parquet", 0), entries, docs=tmp_path / "docs")
    assert not result.passed
    assert "no rows" in str(result.error)


def test_an_unknown_expectation_breaks_loudly(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="could not be run"):
        GreatExpectations().check(
            table_at(tmp_path / "t.parquet", 3), [{"type": "expect_the_best", "kwargs": {}}], docs=tmp_path / "docs"
        )


def test_pieces_add_up_to_the_whole(tmp_path: Path) -> None:
    table = table_at(tmp_path / "t.parquet", 25)
    entries = [{"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "id", "value_set": ["1", "12"]}}]
    whole = GreatExpectations().check(table, entries, docs=tmp_path / "whole")
    pieces = GreatExpectations(piece_rows=10).check(table, entries, docs=tmp_path / "pieces")
    assert whole == pieces
    assert whole[0].observed == "23 of 25 rows are otherwise"
    assert len(list((tmp_path / "pieces" / "validations").rglob("*.html"))) == 3
