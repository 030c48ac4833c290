"""What an example's input and output say, as the messages and tools that a chat template takes. Nothing is rendered here."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from pipeline.domain.data import ExampleKind
from pipeline.errors import BadInput

Message = dict[str, Any]

OFFERED: Message = {
    "type": "function",
    "function": {
        "name": "tuneline_probe",
        "description": "a tool that nobody has",
        "parameters": {"type": "object", "properties": {"flag": {"type": "boolean", "description": "a flag"}}, "required": []},
    },
}
"""A tool that no data names, to see what a template makes of tools, and below a call of it and its result."""
CALLED: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "tuneline_probe", "arguments": {"flag": True}}}],
}
RESULT: Message = {"role": "tool", "name": "tuneline_probe", "content": "tuneline found nothing"}


class Conversation(NamedTuple):
    """Messages up to a question, and the tools that may be called."""

    messages: list[Message]
    tools: list[Message]

    @property
    def has_tools(self) -> bool:
        """Whether a template must know tools to write this down."""
        return bool(self.tools) or any(message["role"] == "tool" or "tool_calls" in message for message in self.messages)


def parse_conversation(text: str) -> Conversation:
    """The conversation in an example's input (see domain.data.ExampleKind).

    Raises BadInput when it is neither a JSON list of messages with role and content, nor an object that holds one beside tools.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"an input is not the JSON of its messages: {error}", where=text[:80]) from error
    tools: Any = value.get("tools", []) if isinstance(value, dict) else []
    messages: Any = value.get("messages") if isinstance(value, dict) else value
    whole = isinstance(messages, list) and messages and isinstance(tools, list) and all(isinstance(t, dict) for t in tools)
    if not whole or not all(
        isinstance(m, dict) and all(isinstance(m.get(k), str) for k in ("role", "content")) for m in messages
    ):
        raise BadInput("an input must be a list of messages with the texts role and content", where=text[:80])
    return Conversation(messages, tools)


def answer_message(output: str, kind: str = ExampleKind.ANSWER) -> Message:
    """The assistant's message that an example of the kind answer or call ends in."""
    if kind == ExampleKind.CALL:
        said = json.loads(output)
        return {"role": "assistant", "content": said["content"], "tool_calls": said["tool_calls"]}
    return {"role": "assistant", "content": output}


def answers_of(output: str, kind: str) -> list[list[Message]]:
    """The ways in which a conversation goes on by an example's output, best first, messages each. One for the kinds answer, call
    and feedback, two for a preference, any number for a ranking.

    Raises BadInput when the output is not what its kind holds (see domain.data.ExampleKind).
    """
    if kind in (ExampleKind.ANSWER, ExampleKind.CALL):
        return [[answer_message(output, kind)]]
    said = _judged(output, kind)
    try:
        if kind == ExampleKind.PREFERENCE:
            sides = [said["chosen"], said["rejected"]]
            if all(side and side[-1]["role"] == "assistant" for side in sides):
                return sides
            raise ValueError("both sides must end with the assistant's message")
        texts = [said["answer"]] if kind == ExampleKind.FEEDBACK else said["answers"]
        return [[{"role": "assistant", "content": text}] for text in texts]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"an output of the kind {kind} lacks what belongs to it: {error}", where=output[:80]) from error


def is_good(output: str) -> bool:
    """Whether an example of the kind feedback says that its answer is good."""
    return bool(_judged(output, ExampleKind.FEEDBACK).get("good"))


def _judged(output: str, kind: str) -> dict[str, Any]:
    try:
        said = json.loads(output)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"an output of the kind {kind} is not JSON: {error}", where=output[:80]) from error
    if not isinstance(said, dict):
        raise BadInput(f"an output of the kind {kind} is not a JSON object", where=output[:80])
    return said
