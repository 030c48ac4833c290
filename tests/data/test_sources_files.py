"""Files by glob, zstd, Arrow and documents; entries that are read each in their own way; what params refuse."""

from __future__ import annotations

import io
import json
import os
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pytest
from pydantic import ValidationError

from pipeline.curation.prose import html_text
from pipeline.curation.unpacking import unpacked
from pipeline.domain.data import ExampleKind, Task
from pipeline.errors import BadInput
from pipeline.params import IngestParams
from pipeline.params.ingest import SourceParams
from tests.data.source_bench import SourceBench, lines


@pytest.fixture
def bench(tmp_path: Path) -> SourceBench:
    # Marks of a glob in the project's own path are none.
    return SourceBench(tmp_path / "pro[j]*ct")


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


GLOBS = {
    "data/*.jsonl": ["data/a.jsonl"],
    "data/**/*.jsonl": ["data/a.jsonl", "data/x/b.jsonl", "data/x/y/c.jsonl"],
    "data/**": ["data/a.jsonl", "data/d1.json", "data/d2.json", "data/x/b.jsonl", "data/x/y/c.jsonl"],
    "data/*/b.jsonl": ["data/x/b.jsonl"],
    "data/d?.json": ["data/d1.json", "data/d2.json"],
    "data/d[2-9].json": ["data/d2.json"],
    "data/d[!2].json": ["data/d1.json"],
    "*/x": ["data/x/b.jsonl", "data/x/y/c.jsonl"],
    "data/nothing*": [],
}


@pytest.mark.parametrize("glob", GLOBS)
def test_globs(bench: SourceBench, glob: str) -> None:
    for number, name in enumerate(["a.jsonl", "x/b.jsonl", "x/y/c.jsonl", "d1.json", "d2.json"]):
        bench.put(f"data/{name}", lines(number))
    bench.put("data/README.md", b"about")
    bench.put("data/.hidden.jsonl", lines(8))
    bench.put("data/x/e.jsonl.part", lines(9))
    bench.take(glob)
    assert bench.sources == GLOBS[glob]
    assert {source.origin for source in bench.snapshot.sources} <= {glob}  # type: ignore[union-attr]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(bench: SourceBench) -> None:
    bench.put("a[1].jsonl", lines(1))
    bench.put("a1.jsonl", lines(2))
    bench.take("a[1].jsonl")
    assert bench.outputs == ["answer 1"]


def test_a_glob_does_not_follow_or_block(bench: SourceBench) -> None:
    bench.put("data/a.jsonl", lines(1))
    (bench.root / "data" / "link.jsonl").symlink_to(bench.root / "data" / "a.jsonl")
    os.mkfifo(bench.root / "data" / "pipe")
    assert "a symlink lies among the data" in bench.refused("data/*.jsonl", kind=BadInput)
    bench.take("data/a*")
    assert bench.sources == ["data/a.jsonl"]
    assert "No such file" in bench.refused("nowhere/*.jsonl", kind=BadInput)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_zstd(bench: SourceBench, suffix: str) -> None:
    content = {
        "jsonl": lines(*range(100)),
        "json": json.dumps([json.loads(line) for line in lines(*range(100)).splitlines()]).encode(),
        "csv": b"prompt,completion\n" + b"".join(b"q %d,answer %d\n" % (n, n) for n in range(100)),
    }[suffix]
    half = len(content) // 2
    bench.put(f"inbox/a.{suffix}.zst", zstd(content[:half]) + zstd(content[half:]))  # two frames, as `cat` makes them
    bench.take()
    assert bench.outputs == [f"answer {n}" for n in range(100)]


def test_damaged_zstd_keeps_what_could_be_read(bench: SourceBench) -> None:
    content = b"".join(lines(n, start=os.urandom(20).hex()) for n in range(20_000))
    packed = zstd(content)
    bench.put("inbox/cut.jsonl.zst", packed[: len(packed) // 2])
    bench.put("inbox/junk.jsonl.zst", zstd(lines(*range(-2000, 0))) + b"something else")
    snapshot = bench.take()
    assert [row.code for row in bench.quarantine] == ["unreadable", "unreadable"]
    assert 0 < snapshot.sources[0].accepted < 20_000
    assert 0 < snapshot.sources[1].accepted <= 2000


def test_names_that_lie_about_zstd_and_arrow(bench: SourceBench) -> None:
    for name, content, problem in [
        ("a.jsonl.zst", lines(1), "named .zst but is not zstd"),
        ("a.jsonl.gz", zstd(lines(1)), "named .gz but is not gzip"),
        ("a.jsonl", zstd(lines(1)), "zstd but is not named so"),
        ("a.arrow", lines(1), "not Arrow IPC"),
        ("a.parquet.zst", zstd(b""), "not read"),
        ("a.feather", b"FEA1" + bytes(100), "not Arrow IPC"),
    ]:
        path = bench.put(f"inbox/{name}", content)
        assert problem in bench.refused(kind=BadInput)
        path.unlink()


def test_a_zstd_bomb_takes_no_memory_and_a_window_beyond_the_format_is_refused() -> None:
    packed = zstd(bytes(1 << 20)) * 64
    stream = unpacked(io.BytesIO(packed), "a.jsonl.zst")
    assert sum(len(piece) for piece in iter(lambda: stream.read(1 << 16), b"")) == 64 << 20
    # A frame whose header asks for a window of 3.75 TiB.
    stream = unpacked(io.BytesIO(b"\x28\xb5\x2f\xfd\x00\xff" + bytes(100)), "a.jsonl.zst")
    with pytest.raises(EOFError):
        stream.read(1)


TABLE = pa.table(
    {
        "prompt": [f"q {n}" for n in range(3000)],
        "completion": pa.array([f"answer {n % 7}" for n in range(3000)]).dictionary_encode(),
        "at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 3000),
    }
)


def arrow(form: str) -> bytes:
    made = io.BytesIO()
    if form in ("lz4", "zstd", "uncompressed"):
        feather.write_feather(TABLE, made, compression=form)
    else:
        with getattr(pa.ipc, f"new_{form}")(made, TABLE.schema) as writer:
            writer.write_table(TABLE, max_chunksize=700)
    return made.getvalue()


@pytest.mark.parametrize("form", ["file", "stream", "lz4", "zstd", "uncompressed"])
def test_arrow(bench: SourceBench, form: str) -> None:
    bench.put(f"inbox/a.{'feather' if form in ('lz4', 'zstd') else 'arrow'}", arrow(form))
    bench.take()
    assert bench.outputs == [f"answer {n % 7}" for n in range(3000)]
    assert bench.examples[2999].line == 3000
    assert json.loads(bench.examples[0].meta) == {"at": "2026-01-01T00:00:00+00:00"}


def test_damaged_arrow_is_refused_or_keeps_what_could_be_read(bench: SourceBench) -> None:
    content = arrow("stream")
    bench.put("inbox/cut.arrow", content[: len(content) // 2])
    snapshot = bench.take()
    assert 0 < snapshot.rows < 3000
    assert [row.code for row in bench.quarantine] == ["unreadable"]
    (bench.inbox / "cut.arrow").write_bytes(b"ARROW1\0\0" + b"\xff" * 200)
    assert "damaged" in bench.refused(kind=BadInput)


def test_arrow_whose_offsets_lie_gives_no_row_of_other_memory(bench: SourceBench) -> None:
    made = io.BytesIO()
    table = pa.table({"prompt": ["secret"], "completion": ["answer"]})
    with pa.ipc.new_stream(made, table.schema) as writer:
        writer.write_table(table)
    content = made.getvalue()
    at = content.rindex(b"\0\0\0\0\x06\0\0\0", 0, content.index(b"secret"))  # its offsets, [0, 6]
    bench.put("inbox/a.arrow", content[: at + 4] + b"\0\0\x10\0" + content[at + 8 :])
    bench.take()
    assert bench.examples == []
    assert [row.code for row in bench.quarantine] == ["unreadable"]


def test_an_arrow_bomb_is_refused_before_it_is_unpacked(bench: SourceBench) -> None:
    made = io.BytesIO()
    feather.write_feather(pa.table({"text": ["a" * 1_000_000]}), made, compression="zstd")
    # Each buffer says before its bytes how many they unpack to.
    said, more = (struct.pack("<q", size) + b"\x28\xb5\x2f\xfd" for size in (1_000_000, 2 << 30))
    assert made.getvalue().count(said) == 1
    bench.put("inbox/a.feather", made.getvalue().replace(said, more))
    assert "a batch of this Arrow file takes" in bench.refused(kind=BadInput)


PAGE = """<!doctype html><html><head><title>Title</title><style>p {}</style><script>alert(1)</script></head>
<body><h1>Hours &amp; prices</h1><p>Open
 all  <b>day</b>.<br>Closed at night.</p><!-- no --><ul><li>one<li>two</ul>
<table><tr><td>a<td>b</table><pre>  kept
    so</pre><form><textarea>unseen</textarea><select><option>no</select></form>"""


def test_documents(bench: SourceBench) -> None:
    bench.put("docs/a.md", "# Heading\n\nText é\n")
    bench.put("docs/b.html", PAGE)
    bench.put("docs/c.txt", "one\ntwo\r\n\n  \nthree\n")
    bench.put("docs/LICENSE", "MIT")
    bench.take({"path": "docs", "format": "text", "license": "CC-BY-4.0"})
    assert {example.kind for example in bench.examples} == {ExampleKind.TEXT}
    page = "Hours & prices\nOpen all day.\nClosed at night.\none\ntwo\na b\n  kept\n    so"
    assert bench.outputs == ["# Heading\n\nText é\n", page, "one\ntwo\r\n\n  \nthree"]
    assert [source.license for source in bench.snapshot.sources] == ["CC-BY-4.0"] * 3  # type: ignore[union-attr]


def test_documents_in_a_folder_of_other_data_are_left_alone(bench: SourceBench) -> None:
    bench.put("inbox/README.md", "about")
    bench.put("inbox/notes.txt", "notes")
    bench.put("inbox/a.jsonl", lines(1))
    bench.take()
    assert bench.sources == ["inbox/a.jsonl"]
    # Whoever names them means them.
    bench.take("inbox/README.md", "inbox/*.txt")
    assert bench.sources[1:] == ["inbox/README.md", "inbox/notes.txt"]


@pytest.mark.parametrize(
    ("sample_by", "rows"),
    [
        ("document", [(2, "one\ntwo\n\n\nthree\nfour")]),
        ("paragraph", [(2, "one\ntwo"), (6, "three\nfour")]),
        ("line", [(2, "one"), (3, "two"), (6, "three"), (7, "four")]),
    ],
)
def test_plain_text_by_line_paragraph_or_document(bench: SourceBench, sample_by: str, rows: list[tuple[int, str]]) -> None:
    for name, ends in (("lf.txt", "\n"), ("crlf.txt", "\r\n")):
        bench.put(name, "\ufeff\none\ntwo\n\n\nthree\nfour\n".replace("\n", ends))
        bench.snapshot = None
        bench.take({"path": name, "sample_by": sample_by})
        assert [(e.line, e.output.replace("\r\n", "\n")) for e in bench.examples] == rows


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_documents_that_are_none(bench: SourceBench, name: str) -> None:
    for content, code in [(b"a\xffb", "bad_utf8"), (b"a\0b", "nul"), (b"x" * 5000, "too_long")]:
        bench.put(f"d/{code}/{name}", content)
    bench.put(f"d/empty/{name}", b"")
    bench.put(f"d/white/{name}", b" \n\t\n")
    bench.take({"path": "d", "format": "text"}, max_line_bytes=4096)
    assert bench.examples == []
    assert [row.code for row in bench.quarantine] == ["bad_utf8", "nul", "too_long"]


def test_html_of_any_depth_is_read_in_linear_time_without_a_tree() -> None:
    assert html_text("<div>" * 200_000 + "deep" + "</div>" * 200_000) == "deep"
    assert html_text("<b>" * 100_000 + "x") == "x"
    assert html_text("") == html_text("<!-- a -->") == ""
    assert html_text("a &lt;b&gt; &unknown; &#x41; 漢") == "a <b> &unknown; A 漢"


def test_entries_are_read_each_in_their_own_way(bench: SourceBench) -> None:
    bench.put("one.csv", "question,reply\nhow,so\n")
    bench.put("two.jsonl", b'{"instruction": "do", "output": "done", "area": "x"}\n')
    bench.put("three.jsonl", lines(1))
    snapshot = bench.take(
        {"path": "one.csv", "columns": {"prompt": "question", "completion": "reply"}, "license": "CC0-1.0", "name": "desk"},
        {"path": "two.jsonl", "format": "alpaca"},
        "three.jsonl",
        license="MIT",
    )
    assert bench.outputs == ["so", "done", "answer 1"]
    assert [(s.origin, s.license) for s in snapshot.sources] == [
        ("desk", "CC0-1.0"),
        ("two.jsonl", "MIT"),
        ("three.jsonl", "MIT"),
    ]


def test_a_file_that_two_entries_name_comes_in_by_the_first(bench: SourceBench) -> None:
    bench.put("inbox/a.jsonl", lines(1))
    bench.put("inbox/b.jsonl", lines(2))
    snapshot = bench.take({"path": "inbox/b.jsonl", "name": "first"}, "inbox")
    assert [(s.name, s.origin) for s in snapshot.sources] == [("inbox/b.jsonl", "first"), ("inbox/a.jsonl", "inbox")]


def test_the_same_sources_make_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        bench = SourceBench(tmp_path / name)
        bench.put("inbox/a.jsonl.zst", zstd(lines(1, 2)))
        bench.put("inbox/b.arrow", arrow("lz4"))
        bench.take()
        made.append({k: v for k, v in bench.files().items() if k.startswith("data/")})
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({}, "exactly one of"),
        ({"path": "a", "objects": "s3://b/c"}, "this one has path and objects"),
        ({"path": "s3://bucket/x"}, "this is an address"),
        ({"path": "x", "split": "train"}, "split belongs to hub"),
        ({"path": "x", "watermark": "id"}, "watermark belongs to sql"),
        ({"path": " "}, "path is empty"),
        ({"path": "x", "name": "a\nb"}, "name: letters"),
        ({"sql": "SELECT 1", "url": "sqlite:///a.db"}, "needs a name"),
        ({"sql": "SELECT 1", "name": "q"}, "say where the database is"),
        ({"sql": "SELECT 1", "name": "q", "url": "env:HOME"}, "must begin with TUNELINE_DATABASE_"),
        ({"sql": "SELECT 1", "name": "q", "url": "a.db"}, "this is no address"),
        ({"sql": "SELECT 1", "name": "q", "url": "postgresql://u:hunter2@h/d"}, "would be recorded for good"),
        ({"sql": "SELECT 1", "name": "q", "url": "postgresql://h/d?password=hunter2"}, "would be recorded for good"),
        ({"sql": "SELECT 1", "name": "q", "url": "env:TUNELINE_DATABASE_X", "watermark": "id"}, "does not use :since"),
        ({"sql": "SELECT :since", "name": "q", "url": "env:TUNELINE_DATABASE_X"}, "say which column"),
        ({"objects": "file:///etc"}, "an address begins with one of s3://"),
        ({"objects": "https://example.org/x"}, "an address begins with one of s3://"),
        ({"objects": "simplecache::s3://b/x"}, "an address begins with one of s3://"),
        ({"objects": "s3://key:hunter2@bucket/x"}, "would be recorded for good"),
        ({"objects": "s3://bucket/x?X-Amz-Signature=hunter2"}, "would be recorded for good"),
        ({"hub": "owner/name"}, "needs a pinned revision"),
        ({"hub": "owner/name", "revision": "main"}, "full 40-digit commit"),
        ({"hub": "../x/y", "revision": "0" * 40}, "a folder has none"),
        ({"hub": "owner/name/../x", "revision": "0" * 40}, "give the id of a dataset"),
    ],
)
def test_entries_that_are_wrong_say_so_without_repeating_a_secret(entry: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SourceParams(**entry)
    messages = [str(error["ctx"]["error"]) for error in caught.value.errors()]
    assert any(problem in message for message in messages), messages
    assert not any("hunter2" in message for message in messages)


def test_entries_mean_the_same_once_they_are_written_out() -> None:
    params = IngestParams(
        format="chat", license="MIT", sources=["inbox", {"path": "x", "format": "text"}, {"path": "y", "license": None}]
    )
    again = IngestParams.model_validate(params.model_dump(mode="json"))
    assert again == params
    readings = [again.reading_of(source) for source in again.sources]
    assert [(r.format, r.license) for r in readings] == [("chat", "MIT"), ("text", "MIT"), ("chat", None)]


def test_sources_that_stand_twice_or_nowhere() -> None:
    with pytest.raises(ValidationError, match="stands twice"):
        IngestParams(sources=["inbox", {"path": "inbox"}])
    with pytest.raises(ValidationError, match="at least one source"):
        IngestParams(sources=[])
    with pytest.raises(ValidationError, match="would be recorded for good"):
        IngestParams(sources=["s3://key:secret@bucket/x"])


def test_the_task_stays_what_it_is(bench: SourceBench) -> None:
    bench.put("inbox/a.arrow", arrow("file"))
    with pytest.raises(BadInput, match="no row has the fields text and label"):
        bench.take(task=Task.CLASSIFY)
