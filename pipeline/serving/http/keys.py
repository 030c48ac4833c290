"""API keys at rest: a file that its owner alone can read, with the SHA-256 of each key, its scopes, and until when it holds.

A key is 256 random bits, so a plain hash is enough: there is nothing to guess. It is shown once, when it is made. The file is
written whole and put in place by rename, under a lock, so that two who add a key at once lose none.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from pipeline.domain.record import Value
from pipeline.domain.wording import check_words
from pipeline.errors import Broken, Misuse

Scope = Literal["infer", "read", "approve", "promote"]
SCOPES: tuple[Scope, ...] = ("infer", "read", "approve", "promote")
PREFIX = "tl_"
_LONGEST_FILE = 8 << 20


class ApiKey(Value):
    """One key, as it is stored. `name` is who acts: it goes into the ledger with what the key promotes or approves."""

    id: str
    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)

    def why_not(self, now: datetime) -> str | None:
        """Why it does not hold; None when it does."""
        if self.revoked is not None:
            return "was revoked"
        if self.expires is not None and self.expires <= now:
            return "has expired"
        return None


class KeyRing(Value):
    """All of the file."""

    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()


class KeyFile:
    """The keys of one project. Reads again whenever the file was replaced, so what is revoked is refused at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._ring = KeyRing()

    def all(self) -> tuple[ApiKey, ...]:
        """Every key there ever was. Raises Broken for a file that cannot be trusted."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._seen, self._ring = None, KeyRing()
            return ()
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen != self._seen:
            self._ring, self._seen = self._read(status), seen
        return self._ring.keys

    def holder(self, token: str) -> ApiKey | None:
        """The key whose text is `token`, whether or not it holds. Takes as long for a wrong one as for a right one."""
        given, found = _hashed(token), None
        for key in self.all():
            if hmac.compare_digest(key.sha256, given):
                found = key
        return found

    def add(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        expires: datetime | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        now: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its text, which nobody can see again."""
        check_words(actor=name, reason="-")
        if not scopes:
            raise Misuse("a key needs a scope", fix=f"--scope {' or '.join(SCOPES)}")
        now, token = now or datetime.now(UTC), PREFIX + secrets.token_urlsafe(32)
        with self._locked():
            if any(key.name == name and key.why_not(now) is None for key in self.all()):
                raise Misuse(f"there is a key called {name!r} already", fix="revoke it first, or choose another name")
            key = ApiKey(
                id=secrets.token_hex(4),
                name=name,
                sha256=_hashed(token),
                scopes=tuple(scope for scope in SCOPES if scope in scopes),
                created=now,
                expires=expires,
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
            )
            self._write((*self.all(), key))
        return key, token

    def revoke(self, name: str, *, now: datetime | None = None) -> tuple[ApiKey, ...]:
        """Revoke the key of this id, or those of this name; those that are now revoked. Raises Misuse when there is none."""
        with self._locked():
            keys = self.all()
            if not any(name in (key.id, key.name) for key in keys):
                raise Misuse(f"there is no key called {name[:60]!r}", fix="tuneline keys list")
            when = now or datetime.now(UTC)
            ended = [
                key.model_copy(update={"revoked": when}) if name in (key.id, key.name) and key.revoked is None else key
                for key in keys
            ]
            self._write(tuple(ended))
        return tuple(key for key in ended if name in (key.id, key.name))

    def _read(self, status: os.stat_result) -> KeyRing:
        where = str(self.path)
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise Broken("the file of API keys can be read or written by others", where=where, fix=f"chmod 600 {where}")
        if status.st_size > _LONGEST_FILE:
            raise Broken("the file of API keys is far too large to be one", where=where, fix="restore it from a backup")
        try:
            return KeyRing.model_validate_json(self.path.read_bytes())
        except (OSError, ValidationError) as error:
            what = (
                "the file of API keys is damaged"
                if isinstance(error, ValidationError)
                else f"it cannot be read: {error.strerror}"
            )
            raise Broken(what, where=where, fix="restore it from a backup, or remove it and make new keys") from None

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        fresh = self.path.with_name(f".{self.path.name}.new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(KeyRing(keys=keys).model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
