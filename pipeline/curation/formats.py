"""What a row means: chat, prompt/completion, alpaca or text/label fields into the one form of an example.

Pure: a parsed row in, its parts or Rejected out. Nothing is repaired here but two things that the table of formats allows: white
space around a label goes, and an integer label becomes its digits. Which bytes made the row is curation/lines.py's knowledge.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.data import Task
from pipeline.domain.record import canonical_json, digest_value

NEEDED: dict[str, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "chat": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}
"""The fields by which each format is told, in the order in which they are tried."""

Fields = dict[str, Any]


class Parts(NamedTuple):
    """An example without its origin; see domain.data.Example for the fields."""

    id: str
    group: str
    input: str
    output: str
    meta: str


def rename(row: Fields, columns: Mapping[str, str]) -> Fields:
    """The row with our names for its fields (`columns`: ours to theirs).

    Another field of theirs that bears a name now taken is kept as `unmapped_NAME`.
    """
    if not columns:
        return row
    theirs = set(columns.values())
    ours = {mine: row[name] for mine, name in columns.items() if name in row}
    rest = {f"unmapped_{key}" if key in ours else key: value for key, value in row.items() if key not in theirs}
    return {**rest, **ours}


def tell_format(row: Fields, task: Task) -> str | None:
    """The format of a (renamed) row by its fields, among those that fit the task; None when it has the fields of none."""
    for name, needed in NEEDED.items():
        if (name == "classification") == (task is Task.CLASSIFY) and all(field in row for field in needed):
            return name
    return None


def read_parts(row: Fields, format: str, group_by: str | None) -> Parts:
    """The example that a (renamed) row of `format` stands for.

    Fields that the format does not use go to `meta`: texts as they are, anything else as canonical JSON; nulls and empty texts
    are left out. Examples with the same folded input share a group, or those with the same `meta[group_by]`.
    Raises Rejected with MISSING_FIELD, WRONG_TYPE, BLANK, BAD_CHAT, UNSUPPORTED or NO_GROUP.
    """
    for field in NEEDED[format]:
        if field not in row:
            raise Rejected(Code.MISSING_FIELD, f"the field {field!r} is absent")
    prompt, output, used = _READERS[format](row)
    meta = {key: _as_text(value) for key, value in row.items() if key not in used and value is not None and value != ""}
    input = prompt if isinstance(prompt, str) else _canonical(prompt).decode()
    if group_by is None:
        group = _group_of(prompt)
    elif group_by in meta:
        group = digest_value([group_by, meta[group_by]])[:32]
    else:
        raise Rejected(Code.NO_GROUP, f"the metadata field {group_by!r}, which ingest.group_by names, is absent")
    id = hashlib.sha256(_canonical([input, output])).hexdigest()[:32]
    return Parts(id, group, input, output, _canonical(meta).decode() if meta else "{}")


def _read_classification(row: Fields) -> tuple[str, str, tuple[str, ...]]:
    label = row["label"]
    if isinstance(label, bool | int):
        label = canonical_json(label)
    text = _text(row["text"], "text")
    return text, _text(label, "label").strip(), ("text", "label")


def _read_prompt_completion(row: Fields) -> tuple[list[dict[str, str]], str, tuple[str, ...]]:
    prompt = [_message("user", _text(row["prompt"], "prompt"))]
    return prompt, _text(row["completion"], "completion"), ("prompt", "completion")


def _read_alpaca(row: Fields) -> tuple[list[dict[str, str]], str, tuple[str, ...]]:
    prompt = []
    if row.get("system") not in (None, ""):
        prompt.append(_message("system", _text(row["system"], "system")))
    history = row.get("history") or []
    if not isinstance(history, list):
        raise Rejected(Code.WRONG_TYPE, "history is no list")
    for turn in history:
        if not isinstance(turn, list) or len(turn) != 2:
            raise Rejected(Code.WRONG_TYPE, "history is no list of [question, answer] pairs")
        prompt.append(_message("user", _text(turn[0], "history")))
        prompt.append(_message("assistant", _text(turn[1], "history")))
    instruction = _text(row["instruction"], "instruction")
    more = row.get("input")
    if more not in (None, "") and not (isinstance(more, str) and not more.strip()):
        instruction = f"{instruction}\n\n{_text(more, 'input')}"
    prompt.append(_message("user", instruction))
    return prompt, _text(row["output"], "output"), ("instruction", "input", "output", "system", "history")


def _read_chat(row: Fields) -> tuple[list[dict[str, str]], str, tuple[str, ...]]:
    messages = row["messages"]
    if messages is None or messages == []:
        raise Rejected(Code.BLANK, "messages is empty")
    if not isinstance(messages, list):
        raise Rejected(Code.WRONG_TYPE, "messages is no list")
    for field in ("tools", "functions"):
        if row.get(field):
            raise Rejected(Code.UNSUPPORTED, f"{field}: tool calls cannot be trained on yet")
    turns = [_turn(message, i) for i, message in enumerate(messages)]
    roles = [turn["role"] for turn in turns]
    dialogue = roles[1:] if roles[0] == "system" else roles
    if not dialogue or dialogue != ["user", "assistant"] * (len(dialogue) // 2):
        raise Rejected(
            Code.BAD_CHAT, f"roles must be an optional system, then user and assistant in turn up to an answer: {_listed(roles)}"
        )
    return turns[:-1], turns[-1]["content"], ("messages",)


def _turn(message: Any, index: int) -> dict[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Rejected(Code.WRONG_TYPE, f"messages[{index}] is no object with a role")
    role = message["role"]
    if role in ("tool", "function") or any(message.get(key) for key in ("tool_calls", "function_call")):
        raise Rejected(Code.UNSUPPORTED, f"messages[{index}]: tool calls cannot be trained on yet")
    if role not in ("system", "user", "assistant"):
        raise Rejected(Code.BAD_CHAT, f"messages[{index}] has the role {role[:40]!r}; roles are system, user, assistant")
    extra = [key for key, value in message.items() if key not in ("role", "content") and value is not None]
    if extra:
        raise Rejected(Code.UNSUPPORTED, f"messages[{index}] has the field {extra[0][:40]!r}; only role and content are read")
    if isinstance(message.get("content"), list):
        raise Rejected(Code.UNSUPPORTED, f"messages[{index}]: content in parts cannot be trained on yet; give it as one text")
    return _message(role, _text(message.get("content"), f"messages[{index}].content"))


_READERS: dict[str, Callable[[Fields], tuple[Any, str, tuple[str, ...]]]] = {
    "classification": _read_classification,
    "chat": _read_chat,
    "prompt_completion": _read_prompt_completion,
    "alpaca": _read_alpaca,
}


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _text(value: Any, field: str) -> str:
    if isinstance(value, str):
        if value and not value.isspace():
            return value
        raise Rejected(Code.BLANK, f"{field} is empty")
    if value is None:
        raise Rejected(Code.BLANK, f"{field} is null")
    raise Rejected(Code.WRONG_TYPE, f"{field} is {_type_name(value)}, not a text")


def _type_name(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")


def _canonical(value: Any) -> bytes:
    """canonical_json of a value that holds texts alone, several times faster; a test holds the two (and example_id) together."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _group_of(prompt: str | list[dict[str, str]]) -> str:
    """32 hex digits, the same for inputs that differ in case, white space or Unicode composition alone."""
    if isinstance(prompt, str):
        folded = fold(prompt)
    else:
        folded = "\x1e".join(f"{message['role']}\x1f{fold(message['content'])}" for message in prompt)
    return hashlib.sha256(folded.encode()).hexdigest()[:32]


def fold(text: str) -> str:
    """The text without what makes no difference to a group: case, runs of white space, Unicode composition."""
    if text.isascii():
        return " ".join(text.lower().split())
    normal = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(normal.split())


def _listed(roles: list[str]) -> str:
    return ", ".join(roles[:8]) + (", …" if len(roles) > 8 else "")
