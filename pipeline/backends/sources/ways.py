"""The port for sources: each entry of `ingest.sources` by the way in that it names, as local files, in the order of the entries.

What a file holds is never looked at here. Each way has a module of its own, imported when an entry needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backends.sources.archives import Limits, unpack
from pipeline.backends.sources.dataset_info import expanded
from pipeline.curation.finding import ARCHIVES, find, record_name
from pipeline.domain.data import SourceFile
from pipeline.params.ingest import IngestParams, SourceParams
from pipeline.ports import Found

if TYPE_CHECKING:
    from pipeline.backends.sources.feedback import Remarks


class AllWays:
    """Sources (see ports/rows.py) that puts what it unpacks and fetches below `staging`, an empty folder the caller removes.

    remarks: what people said of a model's answers, for entries that ask for feedback; None where there is none to be had.
    """

    def __init__(self, staging: Path, remarks: Remarks | None = None) -> None:
        self._staging = staging
        self._remarks = remarks
        self._folders = 0

    def find(
        self, params: IngestParams, *, root: Path | None, as_of: datetime | None, earlier: Sequence[SourceFile]
    ) -> Iterator[Found]:
        """See ports.Sources. What local paths name is looked for before anything is given, so that misuse is told at once."""
        root = root or Path.cwd()
        entries = list(expanded([params.entry_of(source) for source in params.sources], root))
        local: dict[int, list[Found]] = {}
        taken: set[Path] = set()
        for index, entry in enumerate(entries):
            if entry.path is not None:
                files = find([root / entry.path], root, reading=params.reading_of(entry), archives=True)
                local[index] = [replace(one, origin=_origin(entry, root)) for one in files if one.path not in taken]
                taken.update(one.path for one in local[index])
        for index, entry in enumerate(entries):
            for one in local[index] if entry.path is not None else self._remote(params, entry, root, as_of, earlier):
                if as_of is None or one.modified <= as_of.timestamp():
                    yield from self._whole(params, one, earlier)

    def _remote(
        self, params: IngestParams, entry: SourceParams, root: Path, as_of: datetime | None, earlier: Sequence[SourceFile]
    ) -> Iterator[Found]:
        reading = params.reading_of(entry)
        if entry.sql is not None:
            from pipeline.backends.sources.sql import fetch_rows

            return fetch_rows(
                entry, reading, self._folder(), root=root, as_of=as_of, earlier=earlier, limit=params.max_staged_bytes
            )
        if entry.objects is not None:
            from pipeline.backends.sources.objects import fetch_objects

            limits = Limits(params.max_members, params.max_staged_bytes)
            return fetch_objects(entry, reading, self._folder(), limits, as_of=as_of, earlier=earlier)
        if entry.feedback:
            from pipeline.backends.sources.feedback import fetch_feedback

            remarks = self._remarks or (lambda since, until: ())
            limit = params.max_staged_bytes
            return fetch_feedback(entry, reading, self._folder(), remarks, as_of=as_of, earlier=earlier, limit=limit)
        from pipeline.backends.sources.hub import find_dataset

        return find_dataset(entry, reading, root=root, earlier=earlier, limit=params.max_staged_bytes)

    def _whole(self, params: IngestParams, found: Found, earlier: Sequence[SourceFile]) -> Iterator[Found]:
        if found.kind not in ARCHIVES.values():
            yield found
            return
        limits = Limits(params.max_members, params.max_staged_bytes)
        known = frozenset(source.watermark for source in earlier if source.watermark is not None)
        yield from unpack(found, self._folder(), limits, known=known)

    def _folder(self) -> Path:
        self._folders += 1
        folder = self._staging / f"{self._folders:06d}"
        folder.mkdir()
        return folder


def _origin(entry: SourceParams, root: Path) -> str:
    """What records call an entry with a path: never an absolute path."""
    return entry.name or record_name(root / str(entry.path), root)
