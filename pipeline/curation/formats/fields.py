"""Fields of a row: which value becomes which field, and what a field may hold. No format is known here.

A row is a JSON value: an object, or a list or text where params say what it stands for. What comes out is a dict by our names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.record import canonical_json
from pipeline.params.ingest import Reading

Fields = dict[str, Any]

SECTION = "section"
"""The field that says which array of a JSON document a row lay in; see Reading.records."""

_SLOT = re.compile(r"\{([^{}\s]+)\}")
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


def read_fields(value: Any, reading: Reading, section: str = "") -> Fields:
    """The fields of a row under our names. section: the key of the array that it lay in, if any.

    A list takes the names of `reading.header`; a text is the field `text` or `prompt` when that is the format.
    Raises Rejected with NOT_AN_OBJECT, COLUMNS, MISSING_FIELD or WRONG_TYPE.
    """
    row = value if isinstance(value, dict) else _named(value, reading)
    if section and SECTION not in row:
        row = {**row, SECTION: section}
    row = rename(row, reading.columns)
    if reading.constants:
        row = {**reading.constants, **row}
    return _composed(row, reading) if reading.compose else row


def rename(row: Fields, columns: Mapping[str, str]) -> Fields:
    """The row with our names for its fields (`columns`: ours to theirs, dots for deeper ones, numbers for places in lists).

    An empty name says that they have no such field. Another field of theirs that bears a name now taken is kept as
    `unmapped_NAME`. Of a field that was taken from within, what is left stays under its own name.
    """
    if not columns:
        return row
    ours: Fields = {}
    rest = dict(row)
    for mine, name in columns.items():
        if name in row:
            ours[mine] = row[name]
            rest.pop(name, None)
        elif "." in name and (found := _at(row, path := name.split("."))) is not None:
            ours[mine] = found
            if path[0] in rest and (left := _without(rest[path[0]], path[1:])) is not None:
                rest[path[0]] = left
            else:
                rest.pop(path[0], None)
    taken = {mine for mine, name in columns.items() if mine in ours or not name}
    return {**{f"unmapped_{key}" if key in taken else key: value for key, value in rest.items()}, **ours}


def text(value: Any, field: str) -> str:
    """The value as it is, if it is a text that says something. Raises Rejected with BLANK or WRONG_TYPE."""
    if isinstance(value, str):
        if value and not value.isspace():
            return value
        raise Rejected(Code.BLANK, f"{field} is empty")
    if value is None:
        raise Rejected(Code.BLANK, f"{field} is null")
    raise Rejected(Code.WRONG_TYPE, f"{field} is {type_name(value)}, not a text")


def flag(value: Any, field: str) -> bool:
    """true or false, as JSON says it, or 1 and 0, or the texts of these. Raises Rejected with BLANK or WRONG_TYPE."""
    if isinstance(value, bool):
        return value
    if value is None or value == "":
        raise Rejected(Code.BLANK, f"{field} is empty")
    known = _FLAGS.get(str(value).strip().lower()) if isinstance(value, int | str) else None
    if known is None:
        raise Rejected(Code.WRONG_TYPE, f"{field} is neither true nor false")
    return known


def number(value: Any, field: str) -> float:
    """A finite number, or the text of one. Raises Rejected with BLANK or WRONG_TYPE."""
    if value is None or value == "":
        raise Rejected(Code.BLANK, f"{field} is empty")
    try:
        read = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        read = math.nan
    if not math.isfinite(read):
        raise Rejected(Code.WRONG_TYPE, f"{field} is no number")
    return read


def as_text(value: Any) -> str:
    """How metadata keeps a value: a text as it is, anything else as canonical JSON."""
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else canonical_json(value)


def is_blank(value: Any) -> bool:
    """Whether an optional field says nothing: absent, null, or white space alone."""
    return value is None or (isinstance(value, str) and not value.strip())


def type_name(value: Any) -> str:
    """What people call the type of a JSON value."""
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", str: "a text"}
    return names.get(type(value), "something else")


def _named(value: Any, reading: Reading) -> Fields:
    if isinstance(value, list) and reading.header:
        if len(value) != len(reading.header):
            raise Rejected(Code.COLUMNS, f"a list of {len(value)}, and the header names {len(reading.header)}")
        return dict(zip(reading.header, value, strict=True))
    if isinstance(value, str) and reading.format in ("text", "prompt"):
        return {reading.format: value}
    hint = "; a header would name its places" if isinstance(value, list) else ""
    raise Rejected(Code.NOT_AN_OBJECT, f"the row is {type_name(value)}, but no object{hint}")


def _composed(row: Fields, reading: Reading) -> Fields:
    """The row with the fields that are made of others, which go, but for the one that rows are grouped by."""
    made = {name: _filled(form, row) for name, form in reading.compose.items()}
    used = {match[1] for form in reading.compose.values() for match in _SLOT.finditer(form)} - {reading.group_by}
    return {**{name: value for name, value in row.items() if name not in used}, **made}


def _filled(form: str, row: Fields) -> str:
    def value(match: re.Match[str]) -> str:
        if (name := match[1]) not in row:
            raise Rejected(Code.MISSING_FIELD, f"the field {name!r}, which compose asks for, is absent")
        found = row[name]
        if isinstance(found, list | dict):
            raise Rejected(Code.WRONG_TYPE, f"{name} is {type_name(found)}, which compose cannot write")
        return "" if found is None else as_text(found)

    return _SLOT.sub(value, form)


def _at(value: Any, path: list[str]) -> Any:
    for step in path:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _without(value: Any, path: list[str]) -> Any:
    """`value` less what lies at `path`; None when nothing is left. Places in lists stay, so that other paths still hold."""
    if not path:
        return None
    if isinstance(value, dict):
        left = {key: _without(inner, path[1:]) if key == path[0] else inner for key, inner in value.items()}
        return {key: inner for key, inner in left.items() if inner is not None or key != path[0]} or None
    if isinstance(value, list):
        places = [_without(inner, path[1:]) if str(i) == path[0] else inner for i, inner in enumerate(value)]
        return places if any(inner is not None for inner in places) else None
    return value
