"""What steps ask of releases: the registry, the ledger, what proves them. Signatures only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pipeline.domain.lineage import Chain
from pipeline.domain.proof import Anchor, AuditCheck
from pipeline.domain.record import FileDigest
from pipeline.domain.reigns import Reign
from pipeline.domain.release import Event, EventKind, ModelVersion


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
