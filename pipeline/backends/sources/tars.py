"""Tar archives, read in one pass from their beginning: what is poured stays in staging until the last header was seen.

Python's reader trusts the sizes of the headers that describe others; those are capped here. Which members are allowed is
archives.py's to say.
"""

from __future__ import annotations

import io
import tarfile
from typing import Any

from pipeline.backends.sources.archives import GRACE, RATIO, Unpacking
from pipeline.curation.files import Opened

_HEADER_CAP = 1 << 16
_DESCRIBING = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, OverflowError)
_PIECE = 1 << 20


def unpack_tar(unpacking: Unpacking, opened: Opened) -> None:
    """Pour the data members of a tar archive into staging. Raises BadInput; see archives.py."""
    meter = _Meter(unpacking, opened)
    try:
        with tarfile.open(fileobj=meter, mode="r|", tarinfo=_Member, errorlevel=2) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]
                _take(unpacking, archive, member)
        # A second archive behind the end of the first would be unpacked by some readers, and is looked at by none of ours.
        while piece := meter.read(_PIECE):
            if piece.strip(b"\0"):
                raise unpacking.refuse("something follows its end")
    except _DAMAGE as error:
        raise unpacking.refuse(f"it is damaged: {(str(error).splitlines() or [type(error).__name__])[0][:200]}") from None


def _take(unpacking: Unpacking, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if member.name in (".", "./") and member.isdir():
        return
    name = unpacking.admit(member.name)
    if member.issym() or member.islnk():
        raise unpacking.refuse("is a link, no regular file", name)
    if member.isdir():
        return
    if not member.isreg() or member.issparse():
        raise unpacking.refuse("is a device, a sparse file or the like, no regular file", name)
    if member.size > unpacking.limits.bytes:
        limit = unpacking.limits.bytes
        raise unpacking.refuse(f"says it has {member.size} bytes, and ingest.max_staged_bytes is {limit}", name)
    source: Any = archive.extractfile(member)
    if unpacking.wants(name):
        unpacking.pour(name, source, member.size)
    else:
        unpacking.look_at(name, source.read(300))


class _Member(tarfile.TarInfo):
    """A header that is not believed when it says that its description takes more than any name does."""

    def _proc_member(self, tar: Any) -> Any:
        if self.type in _DESCRIBING and not 0 <= self.size <= _HEADER_CAP:
            raise tarfile.ReadError(f"a header describes a member in {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


class _Meter(io.RawIOBase):
    """The unpacked bytes of an archive, counted against those of the file: tar has no sizes to look at beforehand."""

    def __init__(self, unpacking: Unpacking, opened: Opened) -> None:
        self._unpacking = unpacking
        self._opened = opened
        self._read = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._opened.stream.read(size)
        self._read += len(piece)
        if self._read > max(GRACE, RATIO * self._opened.bytes):
            raise self._unpacking.refuse(
                f"it unpacks from {self._opened.bytes} to more than {self._read} bytes, as only bombs do"
            )
        if self._read > self._unpacking.limits.bytes + GRACE:
            limit = self._unpacking.limits.bytes
            raise self._unpacking.refuse(f"it unpacks to more than {limit} bytes (ingest.max_staged_bytes)")
        return piece
