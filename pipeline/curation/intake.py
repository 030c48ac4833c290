"""Rows into examples, a chunk at a time: every row of a chunk ends as an example or in quarantine, in its order.

Pure, and the same in every process: what a chunk becomes depends on the chunk and the recipe alone, so chunks can be taken in
anywhere. Which examples are known already is curation/seen.py's; where rows come from and go to is for the callers.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pipeline.curation.formats import NEEDED, Fields, Parts, fits, formats_of, read_fields, read_parts, tell_format
from pipeline.curation.lines import RAW_CAP, Row, json_lines
from pipeline.curation.reasons import WITHHELD, Code, Rejected
from pipeline.curation.row_rules import RowRules
from pipeline.curation.shards import SCHEMA
from pipeline.domain.data import QuarantinedRow, Task
from pipeline.domain.record import canonical_json
from pipeline.errors import BadInput
from pipeline.params.ingest import Reading


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of one file that can be taken in by itself.

    rows: parsed rows, or the bytes of whole lines of JSONL, of which `before` lines came earlier; the last one may be followed by
    `beyond` bytes that were left out since it is too long. format: what the file's earlier rows were told to be.
    """

    source: str
    reading: Reading
    rows: bytes | Sequence[Row]
    before: int = 0
    beyond: int = 0
    format: str | None = None


@dataclass(slots=True)
class Taken:
    """What became of a chunk. examples: a pyarrow table of shards.SCHEMA, repeated ones included; rejects: a line of JSON each.

    read = rows of examples + rejects. format: as told by now. fitting: whether some row had the fields that the format needs;
    unfit: the fields of the first object that had not. altered: rows that a rule changed, by rule.
    """

    examples: Any
    rejects: list[bytes]
    read: int
    format: str | None
    fitting: bool
    unfit: list[str] | None
    altered: dict[str, int]


@dataclass(frozen=True, slots=True)
class Intake:
    """The recipe by which rows become examples; called with a chunk it says what became of it."""

    task: Task
    max_line_bytes: int
    max_depth: int
    rules: RowRules | None = None

    def __call__(self, chunk: Chunk) -> Taken:
        format = chunk.format or _asked_format(chunk.reading)
        rejects: list[bytes] = []
        accepted: list[Parts] = []
        lines: list[int] = []
        read, fitting, unfit = 0, False, None
        for row in self._rows(chunk):
            read += 1
            try:
                fields = _fields(row, chunk.reading)
                format = format or tell_format(fields, self.task)
                if format is None:
                    unfit = unfit or list(fields)
                    raise Rejected(Code.MISSING_FIELD, f"the row has the fields of no format that the task {self.task} knows")
                fitting = fitting or fits(fields, format)
                if not fitting:
                    unfit = unfit or list(fields)
                parts = read_parts(fields, format, chunk.reading)
                accepted.append(self.rules.apply(parts) if self.rules else parts)
                lines.append(row.line)
            except Rejected as rejected:
                record = quarantined(row, rejected, chunk.source, self.rules)
                rejects.append(canonical_json(record.model_dump(mode="json")).encode())
        altered = self.rules.take_altered() if self.rules else {}
        return Taken(_table(accepted, lines, chunk.source), rejects, read, format, fitting, unfit, altered)

    def tell(self, chunk: Chunk) -> str | None:
        """The format of the chunk's first row that is of one, so that the file's next chunks need not wait for this one."""
        if format := chunk.format or _asked_format(chunk.reading):
            return format
        for row in self._rows(chunk):
            try:
                if format := tell_format(_fields(row, chunk.reading), self.task):
                    return format
            except Rejected:
                continue
        return None

    def wrong_fields(self, reading: Reading, seen: Sequence[str], where: str) -> BadInput:
        """The error for a file of objects, not one of which had the fields that the format needs: the params are wrong then."""
        wanted = formats_of(self.task) if reading.format == "auto" else [reading.format]
        needed = ", or ".join(f"{' and '.join(NEEDED[name][0])} ({name})" for name in wanted)
        return BadInput(
            f"no row has the fields {needed}; there are: {', '.join(repr(name[:60]) for name in seen[:12]) or 'none'}",
            where=where,
            fix=f"say which field is which in params.yaml, e.g. ingest.columns: {{{NEEDED[wanted[0]][0][0]}: THEIR_NAME}}",
        )

    def _rows(self, chunk: Chunk) -> Iterable[Row]:
        if isinstance(chunk.rows, bytes):
            stream = BytesIO(chunk.rows)
            return json_lines(stream, self.max_line_bytes, self.max_depth, before=chunk.before, beyond=chunk.beyond)
        return chunk.rows


def quarantined(row: Row, why: Rejected, source: str, rules: RowRules | None = None) -> QuarantinedRow:
    """The record of a row that was not accepted. Of its bytes the first RAW_CAP are kept; as base64 where they are not UTF-8.

    rules: what they redact or refuse does not get into quarantine instead. A row refused for what it holds leaves no text.
    """
    raw, encoding = _readable(row.raw[:RAW_CAP])
    reason = why.reason.encode("utf-8", "replace").decode("utf-8")
    if rules is not None:
        reason, raw = rules.screen(reason), _screened(raw, encoding, rules, cut=row.raw_bytes > RAW_CAP)
    return QuarantinedRow(
        source=source,
        line=row.line,
        code=why.code,
        reason=reason,
        raw="" if why.code in WITHHELD else raw,
        raw_encoding=encoding,
        raw_bytes=row.raw_bytes,
    )


def _screened(raw: str, encoding: str, rules: RowRules, *, cut: bool) -> str:
    if encoding == "utf-8":
        return rules.screen(raw, cut=cut)
    # Marks cannot be put among bytes that are no text, so such a row is kept whole or not at all.
    plain = base64.b64decode(raw).decode("latin-1")
    return raw if rules.screen(plain) == plain else ""


def _asked_format(reading: Reading) -> str | None:
    return None if reading.format == "auto" else reading.format


def _fields(row: Row, reading: Reading) -> Fields:
    if isinstance(row.value, Rejected):
        raise row.value
    return read_fields(row.value, reading, row.section)


def _table(accepted: Sequence[Parts], lines: Sequence[int], source: str) -> Any:
    import pyarrow as pa

    columns: dict[str, Any] = {"source": [source] * len(lines), "line": lines}
    columns |= zip(Parts._fields, zip(*accepted, strict=True) if accepted else [()] * len(Parts._fields), strict=True)
    return pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _readable(raw: bytes) -> tuple[str, str]:
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        # A character that the cap cuts in two is no damage.
        if len(raw) == RAW_CAP and error.start > len(raw) - 4 and error.reason == "unexpected end of data":
            return raw[: error.start].decode("utf-8"), "utf-8"
        return base64.b64encode(raw).decode("ascii"), "base64"
