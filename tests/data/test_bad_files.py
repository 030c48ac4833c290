"""Each kind of bad input has a defined outcome: a clear error or quarantine, in bounded memory, with nothing lost."""

from __future__ import annotations

import base64
import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.data import Task
from pipeline.errors import BadInput

GOOD = b'{"prompt": "p", "completion": "c"}\n'


def test_an_empty_file_is_a_source_without_rows(bench: Any) -> None:
    for name in ("a.jsonl", "b.csv"):
        bench.put(name, b"")
        assert bench.take().rows == 0
    # Both are the same bytes, so the second is not new.
    assert len(bench.take().sources) == 1


def test_an_empty_parquet_file_is_an_error(bench: Any) -> None:
    bench.put("a.parquet", b"")
    with pytest.raises(BadInput, match="not Parquet"):
        bench.take()


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b'{"prompt": "a\\u0000", "completion": "c"}', "nul"),
        (b'{"prompt": "a\x00", "completion": "c"}', "nul"),
        (b"\xef\xbb\xbf" + GOOD.strip(), "bom"),
        (GOOD.strip() + b"\r" + GOOD.strip(), "bare_cr"),
        (b'{"prompt": "\xff", "completion": "c"}', "bad_utf8"),
        (b'{"prompt": "\\ud83d", "completion": "c"}', "lone_surrogate"),
        (b'{"prompt": "a", "prompt": "b", "completion": "c"}', "duplicate_key"),
        (b'{"prompt": null, "completion": null}', "blank"),
        (b'{"prompt": "a", "completion": NaN}', "bad_number"),
        (b"[1, 2]", "not_an_object"),
        (b"[" * 100_000, "too_deep"),
        (b'{"prompt":' * 100_000, "too_deep"),
        (b'{"prompt": "' + b"x" * 2000 + b'", "completion": "c"}', "too_long"),
    ],
)
def test_a_bad_row_is_quarantined_and_its_neighbours_are_not(bench: Any, row: bytes, code: str) -> None:
    bench.put("a.jsonl", b"\xef\xbb\xbf" + GOOD + row + b"\n\n" + GOOD.replace(b'"p"', b'"q"'))
    limit = 1024 if code == "too_long" else 1 << 20
    assert bench.take(max_line_bytes=limit).rows == 2
    [refused] = bench.quarantine
    assert (refused.source, refused.line, refused.code, refused.raw_bytes) == ("inbox/a.jsonl", 2, code, len(row))
    raw = base64.b64decode(refused.raw) if refused.raw_encoding == "base64" else refused.raw.encode()
    assert raw == row[: 1 << 16]
    assert refused.reason
    assert [e.line for e in bench.examples] == [1, 4]


def test_a_cut_between_the_bytes_of_a_character_is_no_damage(bench: Any) -> None:
    bench.put("a.jsonl", ("x" + "é" * 100_000).encode() + b"\n" + GOOD)
    bench.take()
    [refused] = bench.quarantine
    assert refused.raw_encoding == "utf-8"
    assert refused.raw == "x" + "é" * ((1 << 15) - 1)


def test_all_rows_null(bench: Any) -> None:
    bench.put("a.jsonl", b'{"text": null, "label": null}\n' * 50)
    assert bench.take(task=Task.CLASSIFY).rows == 0
    assert set(bench.codes) == {"blank"}


def test_ninety_nine_percent_duplicates(bench: Any) -> None:
    bench.put("a.jsonl", GOOD * 99 + GOOD.replace(b'"p"', b'"q"'))
    source = bench.take().sources[0]
    assert (source.read, source.accepted, source.duplicate) == (100, 2, 98)


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        (b'[{"prompt": "p", "completion": "c"}, {"prompt": "q"', ["unreadable"]),
        (b'[{"prompt": "p", "completion": "c"}', None),
        (b'[{"prompt": "p", "completion": "c"},]', ["bad_json"]),
        (b'[{"prompt": "p", "completion": "c"},,{}]', ["bad_json", "missing_field"]),
        (b'[{"prompt": "p", "completion": "c"}] x', ["bad_json"]),
        (b'[{"prompt": "p", "completion": "c"}, 5, "]", {"a": [}]}]', ["not_an_object", "not_an_object", "bad_json"]),
        (b'[{"prompt": "p", "completion": "c"}, ' + b"[" * 100_000, ["unreadable"]),
        (b'[{"prompt": "p", "completion": "c"}, ' + b"[" * 1000 + b"]" * 1000 + b"]", ["too_deep"]),
        (b'[{"prompt": "p", "completion": "c"}, "' + b"x" * 5_000_000 + b'", 5]', ["too_long", "not_an_object"]),
        (b'[{"prompt": "a\\\\", "completion": "\\"]"}]', []),
    ],
)
def test_damaged_json_arrays(bench: Any, content: bytes, codes: list[str] | None) -> None:
    bench.put("a.json", content)
    snapshot = bench.take()
    if codes is None:
        assert (snapshot.rows, bench.codes) == (0, ["unreadable"])
    else:
        assert (snapshot.rows, bench.codes) == (1, codes)


@pytest.mark.parametrize(
    "content", [b'{\n "data": [\n {"prompt": "p", "completion": "c"}\n]}', b"42", b'"text"', b"null", b"nope"]
)
def test_json_that_is_no_list_of_rows(bench: Any, content: bytes) -> None:
    bench.put("a.json", content)
    with pytest.raises(BadInput, match="no list of rows"):
        bench.take()


@pytest.mark.parametrize(
    ("body", "accepted", "codes"),
    [
        (b'"a ""b"", c\r\nd",e\r\n', 1, []),
        (b"a,b\n\nc,d", 2, []),
        (b"a,b,c\na\nd,e\n", 1, ["columns", "columns"]),
        (b'say "hi",x\nc,d\n', 1, ["bad_csv"]),
        (b'say "hi, you\nc,d\ne,f"\ng,h\n', 1, ["bad_csv"]),
        (b'a,b\nc,"never closed\nd,e\n', 1, ["bad_csv"]),
        (b"a,b\rc,d\ne,f\n", 1, ["bare_cr"]),
        (b"a\x00,b\nc,d\n", 1, ["nul"]),
        (b"\xff,b\nc,d\n", 1, ["bad_utf8"]),
        (b"\xef\xbb\xbfa,b\nc,d\n", 1, ["bom"]),
        (b",b\n  ,d\ne,f\n", 1, ["blank", "blank"]),
        (b"a," + b"x" * 3000 + b"\nc,d\n", 1, ["too_long"]),
        (b'a,"' + b"x\n" * 3000 + b'"\nc,d\n', 1, ["too_long"]),
    ],
)
def test_csv_rows(bench: Any, body: bytes, accepted: int, codes: list[str]) -> None:
    bench.put("a.csv", b"text,label\n" + body)
    assert bench.take(task=Task.CLASSIFY, max_line_bytes=2048).rows == accepted
    assert bench.codes == codes
    lines = [*(e.line for e in bench.examples), *(row.line for row in bench.quarantine)]
    assert len(set(lines)) == len(lines)
    if codes and codes[0] != "bad_csv":
        assert bench.examples[-1].line == body.count(b"\n", 0, body.rindex(b"\n", 0, -1) + 1) + 2


@pytest.mark.parametrize("header", [b"text,text\n", b"text,\n", b"text\rlabel\ra,b\r", b"\xff,label\n", b'"text,label\na,b\n'])
def test_csv_headers_that_are_none(bench: Any, header: bytes) -> None:
    bench.put("a.csv", header + b"a,b\n")
    with pytest.raises(BadInput, match="CSV"):
        bench.take(task=Task.CLASSIFY)


def test_gzip_that_is_cut_off_or_damaged_keeps_what_could_be_read(bench: Any) -> None:
    rows = b"".join(json.dumps({"prompt": os.urandom(30).hex(), "completion": "c"}).encode() + b"\n" for _ in range(2000))
    packed = gzip.compress(rows)
    bench.put("cut.jsonl.gz", packed[: len(packed) // 2])
    bench.put("flipped.jsonl.gz", packed[: len(packed) // 2] + b"\xff" * 64 + packed[len(packed) // 2 + 64 :])
    snapshot = bench.take()
    assert all(0 < s.read < 2000 for s in snapshot.sources)
    assert bench.codes.count("unreadable") == 2


def test_names_that_lie(bench: Any) -> None:
    for name, content, message in [
        ("a.jsonl.gz", GOOD, "not gzip"),
        ("a.jsonl", gzip.compress(GOOD), "is gzip"),
        ("a.parquet", GOOD, "not Parquet"),
        ("a.csv", "text,label\n".encode("utf-16"), "UTF-16"),
        ("a.zip", b"PK", "not read"),
        ("a.parquet.gz", gzip.compress(b""), "not read"),
    ]:
        path = bench.put(name, content)
        with pytest.raises(BadInput, match=message) as caught:
            bench.take()
        assert caught.value.fix
        path.unlink()


def test_special_files_are_refused_before_reading(bench: Any, tmp_path: Path) -> None:
    real = tmp_path / "real.jsonl"
    real.write_bytes(GOOD)
    bench.put("fine.jsonl", GOOD)
    makers: list[tuple[str, Callable[[Path], Any]]] = [
        ("symlink", lambda p: p.symlink_to(real)),
        ("symlink", lambda p: p.symlink_to(tmp_path)),
        ("symlink", lambda p: p.symlink_to("/nowhere")),
        ("FIFO", os.mkfifo),
        ("socket", lambda p: socket.socket(socket.AF_UNIX).bind(str(p))),
    ]
    for kind, make in makers:
        path = bench.inbox / "odd.jsonl"
        make(path)
        with pytest.raises(BadInput, match=f"a {kind} lies among the data"):
            bench.take()
        with pytest.raises(BadInput, match=f"a {kind} lies among the data"):
            bench.take(sources=[path])
        path.unlink()
    with pytest.raises(BadInput, match="a device"):
        bench.take(sources=[Path("/dev/zero")])
    assert not bench.folder.exists()


def test_a_missing_source_is_an_error_with_a_fix(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file") as caught:
        bench.take(sources=[tmp_path / "nope"])
    assert "ingest.sources" in str(caught.value.fix)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "weights.bin"])
def test_a_git_lfs_pointer_is_called_what_it_is(bench: Any, name: str) -> None:
    bench.put(name, f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n")
    with pytest.raises(BadInput, match="Git LFS pointer") as caught:
        bench.take()
    assert "git lfs pull" in str(caught.value.fix)


MEASURED = """
import resource, sys
from pathlib import Path
from pipeline.domain.data import Task
from pipeline.params import IngestParams
from pipeline.steps.ingest import ingest
import pyarrow.parquet, pipeline.curation.tables
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source, folder = map(Path, sys.argv[1:])
snapshot = ingest(IngestParams(), dataset="d", task=Task.GENERATE, sources=[source], parent=None, folder=folder)
source = snapshot.sources[0]
print(source.accepted, source.quarantined, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
def test_a_line_of_a_gibibyte_takes_no_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    start = {"a.json": b"[" + GOOD.strip() + b",", "a.csv": b"prompt,completion\nq,a\n"}.get(name, GOOD)
    if name.endswith(".gz"):
        with gzip.open(path, "wb", compresslevel=1) as file:  # 256 MiB here: unpacking takes most of the time
            file.write(start)
            for _ in range(256):
                file.write(bytes(1 << 20))
            file.write(b"\n" + GOOD.replace(b'"p"', b'"q"'))
    else:
        with path.open("wb") as file:
            file.write(start)
            file.seek(1 << (30 if name == "a.jsonl" else 28), os.SEEK_CUR)  # a hole: it reads as zeros and takes no disk
            file.write(
                {"a.json": b"," + GOOD.replace(b'"p"', b'"q"') + b"]", "a.csv": b"\nr,s\n"}.get(
                    name, b"\n" + GOOD.replace(b'"p"', b'"q"')
                )
            )
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    accepted, quarantined, grown_kib = map(int, done.stdout.split())
    assert (accepted, quarantined) == (2, 1)
    assert grown_kib < 100_000
