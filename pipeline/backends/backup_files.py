"""A backup as one tar file: plain files by name, and last a manifest that names each by its digest. Written and read here only.

A tar from elsewhere is not trusted: names are relative and stay below the folder, all are plain files, and nothing is in place
before every digest was checked. What goes in, and where it belongs, is backing_up.py's.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar

from pydantic import AwareDatetime

from pipeline.domain.record import FileDigest, Record
from pipeline.errors import BadInput, Broken, Misuse

MANIFEST = "manifest.json"
SQLITE = b"SQLite format 3\0"
MANIFEST_LIMIT = 256 << 20
_BLOCK = 1 << 20


class Backup(Record):
    """What is in a backup. state: where the state folder lay, which MLflow's addresses begin with.

    elsewhere: what the project has in other stores, and so is not in it, each with its address (no password).
    """

    kind: ClassVar[str] = "backup"

    made: AwareDatetime
    state: str
    files: tuple[FileDigest, ...]
    elsewhere: dict[str, str]


class BackupWriter:
    """Writes one backup. The file has its name only once it is whole."""

    def __init__(self, target: Path) -> None:
        if target.exists():
            raise Misuse("there is a file of that name", where=str(target), fix="name another one")
        if not target.parent.is_dir():
            raise Misuse("there is no such folder", where=str(target.parent), fix="make it first")
        self._target, self._fresh = target, target.with_name(f".{target.name}.new")
        self._fresh.unlink(missing_ok=True)
        # Keys and data are in it: readable by its owner alone, from the first byte on.
        handle = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(handle, "wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        self._files: list[FileDigest] = []

    def add(self, name: str, path: Path) -> None:
        """A file of the project under the name `name`. One that is gone by now is left out: nothing whole refers to it."""
        try:
            source = path.open("rb")
        except FileNotFoundError:
            return
        with source:
            self._stream(name, source, os.fstat(source.fileno()).st_size)

    def add_sqlite(self, name: str, path: Path, scratch: Path) -> None:
        """A SQLite database as it stands between two transactions, whoever is writing to it."""
        copy = scratch / "database"
        copy.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        self.add(name, copy)

    def finish(self, **said: Any) -> Backup:
        """Write the manifest, and give the file its name. said: the other fields of Backup."""
        made = Backup(files=tuple(self._files), **said)
        content = made.to_json().encode()
        entry = tarfile.TarInfo(MANIFEST)
        entry.size, entry.mode = len(content), 0o600
        self._tar.addfile(entry, io.BytesIO(content))
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._fresh, self._target)
        return made

    def abandon(self) -> None:
        self._file.close()
        self._fresh.unlink(missing_ok=True)

    def _stream(self, name: str, source: IO[bytes], size: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, 0o600
        reading = _Hashed(source, size)
        self._tar.addfile(entry, reading)
        self._files.append(FileDigest(path=name, sha256=reading.digest.hexdigest(), bytes=size))


def is_sqlite(path: Path) -> bool:
    """Whether a file is a SQLite database, which must not be copied while somebody writes to it."""
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except FileNotFoundError:
        return False


def unpack(source: Path, folder: Path) -> Backup:
    """Put the files of a backup below `folder`, which must be empty. Raises Broken when it is no whole backup."""
    try:
        with tarfile.open(source, mode="r:") as tar:
            found = dict(_extracted(tar, folder))
    except (tarfile.TarError, EOFError) as error:
        raise Broken(f"it cannot be read as a backup: {error}", where=str(source), fix="take another backup") from error
    except OSError as error:
        raise BadInput(f"it cannot be read: {error.strerror}", where=str(source)) from error
    listed = folder / MANIFEST
    if found.pop(MANIFEST, None) is None or listed.stat().st_size > MANIFEST_LIMIT:
        raise Broken("it has no manifest at its end: it is cut off, or no backup", where=str(source), fix="take another backup")
    try:
        backup = Backup.from_json(listed.read_text(encoding="utf-8"), where=f"{source}: {MANIFEST}")
    except UnicodeDecodeError as error:
        raise Broken("its manifest is damaged", where=str(source), fix="take another backup") from error
    listed.unlink()
    wanted = {file.path: file.sha256 for file in backup.files}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        said = f"{', '.join(wrong[:5])}{more} are not what the manifest names"
        raise Broken(said, where=str(source), fix="take another backup")
    return backup


def _extracted(tar: tarfile.TarFile, folder: Path) -> Iterator[tuple[str, str]]:
    """Name → SHA-256 of each member, once it is below `folder`."""
    for entry in tar:
        path = PurePosixPath(entry.name)
        if not entry.isreg() or path.is_absolute() or ".." in path.parts or not path.parts or "\\" in entry.name:
            raise Broken(f"{entry.name[:200]!r} has no place in a backup", where=str(tar.name), fix="take another backup")
        target = folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = tar.extractfile(entry)
        assert content is not None, "a regular file has content"
        reading = _Hashed(content, entry.size)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            while block := reading.read(_BLOCK):
                file.write(block)
        yield entry.name, reading.digest.hexdigest()


class _Hashed:
    """A file that is hashed as it is read, and gives exactly `size` bytes: one that is appended to meanwhile has grown since."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self._source, self._left, self.digest = source, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._source.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(block)
        self.digest.update(block)
        return block
