"""Looks for texts in stored files, whatever they are packed in: proof that what was purged is gone.

Searched are the bytes of every file, and beneath them what gzip, zstd, bz2, xz and zip hold, the columns of Parquet and Arrow
files, the cells of SQLite databases, and the objects of a git repository; needles.py tells in which forms. What is encrypted, or
packed otherwise, is not seen.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sqlite3
import subprocess
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from pipeline.backends.needles import Needles, in_column
from pipeline.domain.erasure import Hit, SearchReport
from pipeline.ports import Progress, silent

_PIECE = 8 << 20
_SQLITE = b"SQLite format 3\0"


def search_files(
    roots: Iterable[Path], needles: Needles, *, skip: Sequence[Path] = (), progress: Progress = silent
) -> SearchReport:
    """Search every regular file below `roots`. Links are not followed; of files that are one by hard links the first is read, and
    all are named. skip: files and folders that are left out. Files that vanish meanwhile are passed over."""
    counts: Counter[str] = Counter()
    hits: list[Hit] = []
    read: dict[tuple[int, int], list[tuple[str, int]]] = {}
    total = 0
    for path in _walk(roots, skip):
        try:
            status = path.stat()
            inode = (status.st_dev, status.st_ino)
            if inode not in read:
                read[inode] = list(_in_file(path, needles, counts))
                total += status.st_size
                progress("searching stored files", len(read), 0)
        except FileNotFoundError:
            continue
        hits += [Hit(place=str(path), inside=inside, text=number) for inside, number in read[inode]]
        counts["files"] += 1
    return SearchReport(texts=len(needles.texts), bytes=total, counts=dict(sorted(counts.items())), hits=tuple(hits))


def search_git(root: Path, refs: str, needles: Needles) -> SearchReport:
    """Search all objects (commits, trees, files) that are reachable from the refs under `refs`."""
    git = ["git", "-C", str(root)]
    listed = subprocess.run([*git, "rev-list", "--objects", f"--glob={refs}"], capture_output=True, check=True).stdout.decode()
    names = dict(line.partition(" ")[::2] for line in listed.splitlines())
    hits: list[Hit] = []
    total = 0
    request = "".join(f"{name}\n" for name in names).encode()
    with subprocess.Popen([*git, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        feeder = _feed(process.stdin, request)
        for _ in names:
            name, _, size = process.stdout.readline().decode().split()
            content = process.stdout.read(int(size) + 1)[:-1]
            total += len(content)
            found = [Hit(place=f"git {name[:12]}", inside=names[name], text=number) for number in needles.among(content)]
            hits += found
        feeder()
    counts = {"git objects": len(names)}
    return SearchReport(texts=len(needles.texts), bytes=total, counts=counts, hits=tuple(hits))


def lines_with(path: Path, needles: Needles, most: int = 100) -> list[int]:
    """1-based lines of a text file, packed or not, that hold one of the texts; rows where it is Parquet."""
    with path.open("rb") as file:
        magic = file.read(16)
    if magic[:4] == b"PAR1":
        return [row + 1 for row in _parquet_rows(path, needles)][:most]
    opened: Any = _unpacked(path, magic) or path.open("rb")
    found = []
    with opened as stream:
        for number, line in enumerate(stream, start=1):
            if needles.among(line):
                found.append(number)
                if len(found) >= most:
                    break
    return found


def _feed(stream: IO[bytes], data: bytes) -> Callable[[], None]:
    """Write in a thread of its own, since git answers while it is asked; the returned function waits for the end."""
    from threading import Thread

    def write() -> None:
        with stream:
            stream.write(data)

    thread = Thread(target=write)
    thread.start()
    return thread.join


def _walk(roots: Iterable[Path], skip: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        if root in skip or root.is_symlink():
            continue
        if root.is_file():
            yield root
        elif root.is_dir():
            yield from _walk(sorted(root.iterdir()), skip)


def _in_file(path: Path, needles: Needles, counts: Counter[str]) -> Iterator[tuple[str, int]]:
    """(where inside, number of the text) of what one file holds."""
    found: set[tuple[str, int]] = set()
    with path.open("rb") as file:
        magic = file.read(16)
        file.seek(0)
        found |= {("", number) for number in _in_stream(file, needles)}
    for kind, search in (("packed", _packed), ("tables", _tables), ("databases", _databases)):
        inside = search(path, magic, needles)
        if inside is not None:
            counts[kind] += 1
            found |= inside
    yield from sorted(found)


def _in_stream(stream: Any, needles: Needles) -> set[int]:
    found: set[int] = set()
    tail = b""
    while piece := stream.read(_PIECE):
        window = tail + piece
        found |= needles.among(window)
        tail = window[max(0, len(window) - needles.longest + 1) :]
    return found


def _packed(path: Path, magic: bytes, needles: Needles) -> set[tuple[str, int]] | None:
    if magic[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                found = set()
                for name in archive.namelist():
                    with archive.open(name) as member:
                        found |= {(name, number) for number in _in_stream(member, needles)}
                return found
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
            return set()
    stream = _unpacked(path, magic)
    if stream is None:
        return None
    with stream:
        try:
            return {("unpacked", number) for number in _in_stream(stream, needles)}
        except (OSError, EOFError, lzma.LZMAError):
            return set()


def _unpacked(path: Path, magic: bytes) -> Any:
    """What is inside a compressed file, as a stream; None for other files."""
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)
    if magic[:3] == b"BZh":
        return bz2.open(path)
    if magic[:6] == b"\xfd7zXZ\0":
        return lzma.open(path)
    if magic[:4] == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return None


def _tables(path: Path, magic: bytes, needles: Needles) -> set[tuple[str, int]] | None:
    import pyarrow as pa

    if magic[:4] == b"PAR1":
        batches = _parquet_batches(path)
    elif magic[:6] == b"ARROW1":
        batches = _arrow_batches(path)
    else:
        return None
    found: set[tuple[str, int]] = set()
    try:
        for batch in batches:
            found |= {(name, number) for name in batch.schema.names for number in in_column(batch.column(name), needles)}
            if needles.ids and _TEXTS.intersection(batch.schema.names) and "id" in batch.schema.names:
                found |= {("id", -1)} if set(needles.ids).intersection(batch.column("id").to_pylist()) else set()
    except (pa.ArrowException, OSError):
        return found
    return found


_TEXTS = frozenset({"input", "output", "expected"})
"""Columns by which a table of examples, or of answers to them, is known."""


def _parquet_batches(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(use_threads=False)


def _arrow_batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _parquet_rows(path: Path, needles: Needles) -> Iterator[int]:
    start = 0
    for batch in _parquet_batches(path):
        for row, values in enumerate(batch.to_pylist()):
            if needles.among(json.dumps(values, default=str, ensure_ascii=False).encode()):
                yield start + row
        start += batch.num_rows


def _databases(path: Path, magic: bytes, needles: Needles) -> set[tuple[str, int]] | None:
    """Cells of a SQLite database: long ones are scattered over its pages, where no search of the bytes finds them whole."""
    if magic != _SQLITE:
        return None
    found: set[tuple[str, int]] = set()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            database.text_factory = bytes
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                table = name.decode().replace('"', '""')
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    content = b"\0".join(cell for cell in row if isinstance(cell, bytes))
                    found |= {(name.decode(), number) for number in needles.among(content)}
    except sqlite3.Error:
        return found
    return found
