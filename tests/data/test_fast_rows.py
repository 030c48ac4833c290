"""The short ways that most rows take give what the long ways give."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation.formats.conversations import PLAIN, Spelling, read_turn
from pipeline.curation.formats.fields import as_text
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.strict_json import parse
from pipeline.domain.record import canonical_json

# Texts full of what JSON is made of, and of colons after quotes.
TEXTS = st.lists(st.sampled_from(["a", "b", ":", '"', '":', '" :', "\\", "{", "}", "[", ",", " ", "é", "\n"]), max_size=6).map(
    "".join
)
PAIRS = st.deferred(lambda: st.lists(st.tuples(TEXTS, VALUES), max_size=4))
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.integers(-3, 3), st.just(1e300), st.none(), TEXTS, st.lists(TEXTS, max_size=2), PAIRS.map(lambda pairs: {"pairs": pairs})
)
SPACES = st.sampled_from(["", " ", "\t", " \n "])


def write(value: Any, space: str) -> str:
    """JSON text of a value in which an object is {"pairs": [(key, value), …]}, so that keys may come twice."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}{space}:{space}{write(inner, space)}" for key, inner in value["pairs"]) + "}"
    if isinstance(value, list):
        return "[" + ",".join(write(inner, space) for inner in value) + "]"
    return json.dumps(value)


def repeats_a_key(value: Any) -> bool:
    if isinstance(value, dict):
        keys = [key for key, _ in value["pairs"]]
        return len(set(keys)) < len(keys) or any(repeats_a_key(inner) for _, inner in value["pairs"])
    return isinstance(value, list) and any(repeats_a_key(inner) for inner in value)


@settings(max_examples=500, deadline=None)
@given(PAIRS, SPACES)
def test_a_key_that_comes_twice_is_always_found_and_never_imagined(pairs: list[Any], space: str) -> None:
    row = {"pairs": pairs}
    text = write(row, space)
    if repeats_a_key(row):
        with pytest.raises(Rejected) as caught:
            parse(text.encode(), 50)
        assert caught.value.code is Code.DUPLICATE_KEY
    else:
        assert parse(text.encode(), 50) == json.loads(text)


MESSAGES = st.dictionaries(
    st.sampled_from(["role", "content", "from", "value", "name", "weight"]),
    st.one_of(
        st.none(), st.integers(0, 1), st.sampled_from(["", "  ", "x", "user", "system", "assistant", "tool", "gpt", "developer"])
    ),
    max_size=3,
)


@settings(max_examples=500, deadline=None)
@given(MESSAGES)
def test_a_plain_message_is_read_like_any_other(message: dict[str, Any]) -> None:
    # Another Spelling of the same words is not PLAIN itself, so it takes the long way.
    assert read(message, PLAIN) == read(message, Spelling())


def read(message: dict[str, Any], spelled: Spelling) -> Any:
    notes: dict[str, Any] = {}
    try:
        return read_turn(message, "messages[0]", spelled, notes), notes
    except Rejected as rejected:
        return rejected.code, rejected.reason


def test_some_messages_take_the_short_way(monkeypatch: Any) -> None:
    ways: list[Any] = []
    from pipeline.curation.formats import conversations

    short: Callable[..., Any] = conversations._plain_turn
    monkeypatch.setattr(conversations, "_plain_turn", lambda message: ways.append(short(message)) or ways[-1])
    read_turn({"role": "user", "content": "hi"}, "m", PLAIN, {})
    read_turn({"role": "tool", "content": "hi"}, "m", PLAIN, {})
    assert ways == [{"role": "user", "content": "hi"}, None]


@given(st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.none()))
def test_metadata_is_written_as_canonical_json(value: Any) -> None:
    assert as_text(value) == (value if isinstance(value, str) else canonical_json(value))
