"""Tar archives, read twice from their beginning: every header is checked before a byte is unpacked to disk.

Python's reader trusts the sizes of the headers that describe others; those are capped here. Which members are allowed is
archives.py's to say.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

from pipeline.backends.sources.archives import GRACE, RATIO, Unpacking, member_name
from pipeline.curation.files import Opened

_HEADER_CAP = 1 << 16
_DESCRIBING = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, OverflowError)
_PIECE = 1 << 20


def unpack_tar(unpacking: Unpacking, opened: Opened) -> None:
    """Pour the data members of a tar archive into staging. Raises BadInput; see archives.py."""
    wanted: set[int] = set()
    try:
        for archive, member in _members(unpacking, opened):
            name = _checked(unpacking, member)
            if not member.isreg():
                continue
            if unpacking.wants(name):
                wanted.add(member.offset)
            else:
                unpacking.look_at(name, _content(archive, member).read(300))
        for archive, member in _members(unpacking, opened):
            if member.offset in wanted:
                unpacking.pour(member_name(member.name), _content(archive, member), member.size)
    except _DAMAGE as error:
        raise unpacking.refuse(f"it is damaged: {(str(error).splitlines() or [type(error).__name__])[0][:200]}") from None


def _members(unpacking: Unpacking, opened: Opened) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of an archive, each to be read before the next is asked for."""
    opened.stream.seek(0)
    meter: Any = _Meter(unpacking, opened)
    with tarfile.open(fileobj=meter, mode="r|", tarinfo=_Member, errorlevel=2) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]
            if not (member.isdir() and member.name == "."):
                yield archive, member
    # A second archive behind the end of the first would be unpacked by some readers, and is looked at by none of ours.
    while piece := meter.read(_PIECE):
        if piece.strip(b"\0"):
            raise unpacking.refuse("something follows its end")


def _checked(unpacking: Unpacking, member: tarfile.TarInfo) -> str:
    """The name of a member. Raises BadInput for what may not be in an archive."""
    name = unpacking.admit(member.name)
    if member.issym() or member.islnk():
        raise unpacking.refuse("is a link, no regular file", name)
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise unpacking.refuse("is a device, a sparse file or the like, no regular file", name)
    if member.size > unpacking.limits.bytes:
        limit = unpacking.limits.bytes
        raise unpacking.refuse(f"says it has {member.size} bytes, and ingest.max_staged_bytes is {limit}", name)
    return name


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    return archive.extractfile(member)


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
