"""Dialogues written as one text, as hh-rlhf does: turns begin with `Human:` or `Assistant:` after an empty line."""

from __future__ import annotations

import re

from pipeline.curation.formats.tools import Message
from pipeline.curation.reasons import Code, Rejected

_START = re.compile(r"\s*(?:Human|Assistant):")
_TURN = re.compile(r"(?:\A\s*|\n\s*\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: str) -> bool:
    """Whether a text is a dialogue: its first turn is marked, after an empty line as in hh-rlhf."""
    return value.startswith("\n\n") and _START.match(value) is not None


def read_transcript(value: str, place: str) -> list[Message]:
    """The turns of a transcript; white space around each is dropped. A last `Assistant:` that says nothing only waits.

    Source: Bai et al. 2022, "Training a Helpful and Harmless Assistant", whose data has this form. Raises Rejected with BLANK.
    """
    pieces = _TURN.split(value)
    turns: list[Message] = [
        {"role": _ROLES[name], "content": said.strip()} for name, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns.pop()
    for index, turn in enumerate(turns):
        if not turn["content"]:
            raise Rejected(Code.BLANK, f"{place}: turn {index + 1} of the transcript is empty")
    return turns
