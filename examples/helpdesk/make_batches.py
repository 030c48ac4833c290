"""Makes weekly batches of support-desk chats: a ticket in, a compact JSON answer out.

Week 1 has six intents, week 2 adds four, and week 3 is a bad delivery: broken lines, and a long block in which two
queues were mixed up. Only the standard library may enter, and the same week and seed always give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

PHRASES: dict = tomllib.loads(Path(__file__).with_name("phrases.toml").read_text(encoding="utf-8"))
INTENTS: dict[str, dict] = PHRASES["intents"]
WEEK_ONE = ("refund", "delivery", "defect", "cancel", "invoice", "howto")
NEW_IN_WEEK_TWO = ("exchange", "address", "warranty", "stock")
# The two queues that week 3 mixes up. Labels wrong at random only add noise that a model averages out; these outnumber
# the right ones of weeks 1 and 2, and so do harm.
CROSSED = {"refund": "exchange", "exchange": "refund"}


@dataclass(frozen=True)
class Labels:
    """What a ticket says; the whole answer follows from it."""

    intent: str
    product: str
    urgency: str
    order: str | None

    def answer(self) -> str:
        """The compact JSON answer, with a reply that follows from the other four keys."""
        rule = INTENTS[self.intent]["reply"]
        rule = PHRASES["ask"] if "{order}" in rule and self.order is None else rule
        reply = rule.format(product=self.product, order=self.order)
        return json.dumps({**self.__dict__, "reply": reply}, separators=(",", ":"))


def swap_letters(sentence: str, keep: str, rng: random.Random) -> str:
    """The sentence with two neighbouring letters of one longer word swapped; the word `keep` is left alone."""
    words = sentence.split()
    long = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha() and word != keep]
    if long:
        word, at = words[i := rng.choice(long)], rng.randrange(1, 3)
        words[i] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def ticket(labels: Labels, rng: random.Random) -> str:
    """One way to say the labels, with greetings, noise and other numbers."""
    cue = rng.choice(INTENTS[labels.intent]["sayings"]).format(product=labels.product)
    parts = [swap_letters(cue, labels.product, rng) if rng.random() < 0.15 else cue]
    parts += [rng.choice(PHRASES["orders"]).format(labels.order)] if labels.order else []
    parts += [text for text in [rng.choice(PHRASES["urgency"][labels.urgency])] if text]
    parts += [rng.choice(PHRASES["distractors"]).format(rng.randrange(2, 900))] if rng.random() < 0.5 else []
    rng.shuffle(parts)
    if rng.random() < 0.2:
        text = ", ".join(parts)
    else:
        text = " ".join(part[0].upper() + part[1:] + rng.choice("...!") for part in parts)
    text = rng.choice(PHRASES["greetings"]) + text if rng.random() < 0.5 else text
    return text + rng.choice(PHRASES["closings"]) if rng.random() < 0.4 else text


def draw(intents: tuple[str, ...], rng: random.Random) -> Labels:
    """Random labels; about one ticket in four names no order."""
    order = f"{rng.choice('ABCDEFGHKLMNPRST')}-{rng.randrange(10_000, 100_000)}" if rng.random() < 0.75 else None
    urgency = ("high", "normal", "normal", "low")
    return Labels(rng.choice(intents), rng.choice(PHRASES["products"]), rng.choice(urgency), order)


def row(text: str, labels: Labels, week: int) -> dict:
    """One chat row; the keys beside `messages` are there to slice by."""
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": labels.answer()}]
    return {"messages": messages, "source": f"week{week}", "intent": labels.intent}


def encode(value: object) -> bytes:
    """One JSON line without its line end."""
    return json.dumps(value).encode()


def _edited(good: dict, at: int, **changes: str) -> bytes:
    messages = [dict(message) for message in good["messages"]]
    messages[at].update(changes)
    return encode({**good, "messages": messages})


# Each makes one broken line from a good row; `earlier` is a line that already stands in the file.
DEFECTS: dict[str, Callable[[dict, bytes], bytes]] = {
    "cut short": lambda good, earlier: encode(good)[:-25],
    "plain text": lambda good, earlier: good["messages"][0]["content"].encode(),
    "no assistant": lambda good, earlier: encode({**good, "messages": good["messages"][:1]}),
    "no messages": lambda good, earlier: encode({"source": good["source"], "intent": good["intent"]}),
    "empty answer": lambda good, earlier: _edited(good, 1, content=""),
    "blank question": lambda good, earlier: _edited(good, 0, content="  \n "),
    "nul character": lambda good, earlier: _edited(good, 0, content=good["messages"][0]["content"] + "\0"),
    "lone surrogate": lambda good, earlier: _edited(good, 0, content="\ud83d " + good["messages"][0]["content"]),
    "wrong order of roles": lambda good, earlier: encode({**good, "messages": good["messages"][::-1]}),
    "unknown role": lambda good, earlier: _edited(good, 0, role="customer"),
    "key given twice": lambda good, earlier: encode(good)[:-1] + b', "source": "unknown"}',
    "not UTF-8": lambda good, earlier: encode(good).replace(b'"content": "', b'"content": "caf\xe9 ', 1),
    "exact duplicate": lambda good, earlier: earlier,
}


def wrong_labels(true: Labels, others: list[Labels], rng: random.Random) -> Labels:
    """The other queue's intent, another ticket's product and urgency; only the order number is right."""
    donor = rng.choice([one for one in others if one.product != true.product and one.urgency != true.urgency])
    return replace(donor, intent=CROSSED[true.intent], order=true.order)


def bad_week(rows: int, rng: random.Random, wrong_share: float = 0.6) -> list[bytes]:
    """Week 3: a block from two queues with wrong labels, good rows, and among these two broken lines of every kind."""
    defects = sorted(DEFECTS) * 2
    first, length = int(rows * 0.25), round(rows * wrong_share)
    rest = tuple(intent for intent in INTENTS if intent not in CROSSED)
    told = [draw(tuple(CROSSED) if first <= at < first + length else rest, rng) for at in range(rows)]
    block = told[first : first + length]
    given = told[:first] + [wrong_labels(true, block, rng) for true in block] + told[first + length :]
    good = [row(ticket(said, rng), wrong, 3) for said, wrong in zip(told, given, strict=True)]
    lines = [encode(one) for one in good]
    outside = [*range(1, first), *range(first + length, rows)]
    for at, name in zip(sorted(rng.sample(outside, k=len(defects))), rng.sample(defects, k=len(defects)), strict=True):
        lines[at] = DEFECTS[name](good[at], encode(good[0]))
    return lines


def make_batch(week: int, seed: int = 7, rows: int = 1200) -> bytes:
    """The whole JSONL file of one week."""
    rng = random.Random(seed * 1000 + week)
    if week == 3:
        return b"".join(line + b"\n" for line in bad_week(rows, rng))
    lines = []
    for _ in range(rows):
        intents = NEW_IN_WEEK_TWO if week == 2 and rng.random() < 0.7 else WEEK_ONE
        labels = draw(intents, rng)
        lines.append(encode(row(ticket(labels, rng), labels, week)) + b"\n")
    return b"".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write one week's support-desk chats as JSON lines.")
    parser.add_argument("--week", type=int, choices=(1, 2, 3), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rows", type=int, default=1200, help="at least 200")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(make_batch(args.week, args.seed, args.rows))
