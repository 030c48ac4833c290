"""What an example says, as plain text: the words of a conversation without its JSON, the answer that is learned from.

For looking at data (languages, drift, maps), never for training on it. What the columns hold stands at domain.data.ExampleKind.
"""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.domain.data import ExampleKind

_TEXT_INPUTS = {ExampleKind.LABEL, ExampleKind.TEXT}
_TEXT_OUTPUTS = {ExampleKind.LABEL, ExampleKind.TEXT, ExampleKind.ANSWER, ExampleKind.PROMPT}


def input_text(input: str, kind: str) -> str:
    """What was asked: what the messages say, a line each, but for the system's, which all rows may share; of a text, the text."""
    return input if kind in _TEXT_INPUTS else "\n".join(_contents(_parsed(input)))


def output_text(output: str, kind: str) -> str:
    """What is to be answered: the answer, the label, the document; of several answers the better one."""
    if kind in _TEXT_OUTPUTS:
        return output
    value = _parsed(output)
    if not isinstance(value, dict):
        return output
    if kind == ExampleKind.PREFERENCE:
        return "\n".join(_contents(value.get("chosen")))
    if kind == ExampleKind.FEEDBACK:
        return str(value.get("answer", ""))
    if kind == ExampleKind.RANKING:
        return str(next(iter(value.get("answers") or ()), ""))
    return output


def _contents(messages: Any) -> list[str]:
    if isinstance(messages, dict):
        messages = messages.get("messages")
    if not isinstance(messages, list):
        return []
    spoken = [m for m in messages if isinstance(m, dict) and m.get("role") != "system"]
    return [m["content"] for m in spoken if isinstance(m.get("content"), str)]


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
