"""Split: stable sides, whole groups, and nothing without a passed validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.curation.shards import read_split
from pipeline.domain.data import EXAMPLE_COLUMNS, CheckResult, Snapshot, Split, Splits, Task, ValidationReport
from pipeline.errors import Misuse, Tampered
from pipeline.params import SplitParams
from pipeline.steps.split import split

Rows = Callable[..., list[dict[str, Any]]]
THIRDS = SplitParams(eval=0.3, test=0.3)


def report_on(snapshot: Snapshot, *, passed: bool = True) -> ValidationReport:
    check = CheckResult(name="rows", passed=passed, expected="", observed="")
    return ValidationReport(snapshot=snapshot.digest, rows=snapshot.rows, suite="", checks=(check,))


def cut(bench: Any, params: SplitParams = THIRDS) -> Splits:
    return split(bench.snapshot, report_on(bench.snapshot), params, folder=bench.folder, out=bench.root / "splits")


def sides(bench: Any, splits: Splits) -> dict[str, Split]:
    found = {}
    for side in Split:
        for example in read_split(bench.root / "splits", splits, side):
            assert example.id not in found
            found[example.id] = side
    return found


def test_every_row_lands_on_one_side_with_all_its_columns(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(60))
    bench.take()
    splits = cut(bench)
    assert splits.train.rows + splits.eval.rows + splits.test.rows == 60
    assert set(sides(bench, splits)) == {e.id for e in bench.examples}
    for file in (splits.train, splits.eval, splits.test):
        assert tuple(pq.ParquetFile(bench.root / "splits" / file.path).schema_arrow.names) == EXAMPLE_COLUMNS
    assert Splits.read(bench.root / "splits" / "splits.json") == splits
    assert sorted(p.name for p in (bench.root / "splits").iterdir()) == [
        "eval.parquet",
        "splits.json",
        "test.parquet",
        "train.parquet",
    ]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_no_row_changes_sides_as_data_grows(another_bench: Any, make_rows: Rows, first: list[int], later: list[int]) -> None:
    one = another_bench()
    one.put("0.jsonl", make_rows(40, start=100))
    one.put("1.jsonl", [make_rows(1, start=i)[0] for i in first])
    one.take()
    before = sides(one, cut(one))
    one.put("2.jsonl", [make_rows(1, start=i)[0] for i in later])
    one.take()
    after = sides(one, cut(one))
    assert {id: after[id] for id in before} == before


def test_rows_of_one_group_stay_together(bench: Any) -> None:
    rows = [{"prompt": f"Question {i // 3}" + " ?" * (i % 3 > 0), "completion": f"{i}", "user": str(i // 3)} for i in range(90)]
    bench.put("1.jsonl", rows)
    bench.take(group_by="user")
    found = sides(bench, cut(bench))
    groups: dict[str, set[Split]] = {}
    for example in bench.examples:
        groups.setdefault(example.group, set()).add(found[example.id])
    assert len(groups) == 30
    assert all(len(on) == 1 for on in groups.values())


def test_the_same_snapshot_gives_the_same_bytes_and_another_salt_other_sides(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(60))
    bench.take()
    first = cut(bench)
    assert cut(bench) == first
    salted = cut(bench, SplitParams(eval=0.3, test=0.3, salt="other"))
    assert salted.train.sha256 != first.train.sha256


def test_labels_are_sorted_and_complete(bench: Any, make_labelled: Rows) -> None:
    bench.put("1.jsonl", make_labelled(60, labels=("b", "a", "c")))
    bench.take(task=Task.CLASSIFY)
    assert cut(bench).labels == ("a", "b", "c")


def test_only_a_passed_validation_of_this_snapshot_opens_the_way(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(60))
    first = bench.take()
    bench.put("2.jsonl", make_rows(5, start=100))
    second = bench.take()
    nothing_checked = report_on(second).model_copy(update={"checks": ()})
    for report, message in (
        (report_on(first), "another snapshot"),
        (report_on(second, passed=False), "did not pass validation: rows"),
        (nothing_checked, "no checks"),
    ):
        with pytest.raises(Misuse, match=message):
            split(second, report, THIRDS, folder=bench.folder, out=bench.root / "splits")
    assert not (bench.root / "splits").exists()


def test_a_changed_shard_is_never_split(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(60))
    shard = bench.folder / bench.take().shards[0].path
    shard.write_bytes(shard.read_bytes()[:-1] + b"X")
    with pytest.raises(Tampered):
        cut(bench)
    assert list((bench.root / "splits").iterdir()) == []


def test_an_empty_side_is_refused_unless_it_was_asked_for(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(2))
    bench.take()
    with pytest.raises(Misuse, match="no row fell to"):
        cut(bench, SplitParams(eval=0.3, test=0.001))
    splits = cut(bench, SplitParams(eval=0.0, test=0.0))
    assert (splits.train.rows, splits.eval.rows, splits.test.rows) == (2, 0, 0)
    assert list(read_split(bench.root / "splits", splits, Split.TEST)) == []
