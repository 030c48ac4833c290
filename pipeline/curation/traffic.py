"""What production is asked: a file of requests, read through the strict parser and drawn from, memory flat.

A row is an object with `text` (or `prompt`, or `messages`), and what was answered as `label` or `answer`, where that is known.
The same request asked twice counts once, as it does in a snapshot. Nothing is stored here, and no request enters a record.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from pipeline.curation.lines import Row, json_lines
from pipeline.curation.reasons import Rejected
from pipeline.curation.tables import csv_rows, parquet_rows
from pipeline.domain.data import ExampleKind, messages_to_input
from pipeline.errors import BadInput
from pipeline.spoken.plain_text import input_text

_MOST_BYTES = 1 << 20
_MOST_DEPTH = 32
# A FIFO must not hang us, and no symlink lead elsewhere.
_CAREFULLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Request:
    text: str
    answer: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """drawn: distinct requests. rows: how many could be read; refused: how many could not. sha256: of the file."""

    drawn: tuple[Request, ...]
    rows: int
    refused: int
    sha256: str

    @property
    def columns(self) -> dict[str, Sequence[str]]:
        """The requests as `text`, and `answer` and `label` where all of them have one."""
        columns: dict[str, Sequence[str]] = {"text": [request.text for request in self.drawn]}
        for name in ("answer", "label"):
            values = [getattr(request, name) for request in self.drawn]
            if None not in values:
                columns[name] = values
        return columns


def read_traffic(path: Path, most: int) -> Traffic:
    """At most `most` requests of a .jsonl, .csv or .parquet file, drawn by the hash of their text.

    Raises BadInput when it is no such file, or no row of it has a text.
    """
    drawn: dict[bytes, Request] = {}
    rows = refused = 0
    with _open(path) as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        for row in _rows(stream, path):
            request = _request(row)
            if request is None:
                refused += 1
                continue
            rows += 1
            key = hashlib.blake2b(" ".join(request.text.casefold().split()).encode(), digest_size=16).digest()
            drawn.setdefault(key, request)
            if len(drawn) > 4 * most:
                drawn = dict(sorted(drawn.items(), key=lambda item: item[0])[:most])
    if not rows:
        raise BadInput(
            "no row has a text", where=str(path), fix="name the request `text`, and what was answered `answer` or `label`"
        )
    return Traffic(tuple(drawn[key] for key in sorted(drawn)[:most]), rows, refused, sha256)


def _open(path: Path) -> BufferedReader:
    try:
        descriptor = os.open(path, _CAREFULLY)
    except OSError as error:
        raise BadInput(f"this file cannot be read: {error.strerror}", where=str(path), fix="name a file of requests") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadInput("this is no regular file", where=str(path), fix="name a file of requests")
    return BufferedReader(FileIO(descriptor, "rb"), 1 << 20)


def _rows(stream: BufferedReader, path: Path) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return json_lines(stream, _MOST_BYTES, _MOST_DEPTH)
    if suffix == ".csv":
        return csv_rows(stream, _MOST_BYTES, str(path))
    if suffix == ".parquet":
        return parquet_rows(stream, _MOST_BYTES, str(path))
    raise BadInput("this kind of file is not read", where=str(path), fix="give .jsonl, .csv or .parquet")


def _request(row: Row) -> Request | None:
    fields = row.value
    if isinstance(fields, Rejected) or not isinstance(fields, dict):
        return None
    text = fields.get("text") or fields.get("prompt") or _spoken(fields.get("messages"))
    if not isinstance(text, str) or not text.strip():
        return None
    return Request(text, _text(fields.get("answer")), _text(fields.get("label")))


def _spoken(messages: Any) -> str:
    return input_text(messages_to_input(messages), ExampleKind.PROMPT) if isinstance(messages, list) else ""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
