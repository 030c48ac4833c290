"""How fast data goes in, and how much memory it takes, beside the chain a user would build today, in one run.

    python bench/data.py                 100k and 1M rows
    python bench/data.py --full          10M rows as well, for which the chain is not asked

Each size and side runs in a process of its own. Rows are short made-up prompt/completion lines, 1 % of them repeated and 1 %
nearly so. What the chain is and does is in bench/data_peer.py. Nothing is kept.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from data_laps import measure
from data_rows import generate

HERE = Path(__file__).resolve().parent
COMPARED = ("take in", "validate", "near duplicates", "split")
OURS_ALONE = ("other rules", "decontaminated split", "1 % more")

Stages = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--full", action="store_true", help="10M rows as well")
    parser.add_argument("--peer-rows", type=int, default=1_000_000, help="the chain is asked of no more rows than this")
    arguments = parser.parse_args()
    sizes = sorted({*arguments.rows, 10_000_000} if arguments.full else set(arguments.rows))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ours beside datasets + GX on pandas + datasketch", flush=True)
    sides = "   ".join(f"{side + ' s':>8} {'CPU s':>8} {'MB':>6}" for side in ("ours", "chain"))
    print(f"\n{'rows':>10}  {'stage':<20} {sides}   times as fast")
    ours: dict[int, Stages] = {}
    chain: dict[int, Stages] = {}
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder) / "inbox" / "rows.jsonl", count)
            if count <= arguments.peer_rows:
                chain[count] = measure(HERE / "data_peer.py", folder)
            beyond = "beyond" if count <= 1_000_000 else "no"
            ours[count] = measure(HERE / "data_ours.py", folder, str(count), beyond)
        show(count, ours[count], chain.get(count))
    summary(ours, chain)


def show(count: int, ours: Stages, chain: Stages | None) -> None:
    """The table's lines of one size."""
    for stage in ("imports", *COMPARED, *OURS_ALONE):
        if stage in ours:
            line(count, stage, ours[stage], chain.get(stage) if chain else None)
    line(count, "total", total(ours), total(chain) if chain else None)
    print(flush=True)


def line(count: int, stage: str, ours: dict[str, Any], chain: dict[str, Any] | None) -> None:
    def figures(found: dict[str, Any]) -> str:
        return f"{found['seconds']:>8.1f} {found['cpu']:>8.1f} {found['peak']:>6.0f}"

    ratio = f"{chain['seconds'] / ours['seconds']:>6.1f}" if chain else ""
    print(f"{count:>10,}  {stage:<20} {figures(ours)}   {figures(chain) if chain else '':<24}   {ratio}".rstrip())


def total(stages: Stages) -> dict[str, Any]:
    """All compared stages together, imports included."""
    parts = [stages[stage] for stage in ("imports", *COMPARED)]
    return {
        "seconds": sum(part["seconds"] for part in parts),
        "cpu": sum(part["cpu"] for part in parts),
        "peak": max(part["peak"] for part in parts),
    }


def summary(ours: dict[int, Stages], chain: dict[int, Stages]) -> None:
    for count, stages in ours.items():
        mine = total(stages)
        said = f"{count:>10,} rows: {count / mine['seconds']:,.0f} rows a second, peak {mine['peak']:.0f} MB"
        beside = max((size for size in chain if size <= count), default=None)
        if beside is not None:
            other = total(chain[beside])
            faster = (other["seconds"] / beside) / (mine["seconds"] / count)
            said += f"; {faster:.1f} times as fast as the chain a row, {other['peak'] / mine['peak']:.1f} times less memory"
            said += "" if beside == count else f" than it took for {beside:,}"
            said += f"; near duplicates found {stages['near duplicates']['found']:,}"
            said += f" (chain {chain[count]['near duplicates']['found']:,})" if beside == count else ""
        print(f"{said}; 1 % more rows wrote {stages['1 % more']['written']:.2%} of the snapshot's bytes")
    for name, side in (("ours", ours), ("chain", chain)):
        if len(side) > 1:
            print(f"exponent of time over rows, {name}, imports left out: {exponent(side):.2f}")


def exponent(side: dict[int, Stages]) -> float:
    """The slope of log(seconds) over log(rows), by least squares."""
    points = [(math.log(count), math.log(sum(stages[stage]["seconds"] for stage in COMPARED))) for count, stages in side.items()]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


if __name__ == "__main__":
    main()
