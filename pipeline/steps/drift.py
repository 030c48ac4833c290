"""Drift: are fresh rows like those before them, or like what production is asked? Judged in a report, never repaired.

What is drawn and how it is compared are curation/drawing.py's and evaluation/drift.py's knowledge. What becomes of drift is for
the params to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipeline.curation.drawing import columns_of, draw, fresh_shards, last_shards
from pipeline.curation.traffic import read_traffic
from pipeline.curation.words import telling_words, word_vectors
from pipeline.domain.data import Shard, Snapshot
from pipeline.domain.drift import DriftReport, Named, Shift
from pipeline.errors import Misuse
from pipeline.evaluation.drift import (
    LEAST_ROWS,
    Aspect,
    Compared,
    NameAspect,
    NumberAspect,
    VectorAspect,
    compare,
    psi,
    shuffles_for,
)
from pipeline.evaluation.drift_page import drift_page
from pipeline.params.drift import DriftParams
from pipeline.ports import Embedder, Progress, silent
from pipeline.spoken.languages import language

_NAMES = 8
_OF_TRAFFIC = ("input_length", "output_length", "label", "language", "text")


@dataclass(frozen=True, slots=True)
class Side:
    """The rows drawn of one side, by column (text, answer, label, kind, origin, language), and how many rows there are in
    all. A column that is not known is missing, but languages are then told from the texts."""

    what: str
    rows: int
    columns: Mapping[str, Sequence[str]]

    @property
    def drawn(self) -> int:
        return len(self.columns["text"])


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


def judge(
    snapshot: str,
    other: str | None,
    reference: Side,
    fresh: Side,
    params: DriftParams,
    embedder: Embedder | None,
    refused: int = 0,
) -> DriftReport:
    """Compare two sides in the aspects that params name and both have. snapshot, other: see DriftReport."""
    report = DriftReport(
        snapshot=snapshot,
        other=other,
        reference=reference.what,
        fresh=fresh.what,
        policy=params.policy,
        false_alarms=params.false_alarms,
        min_effect=params.min_effect,
        reference_rows=reference.rows,
        fresh_rows=fresh.rows,
        reference_compared=reference.drawn,
        fresh_compared=fresh.drawn,
        refused=refused,
    )
    if min(reference.drawn, fresh.drawn) < LEAST_ROWS:
        return report.model_copy(update={"too_few": True})
    aspects, columns = _aspects(reference, fresh, params, embedder)
    sides = np.arange(reference.drawn + fresh.drawn) >= reference.drawn
    shuffles = shuffles_for(params.false_alarms, len(aspects))
    found = compare(aspects, sides, shuffles=shuffles)
    shifts = tuple(_shift(c, columns[c.name], reference.drawn, params) for c in found)
    return report.model_copy(update={"permutations": shuffles, "shifts": shifts})


def _aspects(
    reference: Side, fresh: Side, params: DriftParams, embedder: Embedder | None
) -> tuple[list[Aspect], dict[str, Sequence[Any]]]:
    """What is compared, and the column of each aspect, reference rows first. An aspect in which all rows agree is left out."""

    def both(name: str) -> list[str]:
        if name not in reference.columns or name not in fresh.columns:
            return []
        return [*reference.columns[name], *fresh.columns[name]]

    columns: dict[str, Sequence[Any]] = {}
    for aspect in params.aspects:
        if aspect == "input_length":
            columns[aspect] = [len(text) for text in both("text")]
        elif aspect == "output_length":
            columns[aspect] = [] if both("label") else [len(text) for text in both("answer")]
        elif aspect == "language":
            columns[aspect] = both("language") or [language(text) for text in both("text")]
        else:
            columns[aspect] = both(aspect)
    columns = {aspect: column for aspect, column in columns.items() if len(set(column)) > 1}
    aspects: list[Aspect] = []
    for name, column in columns.items():
        if name == "text":
            aspects.append(VectorAspect(name, _vectors(column, params, embedder)))
        elif name.endswith("_length"):
            aspects.append(NumberAspect(name, column))
        else:
            aspects.append(NameAspect(name, column))
    return aspects, columns


def _vectors(texts: Sequence[str], params: DriftParams, embedder: Embedder | None) -> Any:
    if params.text == "words":
        return word_vectors(texts)[0]
    if embedder is None:
        raise Misuse("nothing here makes embeddings of texts", fix="set drift.text to words")
    return embedder.embed(texts)


def _shift(found: Compared, column: Sequence[Any], cut: int, params: DriftParams) -> Shift:
    before, after = column[:cut], column[cut:]
    shift = Shift(
        aspect=found.name,
        effect=found.effect,
        p=found.p,
        adjusted=found.adjusted,
        drifted=found.adjusted <= params.false_alarms and found.effect >= params.min_effect,
    )
    if found.name == "text":
        told = telling_words(column, [i >= cut for i in range(len(column))], _NAMES)
        names = tuple(Named(name=word, reference=round(r, 4), fresh=round(f, 4)) for word, r, f in told)
        return shift.model_copy(update={"names": names})
    if found.name.endswith("_length"):
        return shift.model_copy(update={"reference": float(median(before)), "fresh": float(median(after))})
    ours, theirs = Counter(after), Counter(before)
    named = [
        Named(name=n[:80], reference=round(theirs[n] / len(before), 4), fresh=round(ours[n] / len(after), 4))
        for n in ours | theirs
    ]
    named.sort(key=lambda n: (-abs(n.fresh - n.reference), n.name))
    return shift.model_copy(update={"psi": round(psi(before, after), 4), "names": tuple(named[:_NAMES])})


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
