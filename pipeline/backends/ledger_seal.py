"""The seal of a SQLite ledger: a sidecar that says which bytes the database file has and where each model's chain ends.

The chain of digests finds an edited event; the seal finds what the chain cannot: a cut-off tail, a flipped byte in unused
space, a vanished file. It lies beside the file, so it protects against damage and against edits by those who do not know of
it, not against someone who rewrites both. Nothing here speaks SQL.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pipeline.backends.ledger_store import RESTORE
from pipeline.domain.record import Record, Value, digest_file
from pipeline.errors import Broken, Tampered, TryLater


class Head(Value):
    """The last event of a model."""

    sequence: int
    digest: str


class Seal(Record):
    """heads: model → its last event. sha256: of the database file; None when a reader kept the file from being settled."""

    kind: ClassVar[str] = "ledger_seal"

    heads: dict[str, Head]
    sha256: str | None


class SealFile:
    """The seal, and the lock under which it and its database change together. `database` is the SQLite file."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.path = database.with_name(database.name + ".seal")
        self._lock = database.with_name(database.name + ".lock")

    @contextmanager
    def locked(self, patience: float) -> Iterator[None]:
        """Hold the lock, which the kernel frees when a process dies. Raises TryLater after `patience` seconds."""
        self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Broken(f"the ledger cannot be locked: {error.strerror}", where=str(self._lock)) from error
        try:
            _wait_for_lock(handle, patience, self.database)
            yield
        finally:
            os.close(handle)

    def read(self) -> Seal | None:
        """The seal, or None if there is none. Raises Tampered when it is not byte for byte what `write` writes."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Broken(f"the seal cannot be read: {error.strerror}", where=str(self.path)) from error
        try:
            seal = Seal.from_json(text.decode("utf-8"), where=str(self.path))
        except (Broken, UnicodeDecodeError) as error:
            raise Tampered("the ledger's seal was changed", where=str(self.path), fix=RESTORE) from error
        if seal.to_json().encode() != text:
            raise Tampered("the ledger's seal was changed", where=str(self.path), fix=RESTORE)
        return seal

    def write(self, heads: Mapping[str, Head], *, settled: bool) -> None:
        """Seal the database as it lies there, atomically. settled: no change still waits in the write-ahead log."""
        seal = Seal(heads=dict(heads), sha256=digest_file(self.database) if settled else None)
        temporary = self.path.with_name(self.path.name + ".new")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(seal.to_json().encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        _fsync_folder(self.path.parent)

    def bytes_now(self) -> str:
        """SHA-256 of the database file as it lies there."""
        return digest_file(self.database)

    @property
    def unsettled(self) -> bool:
        """Whether a write-ahead log with content lies beside the database."""
        log = self.database.with_name(self.database.name + "-wal")
        try:
            return log.stat().st_size > 0
        except FileNotFoundError:
            return False


def behind_seal(seal: Seal, digests: Mapping[str, Mapping[int, str]], *, only: str | None = None) -> str | None:
    """What the ledger lacks of what was sealed; None when every sealed head is in it.

    digests: model → sequence → digest of what is stored. only: look at this model alone.
    """
    for model, head in sorted(seal.heads.items()):
        if only not in (None, model):
            continue
        there = digests.get(model, {})
        if head.sequence not in there:
            return f"events of {model} are missing: {head.sequence} were sealed, {max(there, default=0)} are there"
        if there[head.sequence] != head.digest:
            return f"event {head.sequence} of {model} is not the one that was sealed"
    return None


def _fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _wait_for_lock(handle: int, patience: float, database: Path) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TryLater(
                    f"another process has been writing to the ledger for {patience:g} s", where=str(database), fix="try again"
                ) from None
            time.sleep(0.01)
