"""JSON as RFC 8259 defines it, and stricter: bytes in, one value out, or Rejected. No recursion on hostile input.

What other parsers let pass in silence is refused here: duplicate keys, NaN and Infinity, lone surrogates, NUL characters, bytes
that are not UTF-8. Reading files is curation/lines.py's work; what fields a row needs is curation/formats.py's.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import orjson

from pipeline.curation.reasons import Code, Rejected

# A string that is never closed matches up to the end, so that no text makes the scan start over again and again.
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?+|[\[{]|[\]}]', re.DOTALL)
_AFTER_KEY = re.compile(rb'"[ \t\r\n]*:')
_OPENING = (b"[", b"{")
_CLOSING = (b"]", b"}")
_EXACT = 2.0**53
_LOOKED_INTO = frozenset({dict, list, float})


def parse(row: bytes, max_depth: int) -> Any:
    """The value of one JSON text.

    Integers keep all their digits. Raises Rejected with TOO_DEEP, BAD_UTF8, NUL, BOM, BARE_CR, LONE_SURROGATE, DUPLICATE_KEY,
    BAD_NUMBER or BAD_JSON.
    """
    check_depth(row, max_depth)
    try:
        value = orjson.loads(row)
    except orjson.JSONDecodeError as error:
        _explain(row, str(error))
    keys, exact = _count_keys(value)
    # Each key needs a colon after a quote: as many of these as distinct keys means that no key came twice. A text may hold some
    # too (as \":), so with more of them look closer. The first count is far cheaper, and texts without a colon are common.
    if not exact or (row.count(b":") != keys and len(_AFTER_KEY.findall(row)) != keys):
        value = _parse_slowly(row)
    if b"\\u0000" in row and has_nul(value):
        raise Rejected(Code.NUL, "the text holds a NUL character (\\u0000)")
    return value


def check_depth(row: bytes, max_depth: int) -> None:
    """Raise Rejected(TOO_DEEP) when brackets outside strings nest deeper than `max_depth`. Linear in time, flat in memory."""
    if row.count(b"[") + row.count(b"{") <= max_depth:
        return
    depth = 0
    for match in _STRUCTURE.finditer(row):
        token = match.group()
        if token in _OPENING:
            depth += 1
            if depth > max_depth:
                raise Rejected(Code.TOO_DEEP, f"JSON nested deeper than {max_depth} levels")
        elif token in _CLOSING:
            depth -= 1


def has_nul(value: Any) -> bool:
    """Whether any text within a JSON-like value, keys included, holds a NUL character."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def _count_keys(value: Any) -> tuple[int, bool]:
    """(how many keys all objects in `value` have, whether every number is surely what the text said)."""
    keys, exact, waiting = 0, True, [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)  # orjson makes no subclasses
        if kind is dict:
            keys += len(item)
            waiting += [inner for inner in item.values() if type(inner) in _LOOKED_INTO]
        elif kind is list:
            waiting += [inner for inner in item if type(inner) in _LOOKED_INTO]
        elif kind is float and abs(item) >= _EXACT:
            exact = False  # orjson turns integers beyond 64 bits into floats, which loses digits.
    return keys, exact


def _parse_slowly(row: bytes) -> Any:
    """The same value through the standard library, which shows every pair of every object. `row` is known to be valid JSON."""
    try:
        return json.loads(row.decode("utf-8"), object_pairs_hook=_distinct)
    except RecursionError:
        raise Rejected(Code.TOO_DEEP, "JSON nested deeper than this machine can parse") from None
    except ValueError as error:
        raise Rejected(Code.BAD_NUMBER, f"a number is too long: {error}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Rejected(Code.DUPLICATE_KEY, f"the key {twice[:100]!r} comes twice in one object")
    return made


def _explain(row: bytes, problem: str) -> NoReturn:
    """Raise the most telling Rejected for a row that orjson refused."""
    if row.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Rejected(Code.BOM, "the row starts with a byte order mark")
    try:
        text = row.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(Code.BAD_UTF8, f"byte {error.start} of the row is not UTF-8") from None
    if "\0" in text:
        raise Rejected(Code.NUL, f"a NUL byte at byte {row.index(0)} of the row")
    if "surrogate" in problem:
        raise Rejected(Code.LONE_SURROGATE, "a \\u escape is half of a surrogate pair")
    if "infinity" in problem:
        raise Rejected(Code.BAD_NUMBER, "a number is too large for a double")
    parts = [part for part in row.split(b"\r") if part.strip()]
    if len(parts) > 1 and _is_json(parts[0]):
        raise Rejected(Code.BARE_CR, "rows are parted by carriage returns without line feeds")
    try:
        json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except RecursionError:
        raise Rejected(Code.TOO_DEEP, "JSON nested deeper than this machine can parse") from None
    except ValueError as error:
        problem = str(error)
    raise Rejected(Code.BAD_JSON, f"not JSON: {problem[:200]}")


def _is_json(part: bytes) -> bool:
    try:
        orjson.loads(part)
    except orjson.JSONDecodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise Rejected(Code.BAD_NUMBER, f"{name} is not a JSON number")
