"""The JSON parser against the standard's own cases and against what other parsers let pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.strict_json import parse

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(JSON_VALUES, st.booleans())
def test_whatever_the_standard_library_writes_is_read_back(value: object, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode(), 100) == value


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b'{"a": 1, "a": 2}', Code.DUPLICATE_KEY),
        (b'{"a": 1, "\\u0061": 2}', Code.DUPLICATE_KEY),
        (b'{"x": {"a": "http://b:1", "a": 1}}', Code.DUPLICATE_KEY),
        (b'{"a": NaN}', Code.BAD_NUMBER),
        (b'{"a": -Infinity}', Code.BAD_NUMBER),
        (b'{"a": 1e999}', Code.BAD_NUMBER),
        (b'{"a": ' + b"9" * 5000 + b"}", Code.BAD_NUMBER),
        (b'{"a": "\\ud800"}', Code.LONE_SURROGATE),
        (b'{"a": "\\udc00 x"}', Code.LONE_SURROGATE),
        (b'{"a": "\xed\xa0\x80"}', Code.BAD_UTF8),
        (b'{"a": "\xff"}', Code.BAD_UTF8),
        (b'{"a": "x\x00y"}', Code.NUL),
        (b'{"a": "x\\u0000y"}', Code.NUL),
        (b'{"a\\u0000": 1}', Code.NUL),
        (b'\xef\xbb\xbf{"a": 1}', Code.BOM),
        (b'{"a": 1}\r{"a": 2}', Code.BARE_CR),
        (b'{"a": 1} x', Code.BAD_JSON),
        (b"{'a': 1}", Code.BAD_JSON),
        (b'{"a": 1,}', Code.BAD_JSON),
        (b'{"a": "\t"}', Code.BAD_JSON),
        (b"[" * 100_000 + b"]" * 100_000, Code.TOO_DEEP),
        (b'{"a":' * 100_000, Code.TOO_DEEP),
        (b'"' + b'\\"' * 200_000 + b"[" * 50, Code.BAD_JSON),
        (b"", Code.BAD_JSON),
    ],
)
def test_refused_with_its_reason(row: bytes, code: Code) -> None:
    with pytest.raises(Rejected) as caught:
        parse(row, 32)
    assert caught.value.code is code


def test_brackets_in_text_are_no_depth_and_colons_no_keys() -> None:
    assert parse(b'{"a": "' + b"[" * 500 + b'::: \\"{"}', 3) == {"a": "[" * 500 + ":::" + ' "{'}


def test_depth_is_counted_exactly() -> None:
    assert parse(b"[" * 32 + b"]" * 32, 32) is not None
    with pytest.raises(Rejected):
        parse(b"[" * 33 + b"]" * 33, 32)


def test_integers_keep_their_digits() -> None:
    assert parse(b"[123456789012345678901234567890]", 5) == [123456789012345678901234567890]


def test_escaped_backslash_before_u0000_is_text() -> None:
    assert parse(b'["\\\\u0000"]', 5) == ["\\u0000"]


@pytest.mark.real
def test_the_json_test_suite(real_data: Path) -> None:
    outcomes = {}
    for path in sorted((real_data / "json_cases").glob("*.json")):
        try:
            parse(path.read_bytes(), 500)
            outcomes[path.name] = True
        except Rejected:
            outcomes[path.name] = False
    assert len(outcomes) > 140
    # Duplicate keys are valid JSON that we refuse; no y_ case has them. A byte order mark alone is n_.
    assert [name for name, parsed in outcomes.items() if name.startswith("y_") and not parsed] == []
    assert [name for name, parsed in outcomes.items() if name.startswith("n_") and parsed] == []
    # Either may be done with i_; ours: big integers are kept, everything that is not Unicode text or a number is refused.
    assert [name for name, parsed in outcomes.items() if name.startswith("i_") and parsed] == [
        "i_number_too_big_neg_int.json",
        "i_number_too_big_pos_int.json",
    ]
