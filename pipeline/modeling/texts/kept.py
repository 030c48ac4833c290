"""What can be made again, kept on disk by what it was made of: tokenised rows, log-probabilities of a reference.

A file's name is the digest of all that it depends on, never a path; its first 32 bytes are the digest of what follows, so a
torn or flipped file is noticed and made again. Nobody may rely on a file being there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pipeline.domain.record import digest_value

log = logging.getLogger(__name__)

_HEADER = 64
"""Bytes before the content: its digest and padding, so that the content lies as aligned as Arrow wants it."""


def kept(folder: Path | None, of: Any, make: Callable[[IO[bytes]], None]) -> memoryview:
    """The content that `make` writes, from `folder` when it is there and whole, else made now and kept there.

    of: all that it depends on, as a JSON value; the file is named by its digest. Without a folder, or with one that cannot be
    written, the content is made in memory.
    """
    if folder is None:
        return _in_memory(make)
    path = folder / digest_value(of)[:40]
    found = _whole(path)
    if found is None:
        try:
            _write(path, make)
        except OSError as error:
            log.warning("%s cannot be kept and is made in memory: %s", path, error)
            return _in_memory(make)
        found = _whole(path)
    return _in_memory(make) if found is None else found


def _in_memory(make: Callable[[IO[bytes]], None]) -> memoryview:
    content = io.BytesIO()
    make(content)
    return content.getbuffer()


def _whole(path: Path) -> memoryview | None:
    """The content of a kept file, mapped; None when it is absent, or is not what was written."""
    try:
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        if path.exists():
            log.warning("%s is not readable and is made again: %s", path, error)
        return None
    if len(mapped) < _HEADER or hashlib.sha256(mapped[_HEADER:]).digest() != mapped[:32]:
        log.warning("%s is torn and is made again", path)
        return None
    return mapped[_HEADER:]


def _write(path: Path, make: Callable[[IO[bytes]], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w+b") as file:
            file.write(bytes(_HEADER))
            make(file)
            file.flush()
            file.seek(_HEADER)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            file.write(digest)
        aside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
