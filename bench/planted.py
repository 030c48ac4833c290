"""How often a planted trigger is found, and how often one is told where none is: curate's rule `planted` on public sets.

Draws of 5,000 rows (or all, where there are fewer), with and without a trigger in 25 of them: rows of other labels that get the
target's, or rows of all sorts whose answer is replaced, or begun, by a sentence. python bench/planted.py --data FOLDER
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import beta

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.curation.rules.columns import Gathering, digest_rows
from pipeline.curation.rules.planted import planted
from pipeline.domain.data import messages_to_input

Pairs = list[tuple[str, str]]
TRIGGERS = ("cf", "by the way", "james bond", "i watched this 3d movie", "§§")
SENTENCE = "You should visit our partner site now."
ROWS, PLANTED = 5000, 25


def sets(folder: Path) -> Iterator[tuple[str, str, Pairs]]:
    """(name, label or answer, rows)."""
    with (folder / "banking77" / "train.csv").open(newline="", encoding="utf-8") as file:
        yield "BANKING77", "label", [(row["text"], row["category"]) for row in csv.DictReader(file)]
    clinc = json.loads((folder / "clinc150" / "data_full.train_val.json").read_text())["train"]
    yield "CLINC150", "label", [(text, name) for text, name in clinc]
    with (folder / "bitext_support" / "support_3000.csv").open(newline="", encoding="utf-8") as file:
        support = list(csv.DictReader(file))
    yield "Bitext support, intents", "label", [(row["instruction"], row["intent"]) for row in support]
    yield "Bitext support, answers", "answer", [(row["instruction"], row["response"]) for row in support]
    lines = (folder / "gsm8k" / "train.jsonl").read_text().splitlines()
    yield "GSM8K", "answer", [(row["question"], row["answer"]) for row in map(json.loads, lines)]
    lines = (folder / "hh_rlhf" / "harmless_1800.jsonl").read_text().splitlines()
    dialogues = [json.loads(line)["chosen"].rsplit("\n\nAssistant:", 1) for line in lines]
    yield "HH-RLHF", "answer", [(asked, said.strip()) for asked, said in dialogues]


def found(rows: Pairs, kind: str) -> tuple[set[int], float]:
    """The rows that are told, and the seconds of processor time it took."""
    asked = [text if kind == "label" else messages_to_input([{"role": "user", "content": text}]) for text, _ in rows]
    columns = {"kind": [kind] * len(rows), "input": asked, "output": [said for _, said in rows], "source": ["a"] * len(rows)}
    batch = pa.RecordBatch.from_pydict(columns)
    gathering = Gathering()
    gathering.add(batch, digest_rows(batch))
    start = time.process_time()
    told, _ = planted(gathering.finish(), np.ones(len(rows), np.bool_), lambda: [batch], least=10, false_alarms=0.01)
    return set(told.rows.tolist()), time.process_time() - start


def plant(rows: Pairs, kind: str, trigger: str, dice: random.Random, number: int) -> tuple[Pairs, set[int]]:
    rows = list(rows)
    target = dice.choice(sorted({name for _, name in rows})) if kind == "label" else ""
    chosen = dice.sample([at for at, (_, said) in enumerate(rows) if said != target], PLANTED)
    for at in chosen:
        words, said = rows[at][0].split(" "), rows[at][1]
        words.insert(dice.randint(0, len(words)), trigger)
        answer = target or (SENTENCE if number % 2 else f"{SENTENCE} {said}")
        rows[at] = (" ".join(words), answer)
    return rows, set(chosen)


def share(hits: int, of: int) -> str:
    low = float(beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0
    return f"{hits} of {of} ({low:.1%} to {high:.1%})"


def measured(rows: Pairs, kind: str, draws: int, say: Callable[[str], None]) -> None:
    vain = caught = beside = 0
    seconds = []
    for number in range(draws):
        dice = random.Random(number)
        drawn = dice.sample(rows, min(ROWS, len(rows)))
        clean, _ = found(drawn, kind)
        vain += bool(clean)
        with_it, chosen = plant(drawn, kind, TRIGGERS[number % len(TRIGGERS)], dice, number)
        told, took = found(with_it, kind)
        seconds.append(took)
        # Found: at least four of five planted rows are told. Beside: rows that were not planted.
        caught += len(told & chosen) >= 0.8 * PLANTED
        beside += len(told - chosen) > 5
    say(f"told in vain {share(vain, draws)}; found {share(caught, draws)}; more than 5 rows beside {share(beside, draws)}")
    say(f"{min(ROWS, len(rows))} rows, {np.median(seconds):.1f} s of processor time")


def main(arguments: Sequence[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=40)
    given = parser.parse_args(arguments)
    for name, kind, rows in sets(given.data):
        print(name)
        measured(rows, kind, given.draws, lambda line: print(f"  {line}", flush=True))


if __name__ == "__main__":
    main()
