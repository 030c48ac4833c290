"""Zip archives: every header is checked before a byte is unpacked, in memory that does not grow with what the archive claims.

Python's reader holds the whole directory of an archive; so its entries are counted first, in a walk of our own. Which members are
allowed is archives.py's to say.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from typing import BinaryIO

from pipeline.backends.sources.archives import GRACE, RATIO, Unpacking
from pipeline.curation.files import Opened

_END, _END_SIZE = b"PK\x05\x06", 22
_LOCATOR, _LOCATOR_SIZE = b"PK\x06\x07", 20
_END64, _END64_SIZE = b"PK\x06\x06", 56
_ENTRY, _ENTRY_SIZE = b"PK\x01\x02", 46
_LOCAL_SIZE = 30
_UTF8 = 0x800
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    struct.error,
    NotImplementedError,
    UnicodeDecodeError,
    ValueError,
    RuntimeError,
)


def unpack_zip(unpacking: Unpacking, opened: Opened) -> None:
    """Pour the data members of a zip archive into staging. Raises BadInput; see archives.py."""
    stream = opened.stream
    try:
        count = _count_entries(unpacking, stream, opened.bytes)
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if len(members) != count:
                raise unpacking.refuse("it has two directories, which say different things")
            wanted = [(info, name) for info in members if (name := _checked(unpacking, info)) is not None]
            _check_places(unpacking, members, opened.bytes)
            pourable = {id(info) for info, _ in wanted}
            for info in members:
                if not info.is_dir() and id(info) not in pourable:
                    with archive.open(info) as source:
                        unpacking.look_at(info.filename, source.read(300))
            for info, name in wanted:
                with archive.open(info) as source:
                    unpacking.pour(name, source, info.file_size)  # type: ignore[arg-type]
    except _DAMAGE as error:
        raise unpacking.refuse(f"it is damaged: {(str(error).splitlines() or ['?'])[0][:200]}") from None


def _count_entries(unpacking: Unpacking, stream: BinaryIO, size: int) -> int:
    """Walk the directory, where Python's reader looks for it, and count; refuse as soon as there are too many entries."""
    tail = min(size, _END_SIZE + 0xFFFF + _LOCATOR_SIZE + _END64_SIZE)
    stream.seek(size - tail)
    end = (held := stream.read(tail)).rfind(_END)
    if end < 0 or len(held) - end < _END_SIZE:
        raise zipfile.BadZipFile("it has no directory")
    at = size - tail + end
    directory_size = struct.unpack_from("<I", held, end + 12)[0]
    if end >= _LOCATOR_SIZE + _END64_SIZE and held[end - _LOCATOR_SIZE :].startswith(_LOCATOR):
        before = end - _LOCATOR_SIZE - _END64_SIZE
        if held[before:].startswith(_END64):
            directory_size = struct.unpack_from("<Q", held, before + 40)[0]
            at -= _LOCATOR_SIZE + _END64_SIZE
    if directory_size > at:
        raise zipfile.BadZipFile("its directory is larger than the archive")
    stream.seek(at - directory_size)
    count, read = 0, 0
    while read < directory_size:
        head = stream.read(_ENTRY_SIZE)
        if len(head) < _ENTRY_SIZE or head[:4] != _ENTRY:
            raise zipfile.BadZipFile("its directory is cut off")
        rest = sum(struct.unpack_from("<HHH", head, 28))
        stream.seek(rest, os.SEEK_CUR)
        count, read = count + 1, read + _ENTRY_SIZE + rest
        if count > unpacking.limits.members:
            raise unpacking.refuse(f"it has more than {unpacking.limits.members} members (ingest.max_members)")
    return count


def _checked(unpacking: Unpacking, info: zipfile.ZipInfo) -> str | None:
    """The name of a member that is data; None for what is passed over. Raises BadInput for what may not be in an archive."""
    # Python's reader cuts a name at a NUL, so what it says and what stands there may differ.
    name = unpacking.admit(info.orig_filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unpacking.refuse(f"is {'a link' if stat.S_ISLNK(kind) else 'a device or the like'}, no regular file", name)
    if info.flag_bits & _ENCRYPTED:
        raise unpacking.refuse("is encrypted", name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise unpacking.refuse("is packed in a way that is not read (only stored and deflated are)", name)
    if info.file_size > max(GRACE, RATIO * info.compress_size):
        raise unpacking.refuse(f"unpacks from {info.compress_size} to {info.file_size} bytes, as only bombs do", name)
    if info.is_dir():
        if info.file_size:
            raise unpacking.refuse("is a folder with content", name)
        return None
    return name if unpacking.wants(name) else None


def _check_places(unpacking: Unpacking, members: list[zipfile.ZipInfo], size: int) -> None:
    """Members may not share bytes: overlapping ones unpack to far more than the archive holds."""
    total, free = 0, 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < free:
            raise unpacking.refuse("overlaps another member, as only in bombs", info.filename)
        name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
        free = info.header_offset + _LOCAL_SIZE + len(name) + info.compress_size
        total += info.file_size
    if free > size:
        raise unpacking.refuse("its members are longer than the archive")
    if total > unpacking.limits.bytes:
        raise unpacking.refuse(f"it unpacks to {total} bytes, and ingest.max_staged_bytes is {unpacking.limits.bytes}")
    if total > max(GRACE, RATIO * size):
        raise unpacking.refuse(f"it unpacks from {size} to {total} bytes, as only bombs do")
