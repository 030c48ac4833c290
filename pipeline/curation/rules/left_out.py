"""Rows that a person wants left out: a CSV with the column id, as the review lists have it, and a reason if they gave one.

The list is made by hand from a review list (delete the lines of rows that are right, keep the others), so it is read as
suspiciously as data: small, UTF-8, and with ids that can be some.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from pipeline.curation.keys import Keys, find
from pipeline.curation.rules.findings import Findings, Mask, findings
from pipeline.domain.record import digest_bytes
from pipeline.errors import BadInput

MOST_BYTES = 256 << 20
_ID = re.compile(r"[0-9a-f]{32}")
_WORDING = "left out by a person"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A reviewed list. ids: sorted, distinct. reasons: of each id, '' where none was given. sha256: of the file's bytes."""

    ids: Keys
    reasons: tuple[str, ...]
    sha256: str


def read_left_out(path: Path) -> LeftOut:
    """The reviewed list in a file. Raises BadInput when it is no CSV with a column id that holds 32 hex digits in every line."""
    fix = "give a UTF-8 CSV with a header and the column id, such as a review list with the right rows deleted"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"this list is larger than {MOST_BYTES} bytes", where=str(path), fix=fix)
        raw = path.read_bytes()
        rows = csv.DictReader(StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        if "id" not in (rows.fieldnames or ()):
            raise BadInput("this list has no column id", where=str(path), fix=fix)
        listed: dict[str, str] = {}
        for row in rows:
            id = (row["id"] or "").strip()
            if not _ID.fullmatch(id):
                raise BadInput(f"{id[:60]!r} is no id", where=f"{path}:{rows.line_num}", fix=fix)
            listed.setdefault(id, (row.get("reason") or "").strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"this list cannot be read: {error}", where=str(path), fix=fix) from None
    ids = sorted(listed)
    keys = np.frombuffer(bytes.fromhex("".join(ids)), "S16")
    return LeftOut(keys, tuple(listed[id] for id in ids), digest_bytes(raw))


def left_out(ids: Keys, kept: Mask, listed: LeftOut) -> tuple[Findings, int]:
    """(the kept rows whose id is listed, how many listed ids are of no row). ids: of all rows, in their order."""
    places = find(listed.ids, ids)
    rows = np.flatnonzero((places >= 0) & kept)
    absent = len(listed.ids) - len(np.unique(places[places >= 0]))
    given = sorted({reason for reason in listed.reasons if reason})
    number = {"": 0, **{reason: place for place, reason in enumerate(given, start=1)}}
    codes = np.array([number[reason] for reason in listed.reasons], np.int64)
    wordings = (_WORDING, *(f"{_WORDING}: {_plain(reason)}" for reason in given))
    return findings(rows, wordings, codes=codes[places[rows]] if len(rows) else None), absent


def _plain(reason: str) -> str:
    """A person's words as they are, whatever braces they hold."""
    return reason.replace("{", "{{").replace("}", "}}")
