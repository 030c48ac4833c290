"""Sources as a run takes them in: the same rows however a file is packed, and what a command line may name."""

from __future__ import annotations

import gzip
import json
import os
import resource
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.commands.run import absolute
from pipeline.errors import Misuse
from pipeline.wiring import World, read_params, take_in
from tests.data.source_bench import SourceBench
from tests.data.test_sources_archives import tarred, zipped


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


GOOD = b'{"prompt": "p", "completion": "c"}'
BAD: dict[bytes, str] = {
    b'{"prompt": "a\x00", "completion": "c"}': "nul",
    b'{"prompt": "a\\u0000", "completion": "c"}': "nul",
    b"\xef\xbb\xbf" + GOOD: "bom",
    GOOD + b"\r" + GOOD: "bare_cr",
    b'{"prompt": "\xff", "completion": "c"}': "bad_utf8",
    b'{"prompt": "\\ud83d", "completion": "c"}': "lone_surrogate",
    b'{"prompt": "a", "prompt": "b", "completion": "c"}': "duplicate_key",
    b'{"prompt": null, "completion": null}': "blank",
    b'{"prompt": true, "completion": "c"}': "wrong_type",
    b'{"prompt": "a", "completion": NaN}': "bad_number",
    b"[" * 100_000: "too_deep",
    b'{"prompt": "' + b"x" * (1 << 20) + b'", "completion": "c"}': "too_long",
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "a.jsonl": bytes,
    "a.jsonl.gz": gzip.compress,
    "a.jsonl.zst": lambda content: zstd(content),
    "a.zip": lambda content: zipped({"a.jsonl": content}),
    "a.tar.gz": lambda content: tarred({"a.jsonl": content}, "w:gz"),
}


@pytest.fixture
def bench(tmp_path: Path) -> SourceBench:
    return SourceBench(tmp_path)


@pytest.mark.parametrize("name", PACKED)
def test_rows_end_the_same_however_their_file_is_packed(bench: SourceBench, name: str) -> None:
    content = b"".join(row + b"\n" for row in [GOOD, *BAD, GOOD.replace(b'"p"', b'"q"')])
    bench.put(f"inbox/{name}", PACKED[name](content))
    [source] = bench.take().sources
    assert (source.read, source.accepted, source.quarantined) == (len(BAD) + 2, 2, len(BAD))
    assert [(row.line, row.code) for row in bench.quarantine] == list(enumerate(BAD.values(), start=2))
    assert {row.source for row in bench.quarantine} == {source.name}


def test_what_a_database_holds_is_no_better(bench: SourceBench) -> None:
    connection = sqlite3.connect(bench.root / "a.db")
    connection.execute("CREATE TABLE t (prompt, completion)")
    rows = [("a\0b", "c"), (None, "c"), ("x", "y"), (5, "c"), ("x" * 2000, "c")]
    connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
    connection.commit()
    connection.close()
    query = {"sql": "SELECT prompt, completion FROM t", "name": "q", "url": "sqlite:///a.db"}
    bench.take(query, max_line_bytes=1024)
    assert bench.outputs == ["y"]
    assert sorted(row.code for row in bench.quarantine) == ["blank", "nul", "too_long", "wrong_type"]


def test_an_endless_line_that_is_packed_takes_no_memory(bench: SourceBench) -> None:
    piece = zstd(bytes(1 << 20)) * 256
    bench.put("inbox/a.jsonl.zst", piece)
    line, rest = tarfile.TarInfo("b.jsonl"), tarfile.TarInfo("rest.dat")
    line.size, rest.size = 256 << 20, 2 << 20
    # What cannot be packed keeps the archive from being taken for a bomb.
    bench.put("inbox/b.tar.zst", zstd(line.tobuf()) + piece + zstd(rest.tobuf() + os.urandom(2 << 20) + bytes(1024)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bench.take()
    assert [(row.code, row.raw_bytes) for row in bench.quarantine] == [("too_long", 256 << 20)] * 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_run_takes_in_globs_archives_and_queries_and_leaves_nothing_behind(checkout: Path) -> None:
    def chat(answer: str) -> bytes:
        messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]
        return json.dumps({"messages": messages}).encode() + b"\n"

    (checkout / "more").mkdir()
    (checkout / "more" / "a.zip").write_bytes(zipped({"x.jsonl": chat("one")}))
    (checkout / "more" / "b.jsonl").write_bytes(chat("two"))
    world = World.here(checkout)
    params = read_params(checkout / "params.yaml")
    folder = checkout / "taken"
    snapshot = take_in(world, params, folder, ("more/*.zip", absolute(str(checkout / "more" / "b*"))), licenses=("any",))
    assert [(source.name, source.origin) for source in snapshot.sources] == [
        ("more/a.zip!x.jsonl", "more/*.zip"),
        ("more/b.jsonl", "more/b*"),
    ]
    assert snapshot.rows == 2
    assert [path.name for path in world.project.staging.iterdir()] == [".lock"]


def test_the_command_line_names_paths_in_full_and_addresses_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("data/*.jsonl") == f"{tmp_path}/data/*.jsonl"
    assert absolute("s3://bucket/x*.jsonl") == "s3://bucket/x*.jsonl"
    for wrong in ("file:///etc/passwd", "s3://key:hunter2@bucket/x", "postgresql://u:hunter2@h/d"):
        with pytest.raises(Misuse) as caught:
            absolute(wrong)
        assert "hunter2" not in str(caught.value)
