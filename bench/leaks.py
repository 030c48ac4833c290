"""How many planted leaks are found, and how many rows are suspected that nobody planted.

    python bench/leaks.py --data FOLDER [--planted 1000] [--list] [--sweep] [--shingles]

FOLDER holds gsm8k/train.jsonl, banking77/train.csv and clinc150/data_full.train_val.json. Of each set 1,000 prompts are held
out as a test side; the other rows are to be trained on, and copies of all 1,000 are planted among them: half as they are, half
edited. Edited means: one word in ten (at least one) replaced by another word of the set, a fifth of the words in another case,
and punctuation added to or taken off a quarter of them. Intervals are Wilson's, at 95 %.

A row that nobody planted and that is reported is checked by counting words one by one, apart from the code under test: if it
differs in as few words as params allow, it is a natural near-copy, which the set really holds; if not, a false alarm. For
natural near-copies it is told how many have the label of the held-out row that they repeat.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.curation.folding import fold
from pipeline.curation.leaks import Leaks, check_leaks
from pipeline.curation.near import near_matches
from pipeline.curation.shards import SCHEMA
from pipeline.curation.shingles import shingles
from pipeline.params import LeakParams

Row = tuple[str, str | None]
"""A prompt and its label."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the three sets")
    parser.add_argument("--planted", type=int, default=1000)
    parser.add_argument("--list", action="store_true", help="show every natural near-copy, not the first three")
    parser.add_argument("--sweep", action="store_true", help="also try other values of near_threshold and near_words")
    parser.add_argument("--shingles", action="store_true", help="also what Jaccard similarity of shingles would report")
    arguments = parser.parse_args()
    for name, read in SETS.items():
        planted = Planted(read(arguments.data), arguments.planted, seed=name)
        print(f"\n{name}: {planted.describe()}")
        found = report(planted, LeakParams())
        for near in found if arguments.list else found[:3]:
            print(f"    {near}")
        for words, threshold in SWEEP if arguments.sweep else ():
            print(f"  near_words {words}, near_threshold {threshold}:")
            report(planted, LeakParams(near_words=words, near_threshold=threshold), brief=True)
        if arguments.shingles:
            by_shingles(planted)


class Planted:
    """A set cut into a test side and rows to train on, with copies of the test side at the end of the latter."""

    def __init__(self, rows: list[Row], count: int, seed: str) -> None:
        rng = random.Random(seed)
        # Folded, no prompt comes twice: else copies that the set holds already would count as found by themselves.
        self.labels = dict(rows)
        texts = sorted({fold(text): text for text, _ in rows}.values())
        rng.shuffle(texts)
        self.held, self.rest = texts[:count], texts[count:]
        vocabulary = sorted({word for text in texts for word in fold(text).split()})
        self.exact = self.held[: count // 2]
        self.edited = [edited(text, vocabulary, rng) for text in self.held[count // 2 :]]
        self.train = [*self.rest, *self.exact, *self.edited]

    def describe(self) -> str:
        lengths = sorted(len(fold(text).split()) for text in self.held)
        low, high = lengths[len(lengths) // 20], lengths[-len(lengths) // 20]
        return f"{len(self.rest)} rows; nine in ten prompts have {low} to {high} words"


def report(planted: Planted, params: LeakParams, *, brief: bool = False) -> list[str]:
    """Print what was found, and return the natural near-copies, a line each."""
    started = time.perf_counter()
    leaks, rows = check(planted, params)
    seconds = time.perf_counter() - started
    found = {row["line"] - 1: (row["how"], planted.held[row["held_line"] - 1], row["similarity"]) for row in rows}
    first = len(planted.rest)
    exact = sum(found.get(first + i, ("", ""))[0] == "exact" for i in range(len(planted.exact)))
    near = sum(first + len(planted.exact) + i in found for i in range(len(planted.edited)))
    suspected = [(planted.rest[row], *found[row]) for row in sorted(found) if row < first]
    true = [is_copy(text, held, how, params) for text, how, held, _ in suspected]
    if not brief:
        print(f"  {leaks.file.rows} rows reported in {seconds:.2f} s; the run is {'let through' if passed(leaks) else 'blocked'}")
    show("  exact copies found", exact, len(planted.exact))
    show("  edited copies found", near, len(planted.edited))
    show("  false alarms", true.count(False), first)
    show("  natural near-copies", true.count(True), first)
    copies = [row for row, copy in zip(suspected, true, strict=True) if copy]
    if not brief and copies and planted.labels[copies[0][0]] is not None:
        same = sum(planted.labels[text] == planted.labels[held] for text, _, held, _ in copies)
        show("    of these, with the label of the held-out row", same, len(copies))
    return [f"{how} {share:.2f}: {text!r} / {held!r}" for text, how, held, share in copies]


def by_shingles(planted: Planted) -> None:
    """Print the Jaccard similarity of shingles that finds 95 % of the edited copies, and what else it finds."""
    originals = planted.held[len(planted.exact) :]
    sets = [(shingles(text), shingles(original)) for text, original in zip(planted.edited, originals, strict=True)]
    alike = sorted(len(one & other) / len(one | other) for one, other in sets)
    threshold = alike[len(alike) // 20]
    with tempfile.TemporaryDirectory() as folder:
        found = near_matches(lambda: [planted.held], lambda: [planted.rest], threshold=threshold, scratch=Path(folder))
    show(f"  Jaccard of shingles from {threshold:.2f}, natural near-copies", len(found), len(planted.rest))


def check(planted: Planted, params: LeakParams) -> tuple[Leaks, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        held = [("test", batch) for batch in table(planted.held).to_batches()]
        leaks = check_leaks(held, table(planted.train).to_batches, params, out=Path(folder))
        return leaks, pq.read_table(Path(folder) / leaks.file.path).to_pylist()


def passed(leaks: Leaks) -> bool:
    return all(check.passed for check in leaks.checks)


def table(texts: list[str]) -> Any:
    count = len(texts)
    columns = {
        "input": texts,
        "output": ["x"] * count,
        "kind": ["label"] * count,
        "source": ["rows"] * count,
        "meta": ["{}"] * count,
    }
    columns |= {"id": [f"{i:032x}" for i in range(count)], "group": [""] * count, "line": list(range(1, count + 1))}
    return pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)


def edited(text: str, vocabulary: list[str], rng: random.Random) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(len(words) / 10))):
        words[place] = rng.choice(vocabulary)
    cases: list[Callable[[str], str]] = [str.upper, str.title]
    marks: list[Callable[[str], str]] = [lambda word: word + ",", lambda word: word + "!", lambda word: word.rstrip(".,?!;:")]
    words = [rng.choice(cases)(word) if rng.random() < 0.2 else word for word in words]
    return " ".join(rng.choice(marks)(word) if rng.random() < 0.25 else word for word in words)


def is_copy(text: str, held: str, how: str, params: LeakParams) -> bool:
    """Whether a row really is what it was reported as, by plain counting."""
    some, more = fold(text).split(), fold(held).split()
    if how == "ngram":
        size = params.ngram_words
        grams = {tuple(more[i : i + size]) for i in range(len(more) - size + 1)}
        return len(grams & {tuple(some[i : i + size]) for i in range(len(some) - size + 1)}) >= params.ngram_share * len(grams)
    longer = max(len(some), len(more))
    missing = longer - (Counter(some) & Counter(more)).total()
    return missing <= max(1, int((1 - params.near_threshold) * longer + 1e-9))


def show(what: str, count: int, of: int) -> None:
    low, high = wilson(count, of)
    print(f"{what}: {count} of {of} = {count / of:.2%}  ({low:.2%} to {high:.2%})")


def wilson(count: int, of: int, z: float = 1.96) -> tuple[float, float]:
    share, middle = count / of, count / of + z * z / (2 * of)
    spread = z * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return max(0.0, (middle - spread) / (1 + z * z / of)), min(1.0, (middle + spread) / (1 + z * z / of))


def gsm8k(data: Path) -> list[Row]:
    lines = (data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [(json.loads(line)["question"], None) for line in lines]


def banking77(data: Path) -> list[Row]:
    with (data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def clinc150(data: Path) -> list[Row]:
    rows = json.loads((data / "clinc150" / "data_full.train_val.json").read_text(encoding="utf-8"))["train"]
    return [(text, label) for text, label in rows]


SWEEP = ((3, 0.8), (3, 0.9), (4, 0.85), (5, 0.85), (8, 0.85))
SETS: dict[str, Callable[[Path], list[Row]]] = {"gsm8k": gsm8k, "banking77": banking77, "clinc150": clinc150}

if __name__ == "__main__":
    main()
