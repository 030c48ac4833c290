"""What rows of each format become."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curation.formats import read_parts, rename, tell_format
from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.data import Task, example_id, messages_to_input
from pipeline.domain.record import canonical_json
from pipeline.params import Reading

READING = Reading()

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda s: not s.isspace())


def turn(role: Any, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_chat_keeps_all_turns_but_the_last_as_the_prompt() -> None:
    messages = [turn("system", "s"), turn("user", "q"), turn("assistant", "a"), turn("user", "q2"), turn("assistant", "a2")]
    parts = read_parts({"messages": messages, "week": 3, "note": "n", "gone": None}, "chat", READING)
    assert json.loads(parts.input) == messages[:-1]
    assert parts.output == "a2"
    assert json.loads(parts.meta) == {"week": "3", "note": "n"}


def test_alpaca_joins_instruction_and_input_and_takes_history() -> None:
    row = {"instruction": "do", "input": "this", "output": "done", "system": "be", "history": [["q", "a"]]}
    parts = read_parts(row, "alpaca", READING)
    contents = [(m["role"], m["content"]) for m in json.loads(parts.input)]
    assert contents == [("system", "be"), ("user", "q"), ("assistant", "a"), ("user", "do\n\nthis")]
    assert json.loads(read_parts({**row, "input": ""}, "alpaca", READING).input)[-1]["content"] == "do"


@given(TEXT, TEXT)
def test_texts_come_through_unchanged(prompt: str, answer: str) -> None:
    parts = read_parts({"prompt": prompt, "completion": answer}, "prompt_completion", READING)
    assert json.loads(parts.input) == [{"role": "user", "content": prompt}]
    assert parts.output == answer


@given(st.text(st.characters(exclude_categories=["Cs"])), TEXT, st.dictionaries(TEXT, TEXT, max_size=4))
def test_what_is_written_fast_is_what_the_domain_would_write(more: str, answer: str, meta: dict[str, str]) -> None:
    messages = [{"role": "system", "content": "\x7f\u2028" + more + "x"}, {"role": "user", "content": answer}]
    meta = {key: value for key, value in meta.items() if not key.isidentifier()}
    parts = read_parts({**meta, "messages": [*messages, {"role": "assistant", "content": answer}]}, "chat", READING)
    assert parts.input == messages_to_input(messages)
    assert parts.id == example_id(parts.input, answer)
    assert parts.meta == canonical_json(meta)


@given(TEXT, TEXT)
def test_rows_that_differ_in_case_space_and_composition_share_a_group(text: str, label: str) -> None:
    one = read_parts({"text": text, "label": label}, "classification", READING)
    other = read_parts({"text": f"  {unicodedata.normalize('NFD', text)}\n", "label": label + "x"}, "classification", READING)
    assert one.group == other.group
    assert one.id != other.id


@pytest.mark.parametrize(
    ("format", "row", "code"),
    [
        ("chat", {"messages": []}, Code.BLANK),
        ("chat", {"messages": "hi"}, Code.WRONG_TYPE),
        ("chat", {"messages": ["hi"]}, Code.WRONG_TYPE),
        ("chat", {"messages": [turn("user", "q")]}, Code.BAD_CHAT),
        ("chat", {"messages": [turn("system", "q")]}, Code.BAD_CHAT),
        ("chat", {"messages": [turn("assistant", "q")]}, Code.BAD_CHAT),
        ("chat", {"messages": [turn("user", "q"), turn("user", "q"), turn("assistant", "a")]}, Code.BAD_CHAT),
        ("chat", {"messages": [turn("user", "q"), turn("system", "q"), turn("assistant", "a")]}, Code.BAD_CHAT),
        ("chat", {"messages": [turn("robot", "q"), turn("assistant", "a")]}, Code.BAD_CHAT),
        ("chat", {"messages": [turn("user", " "), turn("assistant", "a")]}, Code.BLANK),
        ("chat", {"messages": [turn("user", "q"), turn("assistant", None)]}, Code.BLANK),
        ("prompt_completion", {"prompt": "q"}, Code.MISSING_FIELD),
        ("prompt_completion", {"prompt": 5, "completion": "a"}, Code.WRONG_TYPE),
        ("prompt_completion", {"prompt": None, "completion": "a"}, Code.BLANK),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["q"]]}, Code.WRONG_TYPE),
        ("alpaca", {"instruction": "q", "output": "a", "input": 7}, Code.WRONG_TYPE),
        ("classification", {"text": "t", "label": 0.5}, Code.WRONG_TYPE),
        ("classification", {"text": "t", "label": "\t"}, Code.BLANK),
    ],
)
def test_refused_with_its_reason(format: str, row: dict[str, Any], code: Code) -> None:
    with pytest.raises(Rejected) as caught:
        read_parts(row, format, READING)
    assert caught.value.code is code


def test_labels_may_be_integers_and_lose_their_margins() -> None:
    assert read_parts({"text": "t", "label": 3}, "classification", READING).output == "3"
    assert read_parts({"text": "t", "label": " yes "}, "classification", READING).output == "yes"


def test_group_by_takes_the_named_field() -> None:
    def group(prompt: str, **meta: str) -> str:
        return read_parts({"prompt": prompt, "completion": "c", **meta}, "prompt_completion", Reading(group_by="user")).group

    assert group("a", user="u1") == group("b", user="u1") != group("a", user="u2")
    with pytest.raises(Rejected) as caught:
        group("a")
    assert caught.value.code is Code.NO_GROUP


def test_columns_rename_and_lose_nothing() -> None:
    renamed = rename({"question": "q", "text": "other", "intent": "i", "n": 1}, {"text": "question", "label": "intent"})
    assert renamed == {"text": "q", "label": "i", "unmapped_text": "other", "n": 1}


def test_the_format_is_told_by_the_fields_and_the_task() -> None:
    row = {"text": "", "label": "", "prompt": "", "completion": ""}
    assert tell_format(row, Task.CLASSIFY) == "classification"
    assert tell_format(row, Task.GENERATE) == "prompt_completion"
    assert tell_format({"messages": []}, Task.GENERATE) == "chat"
    assert tell_format({"instruction": "", "output": ""}, Task.GENERATE) == "alpaca"
    assert tell_format({"messages": []}, Task.CLASSIFY) is None
