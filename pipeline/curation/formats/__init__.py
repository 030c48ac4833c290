"""What a row means: its fields, in whichever of the known formats, into the one form of an example.

Pure: a parsed row in, its parts or Rejected out. Texts are not repaired: white space around a label goes, content in parts is
joined, and white space around the turns of a transcript goes; everything else comes through as it is. What a format does not use
is kept as metadata. docs/formats.md has the table. Which bytes made the row is curation/lines.py's knowledge.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from pipeline.curation.formats import answers, extraction, judged
from pipeline.curation.formats.conversations import Spelling, spelling
from pipeline.curation.formats.fields import Fields as Fields
from pipeline.curation.formats.fields import as_text
from pipeline.curation.formats.fields import read_fields as read_fields
from pipeline.curation.formats.fields import rename as rename
from pipeline.curation.formats.reading import Meaning
from pipeline.curation.formats.telling import NEEDED as NEEDED
from pipeline.curation.formats.telling import fits as fits
from pipeline.curation.formats.telling import formats_of as formats_of
from pipeline.curation.formats.telling import tell_format as tell_format
from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.data import ExampleKind
from pipeline.domain.record import canonical_json, digest_value
from pipeline.params.ingest import Reading

_READERS: dict[str, Callable[[Fields, Spelling], Meaning]] = {
    "classification": answers.read_classification,
    "preference": judged.read_preference,
    "feedback": judged.read_feedback,
    "ranking": judged.read_ranking,
    "chat": answers.read_chat,
    "sharegpt": answers.read_sharegpt,
    "prompt_completion": answers.read_prompt_completion,
    "alpaca": answers.read_alpaca,
    "extraction": extraction.read_extraction,
    "text": answers.read_text,
    "prompt": answers.read_bare_prompt,
}


class Parts(NamedTuple):
    """An example without its origin; see domain.data.Example for the fields."""

    id: str
    group: str
    input: str
    output: str
    meta: str
    kind: str


def read_parts(row: Fields, format: str, reading: Reading) -> Parts:
    """The example that a (renamed) row of `format` stands for.

    Fields that the format does not use go to `meta`: texts as they are, anything else as canonical JSON; nulls and empty texts
    are left out. Examples with the same levelled input share a group, or those with the same `meta[reading.group_by]`.
    Raises Rejected; curation/reasons.py has the codes.
    """
    if not fits(row, format):
        absent = next(field for field in NEEDED[format][0] if field not in row)
        raise Rejected(Code.MISSING_FIELD, f"the field {absent!r} is absent")
    meaning = _READERS[format](row, spelling(reading.tags))
    used = meaning.used
    meta = {key: as_text(value) for key, value in row.items() if key not in used and value is not None and value != ""}
    if meaning.notes:
        meta.update(meaning.notes)
    input, output = _as_column(meaning.input), _as_column(meaning.output)
    if reading.group_by is None:
        group = group_of(output if meaning.kind is ExampleKind.TEXT else meaning.input)
    elif reading.group_by in meta:
        group = digest_value([reading.group_by, meta[reading.group_by]])[:32]
    else:
        raise Rejected(Code.NO_GROUP, f"the metadata field {reading.group_by!r}, which ingest.group_by names, is absent")
    id = hashlib.sha256(_canonical([input, output])).hexdigest()[:32]
    return Parts(id, group, input, output, _canonical(meta).decode() if meta else "{}", meaning.kind.value)


def level(text: str) -> str:
    """The text without what makes no difference to a group: case, runs of white space, Unicode composition."""
    if text.isascii():
        return " ".join(text.lower().split())
    normal = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(normal.split())


def _as_column(value: Any) -> str:
    """A text as it is; a conversation or another value as its canonical JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(len(turn) == 2 for turn in value):
        return _canonical(value).decode()
    return canonical_json(value)


def _canonical(value: Any) -> bytes:
    """canonical_json of a value that holds texts alone, several times faster; a test holds the two (and example_id) together."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def group_of(input: Any) -> str:
    """The group of a text or conversation: 32 hex digits, the same for those that differ in case, white space, Unicode
    composition or offered tools alone."""
    if isinstance(input, str):
        levelled = level(input)
    else:
        turns = input["messages"] if isinstance(input, dict) else input
        levelled = "\x1e".join(f"{turn['role']}\x1f{level(turn['content'])}{_called(turn)}" for turn in turns)
    return hashlib.sha256(levelled.encode()).hexdigest()[:32]


def _called(turn: dict[str, Any]) -> str:
    return f"\x1f{canonical_json(turn['tool_calls'])}" if "tool_calls" in turn else ""
