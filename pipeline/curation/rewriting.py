"""An example made anew from changed texts: the change is carried to each text within the canonical JSON that conversations and
metadata are kept as, never to the JSON, and id and group follow. What to change is for the callers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from pipeline.curation.formats import Parts, group_of
from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.data import ExampleKind, example_id
from pipeline.domain.record import canonical_json

_PLAIN_INPUT = frozenset({ExampleKind.LABEL, ExampleKind.TEXT})
_PLAIN_OUTPUT = frozenset({ExampleKind.ANSWER, ExampleKind.LABEL, ExampleKind.TEXT, ExampleKind.PROMPT})
_LONG_NUMBER = 10**6

Change = Callable[[str], str]


def change_texts(parts: Parts, change: Change) -> Parts:
    """The parts with `change` done to every text: inputs, outputs, metadata and the names of metadata.

    Long numbers (of tool calls, say) are shown as their digits. The id is made anew, and so is a group that was made of the
    content; one made of a metadata field stays what it was. The very same object comes back when nothing changed.
    Raises Rejected with BLANK when nothing visible is left of a text, with DUPLICATE_KEY when two metadata fields come to bear
    one name.
    """
    input = _changed(parts.input, parts.kind in _PLAIN_INPUT, change)
    output = _changed(parts.output, parts.kind in _PLAIN_OUTPUT, change)
    meta = _changed_meta(parts.meta, change)
    if (input, output) == (parts.input, parts.output):
        return parts if meta == parts.meta else parts._replace(meta=meta)
    new = parts._replace(id=example_id(input, output), input=input, output=output, meta=meta)
    return new._replace(group=_own_group(new)) if parts.group == _own_group(parts) else new


def output_texts(parts: Parts) -> Iterator[str]:
    """The texts of the output: the answer, or each text of a choice, a ranking, a call."""
    if parts.kind in _PLAIN_OUTPUT:
        yield parts.output
        return
    waiting = [orjson.loads(parts.output)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _changed(column: str, plain: bool, change: Change) -> str:
    if not column:
        return column
    if plain:
        return _visible(column, change)
    value = orjson.loads(column)
    new = _walked(value, lambda text: _visible(text, change))
    # A document that did not change keeps its bytes, whatever wrote them.
    return column if new == value else canonical_json(new)


def _changed_meta(column: str, change: Change) -> str:
    if column == "{}":
        return column
    meta: dict[str, str] = orjson.loads(column)
    new = {change(name): change(text) for name, text in meta.items()}
    if new == meta:
        return column
    if len(new) != len(meta):
        raise Rejected(Code.DUPLICATE_KEY, "two metadata fields bear one name once they are cleaned")
    return canonical_json({name: text for name, text in new.items() if text})


def _walked(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _walked(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_walked(inner, change) for inner in value]
    if isinstance(value, int) and abs(value) >= _LONG_NUMBER:
        digits = str(value)
        return value if (new := change(digits)) == digits else new
    return value


def _visible(text: str, change: Change) -> str:
    new = change(text)
    if new != text and not new.strip() and text.strip():
        raise Rejected(Code.BLANK, "a text holds nothing that can be seen")
    return new


def _own_group(parts: Parts) -> str:
    """The group that an example has by its content."""
    if parts.kind == ExampleKind.TEXT:
        return group_of(parts.output)
    return group_of(parts.input if parts.kind in _PLAIN_INPUT else orjson.loads(parts.input))
