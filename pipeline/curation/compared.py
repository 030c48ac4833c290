"""What of an example is compared when rows are held against one another: its prompt, and its answer, as plain texts.

Pure and without judgement: folding, hashing and comparing are for folding.py, shingles.py and leaks.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from pipeline.domain.data import ExampleKind

_PLAIN = (ExampleKind.ANSWER, ExampleKind.LABEL, ExampleKind.TEXT, ExampleKind.PROMPT)


def prompts(batch: Any) -> list[str]:
    """The prompt of each row of a RecordBatch with the columns kind, input and output.

    Of a conversation what user, assistant and tools said, a line a message: system messages are left out, since many
    rows share one. Of a document (kind text) the document.
    """
    columns = (batch.column(name).to_pylist() for name in ("kind", "input", "output"))
    return [_prompt(kind, input, output) for kind, input, output in zip(*columns, strict=True)]


def answers(batch: Any) -> list[str]:
    """What a model learns to write from each row: '' for labels, for documents (they are the prompt) and for bare prompts.

    Where several answers are given (preferences, rankings), all of them, a line each.
    """
    columns = (batch.column(name).to_pylist() for name in ("kind", "output"))
    return [_answer(kind, output) for kind, output in zip(*columns, strict=True)]


def _prompt(kind: str, input: str, output: str) -> str:
    if kind == ExampleKind.LABEL:
        return input
    if kind == ExampleKind.TEXT:
        return output
    value = orjson.loads(input)
    messages = value["messages"] if isinstance(value, dict) else value
    return "\n".join(
        message["content"] for message in messages if message.get("role") != "system" and isinstance(message.get("content"), str)
    )


def _answer(kind: str, output: str) -> str:
    if kind in _PLAIN:
        return output if kind == ExampleKind.ANSWER else ""
    return "\n".join(_said(orjson.loads(output)))


def _said(value: Any) -> Iterator[str]:
    """The texts of an answer, in whichever shape its kind keeps them. Ingest has bounded how deep it can be."""
    if isinstance(value, list):
        for item in value:
            yield from [item] if isinstance(item, str) else _said(item)
    elif isinstance(value, dict):
        for key in ("content", "answer", "answers", "chosen", "rejected"):
            item = value.get(key)
            yield from [item] if isinstance(item, str) else _said(item)
