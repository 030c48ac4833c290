"""Training rows as earlier turns of a conversation, and what a conversation says in words. Canonical JSON in and out.

What the forms are: domain/data.py::ExampleKind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.domain.data import ExampleKind
from pipeline.domain.record import canonical_json
from pipeline.errors import Broken

Message = dict[str, Any]


class Shot(NamedTuple):
    """A training row that is shown: the canonical JSON of its conversation, its answer, and its kind."""

    input: str
    answer: str
    kind: str


def words_of(input: str) -> str:
    """What is said in a conversation, its system message apart (rows have it in common, or it says who answers)."""
    said = [str(message.get("content") or "") for message in _messages(input) if message.get("role") != "system"]
    return "\n".join(said)


def after(input: str, shots: Sequence[Shot]) -> str:
    """The conversation `input` with the shots as earlier turns of it, behind its own system message. Tools stay its own."""
    parsed = _parsed(input)
    own = _messages(input)
    first = next((at for at, message in enumerate(own) if message.get("role") != "system"), len(own))
    turns: list[Message] = []
    for shot in shots:
        turns += [message for message in _messages(shot.input) if message.get("role") != "system"]
        turns.append(_answered(shot))
    messages = [*own[:first], *turns, *own[first:]]
    return canonical_json({**parsed, "messages": messages} if isinstance(parsed, dict) else messages)


def _answered(shot: Shot) -> Message:
    """The assistant's message that a row ends in. A call that is spelled as a template has it is a text like any other."""
    if shot.kind == ExampleKind.CALL:
        try:
            said = json.loads(shot.answer)
            return {"role": "assistant", "content": said["content"], "tool_calls": said["tool_calls"]}
        except (ValueError, TypeError, KeyError):
            pass
    return {"role": "assistant", "content": shot.answer}


def _messages(input: str) -> list[Message]:
    parsed = _parsed(input)
    found = parsed.get("messages") if isinstance(parsed, dict) else parsed
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found):
        raise Broken("a row's input is no conversation", where=input[:80])
    return found


def _parsed(input: str) -> Any:
    try:
        return json.loads(input)
    except (ValueError, RecursionError) as error:
        raise Broken(f"a row's input is not the JSON of a conversation: {error}", where=input[:80]) from error
