"""Ingest in chunks: however a file is cut and whoever takes the parts in, the same bytes come out, or nothing does."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.curation import lines, workers
from pipeline.curation.formats import Parts
from pipeline.curation.row_rules import RowRules
from pipeline.curation.workers import Workers
from pipeline.domain.data import Snapshot, Task
from pipeline.errors import BadInput, Broken, TryLater
from pipeline.params import CleanParams, IngestParams
from pipeline.steps.ingest import ingest

Rows = Callable[..., list[dict[str, Any]]]


class Deadly(RowRules):
    """Rules that end the process which meets a certain row; defined here so that workers can import them."""

    def apply(self, parts: Parts) -> Parts:
        if "poison" in parts.input:
            os.kill(os.getpid(), signal.SIGKILL)
        return parts


def fail_on_odd(number: int) -> int:
    if number % 2:
        raise BadInput("an odd number", where=str(number), fix="even numbers")
    return number * number


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, and workers from the first byte on."""
    monkeypatch.setattr(lines, "CHUNK_BYTES", 4000)
    monkeypatch.setattr(lines, "PIECE", 1500)
    monkeypatch.setattr(workers, "WORTH_STARTING", 1)


def take(one: Any, count: int, **more: Any) -> Snapshot:
    params = IngestParams(max_line_bytes=2048)
    return ingest(
        params,
        dataset="d",
        task=Task.GENERATE,
        sources=[one.inbox],
        parent=None,
        folder=one.folder,
        root=one.root,
        workers=count,
        **more,
    )


def fill(one: Any, make_rows: Rows) -> None:
    """Files of several kinds with good, repeated, bad, blank, endless and odd lines."""
    good = [json.dumps(row).encode() for row in make_rows(400)]
    odd = [
        b"{",
        b"",
        b'{"prompt": "' + b"x" * 70_000 + b'", "completion": "y"}',
        b'{"prompt": "a", "prompt": "b"}',
        b"\xff",
        b" \r",
    ]
    mixed = [line for pair in zip(good[:200], (odd * 34)[:200], strict=True) for line in pair]
    one.put("a.jsonl", b"\xef\xbb\xbf" + b'{"other": 1}\n' + b"\n".join(mixed))
    one.put("b.jsonl", b"\r\n".join(good[100:]) + b"\r\n")
    one.put("c.jsonl.gz", gzip.compress(b"\n".join(good[300:] + odd), mtime=0)[:-20])
    one.put("d.csv", "prompt,completion\n" + "".join(f"q{i},a{i}\n" for i in range(300)))
    one.put("e.json", json.dumps(make_rows(200, start=300)))


def test_the_bytes_do_not_depend_on_chunks_or_workers(
    another_bench: Any, make_rows: Rows, monkeypatch: pytest.MonkeyPatch, eager: None
) -> None:
    made = []
    for count, chunk_bytes in ((1, 8 << 20), (1, 900), (2, 4000)):
        monkeypatch.setattr(lines, "CHUNK_BYTES", chunk_bytes)
        one = another_bench()
        fill(one, make_rows)
        snapshot = take(one, count)
        assert snapshot.rows == 800
        assert set(quarantine_codes(one)) >= {"too_long", "bad_json", "bad_utf8", "duplicate_key", "missing_field"}
        made.append(one.bytes_of_snapshot())
    assert made[1:] == made[:1] * 2


def quarantine_codes(one: Any) -> list[str]:
    [path] = (one.folder / "quarantine").iterdir()
    return [json.loads(line)["code"] for line in path.read_bytes().splitlines()]


LINES = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from(
            [b"\n", b"\n\n", b"\r\n", b"\xef\xbb\xbf", b" ", b'{"a": 1}\n', b"x" * 90, b"y" * 300, b"z" * 300 + b"\n"]
        ),
    ),
    max_size=40,
).map(b"".join)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.integers(1, 200), st.integers(1, 100), st.integers(5, 80))
def test_the_parts_of_a_stream_hold_the_rows_of_the_whole(content: bytes, chunk: int, piece: int, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CHUNK_BYTES", chunk), ("PIECE", piece), ("RAW_CAP", 20)):
            patch.setattr(lines, name, value)
        whole = list(lines.json_lines(io.BytesIO(content), limit, 9))
        found: list[lines.Row] = []
        before = 0
        for part, beyond in lines.cut_lines(io.BufferedReader(io.BytesIO(content)), limit):  # type: ignore[arg-type]
            found += lines.json_lines(io.BytesIO(part), limit, 9, before=before, beyond=beyond)
            before += part.count(b"\n") + (not part.endswith(b"\n"))
    assert [told(row) for row in found] == [told(row) for row in whole]


def told(row: lines.Row) -> tuple[Any, ...]:
    return row.line, repr(row.value), row.raw, row.raw_bytes


def test_a_line_without_an_end_is_given_up_and_held_in_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CHUNK_BYTES", 300), ("PIECE", 100), ("RAW_CAP", 20), ("SKIP_CAP", 5000)):
        monkeypatch.setattr(lines, name, value)
    stream = io.BufferedReader(io.BytesIO(b'{"a": 1}\n' + b"x" * 9000 + b'\n{"a": 2}\n'))  # type: ignore[arg-type]
    parts = list(lines.cut_lines(stream, 50))
    assert sum(len(part) for part, _ in parts) < 400
    [(part, beyond)] = parts
    good, endless = lines.json_lines(io.BytesIO(part), 50, 9, beyond=beyond)
    assert good.value == {"a": 1}
    assert endless.raw_bytes > 5000
    assert "the rest of the file was not read" in str(endless.value)


def test_a_worker_that_dies_is_an_error_and_nothing_is_left(
    bench: Any, make_rows: Rows, eager: None, no_child_left: None
) -> None:
    bench.put("a.jsonl", [*make_rows(300), {"prompt": "poison", "completion": "x"}, *make_rows(300, start=300)])
    with pytest.raises(Broken, match="worker process ended with code -9") as caught:
        take(bench, 2, rules=Deadly(CleanParams()))
    assert "TUNELINE_WORKERS" in str(caught.value.fix)
    assert not [path for path in bench.folder.rglob("*") if path.is_file()]


def test_a_file_that_is_swapped_while_workers_have_its_rows_is_left_for_later(bench: Any, make_rows: Rows, eager: None) -> None:
    path = bench.put("a.jsonl", make_rows(600))
    other = bench.root / "other.jsonl"
    other.write_bytes(path.read_bytes())

    def swap(what: str, done: int, total: int) -> None:
        if other.exists():
            other.replace(path)

    with pytest.raises(TryLater, match="changed"):
        take(bench, 2, progress=swap)
    assert not [p for p in bench.folder.rglob("*") if p.is_file()]
    assert take(bench, 2).rows == 600


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_file_that_is_wrong_is_named(bench: Any, make_rows: Rows, eager: None, count: int) -> None:
    bench.put("a.jsonl", make_rows(100))
    bench.put("b.jsonl", [{"foo": "q"}] * 300)
    bench.put("c.parquet", b"no Parquet")
    with pytest.raises(BadInput, match="'foo'") as caught:
        take(bench, count)
    assert str(caught.value.where).endswith("b.jsonl")


def test_rows_that_nest_too_deep_to_be_sent_are_taken_in_all_the_same(bench: Any, make_rows: Rows, eager: None) -> None:
    deep = '{"a":' * 498 + "1" + "}" * 498
    with pytest.raises(RecursionError):
        pickle.dumps([{"more": json.loads(deep)}])
    rows = [*map(json.dumps, make_rows(20)), f'{{"prompt": "deep", "completion": "x", "more": {deep}}}']
    bench.put("a.json", f"[{','.join(rows)}]")
    params = IngestParams(max_depth=500)
    snapshot = ingest(params, dataset="d", task=Task.GENERATE, sources=[bench.inbox], parent=None, folder=bench.folder, workers=2)
    assert snapshot.rows == 21


def test_answers_and_errors_of_workers_come_back(eager: None, no_child_left: None) -> None:
    with Workers(fail_on_odd, 2) as crew:
        crew.expect(1)
        waiting = [crew.submit(number) for number in range(6)]
        assert [waiting[number].result() for number in (0, 2, 4)] == [0, 4, 16]
        with pytest.raises(BadInput, match="an odd number") as caught:
            waiting[3].result()
    assert (caught.value.where, caught.value.fix) == ("3", "even numbers")


PARENT = """
import sys, time
from pipeline.curation.workers import Workers
crew = Workers(len, 2)
crew.expect(1 << 40)
assert [crew.submit("abc").result() for _ in range(4)] == [3] * 4
print("working", flush=True)
time.sleep(120)
"""


def test_workers_end_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "working\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.wait()
    assert len(children) == 2
    deadline = time.monotonic() + 60
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)


def test_what_was_forgotten_is_counted_apart_and_left_out(bench: Any, make_rows: Rows, eager: None) -> None:
    bench.put("a.jsonl", [*make_rows(50), *make_rows(20)])

    def gone(examples: Any) -> list[bool]:
        return [line <= 10 or 50 < line <= 60 for line in examples["line"].to_pylist()]

    [source] = take(bench, 2, forgotten=gone).sources
    assert (source.read, source.accepted, source.duplicate, source.forgotten) == (70, 40, 10, 20)


def test_read_afresh_nothing_of_the_old_snapshot_is_left(bench: Any, make_rows: Rows) -> None:
    bench.put("1.jsonl", make_rows(30))
    first = take(bench, 1)
    bench.put("2.jsonl", make_rows(10, start=30))
    again = ingest(
        IngestParams(), dataset="d", task=Task.GENERATE, sources=[bench.inbox], parent=first, folder=bench.folder, afresh=True
    )
    assert (again.parent, again.rows, again.fresh) == (first.digest, 40, 2)
    assert {f"shards/{path.name}" for path in (bench.folder / "shards").iterdir()} == {shard.path for shard in again.shards}
