"""Ingest: every row ends in one place, the same input makes the same bytes, and what is there stays."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.curation import shards
from pipeline.domain.data import Snapshot, Task
from pipeline.errors import BadInput, Misuse, Tampered, TryLater

Rows = Callable[..., list[dict[str, Any]]]


def test_all_kinds_of_files_give_the_same_examples(bench: Any, another_bench: Any, make_rows: Rows) -> None:
    rows = [*make_rows(5), {"prompt": 'say "hi",\r\nplease', "completion": "hi\n"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    table = io.StringIO(newline="")
    csv.writer(table).writerows([["prompt", "completion"], *([row["prompt"], row["completion"]] for row in rows)])
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    contents = {
        "a.jsonl": lines.encode(),
        "a.ndjson": b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode(),
        "a.jsonl.gz": gzip.compress(lines.encode()),
        "a.json": json.dumps(rows, indent=2).encode(),
        "b.json": lines.encode(),
        "a.json.gz": gzip.compress(b"\n" + json.dumps(rows).encode()),
        "a.csv": b"\xef\xbb\xbf" + table.getvalue().encode(),
        "a.csv.gz": gzip.compress(table.getvalue().encode()),
        "a.parquet": parquet.getvalue(),
    }
    wanted = None
    for name, content in contents.items():
        one = another_bench()
        one.put(name, content)
        snapshot = one.take()
        assert snapshot.sources[0].accepted == 6, name
        found = [(e.id, e.group, e.input, e.output, e.meta) for e in one.examples]
        wanted = wanted or found
        assert found == wanted, name
        bench.put(name, content)
    # Together, in one batch, all rows are known after the first file.
    together = bench.take()
    # b.json has the bytes of a.jsonl and is passed over.
    assert [s.accepted for s in together.sources] == [6] + [0] * 7
    assert sum(s.duplicate for s in together.sources) == 42


def test_the_same_input_makes_the_same_bytes(another_bench: Any, make_rows: Rows) -> None:
    made = []
    for _ in range(2):
        one = another_bench()
        one.put("b/late.jsonl", make_rows(30, start=20))
        one.put("a.jsonl", [*make_rows(25), {"prompt": "x"}])
        one.take()
        made.append(one.bytes_of_snapshot())
    assert made[0] == made[1]
    assert sorted({name.split("/")[0] for name in made[0]}) == ["quarantine", "shards", "snapshot.json"]


def test_a_later_snapshot_keeps_every_byte_and_reads_only_what_is_new(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", [*make_rows(10), {"prompt": "p"}])
    first = bench.take()
    before = bench.bytes_of_snapshot()
    assert first.parent is None
    assert [s.name for s in first.batch] == ["inbox/1.jsonl"]
    bench.put("2.jsonl", make_rows(10, start=5))
    second = bench.take()
    after = bench.bytes_of_snapshot()
    assert second.parent == first.digest
    assert {name: after[name] for name in before if name != "snapshot.json"} == {
        name: content for name, content in before.items() if name != "snapshot.json"
    }
    assert [(s.name, s.accepted, s.duplicate) for s in second.batch] == [("inbox/2.jsonl", 5, 5)]
    assert second.shards[: len(first.shards)] == first.shards
    assert second.quarantine == first.quarantine
    assert Snapshot.read(bench.folder / "snapshot.json") == second
    assert len({e.id for e in bench.examples}) == second.rows == 15


def test_nothing_new_returns_the_parent_and_touches_nothing(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(3))
    first = bench.take()
    before = {p: p.stat().st_mtime_ns for p in bench.folder.rglob("*")}
    bench.put("renamed.jsonl", make_rows(3))
    assert bench.take() is first
    assert {p: p.stat().st_mtime_ns for p in bench.folder.rglob("*")} == before


def test_an_empty_folder_makes_an_empty_snapshot(bench: Any) -> None:
    snapshot = bench.take()
    assert (snapshot.rows, snapshot.sources) == (0, ())
    assert bench.take() is snapshot


def test_unfinished_hidden_and_foreign_files_wait(bench: Any, make_rows: Rows) -> None:
    for name in ("a.jsonl.part", "b.jsonl.tmp", ".c.jsonl", ".d/e.jsonl", "LICENSE", "README.md"):
        bench.put(name, make_rows(1))
    assert bench.take().sources == ()


def test_as_of_leaves_later_files_for_later(bench: Any, make_rows: Rows) -> None:
    for day in (1, 2, 3):
        path = bench.put(f"{day}.jsonl", make_rows(2, start=10 * day))
        instant = datetime(2026, 1, day, tzinfo=UTC).timestamp()
        os.utime(path, (instant, instant))
    assert [s.name for s in bench.take(as_of=datetime(2026, 1, 2, tzinfo=UTC)).batch] == ["inbox/1.jsonl", "inbox/2.jsonl"]
    assert [s.name for s in bench.take().batch] == ["inbox/3.jsonl"]


def test_names_never_hold_the_machine(bench: Any, tmp_path: Path, make_rows: Rows) -> None:
    outside = tmp_path.parent / "outside.jsonl"
    outside.write_text(json.dumps(make_rows(1)[0]))
    bench.put("sub/in.jsonl", make_rows(1, start=9))
    snapshot = bench.take(sources=[bench.inbox, outside])
    assert [s.name for s in snapshot.sources] == ["inbox/sub/in.jsonl", "outside.jsonl"]
    assert str(tmp_path) not in snapshot.to_json()


def test_many_rows_make_several_shards(bench: Any, make_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 40)
    monkeypatch.setattr(shards, "_GROUP_ROWS", 20)
    bench.put("1.jsonl", make_rows(100))
    assert [s.rows for s in bench.take().shards] == [40, 40, 20]
    assert [e.line for e in bench.examples] == list(range(1, 101))


def test_another_dataset_or_task_is_refused(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(2))
    bench.take()
    with pytest.raises(Misuse, match="not of"):
        bench.take(task=Task.CLASSIFY)


def test_fields_that_fit_no_format_are_an_error_that_names_them(bench: Any) -> None:
    bench.put("1.jsonl", [{"question": "q", "answer": "a"}] * 3)
    with pytest.raises(BadInput, match="'question', 'answer'") as caught:
        bench.take()
    assert "ingest.columns" in str(caught.value.fix)
    assert not list(bench.folder.rglob("*.*"))
    assert bench.take(columns={"prompt": "question", "completion": "answer"}).rows == 1


def test_some_rows_without_the_fields_are_quarantined(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", [{"question": "q"}, *make_rows(2), {"prompt": "p"}])
    assert bench.take().rows == 2
    assert bench.codes == ["missing_field", "missing_field"]


def test_a_changed_shard_is_found_before_anything_is_added(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(20))
    shard = bench.folder / bench.take().shards[0].path
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    bench.put("2.jsonl", make_rows(1, start=50))
    with pytest.raises(Tampered, match="digest"):
        bench.take()


def test_a_file_that_changes_while_it_is_read_is_left_for_later(bench: Any, make_rows: Rows) -> None:
    from pipeline.params import IngestParams
    from pipeline.steps.ingest import ingest

    path = bench.put("1.jsonl", make_rows(20_000))

    def write_more(what: str, done: int, total: int) -> None:
        if not total:
            with path.open("a") as file:
                file.write("{}\n")

    with pytest.raises(TryLater, match="changed"):
        ingest(
            IngestParams(), dataset="d", task=Task.GENERATE, sources=[path], parent=None, folder=bench.folder, progress=write_more
        )
    assert not [p for p in bench.folder.rglob("*") if p.is_file()]
    assert bench.take().sources[0].read == len(path.read_bytes().splitlines())


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.domain.data import Snapshot, Task
from pipeline.params import IngestParams
from pipeline.steps.ingest import ingest
import pipeline.curation.shards as shards
root, nth = Path(sys.argv[1]), int(sys.argv[2])
shards._GROUP_ROWS, shards.SHARD_ROWS = 10, 20
left = nth
def dying(real):
    def call(*args, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)
    return call
os.replace, os.fsync = dying(os.replace), dying(os.fsync)
folder = root / "data" / "snapshot"
ingest(IngestParams(), dataset="bench", task=Task.GENERATE, sources=[root / "inbox"], folder=folder,
       parent=Snapshot.read(folder / "snapshot.json"), root=root)
"""


def test_a_run_killed_anywhere_leaves_the_old_snapshot_and_the_next_run_cleans_up(
    another_bench: Any, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_GROUP_ROWS", 10)
    monkeypatch.setattr(shards, "SHARD_ROWS", 20)
    whole = None
    for nth in (1, 4, 6, 8, 12):
        one = another_bench()
        one.put("1.jsonl", make_rows(5))
        first = one.take()
        one.put("2.jsonl", [*make_rows(50, start=5), {"prompt": "p"}])
        done = subprocess.run([sys.executable, "-c", KILLED, str(one.root), str(nth)], timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL
        one.snapshot = Snapshot.read(one.folder / "snapshot.json")
        assert one.snapshot == first
        assert len(one.examples) == 5
        one.take()
        whole = whole or one.bytes_of_snapshot()
        assert one.bytes_of_snapshot() == whole


JUNK = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b'{"prompt":"a","completion":"b"}',
            b'{"prompt":"a"',
            b"\r",
            b"\n",
            b"\r\n",
            b'"',
            b"[",
            b"]",
            b",",
            b"\xef\xbb\xbf",
            b"prompt,completion\n",
            b"a,b\n",
            b'"a\nb",c\n',
            b"\0",
            b"{}",
            b"null",
            b'{"prompt":1,"completion":"b"}',
            b" ",
        ]
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(JUNK, max_size=30), st.sampled_from(["x.jsonl", "x.json", "x.csv", "x.parquet", "x.jsonl.gz", "x.csv.gz"]), st.data()
)
def test_byte_soup_is_counted_or_refused(another_bench: Any, pieces: list[bytes], name: str, data: st.DataObject) -> None:
    one = another_bench()
    content = b"".join(pieces)
    if name.endswith(".gz"):
        packed = gzip.compress(content, mtime=0)
        content = packed[: data.draw(st.integers(0, len(packed)))]
    one.put(name, content)
    if one.try_to_take(max_line_bytes=1024) is None:  # which checks that all counts add up
        assert len(one.snapshot.sources) == 1


def test_damaged_parquet_is_counted_or_refused(another_bench: Any, make_rows: Rows) -> None:
    whole = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(make_rows(500)), whole, row_group_size=100)
    rng = random.Random(3)
    for _ in range(25):
        one = another_bench()
        content = bytearray(whole.getvalue())
        for _ in range(3):
            content[rng.randrange(4, len(content))] = rng.randrange(256)
        one.put("x.parquet", bytes(content))
        if one.try_to_take() is None:
            assert one.snapshot.sources[0].read > 0
