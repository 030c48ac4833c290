"""What steps ask of what was kept: records, files and rows of past runs. Signatures only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.domain.release import ModelVersion
from pipeline.domain.sightings import RunData
from pipeline.domain.snapshots import PastSnapshot


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One stored copy of a file that a run tracked. `path` is its place in the run's folder (ends with / for a listing)."""

    path: str
    stored: Path
    md5: str | None = None


class Archive(Protocol):
    """Finds records and files of past runs by digest: git tags and the data store behind them."""

    def record(self, version: ModelVersion, digest: str) -> tuple[str, str]:
        """Canonical JSON text of the record `digest` in the run that made `version`, and where it was read. Raises Broken."""
        ...

    def files(self, version: ModelVersion) -> Iterator[StoredFile]:
        """Every stored copy of every data file that the run tracked, unverified. A lost one is named by where it belongs."""
        ...

    def committed(self, version: ModelVersion, path: str) -> bytes | None:
        """A file of the commit that keeps the run, such as params.yaml; None if it is not there."""
        ...

    def commit_problem(self, version: ModelVersion) -> str | None:
        """What is wrong with the commit that keeps the run, or with the tag that names it; None when whole."""
        ...


class PastRuns(Protocol):
    """What the kept runs of a model say of their data, and the files behind it."""

    def runs(self, model: str) -> tuple[RunData, ...]:
        """Every kept run, also those kept as evidence only, by number."""
        ...

    def stored(self, md5: str) -> Path | None:
        """A stored copy of a data file, unverified; None when there is none."""
        ...


class Snapshots(Protocol):
    """The snapshots of one model's kept runs: git tags and the data store behind them."""

    def all(self) -> tuple[PastSnapshot, ...]:
        """Of every kept run, also those kept as evidence only, oldest first. Raises Broken when a record is gone."""
        ...

    def opened(self, past: PastSnapshot) -> AbstractContextManager[Path]:
        """A folder with a snapshot's files, unverified, to be read only, as long as it is held. A lost file is missing there."""
        ...

    def params(self, past: PastSnapshot) -> Mapping[str, Any] | None:
        """What the run's params said, defaults included; None when this version of Tuneline cannot read them."""
        ...


class RecordIndex(Protocol):
    """Which rows of a file bear a keyed digest. An index can be made again at any time; see domain/privacy.py for the digests."""

    def add(self, name: str, table: Path) -> None:
        """Index the rows of a Parquet file under `name`, unless they are: by id and, where the columns are there, by text."""
        ...

    def rows(self, name: str, digests: Iterable[str]) -> list[int]:
        """Rows of what is indexed under `name` that any of `digests` names, in order. Raises Broken when it is not indexed."""
        ...
