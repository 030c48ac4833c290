"""A look at the sources that costs next to nothing: which files the last snapshot does not have, and roughly how many rows.

What a file holds is told by its digest, as ingest tells it; a file whose place, size and times are those of the last look is not
read again. Objects are listed, not fetched. What only a query or a download could tell is left to a run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.backends.sources.archives import Limits
from pipeline.backends.sources.dataset_info import expanded
from pipeline.curation.finding import ARCHIVES, find
from pipeline.domain.data import SourceFile
from pipeline.domain.record import digest_value
from pipeline.domain.triggers import Fresh
from pipeline.params.ingest import IngestParams, SourceParams
from pipeline.ports import Found

_PIECE = 1 << 20
_BY_LINES = ("jsonl", "csv", "txt")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was read: its digest, and how many lines it has."""

    sha256: str
    lines: int


def look(params: IngestParams, root: Path, earlier: Sequence[SourceFile], remembered: Path) -> Fresh:
    """What of `params.sources` is not among `earlier`. root: what paths are relative to. remembered: the file of the last look,
    made anew where it is missing or unreadable. Raises BadInput for a source that is not there, as ingest does."""
    memory, digests = _Memory(remembered), {source.sha256 for source in earlier}
    marks = {source.watermark for source in earlier if source.watermark}
    files, rows, newest, unseen = 0, 0, 0.0, list[str]()
    counted, paths, named = True, set[Path](), list[str]()
    for entry in expanded([params.entry_of(source) for source in params.sources], root):
        if entry.path is None and entry.objects is None:
            # What people said of answers is counted by a trigger of its own.
            if not entry.feedback and not _settled(entry, earlier):
                unseen.append(entry.origin)
            continue
        for found, modified in _listed(params, entry, root, earlier):
            if isinstance(found, Found):
                if found.path in paths:
                    continue
                paths.add(found.path)
                seen = memory.read(found.path)
                if seen is None or seen.sha256 in digests or (found.kind in ARCHIVES.values() and seen.sha256 in marks):
                    continue
                digests.add(seen.sha256)
                named.append(seen.sha256)
                plain = found.kind in _BY_LINES and not found.compressed
                rows, counted = rows + (seen.lines if plain else 0), counted and plain
            else:
                named.append(found)
                counted = False
            files, newest = files + 1, max(newest, modified)
    memory.keep()
    when = datetime.fromtimestamp(newest, UTC) if files else None
    digest = digest_value(sorted(named)) if named else ""
    return Fresh(files=files, rows=rows if counted else None, newest=when, unseen=tuple(unseen), digest=digest)


def _listed(
    params: IngestParams, entry: SourceParams, root: Path, earlier: Sequence[SourceFile]
) -> Iterator[tuple[Found | str, float]]:
    reading = params.reading_of(entry)
    if entry.path is not None:
        for found in find([root / entry.path], root, reading=reading, archives=True):
            yield found, found.modified
        return
    from pipeline.backends.sources.objects import list_objects

    limits = Limits(params.max_members, params.max_staged_bytes)
    yield from list_objects(entry, reading, limits, as_of=None, earlier=earlier)


def _settled(entry: SourceParams, earlier: Sequence[SourceFile]) -> bool:
    """Whether an entry that is neither files nor objects can have nothing new: a pinned data set that was taken in."""
    return entry.hub is not None and entry.revision is not None and any(source.origin == entry.origin for source in earlier)


class _Memory:
    """What files held when they were last read, by path, inode, size and times."""

    def __init__(self, path: Path) -> None:
        self._path, self._now = path, dict[str, list[object]]()
        try:
            self._last = json.loads(path.read_text())
        except (OSError, ValueError):
            self._last = {}

    def read(self, path: Path) -> _Seen | None:
        """None for a file that is gone, or changes under the reader: a later look tells."""
        try:
            before = os.lstat(path)
            key = [before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns]
            known = self._last.get(str(path)) if isinstance(self._last, dict) else None
            if isinstance(known, list) and known[:4] == key:
                seen = _Seen(str(known[4]), int(known[5]))
            else:
                seen = _read(path)
                after = os.lstat(path)
                if [after.st_ino, after.st_size, after.st_mtime_ns, after.st_ctime_ns] != key:
                    return seen  # new in any case, and not remembered
        except (OSError, ValueError, IndexError):
            return None
        self._now[str(path)] = [*key, seen.sha256, seen.lines]
        return seen

    def keep(self) -> None:
        if self._now == self._last:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(self._now))
        os.replace(fresh, self._path)


def _read(path: Path) -> _Seen:
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            lines += piece.count(b"\n")
            last = piece
    return _Seen(digest.hexdigest(), lines + (not last.endswith(b"\n")))
