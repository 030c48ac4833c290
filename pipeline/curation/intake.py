"""Rows into examples: every row that is read ends as exactly one of accepted, duplicate, or quarantined, and is counted.

Where rows come from and where examples go is for the callers: this module holds no file and writes nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.curation.formats import NEEDED, Fields, read_parts, rename, tell_format
from pipeline.curation.lines import RAW_CAP, Row
from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.data import Example, QuarantinedRow, Task
from pipeline.errors import BadInput
from pipeline.params import IngestParams


@dataclass(slots=True)
class Tally:
    """Where the rows of one source ended: read = accepted + duplicate + quarantined."""

    read: int = 0
    accepted: int = 0
    duplicate: int = 0
    quarantined: int = 0


class Intake:
    """Turns the rows of one file after the other into examples, and remembers which examples it has seen.

    known: ids (16 bytes each) of the examples that earlier snapshots hold; it is added to.
    """

    def __init__(self, params: IngestParams, task: Task, known: set[bytes]) -> None:
        self._params = params
        self._task = task
        self._known = known

    def take(self, rows: Iterable[Row], *, source: str, where: str, tally: Tally) -> Iterator[Example | QuarantinedRow]:
        """What becomes of each row; duplicates are only counted in `tally`, which is kept up to date between two items.

        Raises BadInput at the end when the rows were objects, but not one had the fields that the format needs: then it is the
        params that are wrong, not the rows.
        """
        format: str | None = None if self._params.format == "auto" else self._params.format
        fitting, unfit = False, None
        for row in rows:
            tally.read += 1
            try:
                fields = self._fields(row)
                format = format or tell_format(fields, self._task)
                if format is None:
                    unfit = unfit or list(fields)
                    raise Rejected(Code.MISSING_FIELD, f"the row has the fields of no format that the task {self._task} knows")
                fitting = fitting or all(field in fields for field in NEEDED[format])
                if not fitting:
                    unfit = unfit or list(fields)
                parts = read_parts(fields, format, self._params.group_by)
            except Rejected as rejected:
                tally.quarantined += 1
                yield quarantined(row, rejected, source)
                continue
            key = bytes.fromhex(parts.id)
            if key in self._known:
                tally.duplicate += 1
                continue
            self._known.add(key)
            tally.accepted += 1
            yield Example(*parts, source=source, line=row.line)
        if unfit is not None and not fitting:
            raise self._wrong_fields(unfit, where)

    def _fields(self, row: Row) -> Fields:
        if isinstance(row.value, Rejected):
            raise row.value
        if not isinstance(row.value, dict):
            raise Rejected(Code.NOT_AN_OBJECT, "the row is a JSON value, but no object")
        return rename(row.value, self._params.columns)

    def _wrong_fields(self, seen: list[str], where: str) -> BadInput:
        fitting = [name for name in NEEDED if (name == "classification") == (self._task is Task.CLASSIFY)]
        wanted = fitting if self._params.format == "auto" else [self._params.format]
        needed = ", or ".join(f"{' and '.join(NEEDED[name])} ({name})" for name in wanted)
        return BadInput(
            f"no row has the fields {needed}; there are: {', '.join(repr(name[:60]) for name in seen[:12]) or 'none'}",
            where=where,
            fix=f"say which field is which in params.yaml, e.g. ingest.columns: {{{NEEDED[wanted[0]][0]}: THEIR_NAME}}",
        )


def quarantined(row: Row, why: Rejected, source: str) -> QuarantinedRow:
    """The record of a row that was not accepted. Of its bytes the first RAW_CAP are kept; as base64 where they are not UTF-8."""
    raw, encoding = _readable(row.raw[:RAW_CAP])
    return QuarantinedRow(
        source=source,
        line=row.line,
        code=why.code,
        reason=why.reason.encode("utf-8", "replace").decode("utf-8"),
        raw=raw,
        raw_encoding=encoding,
        raw_bytes=row.raw_bytes,
    )


def _readable(raw: bytes) -> tuple[str, str]:
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        # A character that the cap cuts in two is no damage.
        if len(raw) == RAW_CAP and error.start > len(raw) - 4 and error.reason == "unexpected end of data":
            return raw[: error.start].decode("utf-8"), "utf-8"
        return base64.b64encode(raw).decode("ascii"), "base64"
