"""The seal of a SQLite ledger: a sidecar that says which bytes the database file has and where each model's chain ends.

The chain of digests finds an edited event; the seal finds what the chain cannot: a cut-off tail, a flipped byte in unused
space, a vanished file. It lies beside the file, so it protects against damage and against edits by those who do not know of
it, not against someone who rewrites both. Nothing here speaks SQL.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from pydantic import model_validator

from pipeline.backends.ledger_engines import RESTORE
from pipeline.domain.record import Record, Value, canonical_json, digest_bytes, digest_file
from pipeline.errors import Broken, Tampered, TryLater

BLOCK = 256 * 1024
"""A larger file is digested in blocks of so many bytes, so that an append digests again only those it changed."""


class Head(Value):
    """The last event of a model."""

    sequence: int
    digest: str


class Seal(Record):
    """heads: model → its last event. sha256: of the database file; None when a reader kept the file from being settled.

    blocks: of a file larger than one block, the digest of each; sha256 is then that of their list. seen: inode, size and times
    of the file when it was sealed, and a checksum of these: while they are the same, nobody has written to it.
    """

    kind: ClassVar[str] = "ledger_seal"

    heads: dict[str, Head]
    sha256: str | None
    blocks: tuple[str, ...] = ()
    seen: tuple[int, int, int, int, int] | None = None

    @model_validator(mode="after")
    def _check_seen(self) -> Self:
        if self.seen is not None and self.seen != _summed(self.seen[:4]):
            raise ValueError("what was seen of the file does not have its checksum")
        return self

    def to_json(self) -> str:
        said = {"kind": self.kind, **self.model_dump(mode="json")}
        for later in ("blocks", "seen"):
            if not said[later]:
                del said[later]
        return canonical_json(said) + "\n"


class SealFile:
    """The seal, and the lock under which it and its database change together. `database` is the SQLite file."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.path = database.with_name(database.name + ".seal")
        self._lock = database.with_name(database.name + ".lock")
        self._log = database.with_name(database.name + "-wal")

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

    def write(
        self, heads: Mapping[str, Head], *, settled: bool, before: Seal | None = None, changed: Iterable[int] | None = None
    ) -> None:
        """Seal the database as it lies there, atomically. settled: no change still waits in the write-ahead log.

        before: the seal that was right until now, and changed: the blocks that were written since; only those are read again.
        """
        seal = Seal(heads=dict(heads), sha256=None)
        if settled:
            seen = self.seen_now()
            blocks = _blocks(self.database, before.blocks if before and changed is not None else (), set(changed or ()))
            seal = Seal(heads=dict(heads), sha256=_whole(blocks), blocks=blocks if len(blocks) > 1 else (), seen=seen)
        temporary = self.path.with_name(self.path.name + ".new")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(seal.to_json().encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        _fsync_folder(self.path.parent)

    def bytes_now(self) -> str:
        """SHA-256 of the database file as it lies there; of a large one, of its blocks' digests."""
        return _whole(_blocks(self.database, (), set()))

    def seen_now(self) -> tuple[int, int, int, int, int]:
        """Inode, size and times of the database file, and a checksum. A program cannot set the time of the last change back."""
        found = self.database.stat()
        return _summed((found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))

    def untouched(self, seal: Seal) -> bool:
        """Whether the file is what was sealed: by what the file system says of it, and if that is not the same, by its bytes."""
        if self.unsettled or seal.sha256 is None:
            return False
        return seal.seen == self.seen_now() or self.bytes_now() == seal.sha256

    @property
    def unsettled(self) -> bool:
        """Whether a write-ahead log with content lies beside the database."""
        try:
            return self._log.stat().st_size > 0
        except FileNotFoundError:
            return False

    def waiting_blocks(self) -> set[int] | None:
        """Blocks of the file that the write-ahead log is going to change; None when it cannot be told."""
        try:
            log = self._log.read_bytes()
        except OSError:
            return None
        size = int.from_bytes(log[8:12], "big")
        if len(log) < 32 or log[:2] != b"\x37\x7f" or not 512 <= size <= 65536:
            return None
        # Frames that a reset left behind are read too: a block too many does no harm.
        pages = {int.from_bytes(log[at : at + 4], "big") for at in range(32, len(log) - 24 - size + 1, 24 + size)}
        return {(page - 1) * size // BLOCK for page in pages}


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


def _blocks(file: Path, known: tuple[str, ...], changed: set[int]) -> tuple[str, ...]:
    """The digest of each block; of those that are `known` and not `changed`, as it was. The last known may have grown."""
    size = file.stat().st_size
    if size <= BLOCK:
        return (digest_file(file),)
    changed = changed | {len(known) - 1}
    found = []
    with file.open("rb", buffering=0) as opened:
        for number in range(-(-size // BLOCK)):
            if number < len(known) and number not in changed:
                found.append(known[number])
                continue
            opened.seek(number * BLOCK)
            found.append(hashlib.sha256(opened.read(BLOCK)).hexdigest())
    return tuple(found)


def _summed(seen: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    inode, size, modified, changed = seen
    return inode, size, modified, changed, zlib.crc32(repr(seen).encode())


def _whole(blocks: tuple[str, ...]) -> str:
    return blocks[0] if len(blocks) == 1 else digest_bytes("".join(blocks).encode())


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
