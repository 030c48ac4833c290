"""Archives into files in the staging folder: zip and tar, the latter plain, gzip or zstd. All of an archive is taken, or nothing.

What a member may be is said here once: a regular file or folder whose name stays below the archive, that holds data and neither
another archive nor a pickle. Nothing in an archive names a path that is written to: files in staging are numbered. Headers lie,
so limits on sizes hold again while bytes are poured. How members are found is for zips.py and tars.py.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from pipeline.backends.sources.staging import write
from pipeline.curation.files import lfs_error, open_checked
from pipeline.curation.finding import ARCHIVES, DOCUMENTS, is_passed_over, is_unread, kind_of, not_read, reading_for
from pipeline.errors import BadInput
from pipeline.ports import Found

RATIO = 250
"""Data packs 5 to 50 to one. What unpacks to more than this many times its size was made to."""
GRACE = 16 << 20
"""So much may unpack from anything: small files of one repeated row are no bombs."""
NAME_CAP = 1 << 10
PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth", ".bin", ".joblib", ".dill", ".ckpt", ".npy", ".npz")
_NESTED = (*ARCHIVES, ".jar", ".whl", ".egg", ".7z", ".rar", ".cab", ".iso", ".cpio", ".ar", ".deb", ".rpm", ".tbz2", ".txz")
_MAGIC = {b"PK\x03\x04": "an archive", b"PK\x05\x06": "an archive", b"7z\xbc\xaf\x27\x1c": "an archive", b"Rar!": "an archive"}
_LFS = b"version https://git-lfs.github.com/spec/"
_PIECE = 1 << 20


@dataclass(slots=True)
class Limits:
    """What one archive may take: members, and bytes once unpacked."""

    members: int
    bytes: int


@dataclass(slots=True)
class Unpacking:
    """An archive on its way into `folder`. `taken` are the data members, in the order of the archive."""

    archive: Found
    folder: Path
    limits: Limits
    sha256: str
    taken: list[Found] = field(default_factory=list)
    members: int = 0
    size: int = 0
    _names: set[bytes] = field(default_factory=set)

    def refuse(self, problem: str, member: str = "") -> BadInput:
        """The refusal of the whole archive, for what is wrong with a member of it."""
        named = f"{shown(member)!r} {problem}" if member else problem
        fix = "make the archive again from regular files of data alone, or unpack it yourself and look at what it holds"
        return BadInput(f"this archive is refused: {named}", where=self.archive.where, fix=fix)

    def admit(self, name: str) -> str:
        """Check the name of the next member, and count it. Returns the name as records spell it. Raises BadInput."""
        self.members += 1
        if self.members > self.limits.members:
            raise self.refuse(f"it has more than {self.limits.members} members (ingest.max_members)")
        if problem := name_problem(name):
            raise self.refuse(problem, name)
        plain = member_name(name)
        # Digests, not names: a small archive can hold a hundred thousand names of a kilobyte.
        key = hashlib.blake2b(plain.encode(), digest_size=16).digest()
        if key in self._names:
            raise self.refuse("is there twice", name)
        self._names.add(key)
        lower = plain.lower()
        if lower.endswith(PICKLES):
            raise self.refuse("may be a pickle, which runs code when it is opened", name)
        if lower.endswith(_NESTED):
            raise self.refuse("is an archive within the archive", name)
        return plain

    def wants(self, name: str) -> bool:
        """Whether a member that was admitted is data to read. Raises BadInput for data of a kind that is not read."""
        if any(is_passed_over(part) for part in name.split("/")):
            return False
        kind = kind_of(name)
        if kind is None and is_unread(name):
            raise not_read(f"{self.archive.where}!{shown(name)}")
        return kind is not None and (kind[0] not in DOCUMENTS or self.archive.reading.format == "text")

    def pour(self, name: str, source: BinaryIO, size: int) -> None:
        """Write a member into the staging folder: `size` bytes, as its header says. Raises BadInput when that is not so."""
        start = source.read(64)
        self.look_at(name, start)
        kind = kind_of(name)
        assert kind is not None
        path = self.folder / f"{len(self.taken):06d}"
        written, piece = 0, start
        with path.open("xb") as file:
            while piece and written <= size:
                written += len(piece)
                self.count(len(piece))
                write(file, piece)
                piece = source.read(_PIECE)
        if written != size:
            raise self.refuse(f"is not of the {size} bytes that its header says", name)
        self.taken.append(
            replace(
                self.archive,
                path=path,
                name=f"{self.archive.name}!{shown(name)}",
                kind=kind[0],
                compressed=kind[1],
                reading=reading_for(kind[0], self.archive.reading),
                watermark=self.sha256,
                staged=True,
            )
        )

    def look_at(self, name: str, start: bytes) -> None:
        """Refuse by its first bytes what a name did not tell: pickles, archives, Git LFS pointers."""
        if start[:1] == b"\x80" and 2 <= int.from_bytes(start[1:2], "big") <= 5:
            raise self.refuse("is a pickle, which runs code when it is opened", name)
        for magic, what in _MAGIC.items():
            if start.startswith(magic):
                raise self.refuse(f"is {what} within the archive", name)
        if start[257:262] == b"ustar":
            raise self.refuse("is an archive within the archive", name)
        if start.startswith(_LFS):
            raise lfs_error(f"{self.archive.where}!{shown(name)}")

    def count(self, size: int) -> None:
        """Count unpacked bytes."""
        self.size += size
        if self.size > self.limits.bytes:
            raise self.refuse(f"it unpacks to more than {self.limits.bytes} bytes (ingest.max_staged_bytes)")


def unpack(archive: Found, folder: Path, limits: Limits, *, known: frozenset[str] = frozenset()) -> Iterator[Found]:
    """The data files of an archive, unpacked into `folder`, which must be empty; named `ARCHIVE!MEMBER`.

    known: digests of archives that were read before; of these there is nothing. Their digest is the watermark of the members.
    Raises BadInput for the whole archive, naming the member, when any of it is not what data may be; see the module.
    """
    from pipeline.backends.sources.tars import unpack_tar
    from pipeline.backends.sources.zips import unpack_zip

    opened = open_checked(archive)
    try:
        if opened.sha256 in known:
            return
        unpacking = Unpacking(archive, folder, limits, opened.sha256)
        (unpack_zip if archive.kind == "zip" else unpack_tar)(unpacking, opened)
        opened.check_unchanged()
    finally:
        opened.close()
    yield from unpacking.taken


def member_name(name: str) -> str:
    """The name of a member without what says nothing."""
    return unicodedata.normalize("NFC", name.removeprefix("./").rstrip("/"))


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a member; None when it is a plain relative path."""
    parts = name.rstrip("/").split("/")
    if not name or len(name.encode("utf-8", "surrogateescape")) > NAME_CAP:
        return "has no name, or one that is far too long"
    if name.startswith("/") or (len(name) > 1 and name[1] == ":" and name[0].isalpha()):
        return "is an absolute path"
    if ".." in parts:
        return "leads out of the archive"
    if "\\" in name or not (name.isprintable() or shown(name) == name.removeprefix("./")):
        return "has a name with backslashes or control characters, or that is not UTF-8"
    if "" in parts or "." in parts[1:] or parts == ["."]:
        return "has a name with empty parts"
    return None


def shown(name: str) -> str:
    """The name of a member as messages and records spell it."""
    safe = "".join(char if unicodedata.category(char) not in ("Cc", "Cs") else "?" for char in name)
    return safe.removeprefix("./")
