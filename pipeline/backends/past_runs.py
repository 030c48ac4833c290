"""What kept runs say of their data, from git tags and the data store behind them. Implements ports.PastRuns.

A kept run never changes, so what was once read of it lies in the index folder under the name of its commit, and a look-up over
hundreds of runs starts no process but one. What the facts mean is domain/sightings.py's knowledge.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import ValidationError

from pipeline.backends.dvc import GitDvcArchive
from pipeline.backends.git import REFS, Git
from pipeline.backends.run_folder import run_key
from pipeline.domain.curated import Curation, SplitFile, Splits
from pipeline.domain.data import Shard, Snapshot
from pipeline.domain.record import Record
from pipeline.domain.sightings import DataFile, RunData
from pipeline.errors import Broken
from pipeline.workspace import Project, Workspace

KINDS = ("run", "data", "invalid")
SIDES = ("train", "eval", "test")
T = TypeVar("T", bound=Record)


class GitDvcPastRuns:
    """All kept runs of a project's models."""

    def __init__(self, git: Git, project: Project) -> None:
        self._git = git
        self._facts = project.index / "runs"
        self._archive = GitDvcArchive(git, project)

    def runs(self, model: str) -> tuple[RunData, ...]:
        found = []
        for name, commit in self._git.refs(model).items():
            kind, _, number = name.removeprefix(f"{model}/").partition("/")
            if kind in KINDS and number.isdecimal():
                found.append(self._of(model, kind, int(number), commit))
        return tuple(sorted(found, key=lambda run: run.number))

    def stored(self, md5: str) -> Path | None:
        return self._archive.find(md5)

    def files(self, commit: str) -> list[tuple[str, str]]:
        """(path in the run folder, MD5) of every file that a kept run tracks."""
        return self._archive.tracked(commit)

    def _of(self, model: str, kind: str, number: int, commit: str) -> RunData:
        cached = self._facts / f"{commit}.json"
        try:
            return RunData.model_validate_json(cached.read_bytes())
        except (OSError, ValidationError):
            pass
        data = self._read(model, kind, number, commit)
        cached.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = cached.with_name(f".{cached.name}.{os.getpid()}.tmp")
        temporary.write_text(data.model_dump_json(), encoding="utf-8")
        temporary.replace(cached)
        return data

    def _read(self, model: str, kind: str, number: int, commit: str) -> RunData:
        run = Workspace(Path())
        at = dict(self._archive.tracked(commit))
        snapshot = self._record(at, run.snapshot_record, Snapshot)
        if snapshot is None:
            raise Broken("the snapshot record of this run is gone", where=run_key(model, number), fix="restore it from a backup")
        reserved, curation = self._record(at, run.reserved_record, Snapshot), self._record(at, run.curation_record, Curation)
        splits = self._record(at, run.splits_record, Splits)
        # A run that brought in data alone carries the lock, and so the curation and splits, of the run before.
        if curation is not None and curation.snapshot != snapshot.digest:
            curation = None
        if splits is not None and splits.snapshot != snapshot.digest:
            splits = None
        return RunData(
            run=run_key(model, number),
            number=number,
            kind=kind,
            tag=f"{REFS}/{model}/{kind}/{number:04d}",
            commit=commit,
            snapshot=snapshot.digest,
            sources=tuple(dict.fromkeys(source.name for source in (*snapshot.sources, *(reserved.sources if reserved else ())))),
            shards=_listed(at, run.snapshot, snapshot.shards),
            quarantine=_listed(at, run.snapshot, snapshot.quarantine),
            reserved=_listed(at, run.reserved, reserved.shards) if reserved else (),
            sides={side: _listed(at, run.splits, getattr(splits, side).parts) for side in SIDES} if splits else {},
            dropped=_one(at, run.curation, curation.dropped if curation else None),
            leaked=_one(at, run.splits, splits.leaks if splits else None),
        )

    def _record(self, at: Mapping[str, str], path: Path, kind: type[T]) -> T | None:
        md5 = at.get(path.as_posix())
        stored = self._archive.find(md5) if md5 else None
        return kind.read(stored) if stored else None


def _listed(at: Mapping[str, str], folder: Path, files: Sequence[Shard | SplitFile]) -> tuple[DataFile, ...]:
    """Files of a record by the name of the shard that their rows are of. One that the run does not track has no MD5."""
    return tuple(
        DataFile(name=PurePosixPath(file.path).stem, md5=at.get((folder / file.path).as_posix(), ""), rows=file.rows)
        for file in files
    )


def _one(at: Mapping[str, str], folder: Path, file: SplitFile | None) -> DataFile | None:
    """A file that has rows, by its own digest; one that has none cannot name a record."""
    if file is None or not file.rows:
        return None
    return DataFile(name=file.sha256[:16], md5=at.get((folder / file.path).as_posix(), ""), rows=file.rows)
