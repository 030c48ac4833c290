"""Test rows and training curves in, predictions in and out: the only module of this room that reads and
writes files of a run.

`predictions.parquet` has one row a test row, in the order of the test file: id, group, expected, one column of answers a
subject (`candidate`, `champion`, `base`), and one column a subject and per-row metric (`candidate_exact_match`, …), empty where
the metric does not count the row.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.domain.curated import SplitSide
from pipeline.domain.data import EXAMPLE_COLUMNS, ExampleKind
from pipeline.domain.measured import BASE, CANDIDATE, CHAMPION, Rung
from pipeline.domain.record import FileDigest, digest_bytes, digest_file
from pipeline.errors import Broken, Tampered
from pipeline.evaluation.statistics import Numbers
from pipeline.spoken.languages import language
from pipeline.spoken.plain_text import input_text

SUBJECTS = (CANDIDATE, CHAMPION, BASE, *(rung.value for rung in Rung))
"""All that predictions may be of, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The columns of one split, all of the same length; see domain.data.Example for what they hold."""

    ids: list[str]
    groups: list[str]
    inputs: list[str]
    expected: list[str]
    meta: list[str]
    sources: list[str]
    kinds: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def field(self, name: str) -> list[str | None]:
        """`label` (what is expected), `source`, `length`, `language` of what is asked, or a metadata field: one value a row, None
        where the row has no such field."""
        if name == "label":
            return list(self.expected)
        if name == "source":
            return list(self.sources)
        if name == "length":
            return list(_quartiles([len(text) for text in self.asked()]))
        if name == "language":
            return [language(text) for text in self.asked()]
        return [None if (value := json.loads(meta).get(name)) is None else str(value) for meta in self.meta]

    def asked(self) -> list[str]:
        """What each row says before its answer, as plain text; of a document, which nobody asks, the document."""
        kinds = self.kinds or [ExampleKind.ANSWER if input[:1] in ("[", "{") else ExampleKind.LABEL for input in self.inputs]
        texts = [input_text(input, kind) for input, kind in zip(self.inputs, kinds, strict=True)]
        return [
            text or whole if kind == ExampleKind.TEXT else text
            for text, whole, kind in zip(texts, self.expected, kinds, strict=True)
        ]

    def places(self, kinds: Collection[str]) -> list[int]:
        """The numbers of the rows that are of `kinds`; of all rows where nothing is known of their kinds."""
        return [at for at, kind in enumerate(self.kinds) if kind in kinds] if self.kinds else list(range(len(self)))

    def only(self, places: Sequence[int]) -> SplitRows:
        """The rows at `places`."""
        if len(places) == len(self):
            return self
        columns = (self.ids, self.groups, self.inputs, self.expected, self.meta, self.sources, self.kinds)
        return SplitRows(*([column[at] for at in places] if column else [] for column in columns))


@dataclass(frozen=True, slots=True)
class Said:
    """What one subject said to rows: a text each (an answer, a label, or log-probabilities; see likelihoods.py), and, of labels,
    the probability that it gave the one it said; None where it has none to give."""

    texts: Sequence[str]
    confidences: Sequence[float] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def only(self, places: Sequence[int]) -> Said:
        """What was said to the rows at `places`."""
        sure = self.confidences
        return Said([self.texts[at] for at in places], None if sure is None else [sure[at] for at in places])


@dataclass(frozen=True, slots=True)
class Predictions:
    """What predictions.parquet holds: answers[subject] and scores[subject, metric], a value a row (None: it is not counted)."""

    ids: list[str]
    groups: list[str]
    expected: list[str]
    answers: dict[str, list[str]]
    scores: dict[tuple[str, str], list[float | None]]


def read_split(folder: Path, side: SplitSide, kinds: Collection[str] | None = None) -> SplitRows:
    """The rows of one side of the split, whose files lie in `folder`, in the order of the snapshot; of `kinds` alone if given.

    Raises Tampered when a file's bytes are not those recorded, Broken when one is unreadable.
    """
    columns: dict[str, list[Any]] = {name: [] for name in EXAMPLE_COLUMNS}
    for part in side.parts:
        read = _read(folder / part.path, part, f"the split file {part.path}", EXAMPLE_COLUMNS)
        wanted = [at for at, kind in enumerate(read["kind"]) if kinds is None or kind in kinds]
        for name in EXAMPLE_COLUMNS:
            columns[name] += read[name] if len(wanted) == len(read["kind"]) else [read[name][at] for at in wanted]
    return SplitRows(
        ids=columns["id"],
        groups=columns["group"],
        inputs=columns["input"],
        expected=columns["output"],
        meta=columns["meta"],
        sources=columns["source"],
        kinds=columns["kind"],
    )


def read_ids(folder: Path, side: SplitSide) -> set[str]:
    """The ids of all rows of one side. Raises like `read_split`."""
    return {row for part in side.parts for row in _read(folder / part.path, part, f"the split file {part.path}", ("id",))["id"]}


def write_predictions(
    folder: Path, rows: SplitRows, said: Mapping[str, Said], scores: Mapping[tuple[str, str], Numbers]
) -> FileDigest:
    """Write `folder`/predictions.parquet and describe it; NaN is no score. The same rows and answers give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns: dict[str, Any] = {
        name: pa.array(values, pa.string())
        for name, values in {"id": rows.ids, "group": rows.groups, "expected": rows.expected}.items()
    }
    columns |= {subject: pa.array(given.texts, pa.string()) for subject, given in said.items()}
    for (subject, metric), values in scores.items():
        columns[f"{subject}_{metric}"] = pa.array(values, pa.float64(), from_pandas=True)
    path = folder / "predictions.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path, compression="zstd")
    return FileDigest(path=path.name, sha256=digest_file(path), bytes=path.stat().st_size)


def read_predictions(path: Path, file: FileDigest) -> Predictions:
    """Read what `write_predictions` wrote. Raises Tampered or Broken like `read_split`."""
    columns = _read(path, file, "the predictions file", ("id", "group", "expected"))
    subjects = [s for s in SUBJECTS if s in columns]
    scores = {(s, name.removeprefix(f"{s}_")): columns[name] for s in subjects for name in columns if name.startswith(f"{s}_")}
    return Predictions(columns["id"], columns["group"], columns["expected"], {s: columns[s] for s in subjects}, scores)


def read_curves(path: Path) -> list[dict[str, Any]]:
    """Points of a training, in order: each with `step` and some of loss, eval_loss, learning_rate, grad_norm. No file: none."""
    points: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            points.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise Broken(f"the training curves cannot be read: {error}", where=f"{path}:{number}") from error
    return points


def _quartiles(lengths: Sequence[int]) -> list[str]:
    """The quarter that each length lies in, by its ends: "1-40 characters". Equal lengths lie in one, so there may be fewer."""
    ordered = sorted(lengths)
    ends = sorted({ordered[min(len(ordered) * part // 4, len(ordered) - 1)] for part in range(1, 5)}) if ordered else []
    places = [bisect_left(ends, length) for length in lengths]
    least = {place: min(length for at, length in zip(places, lengths, strict=True) if at == place) for place in set(places)}
    names = {at: f"{low}-{ends[at]}" if low < ends[at] else str(low) for at, low in least.items()}
    return [f"{names[place]} characters" for place in places]


def _read(path: Path, file: FileDigest, what: str, needed: Sequence[str]) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    # Hash and parse the same bytes: between two reads the file could be swapped.
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Broken(f"{what} cannot be read: {error}", where=str(path)) from error
    if digest_bytes(data) != file.sha256:
        raise Tampered(f"{what} does not have the recorded digest {file.sha256[:12]}", where=str(path))
    try:
        columns: dict[str, list[Any]] = parquet.read_table(pa.BufferReader(data)).to_pydict()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Broken(f"{what} is no readable Parquet file: {error}", where=str(path)) from error
    if missing := [name for name in needed if name not in columns]:
        raise Broken(f"{what} lacks the columns {', '.join(missing)}", where=str(path))
    return columns
