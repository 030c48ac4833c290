"""Whatever a row holds, it becomes an example or is refused with a code and a reason: nothing else may come out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation.formats import NEEDED, Parts, read_fields, read_parts, tell_format
from pipeline.curation.reasons import MEANINGS, Code, Rejected
from pipeline.domain.data import KINDS_OF_TASK, Task, example_id
from pipeline.params import Reading

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, {"b": null}]}'}}
DIALOGUE = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "q"}], "name": "ann"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "r", "tool_call_id": "c1", "name": "f"},
    {"role": "assistant", "content": "a", "weight": 1},
]
TOLD = [
    {"from": "human", "value": "q"},
    {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
    {"from": "observation", "value": "r"},
    {"from": "gpt", "value": "a"},
]
ASKED, ANSWERED, WORSE = (
    [{"role": "user", "content": "q"}],
    [{"role": "assistant", "content": "a"}],
    [{"role": "assistant", "content": "b"}],
)
WHOLE: dict[str, list[dict[str, Any]]] = {
    "classification": [{"text": "t", "label": 3, "week": 1}],
    "preference": [
        {"prompt": "q", "chosen": "a", "rejected": "b", "system": "s"},
        {"chosen": [*ASKED, *ANSWERED], "rejected": [*ASKED, *WORSE], "tools": [{"name": "f"}]},
        {"conversations": TOLD[:1], "chosen": TOLD[3], "rejected": {"from": "gpt", "value": "b"}},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    ],
    "feedback": [{"messages": DIALOGUE, "kto_tag": True}, {"prompt": ASKED, "completion": ANSWERED, "label": "false"}],
    "ranking": [
        {"prompt": "q", "responses": ["a", "b"], "ranks": [2, 1]},
        {"instruction": "q", "answers": [{"answer": "a", "score": 1, "by": "x"}, {"answer": "b", "score": 2}]},
    ],
    "chat": [{"messages": DIALOGUE, "tools": [{"type": "function", "function": {"name": "f"}}]}, {"messages": DIALOGUE[:3]}],
    "sharegpt": [{"conversations": TOLD, "system": "s", "tools": '[{"name": "f"}]'}, {"conversations": TOLD[:2]}],
    "prompt_completion": [{"prompt": "q", "completion": "a", "week": 2.5}, {"prompt": ASKED, "completion": ANSWERED}],
    "alpaca": [{"instruction": "q", "input": "i", "output": "a", "history": [["q", "a"]], "system": "s"}],
    "extraction": [
        {"text": "at eight", "spans": [{"entity": "time", "start": 3, "end": 8, "value": "eight"}]},
        {"text": "t", "fields": '{"a": 1}'},
        {"userInput": {"text": "eight"}, "labels": [{"slot": "time", "valueSpan": {"endIndex": 5}}]},
        {"data": [{"text": "at "}, {"text": "eight", "entity": "time"}]},
    ],
    "text": [{"text": "t", "url": None}],
    "prompt": [{"prompt": "q"}, {"turns": ["q", "r"]}, {"messages": DIALOGUE[:4]}],
}
"""Rows that are as they should be; one or two places in them are changed."""

WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
SCALAR = st.none() | st.booleans() | st.integers(-3, 40) | st.floats(allow_nan=False, allow_infinity=False) | WORD
ODD = st.sampled_from(
    ["user", "assistant", "tool", "gpt", "\n\nHuman: q\n\nAssistant: a", "\n\nHuman: q", "[]", "{}", '[{"name": "f"}]']
)
VALUE = st.recursive(
    SCALAR | ODD | st.sampled_from([*DIALOGUE, *TOLD, CALL]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "name", "rank", "answer"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything within a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def changed(data: st.DataObject, row: dict[str, Any]) -> dict[str, Any]:
    """The row with up to two places in it replaced or taken away."""
    row = copy.deepcopy(row)
    for _ in range(data.draw(st.integers(0, 2))):
        if found := list(places(row)):
            container, key = data.draw(st.sampled_from(found))
            if data.draw(st.booleans()):
                container[key] = copy.deepcopy(data.draw(VALUE))
            else:
                container.pop(key)
    return row


def outcome(read: Callable[[], Any]) -> Any:
    """What was read, or the code of the refusal, which has a reason."""
    try:
        return read()
    except Rejected as rejected:
        return rejected.code if rejected.reason else None


@pytest.mark.parametrize("format", NEEDED)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_row_becomes_an_example_or_is_refused(format: str, data: st.DataObject) -> None:
    row = changed(data, data.draw(st.sampled_from(WHOLE[format])))
    before = copy.deepcopy(row)
    parts = outcome(lambda: read_parts(row, format, Reading()))
    assert row == before, "reading a row leaves it as it was"
    if not isinstance(parts, Parts):
        assert parts in MEANINGS
        return
    task = Task.CLASSIFY if format == "classification" else Task.GENERATE
    assert parts.kind in KINDS_OF_TASK[task]
    assert parts.id == example_id(parts.input, parts.output)
    assert all(isinstance(value, str) for value in json.loads(parts.meta).values())
    if parts.kind not in ("label", "text"):
        conversation = json.loads(parts.input)
        turns = conversation["messages"] if isinstance(conversation, dict) else conversation
        assert all(isinstance(turn["content"], str) for turn in turns)
        assert turns[-1]["role"] in ("user", "tool")
        assert not any("tool_call_id" in turn for turn in turns)
    if parts.kind not in ("label", "text", "answer", "prompt"):
        assert isinstance(json.loads(parts.output), dict)


@pytest.mark.parametrize("format", NEEDED)
def test_the_rows_that_are_changed_are_whole(format: str) -> None:
    assert all(isinstance(read_parts(row, format, Reading()), Parts) for row in WHOLE[format])


@settings(max_examples=200, deadline=None)
@given(
    value=VALUE,
    reading=st.sampled_from([{}, {"header": ("text", "label")}, {"format": "text"}, {"columns": {"text": "text.text"}}]),
)
def test_any_json_value_has_fields_or_is_refused(value: Any, reading: dict[str, Any]) -> None:
    fields = outcome(lambda: read_fields(value, Reading(**reading)))
    if isinstance(fields, dict):
        assert all(tell_format(fields, task) in {None, *NEEDED} for task in Task)
    else:
        assert fields in (Code.NOT_AN_OBJECT, Code.COLUMNS)
