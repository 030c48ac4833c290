"""How fast data goes in, and how much memory it takes, beside the chain a user would build today, in one run.

    python bench/data.py                 100k and 1M rows
    python bench/data.py --full          10M rows as well, for which the chain is not asked

Each size and side runs in a process of its own. Rows are short made-up prompt/completion lines, 1 % of them repeated and 1 %
nearly so. What the chain is, plain and tuned, is in bench/data_peer.py. Nothing is kept.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from data_laps import measure
from data_rows import generate

HERE = Path(__file__).resolve().parent
COMPARED = ("take in", "validate", "near duplicates", "split")
HANDS = {"plain": 100_000, "tuned": 1_000_000}
"""The chain in two hands, and how many rows each is asked of at most: more take minutes and show the same ratios."""
OURS_ALONE = ("other rules", "decontaminated split", "1 % more")

Stages = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--full", action="store_true", help="10M rows as well")
    for hand, most in HANDS.items():
        parser.add_argument(f"--{hand}-rows", type=int, default=most, help=f"the {hand} chain is asked of no more rows than this")
    arguments = parser.parse_args()
    sizes = sorted({*arguments.rows, 10_000_000} if arguments.full else set(arguments.rows))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; the chain is datasets, GX on pandas and datasketch")
    heads = [
        f"{'ours s':>8} {'CPU s':>7} {'MB':>6}",
        *(f"{f'{hand} s':>8} {'CPU s':>7} {'MB':>6} {'times':>6}" for hand in HANDS),
    ]
    print(f"\n{'rows':>10}  {'stage':<20} {'   '.join(heads)}", flush=True)
    sides: dict[str, dict[int, Stages]] = {side: {} for side in ("ours", *HANDS)}
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder) / "inbox" / "rows.jsonl", count)
            for hand in HANDS:
                if count <= getattr(arguments, f"{hand}_rows"):
                    sides[hand][count] = measure(HERE / "data_peer.py", folder, hand)
                    shutil.rmtree(Path(folder) / "hf")
            beyond = "beyond" if count <= 1_000_000 else "no"
            sides["ours"][count] = measure(HERE / "data_ours.py", folder, str(count), beyond)
        show(count, sides)
    summary(sides)


def show(count: int, sides: dict[str, dict[int, Stages]]) -> None:
    """The table's lines of one size."""
    ours, chains = sides["ours"][count], [sides[hand].get(count) for hand in HANDS]
    for stage in ("imports", *COMPARED, *OURS_ALONE):
        if stage in ours:
            line(count, stage, ours[stage], [chain.get(stage) if chain else None for chain in chains])
    line(count, "total", total(ours), [total(chain) if chain else None for chain in chains])
    print(flush=True)


def line(count: int, stage: str, ours: dict[str, Any], chains: list[dict[str, Any] | None]) -> None:
    def figures(found: dict[str, Any]) -> str:
        return f"{found['seconds']:>8.1f} {found['cpu']:>7.1f} {found['peak']:>6.0f}"

    beside = [f"{figures(chain)} {chain['seconds'] / ours['seconds']:>6.1f}" if chain else "" for chain in chains]
    print("   ".join([f"{count:>10,}  {stage:<20} {figures(ours)}", *beside]).rstrip())


def total(stages: Stages) -> dict[str, Any]:
    """All compared stages together, imports included."""
    parts = [stages[stage] for stage in ("imports", *COMPARED)]
    return {
        "seconds": sum(part["seconds"] for part in parts),
        "cpu": sum(part["cpu"] for part in parts),
        "peak": max(part["peak"] for part in parts),
    }


def summary(sides: dict[str, dict[int, Stages]]) -> None:
    for count, stages in sides["ours"].items():
        mine = total(stages)
        print(f"{count:,} rows: {count / mine['seconds']:,.0f} rows a second, peak {mine['peak']:.0f} MB;", end=" ")
        print(f"near duplicates found {stages['near duplicates']['found']:,};", end=" ")
        print(f"1 % more rows wrote {stages['1 % more']['written']:.2%} of the snapshot's bytes")
        for hand in HANDS:
            if sizes := [size for size in sides[hand] if size <= count]:
                other, beside = total(sides[hand][max(sizes)]), max(sizes)
                faster = (other["seconds"] / beside) / (mine["seconds"] / count)
                print(f"    {faster:.1f} times as fast a row as the {hand} chain with {beside:,} rows,", end=" ")
                print(f"which took {other['peak'] / mine['peak']:.1f} times the memory", end=" ")
                print(f"and found {sides[hand][beside]['near duplicates']['found']:,}")
    for side, sizes in sides.items():
        if len(sizes) > 1:
            print(f"exponent of time over rows, imports left out, {side}: {exponent(sizes):.2f}")


def exponent(sizes: dict[int, Stages]) -> float:
    """The slope of log(seconds) over log(rows), by least squares."""
    points = [(math.log(count), math.log(sum(stages[stage]["seconds"] for stage in COMPARED))) for count, stages in sizes.items()]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


if __name__ == "__main__":
    main()
