"""What every record is: frozen, canonical JSON without NaN, named by the digest of its content, listing its parents.

Lineage is nothing more than walking `parents`. Records never hold wall-clock times or machine paths unless that is what
they are about, so the same work gives the same digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import Broken, Tampered


class Value(BaseModel):
    """A frozen part of a record; unknown keys and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Record(Value):
    """A frozen noun of the pipeline, named by `digest`: 64 hex digits, SHA-256 of its canonical JSON."""

    kind: ClassVar[str]

    @property
    def parents(self) -> tuple[str, ...]:
        """Digests of the records (or files) this one was made from."""
        return ()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, UTF-8 kept, one trailing newline."""
        return canonical_json({"kind": self.kind, **self.model_dump(mode="json")}) + "\n"

    @property
    def digest(self) -> str:
        return digest_bytes(self.to_json().encode())

    def write(self, path: Path) -> str:
        """Put the record at `path` (its folder is made) and return its digest.

        By rename: a reader never sees half of it, and a file that is a link into the data cache is not written through.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(self.to_json(), encoding="utf-8")
        temporary.replace(path)
        return self.digest

    @classmethod
    def from_json(cls, text: str, *, where: str = "record", digest: str | None = None) -> Self:
        """Parse what `to_json` wrote. Raises Tampered when `digest` is given and differs, Broken when it is no such record."""
        if digest is not None and digest_bytes(text.encode()) != digest:
            raise Tampered(f"the {cls.kind} record does not have the digest {digest[:12]} it was filed under", where=where)
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or data.pop("kind", None) != cls.kind:
                raise Broken(f"this is not a {cls.kind} record", where=where)
            return cls.model_validate_json(json.dumps(data))
        except (ValueError, ValidationError) as error:
            raise Broken(f"the {cls.kind} record cannot be read: {error}", where=where) from error

    @classmethod
    def read(cls, path: Path, *, digest: str | None = None) -> Self:
        """Read a record from a file; see `from_json`."""
        try:
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Broken(f"the {cls.kind} record cannot be read: {error}", where=str(path)) from error
        return cls.from_json(text, where=str(path), digest=digest)


class FileDigest(Value):
    """One file of a record: path relative to the record's folder, SHA-256, size in bytes."""

    path: str
    sha256: str
    bytes: int


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, no NaN, UTF-8 kept."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_value(value: Any) -> str:
    """Digest of any JSON-like value, through its canonical JSON."""
    return digest_bytes(canonical_json(value).encode())


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in 1 MiB pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(folder: Path) -> tuple[FileDigest, ...]:
    """Every regular file below `folder`, sorted by path. Symlinks and special files raise Broken."""
    return tuple(
        FileDigest(path=str(p.relative_to(folder)), sha256=digest_file(p), bytes=p.stat().st_size) for p in _walk(folder)
    )


def first_difference(folder: Path, files: tuple[FileDigest, ...]) -> str | None:
    """What is wrong with `folder` against the recorded `files`: the first changed, missing or extra file; None if whole."""
    recorded = {f.path: f for f in files}
    present = {str(p.relative_to(folder)): p for p in _walk(folder)} if folder.is_dir() else {}
    for path, file in sorted(recorded.items()):
        if path not in present:
            return f"{folder / path} is missing"
        if digest_file(present[path]) != file.sha256:
            return f"{folder / path} does not have the recorded digest {file.sha256[:12]}"
    extra = sorted(present.keys() - recorded.keys())
    return f"{folder / extra[0]} was not there when this was recorded" if extra else None


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise Broken("a symlink or special file lies among recorded files", where=str(path))
        if path.is_file():
            yield path
