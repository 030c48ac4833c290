"""Who has this record: which snapshots hold it, which runs trained on it, held it out or left it out, which releases saw it.

Answered from the record index; files are opened only where it points. Nothing is changed here but the index, which can be made
again at any time. Quarantined rows are in no index: they are read through, when asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.curation.formats import level
from pipeline.domain.data import QuarantinedRow
from pipeline.domain.erasure import erased_files, left_of, tombstone
from pipeline.domain.privacy import asked, keyed
from pipeline.domain.release import Event
from pipeline.domain.sightings import DataFile, FoundRow, RunData, RunSighting, WhoHas, release_sightings
from pipeline.errors import Broken
from pipeline.ports import Ledger, PastRuns, Progress, RecordIndex, silent

ROWS_SHOWN = 1000
"""So many rows are followed into the runs; a text that more rows share (a greeting) is counted, and these are followed."""


def who_has(
    record: str,
    *,
    model: str,
    key: bytes,
    past: PastRuns,
    index: RecordIndex,
    ledger: Ledger,
    stages: Sequence[str] = (),
    quarantine: bool = False,
    progress: Progress = silent,
) -> WhoHas:
    """Where `record` (an example id, a text of a prompt or an answer, or keyed:DIGEST) was seen among a model's kept runs.

    A text is found whatever its case, white space and Unicode composition, as a whole turn or answer, not as a part of one.
    quarantine: also read through all quarantined rows for the text, which takes as long as reading them does. What is not indexed
    yet is indexed first. Raises Misuse for what is no record.
    """
    sought = asked(key, record, level)
    runs = past.runs(model)
    events = ledger.events(model)
    search = _Search(StoredOrLeft(past, events), index, key, progress)
    rows = tuple(search.rows([*_shards(runs), *_reserved(runs)], sought.digest))
    sightings = [seen for run in runs if (seen := search.sighting(run))]
    text = level(record) if sought.kind == "text" else ""
    before = tombstone(events, sought.digest)
    return WhoHas(
        model=model,
        asked=sought.kind,
        keyed=sought.digest,
        count=search.count,
        rows=rows,
        runs=tuple(sightings),
        releases=tuple(release_sightings(events, sightings, stages)),
        quarantined=tuple(_quarantined(runs, search.files, text)) if quarantine and text else (),
        searched_quarantine=quarantine and bool(text),
        unreadable=tuple(dict.fromkeys(search.unreadable)),
        forgotten=before,
    )


def _shards(runs: Iterable[RunData]) -> list[DataFile]:
    return list({file.name: file for run in runs for file in run.shards}.values())


def _reserved(runs: Iterable[RunData]) -> list[DataFile]:
    return list({file.name: file for run in runs for file in run.reserved}.values())


class StoredOrLeft:
    """Stored copies of the files of past runs; of a table that was taken away on request, what is left of it."""

    def __init__(self, past: PastRuns, events: Sequence[Event]) -> None:
        self._past, self._left, self._erased = past, left_of(events), erased_files(events)

    def __call__(self, md5: str) -> Path | None:
        stored = self._past.stored(md5)
        while stored is None and md5 in self._left:
            md5 = self._left[md5]
            stored = self._past.stored(md5)
        return stored

    def lost(self, md5: str) -> bool:
        """Whether a file that is not there was not taken away on request."""
        return md5 not in self._erased


class _Search:
    """Rows of the record by file, and what the files of each run say of them. A file that runs share is read once."""

    def __init__(self, files: StoredOrLeft, index: RecordIndex, key: bytes, progress: Progress) -> None:
        self.files, self._index, self._key, self._progress = files, index, key, progress
        self._ids: dict[str, list[str]] = {}
        self._total: dict[str, int] = {}
        self._unread = 0
        self._among: dict[str, list[str]] = {}
        self.unreadable: list[str] = []

    @property
    def count(self) -> int:
        """Examples that were found. One may lie in two shards, where a later snapshot has a shard less a forgotten row."""
        return len({id for ids in self._ids.values() for id in ids}) + self._unread

    def rows(self, files: Sequence[DataFile], digest: str) -> Iterator[FoundRow]:
        """The rows that the digest names, at most ROWS_SHOWN of them, each example once."""
        seen: set[str] = set()
        read = 0
        for done, file in enumerate(files, start=1):
            self._progress("looking into shards", done, len(files))
            stored = self._indexed(file)
            if stored is None:
                continue
            numbers = self._index.rows(file.name, [digest])
            if not numbers:
                continue
            self._total[file.name] = len(numbers)
            some = numbers[: ROWS_SHOWN - read]
            read += len(some)
            self._unread += len(numbers) - len(some)
            for row, (id, source, line) in read_rows(stored, some, ("id", "source", "line")):
                self._ids.setdefault(file.name, []).append(id)
                if id not in seen:
                    seen.add(id)
                    yield FoundRow(id=id, keyed=keyed(self._key, id), shard=file.name, row=row, place=f"{source}:{line}")

    def sighting(self, run: RunData) -> RunSighting | None:
        """What a run did with the rows that were found; None when it had none of them."""
        held = [file.name for file in run.shards if file.name in self._total]
        reserved = sum(self._total[file.name] for file in run.reserved if file.name in self._total)
        if not held and not reserved:
            return None
        sides = {
            side: [id for file in files if file.name in held for id in self._found_in(file)] for side, files in run.sides.items()
        }
        placed = {id for ids in sides.values() for id in ids}
        missing = [id for name in held for id in self._ids.get(name, ()) if id not in placed] if run.sides else []
        return RunSighting(
            run=run.run,
            number=run.number,
            kind=run.kind,
            tag=run.tag,
            snapshot=run.snapshot,
            rows=sum(self._total[name] for name in held),
            reserved=reserved,
            left_out=dict(Counter(self._why(run, missing))),
            **{side: len(ids) for side, ids in sides.items()},
        )

    def _found_in(self, file: DataFile) -> list[str]:
        """Which of the rows of its shard a side's file has; files with the same bytes are read once."""
        if file.md5 not in self._among:
            stored = self.files(file.md5)
            if stored is None and self.files.lost(file.md5):
                self.unreadable.append(f"{file.name} of a split")
            self._among[file.md5] = _ids_among(stored, self._ids.get(file.name, ())) if stored else []
        return self._among[file.md5]

    def _why(self, run: RunData, ids: Sequence[str]) -> Iterator[str]:
        """Why each row is on no side: the rule that dropped it, or a leak."""
        left = set(ids)
        for file, column, prefix in ((run.dropped, "rule", ""), (run.leaked, "how", "leak: ")):
            stored = self._indexed(file) if file and left else None
            if stored is None or file is None:
                continue
            numbers = self._index.rows(file.name, [keyed(self._key, id) for id in left])
            for _, (id, reason) in read_rows(stored, numbers, ("id", column)):
                if id in left:
                    left.discard(id)
                    yield f"{prefix}{reason}"
        yield from ["unknown"] * len(left)

    def _indexed(self, file: DataFile) -> Path | None:
        stored = self.files(file.md5)
        if stored is None:
            if self.files.lost(file.md5):
                self.unreadable.append(file.name)
            return None
        self._index.add(file.name, stored)
        return stored


def read_rows(path: Path, numbers: Sequence[int], columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """(row number, values of `columns`) of the given rows, in order; only the row groups that hold them are read."""
    import pyarrow.parquet as pq

    left = list(numbers)
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            if not left:
                return
            end = start + file.metadata.row_group(group).num_rows
            if left[0] < end:
                here = [number for number in left if number < end]
                table = file.read_row_group(group, columns=list(columns))
                for number in here:
                    # No take: making an array of the numbers imports pandas, which costs more than all else here.
                    row = table.slice(number - start, 1)
                    yield number, tuple(row.column(name)[0].as_py() for name in columns)
                left = left[len(here) :]
            start = end
    if left:
        raise Broken(f"there is no row {left[0]} in this file", where=str(path), fix="remove the folder of indexes and ask again")


def _ids_among(path: Path, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that a Parquet file holds."""
    import pyarrow.parquet as pq

    wanted = set(ids)
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(columns=["id"], use_threads=False)
        return [id for batch in batches for id in batch.column(0).to_pylist() if id in wanted] if wanted else []


def _quarantined(runs: Sequence[RunData], files: StoredOrLeft, levelled: str) -> Iterator[str]:
    """`source:line: code` of quarantined rows whose bytes hold the levelled text, as it stands or as JSON writes it."""
    from pipeline.curation.forgetting import quarantined_text

    forms = {levelled, level(json.dumps(levelled)[1:-1]), level(json.dumps(levelled, ensure_ascii=False)[1:-1])}
    for file in {file.name: file for run in runs for file in run.quarantine}.values():
        stored = files(file.md5)
        if stored is None:
            continue
        with stored.open("rb") as lines:
            for line in lines:
                row = QuarantinedRow.model_validate_json(line)
                if any(form in level(quarantined_text(row)) for form in forms):
                    yield f"{row.source}:{row.line}: {row.code}"
