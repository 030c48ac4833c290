"""The desk where chunks are handed out and what became of them is taken in, in their order, whoever is done first.

Here rows are counted, told from those that are known or forgotten, and given to the writer. What a row becomes is
curation/intake.py's, who works is curation/workers.py's or an engine's, and what a snapshot is steps/ingest.py's.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.curation.files import Opened
from pipeline.curation.intake import Intake, Taken
from pipeline.curation.keys import hex_keys
from pipeline.curation.reading import read_chunks
from pipeline.curation.seen import Seen
from pipeline.curation.shards import BatchWriter
from pipeline.domain.data import SourceFile
from pipeline.errors import TunelineError
from pipeline.params import IngestParams
from pipeline.ports import Crew, Progress

Forgotten = Callable[[Any], Sequence[bool]]
"""Says of each row of a pyarrow table of examples whether it was forgotten on request, and may not come back."""

_UNPACKED = 5
"""So many times its size a packed file of text holds, about."""


@dataclass(slots=True)
class _File:
    """A file on its way in, and where its rows ended so far: read = accepted + duplicate + quarantined + forgotten."""

    opened: Opened
    read: int = 0
    accepted: int = 0
    duplicate: int = 0
    quarantined: int = 0
    forgotten: int = 0
    altered: Counter[str] = field(default_factory=Counter)
    fitting: bool = False
    unfit: list[str] | None = None


@dataclass(slots=True)
class Desk:
    """Hands out chunks and takes what became of them in their order, whoever is done first: so the same snapshot comes out."""

    intake: Intake
    crew: Crew
    writer: BatchWriter
    known: Seen
    forgotten: Forgotten | None
    progress: Progress
    waiting: deque[tuple[_File, Future[Taken] | None]] = field(default_factory=deque)
    read: list[SourceFile] = field(default_factory=list)

    def take_in(self, files: Iterable[Opened], params: IngestParams) -> list[SourceFile]:
        """Where the rows of all `files` ended, in their order. Files are closed, whatever happens."""
        try:
            try:
                for opened in files:
                    self._hand_out(_File(opened), params)
            except TunelineError:
                # What is wrong with an earlier file is said first, as if one chunk had been taken in after the other.
                self._settle(down_to=0)
                raise
            self._settle(down_to=0)
        finally:
            for file, _ in self.waiting:
                file.opened.close()
        return self.read

    def _hand_out(self, file: _File, params: IngestParams) -> None:
        packed = file.opened.found.compressed or file.opened.found.kind == "parquet"
        self.crew.expect(file.opened.bytes * (_UNPACKED if packed else 1))
        format: str | None = None
        try:
            for chunk in read_chunks(file.opened, params):
                chunk = replace(chunk, format=format)
                self.waiting.append((file, self.crew.submit(chunk)))
                format = format or self.intake.tell(chunk)
                self._settle(down_to=self.crew.depth)
        except BaseException:
            file.opened.close()
            raise
        self.waiting.append((file, None))
        self._settle(down_to=self.crew.depth)

    def _settle(self, *, down_to: int) -> None:
        while len(self.waiting) > down_to:
            file, answer = self.waiting.popleft()
            try:
                if answer is not None:
                    self._add(file, answer.result())
                else:
                    self.read.append(self._finish(file))
            except BaseException:
                file.opened.close()
                raise

    def _add(self, file: _File, taken: Taken) -> None:
        examples = taken.examples
        file.read += taken.read
        file.quarantined += len(taken.rejects)
        file.altered.update(taken.altered)
        file.unfit = file.unfit or (None if file.fitting else taken.unfit)
        file.fitting = file.fitting or taken.fitting
        self.writer.reject(taken.rejects)
        if self.forgotten is not None and examples.num_rows:
            examples = _keep(examples, [not gone for gone in self.forgotten(examples)])
            file.forgotten += taken.examples.num_rows - examples.num_rows
        new = self.known.add(hex_keys(examples["id"]))
        file.accepted += int(new.sum())
        file.duplicate += len(new) - int(new.sum())
        self.writer.accept(examples if new.all() else _keep(examples, new))
        self.progress(f"reading {file.opened.found.name}", file.read, 0)

    def _finish(self, file: _File) -> SourceFile:
        opened, found = file.opened, file.opened.found
        if file.unfit is not None and not file.fitting:
            raise self.intake.wrong_fields(found.reading, file.unfit, found.where)
        opened.check_unchanged()
        opened.close()
        self.progress(f"read {found.name}", file.read, file.read)
        return SourceFile(
            name=found.name,
            sha256=opened.sha256,
            bytes=opened.bytes,
            read=file.read,
            accepted=file.accepted,
            duplicate=file.duplicate,
            quarantined=file.quarantined,
            forgotten=file.forgotten,
            origin=found.origin,
            license=found.license,
            watermark=found.watermark,
            altered=dict(sorted(file.altered.items())),
        )


def _keep(examples: Any, mask: Any) -> Any:
    import pyarrow as pa

    return examples.filter(pa.array(mask))
