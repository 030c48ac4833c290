"""Which format a row is of, by its fields. What its fields say is looked at only where their names could mean something else."""

from __future__ import annotations

from typing import Any

from pipeline.curation.formats.fields import Fields
from pipeline.domain.data import Task

NEEDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "classification": (("text", "label"),),
    "preference": (("chosen", "rejected"), ("chosen_messages", "rejected_messages")),
    "feedback": (
        ("prompt", "completion", "label"),
        ("prompt", "completion", "kto_tag"),
        ("messages", "label"),
        ("messages", "kto_tag"),
        ("conversations", "kto_tag"),
        ("instruction", "output", "kto_tag"),
        ("instruction", "completion", "label"),
        ("completion", "label"),
    ),
    "ranking": tuple(
        (prompt, answers) for answers in ("ranked", "responses", "answers", "completions") for prompt in ("prompt", "instruction")
    ),
    "chat": (("messages",),),
    "sharegpt": (("conversations",),),
    "prompt_completion": (("prompt", "completion"),),
    "alpaca": (("instruction", "output"),),
    "extraction": (("text", "fields"), ("text", "spans"), ("userInput",), ("data",)),
    "text": (("text",),),
    "prompt": (("prompt",), ("turns",), ("messages",), ("instruction",)),
}
"""The fields by which each format is told, or else others, in the order in which formats are tried: the more specific first."""


def formats_of(task: Task) -> tuple[str, ...]:
    """The formats whose examples a snapshot of `task` may hold."""
    return tuple(name for name in NEEDED if (name == "classification") == (task is Task.CLASSIFY))


def fits(row: Fields, format: str) -> bool:
    """Whether a (renamed) row has the fields that `format` needs."""
    for fields in NEEDED[format]:  # plain loops: this is asked of every row, and generators take three times as long
        for field in fields:
            if field not in row:
                break
        else:
            return True
    return False


def tell_format(row: Fields, task: Task) -> str | None:
    """The format of a (renamed) row by its fields, among those that fit the task; None when it has the fields of none."""
    return next((name for name in formats_of(task) if fits(row, name) and _plausible(row, name)), None)


def _plausible(row: Fields, format: str) -> bool:
    """Whether fields that many rows have for other reasons are what the format takes them for."""
    if format == "feedback":
        return "kto_tag" in row or isinstance(row["label"], bool) or row["label"] in ("true", "false", "True", "False")
    if format == "ranking":
        return any(isinstance(row.get(name), list) for name in ("ranked", "responses", "answers", "completions"))
    if format == "extraction":
        return _holds_extraction(row)
    if format == "text":
        # A text with a label is a row to classify; who wants the text alone says so.
        return "label" not in row
    if format == "prompt":
        return "prompt" in row or "turns" in row
    return True


def _holds_extraction(row: Fields) -> bool:
    segments: Any = row.get("data")
    return (
        isinstance(row.get("fields"), dict | list)
        or isinstance(row.get("spans"), list)
        or (isinstance(row.get("userInput"), dict) and "text" in row["userInput"])
        or (isinstance(segments, list) and bool(segments) and isinstance(segments[0], dict) and "text" in segments[0])
    )
