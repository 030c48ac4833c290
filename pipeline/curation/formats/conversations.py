"""Messages of a row, however their keys and roles are spelled, into turns of one spelling, and the order that turns must have.

A turn has `role` (system, user, assistant, tool) and `content`; an assistant's may have `tool_calls`, a tool's `name`. What turns
mean for an example is for the readers of the formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from pipeline.curation.formats.fields import Fields, as_text, is_blank, text, type_name
from pipeline.curation.formats.tools import Message, call_of, calls_of, pair_results
from pipeline.curation.reasons import Code, Rejected

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_call": "call",
}
_TAGGED = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "call",
    "system_tag": "system",
}
_WEIGHTS = ("weight", "loss_weight")
_UNDERSTOOD = {
    "system": (),
    "user": (),
    "assistant": ("tool_calls", "function_call"),
    "tool": ("tool_call_id", "name"),
    "call": (),
}
"""Keys of a message that are read besides role and content."""
_NEXT = {"system": ("user",), "user": ("assistant",), "assistant": ("user",), "tool": ("tool", "assistant")}


@dataclass(frozen=True, slots=True)
class Spelling:
    """The keys under which a message may have its role and its content, and what roles are called: call is a tool call alone."""

    role: tuple[str, ...] = ("role", "from")
    content: tuple[str, ...] = ("content", "value")
    roles: Mapping[str, str] = field(default_factory=lambda: MappingProxyType(_ROLES))


PLAIN = Spelling()


def spelling(tags: Mapping[Any, str]) -> Spelling:
    """The usual spellings, or those that `tags` (see Reading.tags) put in their place."""
    return _spelling(tuple(sorted(tags.items()))) if tags else PLAIN


@lru_cache(maxsize=64)
def _spelling(tags: tuple[tuple[str, str], ...]) -> Spelling:
    said = dict(tags)
    roles = _ROLES | {said[tag]: role for tag, role in _TAGGED.items() if tag in said}
    role = (said["role_tag"],) if "role_tag" in said else PLAIN.role
    content = (said["content_tag"],) if "content_tag" in said else PLAIN.content
    return Spelling(role, content, MappingProxyType(roles))


def read_messages(value: Any, place: str, spelled: Spelling, notes: Fields) -> list[Message]:
    """The turns of a list of messages, in their order, which is not looked at here. place: what refusals call the list.

    A system message that says nothing is left out. What a message has besides goes to `notes` under `place[3].key`.
    Raises Rejected with BLANK, WRONG_TYPE, BAD_CHAT, BAD_CALL or UNSUPPORTED.
    """
    if value is None or value == []:
        raise Rejected(Code.BLANK, f"{place} is empty")
    if not isinstance(value, list):
        raise Rejected(Code.WRONG_TYPE, f"{place} is {type_name(value)}, not a list")
    turns = []
    for index, message in enumerate(value):
        turn = read_turn(message, f"{place}[{index}]", spelled, notes)
        if turn["role"] != "system" or turn["content"]:
            turns.append(turn)
    if turns and turns[-1]["role"] == "assistant" and any(is_unweighted(value[-1].get(key)) for key in _WEIGHTS):
        raise Rejected(Code.UNSUPPORTED, f"{place}: the last message has a weight other than 1, so there is nothing to learn")
    return turns


def read_turn(message: Any, place: str, spelled: Spelling, notes: Fields) -> Message:
    """One message as a turn; see `read_messages`."""
    if not isinstance(message, dict):
        raise Rejected(Code.WRONG_TYPE, f"{place} is {type_name(message)}, not an object with a role")
    if spelled is PLAIN and len(message) == 2 and (plain := _plain_turn(message)) is not None:
        return plain
    role_key = next((key for key in spelled.role if key in message), spelled.role[0])
    content_key = next((key for key in spelled.content if key in message), spelled.content[0])
    name, content = message.get(role_key), message.get(content_key)
    if not isinstance(name, str):
        raise Rejected(Code.WRONG_TYPE, f"{place} has no role")
    role = spelled.roles.get(name)
    if role is None:
        raise Rejected(Code.BAD_CHAT, f"{place} has the role {name[:40]!r}; known are {', '.join(sorted(spelled.roles))}")
    for key, value in message.items():
        if key not in (role_key, content_key, *_WEIGHTS, *_UNDERSTOOD[role]) and value not in (None, "", [], {}):
            notes[f"{place}.{key}"] = as_text(value)
    calls = calls_of(message, place) if role == "assistant" else []
    if isinstance(content, list):
        content, within = _joined(content, f"{place}.{content_key}")
        calls += within
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": call_of(content, place)}
    if calls:
        return {
            "role": role,
            "content": "" if is_blank(content) else text(content, f"{place}.{content_key}"),
            "tool_calls": calls,
        }
    if role == "tool":
        return _result(message, content, f"{place}.{content_key}")
    if role == "system" and is_blank(content):
        return {"role": role, "content": ""}
    return {"role": role, "content": text(content, f"{place}.{content_key}")}


def _plain_turn(message: Fields) -> Message | None:
    """A message of role and text alone, as nearly all are: what `read_turn` makes of it, at a fifth of the cost."""
    name, content = message.get("role"), message.get("content")
    if not isinstance(name, str) or not isinstance(content, str) or not content or content.isspace():
        return None
    role = _ROLES.get(name)
    return {"role": role, "content": content} if role in ("system", "user", "assistant") else None


def check_order(turns: Sequence[Message], place: str) -> None:
    """Hold the turns to: an optional system, then user and assistant in turn, results after each call, up to an answer or a call.

    Results are put in the order of their calls. Raises Rejected with BAD_CHAT.
    """
    allowed: tuple[str, ...] = ("system", "user")
    for turn in turns:
        if turn["role"] not in allowed:
            raise _disorder(turns, place)
        allowed = ("tool",) if "tool_calls" in turn else _NEXT[turn["role"]]
    if not turns or turns[-1]["role"] != "assistant":
        raise _disorder(turns, place)
    if any("tool_calls" in turn for turn in turns):
        pair_results(turns, place)


def check_waiting(turns: Sequence[Message], place: str) -> None:
    """Hold the turns to an order in which an answer comes next. Raises Rejected with BAD_CHAT."""
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        raise _disorder(turns, place, "up to a question")
    # With an answer behind them they must be a whole dialogue.
    check_order([*turns, {"role": "assistant", "content": "…"}], place)


def with_system(turns: list[Message], row: Fields) -> tuple[list[Message], tuple[str, ...]]:
    """The turns behind the row's `system` text, if it has one and they do not begin with another; and the fields used."""
    said = row.get("system")
    if is_blank(said) or (turns and turns[0]["role"] == "system"):
        return turns, () if not is_blank(said) else ("system",)
    return [{"role": "system", "content": text(said, "system")}, *turns], ("system",)


def is_unweighted(value: Any) -> bool:
    """Whether a weight says that the message is not to be learned as it is."""
    return value is not None and value not in (1, True)


def _result(message: Fields, content: Any, place: str) -> Message:
    if not isinstance(content, str) and content is not None:
        raise Rejected(Code.WRONG_TYPE, f"{place} is {type_name(content)}, not a text")
    turn: Message = {"role": "tool", "content": content or ""}
    for key in ("tool_call_id", "name"):
        if isinstance(message.get(key), str):
            turn[key] = message[key]
    return turn


def _joined(parts: list[Any], place: str) -> tuple[str, list[Message]]:
    """Content in parts as one text, and the tool calls among them. Nothing stands between two texts, as templates have it."""
    texts: list[str] = []
    calls: list[Message] = []
    for index, part in enumerate(parts):
        if isinstance(part, str):
            texts.append(part)
            continue
        type = part.get("type") if isinstance(part, dict) else None
        said = part.get("text", part.get("value")) if isinstance(part, dict) else None
        if type in ("text", "input_text", "output_text") and isinstance(said, str):
            texts.append(said)
        elif type == "tool_call":
            calls += call_of(said, f"{place}[{index}]")
        else:
            raise Rejected(Code.UNSUPPORTED, f"{place}[{index}] is {str(type)[:40]!r}, and only parts of text can be trained on")
    return "".join(texts), calls


def _disorder(turns: Sequence[Message], place: str, end: str = "up to an answer") -> Rejected:
    roles = [str(turn["role"]) for turn in turns]
    listed = ", ".join(roles[:8]) + (", …" if len(roles) > 8 else "")
    order = f"an optional system, then user and assistant in turn {end}, each tool call followed by its results"
    return Rejected(Code.BAD_CHAT, f"{place}: roles must be {order}: {listed or 'none'}")
