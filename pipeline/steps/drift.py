"""Drift: are fresh rows like those before them, or like what production is asked? Judged in a report, never repaired.

What is drawn is curation/drawing.py's knowledge, how sides are compared comparing.py's. What becomes of drift is for the params
to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.comparing import Side, judge
from pipeline.curation.drawing import columns_of, draw, fresh_shards, last_shards
from pipeline.curation.traffic import read_traffic
from pipeline.domain.data import Shard, Snapshot
from pipeline.domain.drift import DriftReport
from pipeline.evaluation.drift_page import drift_page
from pipeline.params.drift import DriftParams
from pipeline.ports import Embedder, Progress, silent

_OF_TRAFFIC = ("input_length", "output_length", "label", "language", "text")


def drift_of_batch(
    snapshot: Snapshot,
    params: DriftParams,
    *,
    folder: Path,
    out: Path | None,
    embedder: Embedder | None = None,
    progress: Progress = silent,
) -> DriftReport:
    """Compare the newest batch of the snapshot in `folder` with the rows before it; write drift.json and drift.html below `out`.

    embedder: needed when params compare texts by embeddings. Raises Tampered when a shard is not what was recorded.
    """
    if params.policy == "off":
        report = judge(snapshot.digest, None, Side("earlier rows", 0, {"text": ()}), Side("batch", 0, {"text": ()}), params, None)
        _write(report, (), out)
        return report
    progress("drawing rows", 0, 2)
    fresh = fresh_shards(snapshot)
    before = snapshot.shards[: len(snapshot.shards) - len(fresh)]
    if params.reference == "previous":
        before = last_shards(before, params.max_rows)
    reference_side = _side("earlier rows", folder, snapshot, before, params)
    fresh_side = _side("batch", folder, snapshot, fresh, params)
    progress("comparing", 1, 2)
    report = judge(snapshot.digest, None, reference_side, fresh_side, params, embedder)
    _write(report, (reference_side, fresh_side), out)
    progress("compared", 2, 2)
    return report


def drift_between(
    earlier: Snapshot,
    later: Snapshot,
    params: DriftParams,
    *,
    folders: tuple[Path, Path],
    out: Path | None = None,
    embedder: Embedder | None = None,
) -> DriftReport:
    """Compare all rows of one snapshot with those of another that the first does not have; all of them if it has them all.

    folders: of the earlier and of the later one. out: where drift.json and drift.html go, if anywhere.
    """
    known = {shard.sha256 for shard in earlier.shards}
    added = tuple(shard for shard in later.shards if shard.sha256 not in known)
    reference_side = _side("earlier snapshot", folders[0], earlier, earlier.shards, params)
    fresh_side = _side("rows added" if added else "later snapshot", folders[1], later, added or later.shards, params)
    report = judge(later.digest, earlier.digest, reference_side, fresh_side, params, embedder)
    _write(report, (reference_side, fresh_side), out)
    return report


def drift_from_traffic(
    snapshot: Snapshot,
    traffic: Path,
    params: DriftParams,
    *,
    folder: Path,
    out: Path | None = None,
    embedder: Embedder | None = None,
) -> DriftReport:
    """Compare what production is asked (see curation/traffic.py for the file) with all rows of a snapshot.

    Raises BadInput when the file is none of requests.
    """
    found = read_traffic(traffic, params.max_rows)
    reference_side = _side("snapshot", folder, snapshot, snapshot.shards, params)
    fresh_side = Side("traffic", found.rows, found.columns)
    asked = params.model_copy(update={"aspects": tuple(a for a in params.aspects if a in _OF_TRAFFIC) or ("text",)})
    report = judge(snapshot.digest, found.sha256, reference_side, fresh_side, asked, embedder, refused=found.refused)
    _write(report, (reference_side, fresh_side), out)
    return report


def _side(what: str, folder: Path, snapshot: Snapshot, shards: Sequence[Shard], params: DriftParams) -> Side:
    rows = draw(folder, shards, params.max_rows)
    return Side(what, sum(shard.rows for shard in shards), columns_of(rows, snapshot.sources))


def _write(report: DriftReport, sides: Sequence[Side], out: Path | None) -> None:
    if out is None:
        return
    # Files here may be hard links into the data store's cache: they are unlinked and never written to.
    out.mkdir(parents=True, exist_ok=True)
    for name in ("drift.json", "drift.html"):
        (out / name).unlink(missing_ok=True)
    lengths = {
        name: tuple([len(text) for text in side.columns.get(column, ())] for side in sides)
        for name, column in (("input_length", "text"), ("output_length", "answer"))
        if name in {shift.aspect for shift in report.shifts}
    }
    (out / "drift.html").write_text(drift_page(report, lengths), encoding="utf-8")
    report.write(out / "drift.json")
