"""Packs what was gathered of a release into a tar file or a folder: the same content, the same bytes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.errors import Misuse
from pipeline.pages.evidence_readme import TOOLS

SUMS = "SHA256SUMS"


def pack(content: Mapping[str, bytes | Path], to: Path) -> str:
    """Write `content` (path → bytes, or the file that holds them) to `to`: a tar file where it ends in .tar, else a new folder.
    A list of digests is added. Returns the SHA-256 of the tar file, or of that list. Raises Misuse when `to` is there."""
    if to.exists() or to.is_symlink():
        raise Misuse("there is something already", where=str(to), fix="name a file or folder that does not exist yet")
    to.parent.mkdir(parents=True, exist_ok=True)
    fresh = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        digest = _tar(content, fresh) if to.suffix == ".tar" else _folder(content, fresh)
        fresh.rename(to)
    finally:
        if fresh.is_dir():
            shutil.rmtree(fresh)
        else:
            fresh.unlink(missing_ok=True)
    return digest


def requirements() -> str:
    """The public tools that the instructions use, at the versions that are installed here."""
    return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in TOOLS)


def _tar(content: Mapping[str, bytes | Path], to: Path) -> str:
    sums: list[str] = []
    with to.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, stream, size in _streams(content, sums):
            entry = tarfile.TarInfo(path)  # no owner, no time: what differs is content
            entry.size, entry.mode = size, 0o644
            archive.addfile(entry, stream)
        listed = "".join(sums).encode()
        entry = tarfile.TarInfo(SUMS)
        entry.size, entry.mode = len(listed), 0o644
        archive.addfile(entry, io.BytesIO(listed))
    with to.open("rb") as whole:
        os.fsync(whole.fileno())
        return hashlib.file_digest(whole, "sha256").hexdigest()


def _folder(content: Mapping[str, bytes | Path], to: Path) -> str:
    sums: list[str] = []
    for path, stream, _ in _streams(content, sums):
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        with (to / path).open("wb") as out:
            shutil.copyfileobj(stream, out)
    listed = "".join(sums).encode()
    (to / SUMS).write_bytes(listed)
    return hashlib.sha256(listed).hexdigest()


def _streams(content: Mapping[str, bytes | Path], sums: list[str]) -> Iterator[tuple[str, Any, int]]:
    """Each entry opened, hashed into `sums`; the caller reads one before it asks for the next."""
    for path, held in sorted(content.items()):
        with ExitStack() as stack:
            stream: Any = stack.enter_context(held.open("rb")) if isinstance(held, Path) else io.BytesIO(held)
            sums.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  ./{path}\n")
            # Not tell(): of bytes in memory the digest is taken without reading on.
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            yield path, stream, size
