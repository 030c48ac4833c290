"""Texts and what is to be read out of them, and the fields that rows are made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curation.formats import NEEDED, Parts, fits, formats_of, read_fields, read_parts, rename, tell_format
from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.data import KINDS_OF_TASK, ExampleKind, Task
from pipeline.domain.record import canonical_json
from pipeline.params import Reading

WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=10)
TEXT = WORD.filter(lambda s: not s.isspace())


def extraction(**row: Any) -> Parts:
    return read_parts(row, "extraction", Reading())


@given(st.lists(st.tuples(TEXT, st.none() | st.sampled_from(["who", "when"])), min_size=1, max_size=6))
def test_segments_spans_and_values_say_the_same(segments: list[tuple[str, str | None]]) -> None:
    text, spans, slots, found = "", [], [], {}
    for piece, name in segments:
        if name:
            found.setdefault(name, []).append(piece)
            spans.append({"entity": name, "start": len(text), "end": len(text) + len(piece), "value": piece})
            span = {"startIndex": len(text), "endIndex": len(text) + len(piece)}
            slots.append({"slot": name, "valueSpan": {k: v for k, v in span.items() if v}})
        text += piece
    values = {name: pieces[0] if len(pieces) == 1 else pieces for name, pieces in found.items()}
    spelled = [
        extraction(text=text, fields=values),
        extraction(text=text, fields=json.dumps(values)),
        extraction(text=text, spans=list(reversed(spans))),
        extraction(userInput={"text": text}, labels=slots),
        extraction(data=[{"text": piece} | ({"entity": name} if name else {}) for piece, name in segments]),
    ]
    assert all(one == spelled[0] for one in spelled)
    assert json.loads(spelled[0].input) == [{"role": "user", "content": text}]
    assert spelled[0].output == canonical_json(values)
    assert spelled[0].kind == "answer"


def test_nothing_found_is_an_empty_object_and_a_system_comes_first() -> None:
    parts = extraction(userInput={"text": "t"}, system="what is named?", context={"slot": ["x"]})
    assert parts.output == "{}"
    assert [m["role"] for m in json.loads(parts.input)] == ["system", "user"]
    assert json.loads(parts.meta) == {"context": '{"slot":["x"]}'}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"text": "abc", "spans": [{"entity": "x", "start": 1, "end": 9}]}, Code.BAD_SPAN),
        ({"text": "abc", "spans": [{"entity": "x", "start": 2, "end": 2}]}, Code.BAD_SPAN),
        ({"text": "abc", "spans": [{"entity": "x", "start": -1, "end": 2}]}, Code.BAD_SPAN),
        ({"text": "abc", "spans": [{"entity": "x", "start": 0, "end": True}]}, Code.BAD_SPAN),
        ({"text": "abc", "spans": [{"start": 0, "end": 1}]}, Code.BAD_SPAN),
        ({"text": "abc", "spans": [{"entity": "x", "start": 0}]}, Code.BAD_SPAN),
        ({"text": "abc", "spans": [{"entity": "x", "start": 0, "end": 2, "value": "bc"}]}, Code.BAD_SPAN),
        ({"text": "abc", "spans": ["x"]}, Code.BAD_SPAN),
        ({"text": "abc", "spans": None}, Code.WRONG_TYPE),
        ({"text": "abc", "fields": "{"}, Code.WRONG_TYPE),
        ({"text": "abc", "fields": '{"a": 1, "a": 2}'}, Code.WRONG_TYPE),
        ({"text": "abc", "fields": 5}, Code.WRONG_TYPE),
        ({"text": "abc", "fields": True}, Code.WRONG_TYPE),
        ({"text": "abc", "fields": None}, Code.BLANK),
        ({"text": None, "fields": {}}, Code.BLANK),
        ({"text": 7, "fields": {}}, Code.WRONG_TYPE),
        ({"userInput": "abc"}, Code.WRONG_TYPE),
        ({"userInput": {}}, Code.BLANK),
        ({"data": [{"entity": "x"}]}, Code.WRONG_TYPE),
        ({"data": []}, Code.BLANK),
        ({"data": [{"text": "a", "entity": 1}]}, Code.WRONG_TYPE),
        ({"text": "abc"}, Code.MISSING_FIELD),
    ],
)
def test_extractions_that_are_none(row: dict[str, Any], code: Code) -> None:
    with pytest.raises(Rejected) as caught:
        extraction(**row)
    assert caught.value.code is code


@pytest.mark.parametrize("value", [True, False, 0, 1.5, None, [], {}, ["x"]])
@pytest.mark.parametrize(
    ("format", "row", "field"),
    [
        ("text", {"text": "t"}, "text"),
        ("prompt", {"prompt": "q"}, "prompt"),
        ("classification", {"text": "t", "label": "l"}, "text"),
        ("prompt_completion", {"prompt": "q", "completion": "a"}, "completion"),
        ("alpaca", {"instruction": "q", "output": "a"}, "output"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}, "rejected"),
        ("feedback", {"prompt": "q", "completion": "a", "label": True}, "completion"),
        ("ranking", {"prompt": "q", "ranked": ["a", "b"]}, "prompt"),
    ],
)
def test_what_is_no_text_where_a_text_is_due_is_refused(format: str, row: dict[str, Any], field: str, value: Any) -> None:
    assert read_parts(row, format, Reading()).kind in set(ExampleKind)
    with pytest.raises(Rejected) as caught:
        read_parts({**row, field: value}, format, Reading())
    assert caught.value.code in (Code.BLANK, Code.WRONG_TYPE, Code.BAD_CHAT)


@pytest.mark.parametrize(("label", "text"), [(True, "true"), (False, "false"), (0, "0"), (12, "12"), (" x ", "x")])
def test_labels_that_are_numbers_or_booleans(label: Any, text: str) -> None:
    assert read_parts({"text": "t", "label": label}, "classification", Reading()).output == text


def test_documents_group_by_what_they_say() -> None:
    def read(text: str) -> Parts:
        return read_parts({"text": text}, "text", Reading())

    assert (read("A b").input, read("A b").output, read("A b").kind) == ("", "A b", "text")
    assert read("A b").group == read("a  B").group != read("c").group


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"messages": [], "chosen": "", "rejected": ""}, "preference"),
        ({"chosen_messages": [], "rejected_messages": []}, "preference"),
        ({"prompt": "", "completion": "", "label": True}, "feedback"),
        ({"prompt": "", "completion": "", "label": "false"}, "feedback"),
        ({"prompt": "", "completion": "", "label": "billing"}, "prompt_completion"),
        ({"messages": [], "label": False}, "feedback"),
        ({"messages": [], "label": "billing"}, "chat"),
        ({"messages": [], "label": 1}, "chat"),
        ({"messages": [], "kto_tag": None}, "feedback"),
        ({"prompt": "", "answers": []}, "ranking"),
        ({"prompt": "", "answers": "x"}, "prompt"),
        ({"conversations": [], "text": ""}, "sharegpt"),
        ({"instruction": "", "output": "", "text": ""}, "alpaca"),
        ({"text": "", "spans": []}, "extraction"),
        ({"text": "", "fields": {}}, "extraction"),
        ({"text": "", "fields": "x"}, "text"),
        ({"userInput": {"text": ""}}, "extraction"),
        ({"data": [{"text": ""}]}, "extraction"),
        ({"data": "x", "text": ""}, "text"),
        ({"text": "", "label": "x"}, None),
        ({"turns": []}, "prompt"),
        ({"instruction": ""}, None),
        ({"question": ""}, None),
    ],
)
def test_the_more_specific_format_is_told(row: dict[str, Any], format: str | None) -> None:
    assert tell_format(row, Task.GENERATE) == format


def test_each_format_fits_what_it_is_told_by_and_belongs_to_one_task() -> None:
    assert set(formats_of(Task.GENERATE)) | set(formats_of(Task.CLASSIFY)) == set(NEEDED)
    assert formats_of(Task.CLASSIFY) == ("classification",)
    for format, forms in NEEDED.items():
        for fields in forms:
            assert fits(dict.fromkeys(fields), format)
            assert not fits(dict.fromkeys(fields[:-1]), format) or len(fields) > 1
    assert ExampleKind.LABEL in KINDS_OF_TASK[Task.CLASSIFY]


def fields(value: Any, section: str = "", **reading: Any) -> dict[str, Any]:
    return read_fields(value, Reading(**reading), section)


def test_lists_have_their_names_from_the_header_and_texts_from_the_format() -> None:
    assert fields(["t", "l"], header=("text", "label")) == {"text": "t", "label": "l"}
    assert fields(["t", "l"], "train", header=("q", "l"), columns={"text": "q", "label": "section"}) == {
        "text": "t",
        "l": "l",
        "label": "train",
    }
    assert fields("t", format="text") == {"text": "t"}
    assert fields("t", format="prompt") == {"prompt": "t"}
    for value, reading in [(["t"], {}), ("t", {}), (5, {"format": "text"}), (None, {}), (True, {"header": ("text",)})]:
        with pytest.raises(Rejected) as caught:
            fields(value, **reading)
        assert caught.value.code is Code.NOT_AN_OBJECT
    with pytest.raises(Rejected) as caught:
        fields(["t"], header=("text", "label"))
    assert caught.value.code is Code.COLUMNS


def test_dots_go_deeper_and_what_is_left_stays() -> None:
    row = {"a": {"b": [{"c": "x", "d": "y"}, "z"]}, "e.f": "g"}
    assert rename(row, {"text": "a.b.0.c"}) == {"a": {"b": [{"d": "y"}, "z"]}, "e.f": "g", "text": "x"}
    assert rename(row, {"text": "a.b.0.c", "more": "a.b.0.d", "last": "a.b.1"}) == {
        "e.f": "g",
        "text": "x",
        "more": "y",
        "last": "z",
    }
    assert rename(row, {"text": "e.f"})["text"] == "g"
    assert row["a"] == {"b": [{"c": "x", "d": "y"}, "z"]}, "the row itself is left alone"
    for path in ("a.b.2", "a.b.-1", "a.b.0.c.d", "a.x", "e.f.g"):
        assert "text" not in rename(row, {"text": path})


def test_an_empty_column_says_that_there_is_none() -> None:
    assert rename({"input": "i", "x": 1}, {"input": ""}) == {"unmapped_input": "i", "x": 1}


def test_constants_fill_in_and_compose_uses_up() -> None:
    assert fields({"text": "t"}, constants={"system": "s", "text": "u"}) == {"system": "s", "text": "t"}
    made = fields({"q": "Q {x}", "a": 4, "b": None, "c": 1}, compose={"prompt": "{q}\nA {a}{b} { } {}"})
    assert made == {"c": 1, "prompt": "Q {x}\nA 4 { } {}"}
    assert fields({"q": "Q"}, compose={"prompt": "{q}"}, group_by="q") == {"q": "Q", "prompt": "Q"}
    for row, code in [({}, Code.MISSING_FIELD), ({"q": []}, Code.WRONG_TYPE)]:
        with pytest.raises(Rejected) as caught:
            fields(row, compose={"prompt": "{q}"})
        assert caught.value.code is code
