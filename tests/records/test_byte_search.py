"""The byte search finds a text in whatever a file packs it in, and says nothing where it is not."""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import html
import io
import json
import lzma
import os
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.backends.byte_search import lines_with, search_files, search_git
from pipeline.backends.needles import Needles, forms
from pipeline.domain.data import QuarantinedRow
from pipeline.domain.record import canonical_json
from tests.checkouts import git

TEXT = 'Ann "Nüß" O\'Neil <ann@example.org>\nlives & works in Köln.'


def csv_of(text: str) -> bytes:
    table = io.StringIO(newline="")
    csv.writer(table).writerow([1, text, 2])
    return table.getvalue().encode()


def parquet_of(column: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"n": list(range(len(column))), "c": column}), stream, **options)
    return stream.getvalue()


def arrow_of(column: Any) -> bytes:
    stream = io.BytesIO()
    table = pa.table({"c": column})
    with pa.ipc.new_file(stream, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return stream.getvalue()


def zip_of(text: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/rows.jsonl", json.dumps(text))
    return stream.getvalue()


def database_of(text: str) -> bytes:
    # Long enough to be scattered over several pages.
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE notes (id INTEGER, body TEXT)")
    database.execute("INSERT INTO notes VALUES (1, ?)", ["x" * 4000 + text + "y" * 9000])
    return database.serialize()


def holders(text: str) -> dict[str, bytes]:
    """A file of each kind that holds the text."""
    chat = canonical_json([{"content": text, "role": "user"}])
    row = QuarantinedRow(
        source="a", line=1, code="bad_utf8", reason="r", raw=base64.b64encode(b"\xffsays " + text.encode()).decode(),
        raw_encoding="base64", raw_bytes=9,
    )  # fmt: skip
    many = [f"other {i}" for i in range(500)]
    return {
        "plain.txt": f"before {text} after".encode(),
        "rows.jsonl": (json.dumps({"a": text}) + "\n").encode(),
        "canonical.json": canonical_json({"a": text}).encode(),
        "nested.json": canonical_json({"a": chat}).encode(),
        "nested-ascii.json": json.dumps({"a": json.dumps([text])}).encode(),
        "page.html": f"<td>{html.escape(text)}</td>".encode(),
        "table.csv": csv_of(text),
        "quarantine.jsonl": canonical_json(row.model_dump(mode="json")).encode(),
        "rows.jsonl.gz": gzip.compress(json.dumps(text).encode()),
        "rows.bz2": bz2.compress(text.encode()),
        "rows.xz": lzma.compress(text.encode()),
        "rows.zst": pa.compress(text.encode(), "zstd", asbytes=True),
        "archive.zip": zip_of(text),
        "zstd.parquet": parquet_of([*many, text], compression="zstd", use_dictionary=False),
        "dictionary.parquet": parquet_of([*many, text, text], compression="snappy"),
        "chat.parquet": parquet_of([*many, chat], compression="zstd"),
        "lists.parquet": parquet_of([[], [*many, text]], compression="zstd"),
        "rows.arrow": arrow_of([*many, text]),
        "notes.db": database_of(text),
    }


def test_the_text_is_found_in_files_of_every_kind_and_only_there(tmp_path: Path) -> None:
    for name, content in holders(TEXT).items():
        (tmp_path / "with" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "with" / name).write_bytes(content)
    for name, content in holders(TEXT.replace("Ann", "Bob").replace("ann", "bob")).items():
        (tmp_path / "without" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "without" / name).write_bytes(content)
    report = search_files([tmp_path], Needles([TEXT]))
    assert sorted(Path(place).name for place in report.places) == sorted(holders(TEXT))
    assert all(Path(place).parent.name == "with" for place in report.places)
    assert report.counts == {"databases": 2, "files": 38, "packed": 10, "tables": 10}


def test_a_text_across_two_pieces_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.backends import byte_search

    monkeypatch.setattr(byte_search, "_PIECE", 16)
    for shift in range(40):
        (tmp_path / f"{shift:02}").write_bytes(b"-" * shift + TEXT.encode() + b"-" * 5)
    assert len(search_files([tmp_path], Needles([TEXT])).places) == 40


def test_links_hard_links_and_what_is_skipped(tmp_path: Path) -> None:
    kept, other = tmp_path / "kept", tmp_path / "other"
    kept.mkdir()
    other.mkdir()
    (kept / "a").write_text(TEXT)
    os.link(kept / "a", other / "b")
    (other / "link").symlink_to(kept / "a")
    (other / "skipped").write_text(TEXT)
    (other / "damaged.parquet").write_bytes(b"PAR1" + bytes(50))
    (other / "damaged.gz").write_bytes(b"\x1f\x8b" + bytes(50))
    report = search_files([tmp_path], Needles([TEXT]), skip=[other / "skipped"])
    assert report.places == (str(kept / "a"), str(other / "b"))
    assert report.bytes == len(TEXT.encode()) + 54 + 52


def test_short_texts_are_not_sought_and_ids_only_in_tables_of_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("yes abcd")
    id = "ab" * 16
    pq.write_table(pa.table({"id": [id], "expected": ["x"]}), tmp_path / "predictions.parquet")
    pq.write_table(pa.table({"id": [id], "rule": ["x"]}), tmp_path / "dropped.parquet")
    report = search_files([tmp_path], Needles(["yes"], [id]))
    assert report.texts == 0
    assert report.places == (str(tmp_path / "predictions.parquet"),)


def test_git_objects_behind_our_tags_are_searched_and_no_others(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    for key in ("name", "email"):
        git(tmp_path, "config", f"user.{key}", "x")
    for number, content in enumerate(["first", TEXT, "third"]):
        (tmp_path / "page.html").write_text(content)
        git(tmp_path, "add", "page.html")
        git(tmp_path, "commit", "--quiet", "--message", content[:5])
        if number == 0:
            git(tmp_path, "update-ref", "refs/tags/tuneline/desk/run/0001", "HEAD")
    assert search_git(tmp_path, "refs/tags/tuneline", Needles([TEXT])).hits == ()
    git(tmp_path, "update-ref", "refs/tags/tuneline/desk/run/0002", "HEAD")
    (hit,) = search_git(tmp_path, "refs/tags/tuneline", Needles([TEXT])).hits
    assert hit.inside == "page.html"


def test_lines_that_hold_it(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"t": text}) + "\n" for text in ("a", TEXT, "b", TEXT))
    (tmp_path / "rows.jsonl").write_text(lines)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.table({"t": ["a", TEXT]}), tmp_path / "rows.parquet")
    needles = Needles([TEXT])
    assert lines_with(tmp_path / "rows.jsonl", needles) == [2, 4]
    assert lines_with(tmp_path / "rows.jsonl.gz", needles) == [2, 4]
    assert lines_with(tmp_path / "rows.parquet", needles) == [2]


def test_forms_are_distinct() -> None:
    assert len(forms("plain text")) == len(set(forms("plain text")))
    assert forms("plain text")[0] == b"plain text"
