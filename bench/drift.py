"""How often drift is reported where there is none, and how often where there is: on real data, with intervals.

    python bench/drift.py --data FOLDER [--repeats 400] [--rows 150] [--shifts 60]

Both sides are drawn from one data set without replacement, so that any report is a false alarm; then shifts are planted into
the fresh side. FOLDER holds banking77, gsm8k and bitext_support as tests use them. A repeat is one comparison of all aspects at
drift.false_alarms = 0.01; the same comparisons are counted at 0.05 too, where fewer repeats say more.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.comparing import Side, judge
from pipeline.domain.drift import DriftReport
from pipeline.params.drift import DriftParams
from pipeline.spoken.languages import language

Rows = list[dict[str, str]]
PARAMS = DriftParams(false_alarms=0.01, min_effect=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--rows", type=int, default=150, help="a side")
    parser.add_argument("--shifts", type=int, default=60, help="repeats of each planted shift")
    arguments = parser.parse_args()
    sets = {name: read(arguments.data) for name, read in READERS.items()}
    print(f"{arguments.rows} rows a side; nothing changed, {arguments.repeats} comparisons a set")
    print(f"{'data':16} {'alarms at 0.01':>28} {'at 0.05':>28} {'with min_effect 0.1':>28}  s each")
    total: list[DriftReport] = []
    for name, rows in sets.items():
        started = time.perf_counter()
        reports = [repeat(rows, rows, arguments.rows, seed) for seed in range(arguments.repeats)]
        seconds = (time.perf_counter() - started) / max(arguments.repeats, 1)
        print(f"{name:16} {line(reports)}  {seconds:.2f}")
        total += reports
    print(f"{'all':16} {line(total)}")
    print(f"\nplanted shifts, {arguments.shifts} comparisons each: share reported at 0.01, and with min_effect 0.1")
    for what, share, plant in planted(sets):
        reports = [plant(arguments.rows, 10_000 + seed) for seed in range(arguments.shifts)]
        found = sum(any(s.adjusted <= 0.01 for s in r.shifts) for r in reports)
        strong = sum(any(s.adjusted <= 0.01 and s.effect >= 0.1 for s in r.shifts) for r in reports)
        print(f"{what:44} {share:>5.0%} {rate(found, len(reports)):>28} {rate(strong, len(reports)):>28}")


def line(reports: list[DriftReport]) -> str:
    cells = []
    for level, effect in ((0.01, 0.0), (0.05, 0.0), (0.01, 0.1)):
        alarms = sum(any(s.adjusted <= level and s.effect >= effect for s in r.shifts) for r in reports)
        cells.append(f"{rate(alarms, len(reports)):>28}")
    return " ".join(cells)


def rate(found: int, of: int) -> str:
    """The share with its Wilson interval at 95 %."""
    z = 1.959964
    share, spread = found / of, z * z / of
    centre, half = (share + spread / 2) / (1 + spread), z * math.sqrt(share * (1 - share) / of + spread / of / 4) / (1 + spread)
    return f"{share:.2%} [{max(0.0, centre - half):.2%}, {centre + half:.2%}]"


def repeat(
    reference: Rows, fresh: Rows, count: int, seed: int, change: Callable[[Rows, np.random.Generator], Rows] | None = None
) -> DriftReport:
    """One comparison of `count` rows a side; where both come from the same rows, none is on both sides."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(reference))
    ours = [reference[i] for i in order[:count]]
    if fresh is reference:
        theirs = [reference[i] for i in order[count : 2 * count]]
    else:
        theirs = [fresh[i] for i in rng.permutation(len(fresh))[:count]]
    return judge("0" * 64, None, side("reference", ours), side("fresh", change(theirs, rng) if change else theirs), PARAMS, None)


def side(what: str, rows: Rows) -> Side:
    return Side(what, len(rows), {name: [row[name] for row in rows] for name in rows[0]})


def planted(sets: dict[str, Rows]) -> list[tuple[str, float, Callable[[int, int], DriftReport]]]:
    """(what, how much of the fresh side it touches, the comparison)."""
    banking, maths, support = sets["banking77"], sets["gsm8k"], sets["bitext_support"]
    favoured = set(sorted({row["label"] for row in banking})[:20])

    def mixed(base: Rows, other: Rows, share: float) -> Callable[[int, int], DriftReport]:
        def change(rows: Rows, rng: np.random.Generator) -> Rows:
            count = round(share * len(rows))
            names = rows[0].keys()
            return [*({n: other[i].get(n, "") for n in names} for i in rng.permutation(len(other))[:count]), *rows[count:]]

        return lambda count, seed: repeat(base, base, count, seed, change)

    def longer(base: Rows, share: float) -> Callable[[int, int], DriftReport]:
        def change(rows: Rows, rng: np.random.Generator) -> Rows:
            count = round(share * len(rows))
            return [{**row, "text": f"{row['text']} {row['text']}"} if i < count else row for i, row in enumerate(rows)]

        return lambda count, seed: repeat(base, base, count, seed, change)

    some = [row for row in banking if row["label"] in favoured]
    shifts: list[tuple[str, float, Callable[[int, int], DriftReport]]] = []
    for share in (0.1, 0.25, 0.5):
        shifts.append(("banking77: rows of 20 of the 77 labels instead", share, mixed(banking, some, share)))
        shifts.append(("gsm8k: questions written twice over", share, longer(maths, share)))
        shifts.append(("bitext_support: questions of gsm8k instead", share, mixed(support, maths, share)))
    return shifts


def _banking(folder: Path) -> Rows:
    with (folder / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        return _told([{"text": row["text"], "label": row["category"], "answer": row["category"]} for row in csv.DictReader(file)])


def _maths(folder: Path) -> Rows:
    lines = (folder / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:3000]
    return _told([{"text": row["question"], "answer": row["answer"]} for row in map(json.loads, lines)])


def _support(folder: Path) -> Rows:
    with (folder / "bitext_support" / "support_3000.csv").open(encoding="utf-8", newline="") as file:
        return _told(
            [{"text": row["instruction"], "answer": row["response"], "origin": row["category"]} for row in csv.DictReader(file)]
        )


def _told(rows: Rows) -> Rows:
    return [{**row, "language": language(row["text"])} for row in rows]


READERS = {"banking77": _banking, "gsm8k": _maths, "bitext_support": _support}


if __name__ == "__main__":
    main()
