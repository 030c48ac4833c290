"""The texts of an example: what a person may know it by, and what must be gone once it is forgotten.

Each turn of a conversation but the system's counts, each answer that was offered, a document, a text to classify. Labels and
system prompts do not: thousands of rows share them, and they are nobody's. Pure.
"""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.domain.data import ExampleKind

_PLAIN = frozenset({ExampleKind.ANSWER.value, ExampleKind.TEXT.value})
_ALONE = frozenset({ExampleKind.LABEL.value, ExampleKind.PROMPT.value})


def row_texts(input: str, output: str, kind: str) -> list[str]:
    """The distinct texts of an example, the prompt's first; see ExampleKind for how the two columns hold them."""
    texts: list[str | None]
    if kind == ExampleKind.LABEL:
        texts = [input]
    elif input[:1] in ("[", "{"):
        texts = _turns(orjson.loads(input))
    else:
        texts = [input]
    if kind in _PLAIN:
        texts.append(output)
    elif kind not in _ALONE:
        texts += _offered(orjson.loads(output), kind)
    return list(dict.fromkeys(text for text in texts if text))


def _turns(conversation: Any) -> list[str | None]:
    messages = conversation["messages"] if isinstance(conversation, dict) else conversation
    texts: list[str | None] = []
    for message in messages:
        if message.get("role") != "system":
            texts += [message.get("content"), *_said_to_tools(message)]
    return texts


def _offered(output: Any, kind: str) -> list[str | None]:
    if kind == ExampleKind.PREFERENCE:
        return [*_turns(output["chosen"]), *_turns(output["rejected"])]
    if kind == ExampleKind.RANKING:
        return list(output["answers"])
    if kind == ExampleKind.FEEDBACK:
        return [output["answer"]]
    return [output.get("content"), *_said_to_tools(output)]


def _said_to_tools(message: Any) -> list[str]:
    """The texts among the arguments of the tools that a message calls, in their order."""
    found: list[str] = []
    waiting = [call.get("function", {}).get("arguments") for call in message.get("tool_calls") or ()][::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list):
            waiting += list(value.values() if isinstance(value, dict) else value)[::-1]
    return found
