"""Tools that a conversation offers, and calls of them: every spelling that people use into the one that chat templates take.

A call is `{"function":{"arguments":{…},"name":…},"type":"function"}`, its arguments always an object. Ids of calls are not kept:
results stand in the order of their calls, so that the same dialogue is the same example whatever its ids were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.curation.formats.fields import Fields, type_name
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.strict_json import parse

Message = dict[str, Any]

_DEPTH = 64


def read_tools(row: Fields) -> tuple[list[Message], tuple[str, ...]]:
    """The tools that the fields `tools` or `functions` offer, as lists or the JSON of one; and the fields used.

    Raises Rejected with BAD_TOOLS.
    """
    used = tuple(name for name in ("tools", "functions") if name in row)
    tools: list[Message] = []
    for name in used:
        value = row[name]
        if isinstance(value, str) and value.strip():
            value = _parsed(value, name, Code.BAD_TOOLS)
        if value in (None, "", []) or (isinstance(value, str) and not value.strip()):
            continue
        if not isinstance(value, list):
            raise Rejected(Code.BAD_TOOLS, f"{name} is {type_name(value)}, not a list of tools")
        tools += [_tool(tool, f"{name}[{index}]") for index, tool in enumerate(value)]
    return tools, used


def calls_of(message: Fields, place: str) -> list[Message]:
    """The calls in an assistant's message: `tool_calls`, or the older `function_call`. Raises Rejected with BAD_CALL."""
    listed, single = message.get("tool_calls") or [], message.get("function_call")
    if not isinstance(listed, list):
        raise Rejected(Code.BAD_CALL, f"{place}.tool_calls is {type_name(listed)}, not a list")
    return [_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(listed)] + (
        [_call(single, f"{place}.function_call")] if single else []
    )


def call_of(value: Any, place: str) -> list[Message]:
    """The calls that a message of the role function_call spells: the JSON of one, or of a list. Raises Rejected with BAD_CALL."""
    if isinstance(value, str):
        value = _parsed(value, place, Code.BAD_CALL)
    calls = [_call(call, place) for call in (value if isinstance(value, list) else [value])]
    if not calls:
        raise Rejected(Code.BAD_CALL, f"{place} calls no tool")
    return calls


def check_offered(turns: Sequence[Message], tools: Sequence[Message]) -> None:
    """Where tools are offered, only they may be called. Raises Rejected with BAD_CALL."""
    offered = {tool["function"]["name"] for tool in tools}
    for turn in turns:
        for call in turn.get("tool_calls", ()):
            if offered and call["function"]["name"] not in offered:
                raise Rejected(
                    Code.BAD_CALL, f"the tool {call['function']['name'][:60]!r} is called, but not among those offered"
                )


def pair_results(turns: Sequence[Message], place: str) -> None:
    """Put the results behind each turn that calls in the order of its calls, name them, and take all ids away.

    One result without an id may answer several calls at once. Raises Rejected with BAD_CHAT when results fit no call.
    """
    for at, turn in enumerate(turns):
        if "tool_calls" not in turn:
            continue
        calls = turn["tool_calls"]
        results = []
        for follower in turns[at + 1 :]:
            if follower["role"] != "tool":
                break
            results.append(follower)
        ids = [call.pop("id", None) for call in calls]
        if not results and at == len(turns) - 1:
            continue
        given = [result.pop("tool_call_id", None) for result in results]
        ordered = results
        if any(given) and any(ids):
            if sorted(map(str, given)) != sorted(map(str, ids)) or len(set(ids)) != len(ids):
                raise Rejected(Code.BAD_CHAT, f"{place}: the ids of tool results are not those of the calls before them")
            ordered = [results[given.index(id)] for id in ids]
        if len(ordered) == len(calls):
            said = [{**result, "name": call["function"]["name"]} for result, call in zip(ordered, calls, strict=True)]
            if any(a.get("name", b["name"]) != b["name"] for a, b in zip(ordered, said, strict=True)):
                raise Rejected(Code.BAD_CHAT, f"{place}: a tool result bears another name than the call before it")
        elif len(ordered) == 1:
            said = [{"role": "tool", "content": ordered[0]["content"]}]
        else:
            raise Rejected(Code.BAD_CHAT, f"{place}: {len(calls)} calls are followed by {len(ordered)} results")
        for place_of, result in zip(results, said, strict=True):
            place_of.clear()
            place_of.update(result)


def _tool(value: Any, place: str) -> Message:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise Rejected(Code.BAD_TOOLS, f"{place} is no tool with a name")
    return {
        "type": "function",
        "function": {key: inner for key, inner in function.items() if key != "type" and inner is not None},
    }


def _call(value: Any, place: str) -> Message:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise Rejected(Code.BAD_CALL, f"{place} is no call of a tool by its name")
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _parsed(arguments, f"{place}.arguments", Code.BAD_CALL)
    if not isinstance(arguments, dict):
        raise Rejected(Code.BAD_CALL, f"{place}.arguments is {type_name(arguments)}, not an object")
    call: Message = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if isinstance(value.get("id"), str):
        call["id"] = value["id"]
    return call


def _parsed(value: str, place: str, code: Code) -> Any:
    try:
        return parse(value.encode("utf-8", "surrogatepass"), _DEPTH)
    except Rejected as rejected:
        raise Rejected(code, f"{place} cannot be read: {rejected.reason}") from None
