"""Protocols the steps are given: what a step may ask of the world. Backends implement them; wiring.py picks the backend.

Only signatures live here. A step never learns which tool answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.domain.data import CheckResult, SourceFile
from pipeline.domain.lineage import Chain
from pipeline.domain.proof import Anchor, AuditCheck
from pipeline.domain.record import FileDigest
from pipeline.domain.reigns import Reign
from pipeline.domain.release import Event, EventKind, ModelVersion
from pipeline.domain.sightings import RunData
from pipeline.domain.snapshots import PastSnapshot
from pipeline.domain.sweeping import Point, Trial
from pipeline.params.ingest import IngestParams, Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total); total 0 when unknown. For progress bars and plain lines."""


def silent(what: str, done: int, total: int) -> None:
    """The Progress that says nothing."""


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file to ingest. name: what records call it, never an absolute path. kind: a value of curation.files.KINDS.

    compressed: gzip or zstd around the whole file, as its name says. modified: seconds since 1970, of the file or of what it was
    made from. reading: how its rows are read. origin: the entry of ingest.sources that it came by. license: of its rows.
    watermark: see SourceFile. staged: `path` is a copy of ours in the staging folder, which no message should name.
    """

    path: Path
    name: str
    kind: str
    compressed: bool
    modified: float
    reading: Reading = field(default_factory=Reading)
    origin: str = ""
    license: str | None = None
    watermark: str | None = None
    staged: bool = False

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.name if self.staged else str(self.path)


class Sources(Protocol):
    """Everything that ingest.sources name, as local files: folders walked, archives unpacked, queries and objects fetched."""

    def find(
        self, params: IngestParams, *, root: Path | None, as_of: datetime | None, earlier: Sequence[SourceFile]
    ) -> Iterator[Found]:
        """The files to read, one after the other, in the order of the entries and, within one, of their names.

        root: what paths are relative to, default the current folder. as_of: what is newer is left for later. earlier: what the
        parent snapshot has read; what is certain to be the same (a query beyond its watermark, an object with the same ETag) need
        not be fetched again. Staged files stay until whoever made the folder removes it. Raises BadInput for what cannot be read,
        TryLater for what may be readable later; both may come after some files have been given.
        """
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data or a secret within a text: text[start:end], and what it is (`email`, `phone`, `aws_key`, …)."""

    start: int
    end: int
    type: str


class Detector(Protocol):
    """Finds personal data, or secrets, in texts. Has no state, and survives pickling, so that each worker can have one."""

    def suspects(self, texts: str) -> bool:
        """False when `texts`, joined by anything, certainly hold nothing: meant to cost next to nothing."""
        ...

    def find(self, text: str) -> list[Finding]:
        """What stands in `text`, in its order, no two findings overlapping. Marks such as <EMAIL> are never found."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """Two answers to one conversation (Example.input), between which a judge is to choose."""

    input: str
    first: str
    second: str


class Judge(Protocol):
    """Says which of two answers is better. A verdict is None where there is none to be had: never a guess, never an error."""

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    def prefer(self, asked: Sequence[Question], *, progress: Progress = ...) -> list[float | None]:
        """Of each question: 1 the first answer is better, 0 the second, 0.5 neither, None no verdict."""
        ...

    def holds(self, rubric: str, prompt: str, answer: str) -> bool | None:
        """Whether what `rubric` says of an answer is true of this one. prompt: a conversation (Example.input), or a text."""
        ...

    def why_not(self) -> str:
        """Why verdicts are missing, in words, most frequent reason first; empty when none is."""
        ...


class Expectations(Protocol):
    """Runs an expectation suite over a Parquet file. Results carry `error` when an expectation itself broke."""

    def check(self, table: Path, suite: Sequence[Mapping[str, Any]], *, docs: Path) -> tuple[CheckResult, ...]:
        """Check `table` against `suite` (dicts of type, kwargs, and an optional note); build Data Docs (HTML) below `docs`."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors that lie near each other where the texts say much the same."""

    def embed(self, texts: Sequence[str], *, progress: Progress = ...) -> Vectors:
        """float32 [texts, hidden], of unit length, in the order of `texts`."""
        ...


class Tracker(Protocol):
    """One tracked run: curves, parameters, files. Steps log through it; they never open or close it."""

    @property
    def run_id(self) -> str: ...

    def log_params(self, params: Mapping[str, Any]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None: ...

    def log_dataset(self, name: str, digest: str, *, source: str, rows: int, context: str) -> None: ...

    def log_file(self, path: Path, folder: str = "") -> None: ...

    def log_folder(self, path: Path, folder: str) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...


class Study(Protocol):
    """The memory of one sweep, and what it makes of it: which point to try next, which trial to end. Written as it happens."""

    def trials(self) -> tuple[Trial, ...]:
        """All there are, by number; one that is running was interrupted, unless it is under way here."""
        ...

    def begin(self, point: Point | None) -> Trial | None:
        """A new trial of `point`, or of one that promises most. None when no point is left that was not tried."""
        ...

    def report(self, number: int, step: int, value: float) -> bool:
        """Note an evaluation of a running trial after training step `step`, once; True when the trial should end here."""
        ...

    def should_end(self, number: int) -> bool:
        """What `report` said last."""
        ...

    def spent(self, number: int, seconds: float) -> None:
        """Note how much training a trial has taken so far."""
        ...

    def finish(self, number: int, value: float) -> None: ...

    def prune(self, number: int) -> None: ...

    def fail(self, number: int, why: str) -> None: ...


class Registry(Protocol):
    """Named, numbered model versions and their files, and the aliases that project the ledger onto them."""

    def register(self, name: str, *, run_id: str, source: str, tags: Mapping[str, str]) -> str:
        """Create a version of `name` from a run's logged model and return its number; the same `source` gives the same number."""
        ...

    def version_tags(self, name: str, version: str) -> dict[str, str]:
        """Tags of a version. Raises Misuse if there is none."""
        ...

    def set_version_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None: ...

    def versions(self, name: str) -> list[str]:
        """Numbers of all versions, oldest first."""
        ...

    def put(self, name: str, version: str, folder: Path, at: str) -> None:
        """Add a folder's files to a version's as `at`/, in the place of whatever was there."""
        ...

    def artifacts(self, name: str, version: str) -> Path:
        """Local folder that holds the version's files. Raises Broken if it is missing."""
        ...

    def run_artifacts(self, run_id: str) -> Path:
        """Local folder that holds what the run logged (reports, records). Raises Broken if it is missing."""
        ...

    def aliases(self, name: str) -> dict[str, str]: ...

    def point(self, name: str, alias: str, version: str | None) -> None:
        """Set an alias, or delete it with None. Safe to repeat."""
        ...


class Ledger(Protocol):
    """Append-only events per model, each with the digest of the one before. An append is a compare-and-swap."""

    def events(self, model: str) -> tuple[Event, ...]:
        """All events of a model in sequence order. Raises Tampered when a stored event does not match its digest."""
        ...

    def models(self) -> tuple[str, ...]: ...

    def head(self, model: str) -> tuple[int, str]:
        """Sequence and digest of a model's last event, (0, GENESIS) for none. Cheap: followers ask ten times a second."""
        ...

    def holder(self, model: str, stage: str) -> str | None:
        """The version that holds a stage now, without reading all events."""
        ...

    def reign(self, model: str, stage: str, when: datetime | None = None) -> Reign | None:
        """Who held a stage at an instant (timezone-aware; default: now), since when and until when. Does not read all events."""
        ...

    def latest(self, model: str, stage: str | None = None, *, count: int) -> tuple[Event, ...]:
        """The last `count` events, of one stage's history or of all, oldest first, without reading all of them."""
        ...

    def stages(self, model: str) -> tuple[str, ...]:
        """Every stage that a version holds or has held."""
        ...

    def registration(self, model: str, version: str) -> Event | None:
        """The event that registered a version; None for a version that there is not. Does not read all events."""
        ...

    def concerning(self, model: str, stage: str, *, version: str | None = None, after: str | None = None) -> tuple[Event, ...]:
        """The events on which a move of `stage` is decided as on all of them, oldest first; the last one is the ledger's last.

        version: which is to take it, with its approvals. after: the stage that it must have held. How a stage stood long ago is
        not in them: what they refuse (Misuse, Conflict) is to be decided on all events.
        """
        ...

    def append(
        self,
        model: str,
        event: EventKind,
        *,
        expected: int,
        version: str,
        subject: str,
        stage: str | None,
        leaves: str | None,
        actor: str,
        reason: str,
        at: datetime,
        record: str | None = None,
    ) -> Event:
        """Append as sequence `expected` + 1. Raises Conflict, changing nothing, when the head is no longer `expected`.

        record: for registered, the ModelVersion's JSON. Repeating an append whose outcome was unknown, with the very same
        arguments, returns the event it made. Raises Misuse for words no store should be given, TryLater when it is locked.
        """
        ...

    def verify(self) -> tuple[str, ...]:
        """What is broken in the store, a sentence each; empty when whole."""
        ...


class Traffic(Protocol):
    """Counts what releases answered; whoever serves them keeps the count."""

    def answered(self, model: str, version: str) -> int:
        """How many requests a version has answered so far."""
        ...


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


class Evidence(Protocol):
    """Signed statements, bill of materials, model card and signature of a version: made at registration, checked ever after."""

    def lay(self, chain: Chain, committed: Mapping[str, str], out: Path) -> None:
        """Write the evidence of a version to a folder. chain.version: with the files that the registry holds, evidence excepted;
        committed: files of the run's commit by SHA-256."""
        ...

    def whole(self, files: Sequence[FileDigest], folder: Path) -> bool:
        """Whether all of it lies in a version's folder, signed, about just these files, which the caller has hashed."""
        ...

    def check(
        self, version: ModelVersion, chain: Chain, folder: Path, committed: Mapping[str, str | None]
    ) -> Iterator[AuditCheck]:
        """A check for everything that it says. The version's files were hashed by the caller; none is hashed again."""
        ...

    def release(self, statement: Mapping[str, Any]) -> bytes:
        """A statement in an envelope signed with the project's key."""
        ...

    @property
    def public_key(self) -> bytes:
        """The project's public key, in PEM."""
        ...


class Anchors(Protocol):
    """Keeps, outside the ledger's database, where the ledger ended."""

    def anchor(self, model: str, sequence: int, digest: str) -> None:
        """Write down the last event of a model. Never raises, never blocks: what fails is told, and the next one repairs it."""
        ...

    def anchored(self, model: str) -> tuple[Anchor, ...]:
        """All that was ever written down, by sequence. Raises Broken when it cannot be read, or was changed."""
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
