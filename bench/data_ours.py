"""Our side of bench/data.py: ingest, validate, curate and split on a folder of files, a lap each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from data_laps import Laps
from data_rows import generate

THRESHOLD = 0.8
CORES = min(os.cpu_count() or 1, 8)


def main(folder: Path, count: int, *, beyond: bool) -> None:
    laps = Laps()
    import great_expectations  # noqa: F401  the dearest import, so that it is not counted as validation

    from pipeline.backends.great_expectations import GreatExpectations
    from pipeline.backends.secrets import TokenSecrets
    from pipeline.curation.row_rules import RowRules
    from pipeline.domain.curated import Frozen
    from pipeline.domain.data import Snapshot, Task
    from pipeline.params import CleanParams, CurateParams, IngestParams, LeakParams, NearDuplicates, SplitParams, ValidateParams
    from pipeline.steps.curate import curate
    from pipeline.steps.ingest import ingest
    from pipeline.steps.split import split
    from pipeline.steps.validate import validate

    data, scratch = folder / "snapshot", folder / "scratch"
    reserved = Snapshot(dataset="reserved", task=Task.GENERATE, parent=None, sources=(), shards=(), quarantine=())

    def take_in(parent: Snapshot | None) -> Snapshot:
        return ingest(
            IngestParams(),
            dataset="bench",
            task=Task.GENERATE,
            sources=[folder / "inbox"],
            parent=parent,
            folder=data,
            rules=RowRules(CleanParams(), secrets=TokenSecrets()),
            workers=CORES,
        )

    def split_into(out: Path, params: SplitParams) -> None:
        split(
            snapshot,
            curation,
            params,
            folder=data,
            curated=folder / "curate",
            out=out,
            frozen=Frozen(),
            frozen_folder=folder,
            reserved=reserved,
            reserved_folder=folder,
        )

    laps.lap("imports")
    snapshot = take_in(None)
    laps.lap("take in", left=snapshot.rows)
    report = validate(snapshot, ValidateParams(), folder=data, out=folder / "validate", expectations=GreatExpectations())
    if not report.passed:
        raise SystemExit(f"the made-up rows did not pass: {report.failures}")
    laps.lap("validate")
    near = NearDuplicates(policy="drop", threshold=THRESHOLD)
    params = CurateParams(repeats="off", contradictions="off", consistency="off", odd_answers="off", near_duplicates=near)
    scratch.mkdir()
    curation = curate(snapshot, report, params, folder=data, out=folder / "curate", scratch=scratch, workers=CORES)
    laps.lap("near duplicates", found=curation.dropped.rows)
    split_into(folder / "split", SplitParams(leaks=LeakParams(exact="off", near="off", ngram="off")))
    laps.lap("split")
    if beyond:
        curation = curate(snapshot, report, CurateParams(), folder=data, out=folder / "curate", scratch=scratch, workers=CORES)
        laps.lap("other rules")
        split_into(folder / "split", SplitParams(leaks=LeakParams(exact="warn", near="warn", ngram="warn")))
        laps.lap("decontaminated split")
    before = {path: path.stat().st_ino for path in data.rglob("*") if path.is_file()}
    held = sum(path.stat().st_size for path in before)
    generate(folder / "inbox" / "more.jsonl", count // 100, seed=1)
    laps.lap("making more rows")
    take_in(snapshot)
    new = [path for path in data.rglob("*") if path.is_file() and before.get(path) != path.stat().st_ino]
    laps.lap("1 % more", written=sum(path.stat().st_size for path in new) / held)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), beyond=sys.argv[3] == "beyond")
