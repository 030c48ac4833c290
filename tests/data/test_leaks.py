"""Decontamination: planted copies of held-out rows are found, edited or not; policies; the same bytes however rows come."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.curation.compared import answers, prompts
from pipeline.curation.folding import fold
from pipeline.curation.leaks import LEAKS_SCHEMA, Leaks, check_leaks
from pipeline.curation.shards import SCHEMA
from pipeline.domain.record import canonical_json
from pipeline.params import LeakParams

WORDS = [a + b + c for a in ("ba", "do", "fi", "gu", "sta") for b in ("ran", "les", "tim", "kop") for c in ("a", "est", "ion")]
LONG = "the baker sold forty loaves in the morning and half as many after noon so how many loaves did he sell in all that day"


def chat(*said: str, system: str | None = None) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    return canonical_json(([{"role": "system", "content": system}] if system else []) + messages)


def table(rows: Sequence[str | tuple[str, str] | tuple[str, str, str]], source: str = "inbox/train.jsonl") -> Any:
    """Rows given as text (a label's), (conversation, answer), or (kind, input, output)."""
    full = [("label", row, "x") if isinstance(row, str) else row if len(row) == 3 else ("answer", *row) for row in rows]
    kinds, inputs, outputs = zip(*full, strict=True) if full else ((), (), ())
    count = len(full)
    columns = {"kind": kinds, "input": inputs, "output": outputs, "id": [f"{i:032x}" for i in range(count)]}
    columns |= {"group": [""] * count, "meta": ["{}"] * count, "source": [source] * count, "line": range(1, count + 1)}
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names}, schema=SCHEMA)


class Town:
    def __init__(self, folder: Path) -> None:
        self.out = folder

    def check(self, held: Any, train: Any, params: LeakParams | None = None, size: int = 1000) -> Leaks:
        self.leaks = check_leaks(
            [("test", batch) for batch in held.to_batches(max_chunksize=size)],
            lambda: train.to_batches(max_chunksize=size),
            params or LeakParams(),
            out=self.out,
        )
        return self.leaks

    @property
    def found(self) -> dict[int, tuple[str, int]]:
        """Number of the row to train on: (how, number of the held-out one)."""
        return {leak["line"] - 1: (leak["how"], leak["held_line"] - 1) for leak in self.rows}

    @property
    def rows(self) -> list[dict[str, Any]]:
        return pq.read_table(self.out / "leaks.parquet").to_pylist()


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path / "out")


def edited(text: str, vocabulary: Sequence[str], rng: random.Random) -> str:
    """One word in ten changed, at least one, and case and punctuation here and there."""
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(len(words) / 10))):
        words[place] = rng.choice(vocabulary)
    changes: list[Callable[[str], str]] = [str.upper, str.title, lambda word: word + ",", lambda word: word.rstrip(".,?!"), str]
    return " ".join(rng.choice(changes)(word) if rng.random() < 0.3 else word for word in words)


@cache
def bag(text: str) -> Counter[str]:
    return Counter(fold(text).split())


def missing(one: str, other: str) -> int:
    """Words of the longer text that the other has not, counted by hand."""
    some, more = bag(one), bag(other)
    return max(some.total(), more.total()) - (some & more).total()


def is_near(one: str, other: str, params: LeakParams) -> bool:
    words = max(bag(one).total(), bag(other).total())
    return words >= params.near_words and missing(one, other) <= max(1, int((1 - params.near_threshold) * words + 1e-9))


def test_each_way_a_row_can_leak(town: Town) -> None:
    held = table(
        [(chat("What is the capital of France?"), "Paris"), (chat(LONG), "sixty"), (chat("Say something nice please"), "Hi")]
    )
    train = table(
        [
            (chat("what is the capital of FRANCE"), "Lyon"),
            (chat("What was the capital of France?", system="Be brief."), "Paris"),
            (chat("What is the largest city of Spain?"), "Madrid"),
            (chat("Here is a problem. Can you solve it? " + LONG + " Thank you so much in advance, this really helps."), "60"),
            (chat("Write a problem for children about bakers."), f"Sure! {LONG.title()}."),
            (chat("Say something nasty please"), "No"),
        ]
    )
    leaks = town.check(held, train)
    assert town.found == {0: ("exact", 0), 1: ("near", 0), 3: ("ngram", 1), 4: ("ngram", 1), 5: ("near", 2)}
    assert [row["similarity"] for row in town.rows] == pytest.approx([1, 5 / 6, 1, 1, 3 / 4])
    assert pq.read_schema(town.out / "leaks.parquet").equals(LEAKS_SCHEMA)
    assert leaks.file.rows == 5
    assert [(check.name, check.passed) for check in leaks.checks] == [
        ("leaks.exact", False),
        ("leaks.near", False),
        ("leaks.ngram", False),
    ]
    assert leaks.checks[1].observed == "2 of 6 rows repeat one of 3 held out: 2 of test"
    assert leaks.checks[1].samples[0] == "inbox/train.jsonl:2 repeats test inbox/train.jsonl:1 (near 0.83)"
    assert leaks.drop.tolist() == []


def test_policies(town: Town) -> None:
    held = table(["where is my new card", LONG])
    train = table(["something else entirely here", "where is my old card", "WHERE is my new card?", "please answer: " + LONG * 2])
    leaks = town.check(held, train, LeakParams(exact="drop", near="warn", ngram="block"))
    assert leaks.drop.tolist() == [2]
    assert [check.passed for check in leaks.checks] == [True, True, False]
    leaks = town.check(held, train, LeakParams(exact="off", near="drop", ngram="drop"))
    assert leaks.drop.tolist() == [1, 2, 3]
    assert town.found[2] == ("near", 0)
    assert all(check.passed for check in leaks.checks)
    leaks = town.check(held, train, LeakParams(exact="off", near="off", ngram="off"))
    assert (leaks.checks, leaks.drop.tolist(), leaks.file.rows, town.rows) == ((), [], 0, [])


def test_near_is_what_counting_words_says(town: Town) -> None:
    """All pairs, compared by hand: none is missed, none is made up, and the one named is the best."""
    rng = random.Random(1)
    params = LeakParams(exact="off", ngram="off")
    held = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(150)]
    train = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(150)]
    for text in held:
        words = text.split()
        for _ in range(rng.randint(0, 5)):
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        if rng.random() < 0.3:
            words.insert(rng.randint(0, len(words)), rng.choice(WORDS))
        if rng.random() < 0.3:
            words.pop(rng.randrange(len(words)))
        train.append(" ".join(words))
    town.check(table(held), table(train), params)
    due = {row: [text for text in held if is_near(train[row], text, params)] for row in range(len(train))}
    due = {row: texts for row, texts in due.items() if texts}
    assert 60 < len(due) < 160
    assert due.keys() == town.found.keys()
    for row, (how, number) in town.found.items():
        assert how == "near"
        assert held[number] in due[row]


def test_short_prompts_leak_only_when_they_are_equal(town: Town) -> None:
    train = table(["my pin", "HELLO!", "hallo", "", "!", "My card?"])
    town.check(table(["my card", "hello", "", "?"]), train)
    assert town.found == {1: ("exact", 1), 5: ("exact", 0)}


def test_scripts_without_spaces_are_compared_by_character(town: Town) -> None:
    held = ["请问我的信用卡什么时候可以寄到北京的新地址", "ขอเปลี่ยนรหัสผ่านบัตรเครดิตของฉันได้อย่างไร"]
    train = [
        "请问他的信用卡什么时候可以寄到北京的新地址。",
        "请问怎样才能申请一张新的借记卡",
        "ขอเปลี่ยน รหัสผ่าน บัตรเครดิตของฉันได้อย่างไร?",
    ]
    town.check(table(held), table(train))
    assert town.found == {0: ("near", 0), 2: ("exact", 1)}


def test_templates_do_not_make_every_row_a_leak(town: Town) -> None:
    template = "Read the sentence below and answer with the one label that fits it best. Sentence: {} Label:"
    rng = random.Random(2)
    payloads = [" ".join(rng.sample(WORDS, k=7)) for _ in range(240)]
    held, train = payloads[:40], payloads[40:]
    train[7] = held[3].replace(held[3].split()[2], "changed")
    town.check(table([template.format(text) for text in held]), table([template.format(text) for text in train]))
    assert town.found == {7: ("near", 3)}


def test_prompts_of_every_kind_are_compared() -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U1"}, {"role": "assistant", "content": None}]
    rows = [
        ("label", "a text", "label"),
        ("text", "", "a document"),
        ("prompt", chat("P"), ""),
        ("answer", chat("U1", "A1", "U2", system="S"), "A2"),
        (
            "call",
            canonical_json({"messages": [*messages, {"role": "tool", "content": "T"}], "tools": []}),
            '{"content":null,"tool_calls":[]}',
        ),
        (
            "preference",
            chat("Q"),
            canonical_json({"chosen": [{"role": "assistant", "content": "C"}], "rejected": [{"content": "R"}]}),
        ),
        ("feedback", chat("Q"), canonical_json({"answer": "F", "good": False})),
        ("ranking", chat("Q"), canonical_json({"answers": ["first", "second"]})),
    ]
    batch = table(rows).to_batches()[0]
    assert prompts(batch) == ["a text", "a document", "P", "U1\nA1\nU2", "U1\nT", "Q", "Q", "Q"]
    assert answers(batch) == ["", "", "", "A2", "", "C\nR", "F", "first\nsecond"]


@pytest.mark.parametrize("size", [1, 13])
def test_the_same_bytes_however_rows_come(town: Town, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.curation.leaks._GROUP", 20)
    rng = random.Random(3)
    held = [" ".join(rng.choices(WORDS, k=9)) for _ in range(60)]
    train = [
        edited(rng.choice(held), WORDS, rng) if rng.random() < 0.6 else " ".join(rng.choices(WORDS, k=9)) for _ in range(200)
    ]
    params = LeakParams(near="drop")
    whole = town.check(table(held), table(train), params)
    assert whole.file.rows > 60
    other = Town(tmp_path / "other")
    pieces = other.check(table(held), table(train), params, size=size)
    assert (whole.file, whole.checks) == (pieces.file, pieces.checks)
    assert whole.drop.tolist() == pieces.drop.tolist() == [row["line"] - 1 for row in other.rows if row["how"] == "near"]
    assert sorted(path.name for path in other.out.iterdir()) == ["leaks.parquet"]


def test_nothing_held_out_or_nothing_to_train_on(town: Town) -> None:
    empty, one = table([]), table(["where is my new card"])
    for held, train in ((empty, one), (one, empty), (empty, empty)):
        leaks = town.check(held, train)
        assert all(check.passed for check in leaks.checks)
        assert leaks.drop.dtype == np.int64
        assert (len(leaks.drop), town.rows) == (0, [])


def test_an_error_leaves_no_file_behind(town: Town) -> None:
    def broken() -> Any:
        yield from table(["where is my new card"]).to_batches()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        check_leaks([], broken, LeakParams(), out=town.out)
    assert list(town.out.iterdir()) == []


@pytest.mark.real
@pytest.mark.parametrize(("name", "natural"), [("gsm8k", 0.001), ("banking77", 0.04)])
def test_planted_test_rows_in_real_data_are_found(town: Town, real_data: Path, name: str, natural: float) -> None:
    """bench/leaks.py plants more, and says more. natural: the most rows nobody planted that may be near to a held-out one."""
    if name == "gsm8k":
        lines = (real_data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["question"] for line in lines]
    else:
        with (real_data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
    texts = sorted({fold(text): text for text in texts}.values())
    rng = random.Random(name)
    rng.shuffle(texts)
    held, rest = texts[:300], texts[300:3300]
    vocabulary = sorted({word for text in texts for word in fold(text).split()})
    planted = held[:150] + [edited(text, vocabulary, rng) for text in held[150:]]
    leaks = town.check(table(held), table([*rest, *planted]))
    assert not any(check.passed for check in leaks.checks[:2])
    found = town.found
    assert all(found[len(rest) + number] == ("exact", number) for number in range(150))
    assert sum(len(rest) + number in found for number in range(150, 300)) >= 0.95 * 150
    unplanted = [row for row in found if row < len(rest)]
    assert len(unplanted) <= natural * len(rest)
    assert all(found[row][0] == "ngram" or is_near(rest[row], held[found[row][1]], LeakParams()) for row in unplanted)
