"""JSON documents whose rows lie within an object: read as they stream by, in pieces of any size, and strictly."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curation import documents, json_pieces
from pipeline.curation.documents import json_document
from pipeline.curation.lines import Row
from pipeline.curation.reasons import Code, Rejected
from pipeline.errors import BadInput

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def read(content: bytes | str, *records: str, limit: int = 1 << 20) -> list[Row]:
    content = content.encode() if isinstance(content, str) else content
    return list(json_document(BytesIO(content), limit, 32, "doc.json", records))


def told(rows: list[Row]) -> list[Any]:
    return [row.value.code if isinstance(row.value, Rejected) else row.value for row in rows]


@given(st.dictionaries(TEXT, VALUE, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]))
def test_every_array_comes_row_by_row_whatever_the_pieces(document: dict[str, Any], piece: int, indent: int | None) -> None:
    arrays = {key: value for key, value in document.items() if isinstance(value, list)}
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "PIECE", piece)
        if not arrays:
            with pytest.raises(BadInput, match="no array"):
                read(text, "*")
            return
        rows = read(text, "*")
    assert [(row.section, row.value) for row in rows] == [(key, value) for key, values in arrays.items() for value in values]
    assert [row.line for row in rows] == list(range(1, len(rows) + 1))


@given(st.lists(VALUE, max_size=5), st.integers(1, 9))
def test_a_list_comes_row_by_row_whatever_the_pieces(values: list[Any], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "PIECE", piece)
        assert [row.value for row in read(json.dumps(values, ensure_ascii=False))] == values


def test_named_and_deeper_arrays() -> None:
    document = json.dumps({"version": 2, "a": {"x": [1], "y": [2, 3], "z": 4}, "b": [5], "c": {"x": {"rows": [6]}}})
    assert [(row.section, row.value) for row in read(document, "b")] == [("b", 5)]
    assert [(row.section, row.value) for row in read(document, "a.y", "b")] == [("a.y", 2), ("a.y", 3), ("b", 5)]
    assert [(row.section, row.value) for row in read(document, "a.*")] == [("a.x", 1), ("a.y", 2), ("a.y", 3)]
    assert [(row.section, row.value) for row in read(document, "*.x.rows")] == [("c.x.rows", 6)]


def test_what_records_do_not_name_is_an_error_that_says_what_is_there() -> None:
    with pytest.raises(BadInput, match="'test', 'train'"):
        read('{"train": [1], "test": []}', "dev")
    with pytest.raises(BadInput, match="'train', which is no array"):
        read('{"train": {"a": [1]}}', "train")
    with pytest.raises(BadInput, match="no object"):
        read("[1]", "train")
    assert read("", "train") == []
    assert read('{"train": []}', "train") == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": [1, 2', [1, Code.UNREADABLE]),
        ('{"a": [1], "b', [1, Code.UNREADABLE]),
        ('{"a": [1]', [1, Code.UNREADABLE]),
        ('{"a": [1] "b": [2]}', [1, Code.BAD_JSON]),
        ('{"a" [1]}', [Code.BAD_JSON]),
        ('{"a": [1],}', [1, Code.BAD_JSON]),
        ("{a: [1]}", [Code.BAD_JSON]),
        ('{"a": [1], "a": [2]}', [1, Code.DUPLICATE_KEY]),
        ('{"a": [1], "x": , "b": [2]}', [1, Code.BAD_JSON]),
        ('{"a": [1]} [2]', [1, Code.BAD_JSON]),
        (b'{"a": [1], "\xff": [2]}', [1, Code.BAD_UTF8]),
        ('{"a": [1], "' + "k" * 100_000 + '": [2]}', [1, Code.BAD_JSON]),
        (
            '{"a": [{"k": 1, "k": 2}, NaN, 3,, "\\ud800"]}',
            [Code.DUPLICATE_KEY, Code.BAD_NUMBER, 3, Code.BAD_JSON, Code.LONE_SURROGATE],
        ),
        ('{"a": [' + "[" * 1000 + "]" * 1000 + ", 5]}", [Code.TOO_DEEP, 5]),
        ('{"x": ' + "[" * 100_000, [Code.UNREADABLE]),
        ('{"a": ["' + "x" * 5000 + '", 5]}', [Code.TOO_LONG, 5]),
        ('{"x": "' + "x" * 5000 + '", "a": [5]}', [5]),
        ('{"x": "] } , \\" [", "a": ["]}"]}', ["]}"]),
    ],
)
def test_damaged_objects_end_with_one_rejected_row(content: bytes | str, expected: list[Any]) -> None:
    assert told(read(content, "a", "b", limit=4096)) == expected


def test_an_object_of_keys_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_KEYS_CAP", 3)
    assert told(read('{"a": [1], "b": [2], "c": 0}', "a", "b")) == [1, 2]
    assert told(read('{"a": [1], "b": [2], "c": 0, "d": 0, "e": 0}', "a", "b")) == [1, 2, Code.TOO_LONG]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": 1}', [{"a": 1}]),
        (" [1,\n2] ", [[1, 2]]),
        ("42", [42]),
        ("\ufeffnull", [None]),
        ("", []),
        (" \n", []),
        ("{} {}", [Code.BAD_JSON]),
        ("x" * 5000, [Code.TOO_LONG]),
    ],
)
def test_a_document_may_be_one_row(content: str, expected: list[Any]) -> None:
    assert told(read(content, ".", limit=4096)) == expected


def test_rows_within_an_object_reach_a_snapshot_with_their_section(bench: Any) -> None:
    bench.put("a.json", json.dumps({"train": [["t", "l"], ["u", "m"]], "test": [["v", "l"], ["w"]]}, indent=1))
    snapshot = bench.take(task="classify", records=("*",), header=("text", "label"), format="classification")
    assert (snapshot.sources[0].read, snapshot.rows) == (4, 3)
    assert [(e.input, e.output, json.loads(e.meta), e.line) for e in bench.examples] == [
        ("t", "l", {"section": "train"}, 1),
        ("u", "m", {"section": "train"}, 2),
        ("v", "l", {"section": "test"}, 3),
    ]
    assert bench.codes == ["columns"]


def test_a_csv_file_without_a_header(bench: Any) -> None:
    bench.put("a.csv", b'q,1,"two\r\nlines",B\nr,3,4\n')
    snapshot = bench.take(header=("q", "a", "b", "completion"), compose={"prompt": "{q} A {a} B {b}"})
    assert snapshot.rows == 1
    assert json.loads(bench.examples[0].input)[0]["content"] == "q A 1 B two\r\nlines"
    assert bench.codes == ["columns"]
