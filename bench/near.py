"""Near duplicates: what is found of planted copies and of the truth, and how fast, beside datasketch.

    python bench/near.py [--rows 1000 10000] [--threshold 0.8] [--alone]

Texts are twelve made-up words; a tenth of them are copies of earlier ones with a letter, a word or two words changed, and loud.
First a small set, against the exact similarity of all pairs: recall is over the rows that are alike to any earlier one,
precision over the rows that were found. Then each size in a process of its own, for us and for a plain MinHash LSH with
datasketch (128 permutations, the same shingles, candidates not compared exactly): processor seconds without imports, peak
memory, and what was found of the planted copies that are at least `threshold` alike. Nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprstvz" for b in "aeiou" for c in "lmnrst"]
SMALL = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--alone", action="store_true", help="without datasketch, which takes minutes for a million rows")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        engine, count = arguments.measure
        print(json.dumps(measure(ENGINES[engine], int(count), arguments.threshold)))
        return
    for threshold in (0.5, 0.7, 0.8, 0.9):
        against_all_pairs(threshold)
    print(f"\n{'rows':>9}  {'':<10}  {'CPU s':>8}  {'us/row':>7}  {'peak MB':>8}  planted copies found")
    for count in arguments.rows:
        spent = {}
        for engine in ["tuneline"] if arguments.alone else ENGINES:
            command = [sys.executable, __file__, "--threshold", str(arguments.threshold), "--measure", engine, str(count)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            spent[engine] = found["seconds"]
            share = f"{found['found']} of {found['planted']}, and {found['others']} others"
            per_row = found["seconds"] / count * 1e6
            print(f"{count:>9}  {engine:<10}  {found['seconds']:>8.2f}  {per_row:>7.1f}  {found['peak']:>8.0f}  {share}")
        if "datasketch" in spent:
            print(f"{'':>9}  datasketch takes {spent['datasketch'] / spent['tuneline']:.1f} times the processor time")


def planted(count: int) -> tuple[list[str], dict[int, int]]:
    """(texts, {row: the earlier row that it was copied from})"""
    rng = random.Random(count)
    texts = [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]
    copies = {row: rng.randrange(count // 2) for row in rng.sample(range(count // 2, count), count // 10)}
    for row, source in copies.items():
        words = texts[source].split()
        for place in rng.sample(range(12), rng.randrange(3)):
            words[place] = rng.choice(WORDS)
        place = rng.randrange(12)
        words[place] = words[place][:-1] + rng.choice("aeiou")
        texts[row] = ", ".join(words).upper()
    return texts, copies


def against_all_pairs(threshold: float) -> None:
    from pipeline.curation.near import near_duplicates
    from pipeline.curation.shingles import shingles

    texts, _ = planted(SMALL)
    sets = [shingles(text) for text in texts]

    def alike(a: int, b: int) -> float:
        return len(sets[a] & sets[b]) / len(sets[a] | sets[b])

    due = {row for row in range(SMALL) if any(alike(row, earlier) >= threshold for earlier in range(row))}
    with tempfile.TemporaryDirectory() as folder:
        found = near_duplicates(lambda: [texts], threshold=threshold, scratch=Path(folder))
    right = sum(alike(row, earlier) >= threshold for row, earlier in zip(found.row.tolist(), found.earlier.tolist(), strict=True))
    hit = len(due & set(found.row.tolist()))
    print(f"all pairs of {SMALL}, threshold {threshold}: recall {hit} of {len(due)}, precision {right} of {len(found)}")


def measure(find: Callable[[list[str], float], Iterator[int]], count: int, threshold: float) -> dict[str, float]:
    from pipeline.curation.shingles import shingles

    texts, copies = planted(count)
    list(find(texts[:10], threshold))  # imports and tables that are made once
    started = time.process_time()
    rows = set(find(texts, threshold))
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    due = set()
    for row, source in copies.items():
        one, other = shingles(texts[row]), shingles(texts[source])
        if len(one & other) >= threshold * len(one | other):
            due.add(row)
    return {"seconds": seconds, "peak": peak, "planted": len(due), "found": len(due & rows), "others": len(rows - due)}


def tuneline(texts: list[str], threshold: float) -> Iterator[int]:
    from pipeline.curation.near import near_duplicates

    with tempfile.TemporaryDirectory() as folder:
        batches = [texts[start : start + 8192] for start in range(0, len(texts), 8192)]
        yield from near_duplicates(lambda: batches, threshold=threshold, scratch=Path(folder)).row.tolist()


def datasketch(texts: list[str], threshold: float) -> Iterator[int]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=128)
    for row, text in enumerate(texts):
        folded = f" {' '.join(text.lower().replace(',', ' ').split())} "
        signature = MinHash(num_perm=128)
        signature.update_batch([folded[i : i + 5].encode() for i in range(len(folded) - 4)])
        if index.query(signature):
            yield row
        else:
            index.insert(row, signature)


ENGINES = {"tuneline": tuneline, "datasketch": datasketch}

if __name__ == "__main__":
    main()
