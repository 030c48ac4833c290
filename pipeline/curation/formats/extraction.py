"""Reader of the format extraction: a text, and the JSON that is to be read out of it.

What is read out comes as a value (`fields`), as spans of the text (`spans`, or as restaurant8k writes them), or as the text cut
into segments of which some bear a name (`data`, as snips does). Spans and segments become an object: a name that comes once has a
text, one that comes more often a list of texts in the order of the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.curation.formats.conversations import Spelling, with_system
from pipeline.curation.formats.fields import Fields, as_text, text, type_name
from pipeline.curation.formats.reading import Meaning
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.strict_json import parse
from pipeline.domain.data import ExampleKind
from pipeline.domain.record import canonical_json

_DEPTH = 64
_NAMES = ("slot", "entity", "entity_type", "label", "type")
_STARTS = ("startIndex", "start", "start_position", "start_offset")
_ENDS = ("endIndex", "end", "end_position", "end_offset")
_VALUES = ("value", "entity_value")


def read_extraction(row: Fields, spelled: Spelling) -> Meaning:
    """A text becomes the question, canonical JSON the answer. `system` or `instruction` say what is asked for."""
    notes: Fields = {}
    if "userInput" in row:
        said, found, used = _utterance(row)
    elif "data" in row:
        said, found, used = _segments(row)
    else:
        said, used = text(row["text"], "text"), ("text", "fields" if "fields" in row else "spans")
        found = _value(row["fields"]) if "fields" in row else _of_spans(said, row["spans"], "spans")
    turns, more = with_system([{"role": "user", "content": said}], row)
    return Meaning(turns, canonical_json(found), ExampleKind.ANSWER, (*used, *more), notes)


def _utterance(row: Fields) -> tuple[str, Any, tuple[str, ...]]:
    asked = row["userInput"]
    if not isinstance(asked, dict):
        raise Rejected(Code.WRONG_TYPE, f"userInput is {type_name(asked)}, not an object with a text")
    said = text(asked.get("text"), "userInput.text")
    return said, _of_spans(said, row.get("labels") or [], "labels"), ("userInput", "labels")


def _segments(row: Fields) -> tuple[str, Any, tuple[str, ...]]:
    segments = row["data"]
    if not isinstance(segments, list) or not all(isinstance(s, dict) and isinstance(s.get("text"), str) for s in segments):
        raise Rejected(Code.WRONG_TYPE, "data is no list of segments with a text")
    named = []
    for index, segment in enumerate(segments):
        if (name := segment.get("entity")) is not None:
            named.append((text(name, f"data[{index}].entity"), segment["text"]))
    return text("".join(s["text"] for s in segments), "data"), _gathered(named), ("data",)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = parse(value.encode("utf-8", "surrogatepass"), _DEPTH)
        except Rejected as rejected:
            raise Rejected(Code.WRONG_TYPE, f"fields is a text, but no JSON: {rejected.reason}") from None
    if not isinstance(value, dict | list):
        raise Rejected(Code.BLANK if value is None else Code.WRONG_TYPE, f"fields is {_called(value)}, not an object or a list")
    return value


def _of_spans(said: str, spans: Any, place: str) -> dict[str, Any]:
    if not isinstance(spans, list):
        raise Rejected(Code.WRONG_TYPE, f"{place} is {_called(spans)}, not a list")
    found = [_span(said, span, f"{place}[{index}]") for index, span in enumerate(spans)]
    return _gathered((name, value) for _, name, value in sorted(found, key=lambda span: span[0]))


def _span(said: str, span: Any, place: str) -> tuple[int, str, str]:
    """(where it begins, its name, its text). Offsets count characters; a start that is absent is 0, as protobuf leaves it out."""
    inner = span.get("valueSpan", span) if isinstance(span, dict) else None
    if not isinstance(inner, dict):
        raise Rejected(Code.BAD_SPAN, f"{place} is {_called(span)}, not a span")
    name = next((span[key] for key in _NAMES if isinstance(span.get(key), str) and span[key]), None)
    start = next((inner[key] for key in _STARTS if key in inner), 0)
    end = next((inner[key] for key in _ENDS if key in inner), None)
    if name is None or type(start) is not int or type(end) is not int:
        raise Rejected(Code.BAD_SPAN, f"{place} lacks a name, or the places where it starts and ends")
    if not 0 <= start < end <= len(said):
        raise Rejected(Code.BAD_SPAN, f"{place} goes from {start} to {end} in a text of {len(said)} characters")
    told = next((span[key] for key in _VALUES if isinstance(span.get(key), str)), said[start:end])
    if told != said[start:end]:
        raise Rejected(Code.BAD_SPAN, f"{place} says {told[:40]!r} where the text has {said[start:end][:40]!r}")
    return start, name, told


def _gathered(named: Iterable[tuple[str, str]]) -> dict[str, Any]:
    lists: dict[str, list[str]] = {}
    for name, value in named:
        lists.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in lists.items()}


def _called(value: Any) -> str:
    return "null" if value is None else f"{type_name(value)} ({as_text(value)[:40]})"
