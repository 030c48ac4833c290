"""How fast data goes in: ingest, validate (Great Expectations and Data Docs included) and split, with peak memory.

    python bench/data.py --rows 10000 100000 1000000

Each size runs in a process of its own, so that neither imports nor memory of one are part of another. Rows are short
prompt/completion lines of made-up words. Nothing is kept.
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
from pathlib import Path

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprstvz" for b in "aeiou" for c in "lmnrst"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    names = ("import", "ingest", "validate", "split", "total", "CPU")
    print(f"{'rows':>9}  {'MB':>6}  " + "  ".join(f"{name + ' s':>10}" for name in names) + "   rows/s  peak MB")
    for count in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            size = generate(Path(folder) / "inbox" / "rows.jsonl", count)
            command = [sys.executable, __file__, "--measure", folder]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        found["total"] = sum(found[name] for name in names[:4])
        times = "  ".join(f"{found[name]:>10.1f}" for name in names)
        print(f"{count:>9}  {size / 1e6:>6.1f}  {times}  {count / found['total']:>7.0f}  {found['peak']:>7.0f}")


def generate(path: Path, count: int) -> int:
    """Write `count` distinct rows and return the file's size in bytes."""
    rng = random.Random(count)
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            prompt = f"{' '.join(rng.choices(WORDS, k=12))} {number}"
            file.write(
                json.dumps({"prompt": prompt, "completion": " ".join(rng.choices(WORDS, k=8)), "week": number % 52}) + "\n"
            )
    return path.stat().st_size


def measure(folder: Path) -> dict[str, float]:
    """Seconds of each part by the clock, of all of it by the processor, and the peak resident memory of this process in MB."""
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        seconds[name] = time.perf_counter() - started
        started = time.perf_counter()

    import great_expectations  # noqa: F401  the dearest import, so that it is not counted as validation

    from pipeline.backends.great_expectations import GreatExpectations
    from pipeline.domain.data import Task
    from pipeline.params import IngestParams, SplitParams, ValidateParams
    from pipeline.steps.ingest import ingest
    from pipeline.steps.split import split
    from pipeline.steps.validate import validate

    lap("import")
    data = folder / "snapshot"
    snapshot = ingest(IngestParams(), dataset="bench", task=Task.GENERATE, sources=[folder / "inbox"], parent=None, folder=data)
    lap("ingest")
    report = validate(snapshot, ValidateParams(), folder=data, out=folder / "validate", expectations=GreatExpectations())
    lap("validate")
    split(snapshot, report, SplitParams(), folder=data, out=folder / "split")
    lap("split")
    if not report.passed:
        raise SystemExit(f"the made-up rows did not pass: {report.failures}")
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {**seconds, "CPU": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024}


if __name__ == "__main__":
    main()
