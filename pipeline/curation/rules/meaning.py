"""What an example asks and what it says to that, levelled: the two texts by which rows repeat or contradict one another.

Two rows contradict when they ask the same and say different things; they repeat when they ask and say the same. So a rating asks
"is this answer to this prompt good?", and a preference asks "which of these two?". Nothing is counted or compared here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from pipeline.curation.formats import level
from pipeline.domain.data import ExampleKind
from pipeline.domain.record import canonical_json

_PART = "\x1e"
Said = tuple[str, str]


def asked_and_said(kind: str, input: str, output: str) -> Said:
    """(what the example asks, what it says to that); texts that differ in case, space or composition alone are equal.

    The kind is part of what is asked, so that examples of two kinds never meet. A document and a bare prompt say nothing.
    """
    asked, said = _READERS[kind](input, output)
    return f"{kind}{_PART}{asked}", said


def gives_away(kind: str, asked: str, said: str) -> bool:
    """Whether what is asked holds the whole of what is said, given both levelled: a label by name, an answer of some length.

    Of a conversation its last message is looked at: a system message may well list all the answers there are.
    """
    if said not in asked or len(said) < _FEWEST.get(kind, len(said) + 1):
        return False
    text = asked.rsplit("\x1f" if kind == ExampleKind.ANSWER else _PART, 1)[-1]
    at = -1
    for _ in range(_PLACES):
        at = text.find(said, at + 1)
        if at < 0:
            return False
        end = at + len(said)
        if not (text[at - 1 : at].isalnum() and said[0].isalnum()) and not (text[end : end + 1].isalnum() and said[-1].isalnum()):
            return True
    return False


def texts_of(kind: str, input: str, output: str) -> tuple[str, str]:
    """(the texts of the input, those of the output) as a person reads them, without the JSON around them."""
    asked = input if kind == ExampleKind.LABEL else "\n".join(_words(orjson.loads(input))) if input else ""
    return asked, _said_text(kind, output)


def compared_text(kind: str, input: str, output: str) -> str:
    """The one text by which near duplicates are told: what users and assistants say, and for labelled rows the text alone.

    System messages and offered tools are left out: they are the same in rows that are otherwise nothing alike.
    """
    if kind == ExampleKind.LABEL:
        return input
    conversation = orjson.loads(input) if input else []
    messages = conversation["messages"] if isinstance(conversation, dict) else conversation
    spoken = [word for message in messages if message["role"] != "system" for word in _words(message)]
    return "\n".join([*spoken, _said_text(kind, output)])


def _said_text(kind: str, output: str) -> str:
    return output if kind in _PLAIN or not output else "\n".join(_words(orjson.loads(output)))


def _words(value: Any) -> Sequence[str]:
    """The texts within messages and answers, in their order; names of roles and keys are none."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [word for item in value for word in _words(item)]
    if isinstance(value, dict):
        return [word for key, item in value.items() if key not in ("role", "type", "id") for word in _words(item)]
    return []


def _conversation(input: str) -> str:
    value = orjson.loads(input)
    if isinstance(value, dict):
        return _PART.join([*map(_message, value["messages"]), canonical_json(value.get("tools"))])
    return _PART.join(map(_message, value))


def _message(message: dict[str, Any]) -> str:
    content = message.get("content")
    text = level(content) if isinstance(content, str) else canonical_json(content)
    if len(message) == 2:
        return f"{message['role']}\x1f{text}"
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}
    return f"{message['role']}\x1f{text}" + (canonical_json(rest) if rest else "")


def _answer(input: str, output: str) -> Said:
    return _conversation(input), level(output)


def _call(input: str, output: str) -> Said:
    return _conversation(input), _message({"role": "assistant", **orjson.loads(output)})


def _label(input: str, output: str) -> Said:
    return level(input), level(output)


def _preference(input: str, output: str) -> Said:
    pair = orjson.loads(output)
    chosen, rejected = (_PART.join(map(_message, pair[side])) for side in ("chosen", "rejected"))
    return _PART.join([_conversation(input), *sorted((chosen, rejected))]), "first" if chosen <= rejected else "second"


def _feedback(input: str, output: str) -> Said:
    rated = orjson.loads(output)
    return _PART.join([_conversation(input), level(rated["answer"])]), "good" if rated["good"] else "bad"


def _ranking(input: str, output: str) -> Said:
    answers = [level(answer) for answer in orjson.loads(output)["answers"]]
    return _PART.join([_conversation(input), *sorted(answers)]), _PART.join(answers)


def _document(input: str, output: str) -> Said:
    return level(output), ""


def _prompt(input: str, output: str) -> Said:
    return _conversation(input), ""


_READERS: dict[str, Callable[[str, str], Said]] = {
    ExampleKind.ANSWER: _answer,
    ExampleKind.CALL: _call,
    ExampleKind.LABEL: _label,
    ExampleKind.PREFERENCE: _preference,
    ExampleKind.FEEDBACK: _feedback,
    ExampleKind.RANKING: _ranking,
    ExampleKind.TEXT: _document,
    ExampleKind.PROMPT: _prompt,
}
_FEWEST = {ExampleKind.LABEL.value: 2, ExampleKind.ANSWER.value: 15}
"""Of fewer characters what is said may stand in any text by chance, or be a short fact that the text was asked for."""
_PLACES = 100
"""So many places of a text are looked at: a text of one letter a million times over must not take an hour."""
_PLAIN = frozenset({ExampleKind.ANSWER, ExampleKind.LABEL, ExampleKind.TEXT, ExampleKind.PROMPT})
