"""Split: stable sides, whole groups, nothing without a passed curation, and nothing held out among what is trained on."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.curation.shards import read_split
from pipeline.domain.curated import Curation, Frozen, Split, SplitFile, Splits
from pipeline.domain.data import EXAMPLE_COLUMNS, CheckResult, Snapshot, Task, empty_snapshot
from pipeline.domain.record import digest_file
from pipeline.domain.splitting import assign_stratum, point
from pipeline.errors import Misuse, Tampered
from pipeline.params import LeakParams, SplitParams
from pipeline.steps.split import split

Rows = Callable[..., list[dict[str, Any]]]
LENIENT = LeakParams(exact="off", ngram="off", near="off")
THIRDS = SplitParams(eval=0.3, test=0.3, leaks=LENIENT)


def curation_of(bench: Any, snapshot: Snapshot, *, dropped: Iterable[str] = (), checks: tuple[CheckResult, ...] = ()) -> Curation:
    """The record and the file of a curation that leaves out the examples with the ids `dropped`."""
    folder = bench.root / "curated"
    folder.mkdir(exist_ok=True)
    ids = list(dropped)
    names = {"id": ids, "rule": ["r"] * len(ids), "reason": ["because"] * len(ids), "other": [""] * len(ids)}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in names.items()})
    path = folder / "dropped.parquet"
    pq.write_table(table, path)
    file = SplitFile(path=path.name, sha256=digest_file(path), bytes=path.stat().st_size, rows=len(ids))
    return Curation(snapshot=snapshot.digest, validation="0" * 64, params={}, rules=(), checks=checks, dropped=file)


def cut(
    bench: Any,
    params: SplitParams = THIRDS,
    *,
    reserved: tuple[Snapshot, Path] | None = None,
    curation: Curation | None = None,
    before: Splits | None = None,
    out: str = "splits",
) -> Splits:
    """Split the bench's snapshot; `before`: an earlier split in the same place, whose sides are kept."""
    frozen = Frozen()
    if before is not None:
        shutil.copytree(bench.root / out / "sides", bench.root / "frozen" / "sides", dirs_exist_ok=True)
        frozen = Frozen(splits=before.digest, sides=(*bench.frozen.sides, *before.sides))
    bench.frozen = frozen
    return split(
        bench.snapshot,
        curation or curation_of(bench, bench.snapshot),
        params,
        folder=bench.folder,
        curated=bench.root / "curated",
        out=bench.root / out,
        frozen=frozen,
        frozen_folder=bench.root / "frozen",
        reserved=reserved[0] if reserved else empty_snapshot("bench", bench.snapshot.task),
        reserved_folder=reserved[1] if reserved else Path(),
    )


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
    for part in (*splits.train.parts, *splits.eval.parts, *splits.test.parts):
        assert tuple(pq.ParquetFile(bench.root / "splits" / part.path).schema_arrow.names) == EXAMPLE_COLUMNS
    assert Splits.read(bench.root / "splits" / "splits.json") == splits
    listed = {"splits.json", *(f.path for f in (*splits.train.parts, *splits.eval.parts, *splits.test.parts, *splits.sides))}
    listed |= {splits.leaks.path} if splits.leaks else set()
    assert {str(p.relative_to(bench.root / "splits")) for p in (bench.root / "splits").rglob("*") if p.is_file()} == listed


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
    salted = cut(bench, SplitParams(eval=0.3, test=0.3, salt="other", leaks=LENIENT))
    assert salted.train.sha256 != first.train.sha256


def test_labels_are_sorted_and_complete(bench: Any, make_labelled: Rows) -> None:
    bench.put("1.jsonl", make_labelled(60, labels=("b", "a", "c")))
    bench.take(task=Task.CLASSIFY)
    assert cut(bench).labels == ("a", "b", "c")


def test_only_a_passed_curation_of_this_snapshot_opens_the_way(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(60))
    first = bench.take()
    bench.put("2.jsonl", make_rows(5, start=100))
    second = bench.take()
    failed = CheckResult(name="contradictions", passed=False, expected="none", observed="some")
    for curation, message in (
        (curation_of(bench, first), "another snapshot"),
        (curation_of(bench, second, checks=(failed,)), "did not pass curation: contradictions"),
    ):
        with pytest.raises(Misuse, match=message):
            cut(bench, curation=curation)
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
        cut(bench, SplitParams(eval=0.3, test=0.001, leaks=LENIENT))
    splits = cut(bench, SplitParams(eval=0.0, test=0.0))
    assert (splits.train.rows, splits.eval.rows, splits.test.rows) == (2, 0, 0)
    assert list(read_split(bench.root / "splits", splits, Split.TEST)) == []


def test_frozen_sides_outlive_another_salt_other_shares_and_rows_left_out(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(80))
    bench.take()
    first = cut(bench)
    before = sides(bench, first)
    bench.put("2.jsonl", make_rows(80, start=100))
    bench.take()
    gone = [id for id, side in before.items() if side is Split.TEST][:3]
    changed = SplitParams(eval=0.1, test=0.5, salt="other", stratify="source", leaks=LENIENT)
    later = cut(bench, changed, curation=curation_of(bench, bench.snapshot, dropped=gone), before=first)
    after = sides(bench, later)
    assert {id: after[id] for id in before if id not in gone} == {id: s for id, s in before.items() if id not in gone}
    assert not set(gone) & set(after)
    assert sum(file.rows for file in later.sides) == 80, "only the new groups are written"


def test_rows_that_curation_left_out_are_on_no_side_and_the_counts_must_agree(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(60))
    bench.take()
    gone = [e.id for e in bench.examples[::7]]
    splits = cut(bench, curation=curation_of(bench, bench.snapshot, dropped=gone))
    assert set(sides(bench, splits)) == {e.id for e in bench.examples} - set(gone)


def test_adding_rows_writes_files_for_the_new_shards_only(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(200))
    bench.take()
    first = cut(bench)
    bench.put("2.jsonl", make_rows(20, start=1000))
    bench.take()
    second = cut(bench, before=first)
    for side in ("train", "eval", "test"):
        old, new = getattr(first, side).parts, getattr(second, side).parts
        assert new[: len(old)] == old
        assert getattr(second, side).rows >= getattr(first, side).rows


def test_strata_get_their_share_each(bench: Any, make_labelled: Rows) -> None:
    bench.put("1.jsonl", make_labelled(400, labels=tuple("abcdefgh")))
    bench.take(task=Task.CLASSIFY)
    splits = cut(bench, SplitParams(eval=0.1, test=0.2, stratify="label", leaks=LENIENT))
    held = Counter(e.output for e in read_split(bench.root / "splits", splits, Split.TEST))
    assert set(held) == set("abcdefgh")
    assert all(10 <= count <= 11 for count in held.values()), held


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.floats(0, 0.999), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_stratum_is_cut_in_its_shares(count: int, offset: float, held: float, test: float) -> None:
    points = [point(str(i), "salt") for i in range(count)]
    drawn = Counter(assign_stratum(points, offset, eval_share=held, test_share=test))
    assert sum(drawn.values()) == count
    assert abs(drawn[Split.TEST] - test * count) <= 1
    assert abs(drawn[Split.EVAL] - held * count) <= 2


def test_the_test_side_stops_growing_when_it_is_full(bench: Any, make_rows: Rows) -> None:
    params = SplitParams(eval=0.1, test=0.3, max_test_rows=20, leaks=LENIENT)
    bench.put("1.jsonl", make_rows(60))
    bench.take()
    first = cut(bench, params)
    assert 0 < first.test.rows <= 20
    bench.put("2.jsonl", make_rows(300, start=1000))
    bench.take()
    second = cut(bench, params, before=first)
    assert second.test.rows == 20
    assert {part.path for part in first.test.parts} <= {part.path for part in second.test.parts}


def test_a_leak_blocks_or_is_left_out_as_params_say(bench: Any) -> None:
    words = "the quick brown fox jumps over a lazy dog near the old stone bridge at dawn while rain falls on number"
    rows = [{"prompt": f"{words} {i} {i * 7919 % 1000} {chr(97 + i % 26) * 9}", "completion": f"{i}"} for i in range(60)]
    rows += [{"prompt": row["prompt"] + "!", "completion": "copied"} for row in rows]
    bench.put("1.jsonl", rows)
    bench.take()
    loose = LeakParams(exact="block", ngram="off", near="off")
    blocked = cut(bench, SplitParams(eval=0.2, test=0.2, leaks=loose))
    assert not blocked.passed
    assert blocked.leaks
    leaked = pq.read_table(bench.root / "splits" / blocked.leaks.path)
    assert set(leaked["how"].to_pylist()) == {"exact"}
    dropping = LeakParams(exact="drop", ngram="off", near="off")
    dropped = cut(bench, SplitParams(eval=0.2, test=0.2, leaks=dropping))
    assert dropped.passed
    assert blocked.train.rows - dropped.train.rows == leaked.num_rows > 0
    assert (dropped.eval, dropped.test) == (blocked.eval, blocked.test)


def test_reserved_rows_are_never_trained_on_whatever_params_say(bench: Any, another_bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(90))
    bench.take()
    suite = another_bench()
    suite.put("edge.jsonl", [{"prompt": row["prompt"].upper(), "completion": "other"} for row in make_rows(90)[::3]])
    reserved = (suite.take(), suite.folder)
    free = cut(bench, THIRDS)
    kept = cut(bench, THIRDS, reserved=reserved)
    suite_prompts = {e.group for e in suite.examples}
    assert not suite_prompts & {e.group for e in read_split(bench.root / "splits", kept, Split.TRAIN)}
    assert (kept.eval, kept.test) == (free.eval, free.test)
    (check,) = [c for c in kept.checks if c.name == "reserved"]
    assert check.observed == f"{free.train.rows - kept.train.rows} more rows were left out of train"
    assert free.train.rows > kept.train.rows
    strict = cut(bench, SplitParams(eval=0.3, test=0.3), reserved=reserved)
    assert not strict.passed, "with the policy block the run ends"
