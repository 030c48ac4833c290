"""Conversations however they are spelled: chat, sharegpt, parts, transcripts, tool calls and their results."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curation.formats import Parts, read_parts
from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.record import canonical_json
from pipeline.params import Reading

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(lambda s: not s.isspace())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
SEARCH = {"type": "function", "function": {"name": "search", "description": "find", "parameters": {"type": "object"}}}


def turn(role: str, content: Any = "", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(name: str = "search", arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def chat(*messages: Any, reading: Reading | None = None, **row: Any) -> Parts:
    return read_parts({"messages": list(messages), **row}, "chat", reading or Reading())


def sharegpt(*turns: tuple[str, str], **row: Any) -> Parts:
    return read_parts({"conversations": [{"from": role, "value": text} for role, text in turns], **row}, "sharegpt", Reading())


def refusal(read: Any, *args: Any, **kwargs: Any) -> Code:
    with pytest.raises(Rejected) as caught:
        read(*args, **kwargs)
    assert caught.value.reason
    return caught.value.code


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.none() | TEXT)
def test_sharegpt_is_chat_by_other_words(pairs: list[tuple[str, str]], system: str | None) -> None:
    said = [turn for question, answer in pairs for turn in (("user", question), ("assistant", answer))]
    theirs = {"user": "human", "assistant": "gpt"}
    messages = [turn("system", system)] if system else []
    one = chat(*messages, *(turn(role, text) for role, text in said))
    other = sharegpt(*((theirs[role], text) for role, text in said), system=system)
    assert one == other
    contents = [m["content"] for m in json.loads(one.input)] + [one.output]
    assert contents == ([system] if system else []) + [text for _, text in said]


def test_tags_put_keys_and_roles_in_place_of_the_usual_ones() -> None:
    reading = Reading(tags={"role_tag": "who", "content_tag": "says", "user_tag": "client", "assistant_tag": "desk"})
    row = {"messages": [{"who": "client", "says": "q"}, {"who": "desk", "says": "a"}]}
    parts = read_parts(row, "chat", reading)
    assert (json.loads(parts.input), parts.output) == ([turn("user", "q")], "a")
    assert refusal(read_parts, row, "chat", Reading()) is Code.WRONG_TYPE


def test_content_in_parts_of_text_is_one_text() -> None:
    openai = chat(turn("user", [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]), turn("assistant", "c"))
    factory = chat(turn("user", [{"type": "text", "value": "a b"}]), turn("assistant", [{"type": "text", "value": "c"}]))
    assert openai == factory
    assert json.loads(openai.input) == [turn("user", "a b")]
    image = [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert refusal(chat, turn("user", image), turn("assistant", "c")) is Code.UNSUPPORTED
    assert refusal(chat, turn("user", "q"), turn("assistant", "a"), images=["x.png"]) is Code.UNSUPPORTED


def test_unknown_keys_of_messages_are_kept_as_metadata_and_nulls_are_nothing() -> None:
    parts = chat(turn("user", "q", name="ann", weight=1), turn("assistant", "a", refusal=None, tags=["x"], tool_calls=None))
    assert json.loads(parts.meta) == {"messages[0].name": "ann", "messages[1].tags": '["x"]'}
    assert json.loads(parts.input) == [turn("user", "q")]


@pytest.mark.parametrize("weight", [{"weight": 0}, {"weight": 0.5}, {"loss_weight": 0.0}, {"weight": False}])
def test_an_answer_that_is_not_to_be_learned_is_refused(weight: dict[str, Any]) -> None:
    assert chat(turn("user", "q", **weight), turn("assistant", "a", weight=1)).output == "a"
    assert refusal(chat, turn("user", "q"), turn("assistant", "a", **weight)) is Code.UNSUPPORTED
    asked = {"prompt": [turn("user", "q", **weight)], "completion": "a"}
    assert read_parts(asked, "prompt_completion", Reading()).output == "a", "a question is not learned anyway"


def test_developers_are_systems_and_empty_systems_are_none() -> None:
    assert json.loads(chat(turn("developer", "s"), turn("user", "q"), turn("assistant", "a")).input)[0] == turn("system", "s")
    for nothing in ("", "  ", None):
        assert json.loads(chat(turn("system", nothing), turn("user", "q"), turn("assistant", "a")).input) == [turn("user", "q")]


@given(st.dictionaries(TEXT, JSON, max_size=3), st.text(st.characters(exclude_categories=["Cs"])))
def test_calls_round_trip_whether_arguments_are_an_object_or_its_text(arguments: dict[str, Any], content: str) -> None:
    ask = turn("user", "q")
    objects = chat(ask, turn("assistant", content, tool_calls=[call(arguments=arguments)]), tools=[SEARCH])
    texts = chat(ask, turn("assistant", content, tool_calls=[call(arguments=json.dumps(arguments), id="x1")]), tools=[SEARCH])
    older = chat(
        ask,
        turn("assistant", content, function_call={"name": "search", "arguments": json.dumps(arguments)}),
        functions=[SEARCH["function"]],
    )
    assert objects == texts == older
    assert objects.kind == "call"
    assert json.loads(objects.input) == {"messages": [ask], "tools": [SEARCH]}
    said = "" if content.isspace() else content
    expected = {"content": said, "tool_calls": [{"type": "function", "function": {"name": "search", "arguments": arguments}}]}
    assert objects.output == canonical_json(expected)


def test_sharegpt_calls_are_chat_calls() -> None:
    tools = json.dumps([SEARCH["function"]])
    asked = json.dumps({"name": "search", "arguments": {"q": "x"}})
    theirs = sharegpt(("human", "q"), ("function_call", asked), ("observation", "r"), ("gpt", "a"), tools=tools)
    ours = chat(
        turn("user", "q"),
        turn("assistant", None, tool_calls=[call(arguments={"q": "x"}, id="c")]),
        turn("tool", "r", tool_call_id="c"),
        turn("assistant", "a"),
        tools=[SEARCH],
    )
    assert theirs == ours
    assert (ours.kind, ours.output) == ("answer", "a")
    assert [m["role"] for m in json.loads(ours.input)["messages"]] == ["user", "assistant", "tool"]
    assert sharegpt(("human", "q"), ("function_call", asked), tools=tools).kind == "call"


def test_results_stand_in_the_order_of_their_calls_whatever_the_ids() -> None:
    def dialogue(first: str, second: str, *results: tuple[str, str]) -> Parts:
        calls = [call("a", {}, id=first), call("b", {}, id=second)]
        said = [turn("tool", text, tool_call_id=id) for id, text in results]
        return chat(turn("user", "q"), turn("assistant", "", tool_calls=calls), *said, turn("assistant", "done"))

    one = dialogue("1", "2", ("2", "of b"), ("1", "of a"))
    assert one == dialogue("x", "y", ("x", "of a"), ("y", "of b"))
    results = [m for m in json.loads(one.input) if m["role"] == "tool"]
    assert [(m["name"], m["content"]) for m in results] == [("a", "of a"), ("b", "of b")]
    for wrong in ([("1", "r")], [("1", "r"), ("3", "r")], [("1", "r"), ("1", "r")], [("1", "r"), ("2", "r"), ("2", "r")]):
        assert refusal(dialogue, "1", "2", *wrong) is Code.BAD_CHAT


def test_a_result_that_says_nothing_is_a_result() -> None:
    calls = turn("assistant", None, tool_calls=[call()])
    parts = chat(turn("user", "q"), calls, turn("tool", ""), turn("assistant", "a"))
    assert json.loads(parts.input)[-1] == {"role": "tool", "content": "", "name": "search"}


@pytest.mark.parametrize(
    ("last", "row", "code"),
    [
        ({"tool_calls": [{}]}, {}, Code.BAD_CALL),
        ({"tool_calls": [call(arguments="{")]}, {}, Code.BAD_CALL),
        ({"tool_calls": [call(arguments='{"a": 1, "a": 2}')]}, {}, Code.BAD_CALL),
        ({"tool_calls": [call(arguments="NaN")]}, {}, Code.BAD_CALL),
        ({"tool_calls": [call(arguments="[1]")]}, {}, Code.BAD_CALL),
        ({"tool_calls": [call(arguments="")]}, {}, Code.BAD_CALL),
        ({"tool_calls": [call(arguments="[" * 100_000)]}, {}, Code.BAD_CALL),
        ({"tool_calls": {"a": 1}}, {}, Code.BAD_CALL),
        ({"tool_calls": [call("other")]}, {"tools": [SEARCH]}, Code.BAD_CALL),
        ({"function_call": "search"}, {}, Code.BAD_CALL),
        ({}, {"tools": "not json"}, Code.BAD_TOOLS),
        ({}, {"tools": {"name": "search"}}, Code.BAD_TOOLS),
        ({}, {"tools": [1]}, Code.BAD_TOOLS),
        ({}, {"tools": [{"type": "function"}]}, Code.BAD_TOOLS),
        ({}, {"functions": [{"name": ""}]}, Code.BAD_TOOLS),
    ],
)
def test_tools_and_calls_that_cannot_be_read(last: dict[str, Any], row: dict[str, Any], code: Code) -> None:
    assert refusal(chat, turn("user", "q"), turn("assistant", "a", **last), **row) is code


@pytest.mark.parametrize("tools", [None, [], "", "  ", "[]"])
def test_no_tools_are_none(tools: Any) -> None:
    parts = chat(turn("user", "q"), turn("assistant", "a"), tools=tools)
    assert json.loads(parts.input) == [turn("user", "q")]
    assert parts.meta == "{}"


@pytest.mark.parametrize(
    "turns",
    [
        [("human", "q")],
        [("gpt", "a")],
        [("human", "q"), ("gpt", "a"), ("human", "q")],
        [("human", "q"), ("human", "q"), ("gpt", "a")],
        [("human", "q"), ("observation", "r"), ("gpt", "a")],
        [("human", "q"), ("function_call", '{"name": "f", "arguments": {}}'), ("gpt", "a")],
        [("human", "q"), ("function_call", '{"name": "f", "arguments": {}}'), ("observation", "r")],
        [("human", "q"), ("system", "s"), ("gpt", "a")],
        [("bard", "q"), ("gpt", "a")],
    ],
)
def test_dialogues_in_no_order(turns: list[tuple[str, str]]) -> None:
    assert refusal(sharegpt, *turns) is Code.BAD_CHAT


def test_dialogues_that_differ_in_their_calls_are_different_groups() -> None:
    def ending(value: str) -> Parts:
        calls = [call(arguments={"q": value})]
        return chat(turn("user", "q"), turn("assistant", "", tool_calls=calls), turn("tool", "r"), turn("assistant", "a"))

    assert ending("x").group != ending("y").group
    assert ending("x").group == ending("x").group


@given(TEXT, TEXT)
def test_prompts_and_completions_may_be_messages(prompt: str, answer: str) -> None:
    as_text = read_parts({"prompt": prompt.strip(), "completion": answer}, "prompt_completion", Reading())
    row = {"prompt": [turn("user", prompt.strip())], "completion": [turn("assistant", answer)]}
    assert read_parts(row, "prompt_completion", Reading()) == as_text


def test_a_prompt_has_its_system_and_only_its_first_turn_asks() -> None:
    def read(**row: Any) -> Parts:
        return read_parts(row, "prompt", Reading())

    assert json.loads(read(prompt="q", system="s").input) == [turn("system", "s"), turn("user", "q")]
    two = read(turns=["q", "and then"])
    assert (json.loads(two.input), two.output, two.kind) == ([turn("user", "q")], "", "prompt")
    assert json.loads(json.loads(two.meta)["later_turns"]) == ["and then"]
    assert refusal(read, turns=[]) is Code.WRONG_TYPE
    assert refusal(read, turns=["q", None]) is Code.BLANK
    assert refusal(read, messages=[turn("user", "q"), turn("assistant", "a")]) is Code.BAD_CHAT
    assert read(messages=[turn("user", "q")]).kind == "prompt"
