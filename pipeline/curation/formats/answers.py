"""Readers of the formats that show one answer (chat, sharegpt, prompt_completion, alpaca), a label, a bare prompt or a text."""

from __future__ import annotations

from pipeline.curation.formats.conversations import PLAIN, Spelling, read_messages, with_system
from pipeline.curation.formats.fields import Fields, text
from pipeline.curation.formats.reading import (
    Meaning,
    answer_of,
    conversation,
    instruction_turns,
    read_prompt,
    refuse_media,
    split_dialogue,
)
from pipeline.curation.formats.tools import check_offered, read_tools
from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.data import ExampleKind
from pipeline.domain.record import canonical_json


def read_chat(row: Fields, spelled: Spelling) -> Meaning:
    """`messages`, with `tools` or `functions` where they are offered."""
    return _dialogue(row, "messages", spelled)


def read_sharegpt(row: Fields, spelled: Spelling) -> Meaning:
    """`conversations`, with `system` and `tools`."""
    return _dialogue(row, "conversations", spelled)


def read_prompt_completion(row: Fields, spelled: Spelling) -> Meaning:
    """`prompt` and `completion`, each a text or a list of messages."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str) and not prompt.startswith("\n\n") and "system" not in row:
        turns = [{"role": "user", "content": text(prompt, "prompt")}]
        return Meaning(turns, text(completion, "completion"), ExampleKind.ANSWER, ("prompt", "completion"), {})
    notes: Fields = {}
    if isinstance(prompt, list) and isinstance(completion, list):
        refuse_media(row)
        turns = read_messages(prompt, "prompt", spelled, notes) + read_messages(completion, "completion", spelled, notes)
        input, output, kind, used = split_dialogue(turns, row, "prompt and completion")
        return Meaning(input, output, kind, ("prompt", "completion", *used), notes)
    turns, used = read_prompt(row, spelled, notes)
    answer = answer_of(completion, "completion", spelled, notes)
    return Meaning(turns, answer, ExampleKind.ANSWER, ("completion", *used), notes)


def read_alpaca(row: Fields, spelled: Spelling) -> Meaning:
    """`instruction` and `output`, with `input`, `system` and `history`."""
    turns, used = instruction_turns(row)
    turns, more = with_system(turns, row)
    return Meaning(turns, text(row["output"], "output"), ExampleKind.ANSWER, ("output", *used, *more), {})


def read_bare_prompt(row: Fields, spelled: Spelling) -> Meaning:
    """A question without an answer: `prompt`, or the first of `turns`, whose later ones are kept as metadata."""
    notes: Fields = {}
    refuse_media(row)
    if "turns" in row and "prompt" not in row:
        turns = row["turns"]
        if not isinstance(turns, list) or not turns:
            raise Rejected(Code.WRONG_TYPE, "turns is no list of questions")
        later = [text(turn, f"turns[{index}]") for index, turn in enumerate(turns)][1:]
        notes = {"later_turns": canonical_json(later)} if later else {}
        row = {**{key: value for key, value in row.items() if key != "turns"}, "prompt": turns[0]}
        used: tuple[str, ...] = ("turns",)
    else:
        used = ()
    asked, more = read_prompt(row, spelled, notes)
    tools, offering = read_tools(row)
    check_offered(asked, tools)
    return Meaning(conversation(asked, tools), "", ExampleKind.PROMPT, (*used, *more, *offering), notes)


def read_text(row: Fields, spelled: Spelling = PLAIN) -> Meaning:
    """`text`: a document to read on from."""
    return Meaning("", text(row["text"], "text"), ExampleKind.TEXT, ("text",), {})


def read_classification(row: Fields, spelled: Spelling = PLAIN) -> Meaning:
    """`text` and `label`. White space around a label goes, and an integer or boolean becomes its JSON text."""
    label = row["label"]
    if isinstance(label, bool | int):
        label = canonical_json(label)
    return Meaning(text(row["text"], "text"), text(label, "label").strip(), ExampleKind.LABEL, ("text", "label"), {})


def _dialogue(row: Fields, name: str, spelled: Spelling) -> Meaning:
    refuse_media(row)
    notes: Fields = {}
    turns = read_messages(row[name], name, spelled, notes)
    input, output, kind, used = split_dialogue(turns, row, name)
    return Meaning(input, output, kind, (name, *used), notes)
