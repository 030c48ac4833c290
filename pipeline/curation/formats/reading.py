"""What the readers of all formats share: what they return, and how a row says its prompt.

A conversation is a list of turns (see formats/conversations.py), or `{"messages":…,"tools":…}` where tools are offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.curation.formats.conversations import (
    Spelling,
    check_order,
    check_waiting,
    read_messages,
    with_system,
)
from pipeline.curation.formats.fields import Fields, is_blank, text, type_name
from pipeline.curation.formats.tools import Message, check_offered, read_tools
from pipeline.curation.formats.transcripts import is_transcript, read_transcript
from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.data import ExampleKind

_MEDIA = ("images", "videos", "audios")


class Meaning(NamedTuple):
    """What a row stands for. input: a text or a conversation. output: a text, or a value that becomes canonical JSON.

    used: the fields that it was made of; all others are metadata. notes: more metadata, from within those fields.
    """

    input: Any
    output: Any
    kind: ExampleKind
    used: Sequence[str]
    notes: Fields


def conversation(turns: list[Message], tools: list[Message]) -> Any:
    """The input that `turns` make with the tools that are offered."""
    return {"messages": turns, "tools": tools} if tools else turns


def refuse_media(row: Fields) -> None:
    """Raise Rejected with UNSUPPORTED for a row whose conversation goes with images, videos or sound."""
    for name in _MEDIA:
        if row.get(name):
            raise Rejected(Code.UNSUPPORTED, f"{name}: only text can be trained on")


def read_prompt(row: Fields, spelled: Spelling, notes: Fields) -> tuple[list[Message], tuple[str, ...]]:
    """The turns that wait for an answer, and the fields that gave them: the first there is of `prompt` (a text, a transcript, or
    messages), `conversations`, `messages`, and `instruction` with `input` and `history`; with `system` before them.

    Raises Rejected with MISSING_FIELD, BLANK, WRONG_TYPE or BAD_CHAT.
    """
    name = next((name for name in ("prompt", "conversations", "messages", "instruction") if name in row), "prompt")
    if name == "instruction":
        turns, used = instruction_turns(row)
    else:
        turns, used = turns_of(row.get(name), name, spelled, notes), (name,)
    turns, more = with_system(turns, row)
    if len(turns) != 1 or turns[0]["role"] != "user":
        check_waiting(turns, name)
    return turns, used + more


def turns_of(value: Any, place: str, spelled: Spelling, notes: Fields) -> list[Message]:
    """The turns of a text (a question, or a transcript) or of a list of messages."""
    if isinstance(value, str):
        return read_transcript(value, place) if is_transcript(value) else [{"role": "user", "content": text(value, place)}]
    return read_messages(value, place, spelled, notes)


def answer_of(value: Any, place: str, spelled: Spelling, notes: Fields) -> str:
    """The text of an answer that is given as one, or as a list of one message of the assistant's."""
    if not isinstance(value, list):
        return text(value, place)
    turns = read_messages(value, place, spelled, notes)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise Rejected(Code.BAD_CHAT, f"{place} is no single message of the assistant's")
    if "tool_calls" in turns[0]:
        raise Rejected(Code.UNSUPPORTED, f"{place} calls a tool; give such rows as chat")
    return str(turns[0]["content"])


def split_dialogue(turns: list[Message], row: Fields, place: str) -> tuple[Any, Any, ExampleKind, tuple[str, ...]]:
    """A whole dialogue as (conversation, output, kind, fields used): what comes before its last turn, and that turn."""
    turns, used = with_system(turns, row)
    check_order(turns, place)
    tools, offering = read_tools(row)
    check_offered(turns, tools)
    last = turns[-1]
    if "tool_calls" not in last:
        return conversation(turns[:-1], tools), last["content"], ExampleKind.ANSWER, used + offering
    output = {"content": last["content"], "tool_calls": last["tool_calls"]}
    return conversation(turns[:-1], tools), output, ExampleKind.CALL, used + offering


def instruction_turns(row: Fields) -> tuple[list[Message], tuple[str, ...]]:
    """The turns of `instruction`, with `input` after an empty line and `history` before; and the fields used."""
    turns: list[Message] = []
    history = row.get("history") or []
    if not isinstance(history, list):
        raise Rejected(Code.WRONG_TYPE, f"history is {type_name(history)}, not a list")
    for turn in history:
        if not isinstance(turn, list) or len(turn) != 2:
            raise Rejected(Code.WRONG_TYPE, "history is no list of [question, answer] pairs")
        turns.append({"role": "user", "content": text(turn[0], "history")})
        turns.append({"role": "assistant", "content": text(turn[1], "history")})
    instruction = text(row["instruction"], "instruction")
    if not is_blank(row.get("input")):
        instruction = f"{instruction}\n\n{text(row['input'], 'input')}"
    turns.append({"role": "user", "content": instruction})
    return turns, ("instruction", "input", "history")
