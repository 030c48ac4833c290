"""Readers of the formats that say how good answers are: preference pairs, feedback on one answer, ranked lists."""

from __future__ import annotations

from typing import Any

from pipeline.curation.formats.conversations import Spelling, check_order, read_turn, with_system
from pipeline.curation.formats.fields import Fields, as_text, flag, number, text, type_name
from pipeline.curation.formats.reading import (
    Meaning,
    answer_of,
    conversation,
    read_prompt,
    refuse_media,
    split_dialogue,
    turns_of,
)
from pipeline.curation.formats.tools import Message, check_offered, read_tools
from pipeline.curation.reasons import Code, Rejected
from pipeline.domain.data import ExampleKind

_PROMPTS = ("prompt", "conversations", "messages", "instruction")
_ANSWER_LISTS = ("responses", "answers", "completions")
_ANSWER_KEYS = ("answer", "response", "text", "content", "completion")
_SCORE_KEYS = ("score", "overall_score")


def read_preference(row: Fields, spelled: Spelling) -> Meaning:
    """`chosen` and `rejected` (or `chosen_messages` and `rejected_messages`): a better and a worse continuation of a prompt.

    With a prompt they are what follows it. Without, or where they begin with the prompt again, each is a whole dialogue, and the
    prompt is what both begin with (the convention of TRL's extract_prompt). They must part at an answer.
    """
    refuse_media(row)
    notes: Fields = {}
    names = ("chosen", "rejected") if "chosen" in row else ("chosen_messages", "rejected_messages")
    has_prompt = any(name in row for name in _PROMPTS)
    sides = [_continuation(row[name], name, spelled, notes, bare=has_prompt) for name in names]
    tools, offering = read_tools(row)
    if all(side[0]["role"] == "assistant" for side in sides):
        if not has_prompt:
            raise Rejected(Code.BAD_PAIR, "chosen and rejected begin with an answer, and there is no prompt")
        prompt, used = read_prompt(row, spelled, notes)
        chosen, rejected = sides
    else:
        prompt, chosen, rejected = _part(*sides)
        used = ("prompt",) if _repeats(row.get("prompt"), prompt) else ()
        prompt, more = with_system(prompt, row)
        used += more
    for name, side in zip(names, (chosen, rejected), strict=True):
        check_order([*prompt, *side], name)
        check_offered([*prompt, *side], tools)
    if chosen == rejected:
        raise Rejected(Code.BAD_PAIR, "chosen and rejected are the same")
    output = {"chosen": chosen, "rejected": rejected}
    return Meaning(conversation(prompt, tools), output, ExampleKind.PREFERENCE, (*names, *used, *offering), notes)


def read_feedback(row: Fields, spelled: Spelling) -> Meaning:
    """One answer and whether it is good: `kto_tag` or `label`, with `completion`, `output`, or a dialogue that ends in it."""
    refuse_media(row)
    notes: Fields = {}
    tag = "kto_tag" if "kto_tag" in row else "label"
    good = flag(row[tag], tag)
    told = next((name for name in ("completion", "output") if name in row), None)
    if told and any(name in row for name in _PROMPTS):
        turns, used = read_prompt(row, spelled, notes)
        answer = answer_of(row[told], told, spelled, notes)
        tools, offering = read_tools(row)
        input = conversation(turns, tools)
        used = (told, *used, *offering)
    else:
        name = next((name for name in ("messages", "conversations", "completion") if name in row), "messages")
        input, answer, kind, more = split_dialogue(turns_of(row.get(name), name, spelled, notes), row, name)
        if kind is not ExampleKind.ANSWER:
            raise Rejected(Code.UNSUPPORTED, f"{name} ends in a tool call, which feedback cannot be about")
        used = (name, *more)
    return Meaning(input, {"answer": answer, "good": good}, ExampleKind.FEEDBACK, (tag, *used), notes)


def read_ranking(row: Fields, spelled: Spelling) -> Meaning:
    """Several answers to a prompt, best first: `ranked` is in that order; `responses`, `answers` or `completions` come with
    `ranks` (1 is best) or `scores` (more is better), beside the list or within its objects.

    Of answers that tie the first is kept; how many were not is the metadata `tied`.
    """
    refuse_media(row)
    notes: Fields = {}
    prompt, used = read_prompt(row, spelled, notes)
    name = next((name for name in ("ranked", *_ANSWER_LISTS) if name in row), "ranked")
    listed = row.get(name)
    if not isinstance(listed, list):
        raise Rejected(Code.WRONG_TYPE, f"{name} is {type_name(listed)}, not a list")
    worth, beside = _worth(row, name, listed)
    best: dict[float, str] = {}
    for index, (item, value) in enumerate(zip(listed, worth, strict=True)):
        best.setdefault(value, _answer(item, f"{name}[{index}]", notes))
    if len(best) < 2:
        raise Rejected(Code.BAD_RANKING, f"{name} does not hold two answers of which one is better")
    if tied := len(listed) - len(best):
        notes["tied"] = str(tied)
    output = {"answers": [best[value] for value in sorted(best)]}
    return Meaning(prompt, output, ExampleKind.RANKING, (name, *beside, *used), notes)


def _continuation(value: Any, name: str, spelled: Spelling, notes: Fields, *, bare: bool) -> list[Message]:
    """What one side of a pair says: an answer given as a text (where there is a prompt), or turns. Never empty."""
    if isinstance(value, dict):
        turns = [read_turn(value, name, spelled, notes)]
    elif isinstance(value, str) and bare and not value.startswith("\n\n"):
        turns = [{"role": "assistant", "content": text(value, name)}]
    else:
        turns = turns_of(value, name, spelled, notes)
        if isinstance(value, str) and len(turns) == 1:
            raise Rejected(
                Code.BAD_PAIR, f"{name} is a text, and there is neither a prompt nor a transcript of Human: and Assistant:"
            )
    if not turns:
        raise Rejected(Code.BLANK, f"{name} is empty")
    return turns


def _part(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """(what both dialogues begin with, what follows in each)."""
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    better, worse = chosen[same:], rejected[same:]
    if not same:
        raise Rejected(Code.BAD_PAIR, "chosen and rejected have no beginning in common, and so no prompt")
    if not better and not worse:
        raise Rejected(Code.BAD_PAIR, "chosen and rejected are the same")
    if not better or not worse or better[0]["role"] != "assistant" or worse[0]["role"] != "assistant":
        raise Rejected(Code.BAD_PAIR, "chosen and rejected part where no answer stands")
    return chosen[:same], better, worse


def _repeats(said: Any, prompt: list[Message]) -> bool:
    """Whether the row's prompt only says again what the dialogues begin with; raises Rejected when it says something else."""
    if not isinstance(said, str):
        return False
    if said not in [turn["content"] for turn in prompt]:
        raise Rejected(Code.BAD_PAIR, "the prompt is not among what chosen and rejected begin with")
    return True


def _worth(row: Fields, name: str, listed: list[Any]) -> tuple[list[float], tuple[str, ...]]:
    """A number for each answer, less for a better one; and the fields beside the list that gave them."""
    if name == "ranked":
        return [float(place) for place in range(len(listed))], ()
    for field, sign in (("ranks", 1.0), ("rank", 1.0), ("scores", -1.0)):
        values = row.get(field)
        if isinstance(values, list):
            if len(values) != len(listed):
                raise Rejected(Code.BAD_RANKING, f"{len(listed)} answers and {len(values)} {field}")
            return [sign * number(value, field) for value in values], (field,)
    worth = []
    for index, item in enumerate(listed):
        key = next((key for key in ("rank", *_SCORE_KEYS) if isinstance(item, dict) and key in item), None)
        if key is None:
            raise Rejected(Code.BAD_RANKING, f"nothing says how good {name}[{index}] is: no rank, no score")
        worth.append((1.0 if key == "rank" else -1.0) * number(item[key], key))
    return worth, ()


def _answer(item: Any, place: str, notes: Fields) -> str:
    if not isinstance(item, dict):
        return text(item, place)
    key = next((key for key in _ANSWER_KEYS if key in item), None)
    if key is None:
        raise Rejected(Code.WRONG_TYPE, f"{place} has no text of an answer: {', '.join(_ANSWER_KEYS)}")
    rest = {name: value for name, value in item.items() if name not in (key, "rank", *_SCORE_KEYS) and value is not None}
    notes.update({f"{place}.{name}": as_text(value) for name, value in rest.items()})
    return text(item[key], place)
