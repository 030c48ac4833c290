"""What people are still to be told: a table of notices, and for each address whether it has them. SQLite, in the state folder.

An address is named here by a salted digest, never by itself: it holds a password more often than not. Sending is notices.py's.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

MOST_ATTEMPTS = 12
"""Turns in which a notice is tried for one address; after them it is left, and `tuneline status` says so."""
GIVE_UP_SECONDS = 7 * 86_400.0
"""News of a week ago is none any more."""
KEPT_SECONDS = 60 * 86_400.0
"""How long it is remembered what was told, so that nothing is told twice."""
CLAIM_SECONDS = 120.0
"""How long an address is one process's to try; whoever takes a notice and dies leaves it to the next after that."""
PATIENCE = 2.0
"""Seconds that a deed waits for the table, at most."""

_TABLES = """
create table if not exists salt (salt blob not null);
create table if not exists notices (id text primary key, at real not null, body text not null);
create table if not exists deliveries (
  notice text not null, target text not null, attempts integer not null default 0, claimed real not null default 0,
  done real, error text, primary key (notice, target));
create index if not exists deliveries_open on deliveries (target) where done is null;
"""


class Taken(NamedTuple):
    """A notice that is this process's to deliver now."""

    id: str
    body: str
    attempt: int


class Undelivered(NamedTuple):
    """Deliveries that are still to be tried, and given up; when the oldest was told; what stood in the way of the last."""

    waiting: int
    given_up: int
    since: float | None
    error: str | None


class Outbox:
    """Every method raises sqlite3.Error or OSError where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, id: str, body: str, targets: Sequence[str]) -> bool:
        """Keep a notice for every address; False if one of this id was kept before."""
        now = time.time()
        with self._open(write=True) as db:
            db.execute("delete from deliveries where notice in (select id from notices where at < ?)", (now - KEPT_SECONDS,))
            db.execute("delete from notices where at < ?", (now - KEPT_SECONDS,))
            new = db.execute("insert or ignore into notices values (?, ?, ?)", (id, now, body)).rowcount == 1
            if new:
                db.executemany("insert into deliveries (notice, target) values (?, ?)", [(id, target) for target in targets])
        return new

    def take(self, target: str) -> Taken | None:
        """The oldest notice that this address lacks, and that nobody else is delivering."""
        now = time.time()
        if not self.path.exists():
            return None
        with self._open(write=True) as db:
            row = db.execute(
                "select id, body, attempts from deliveries join notices on id = notice where target = ? and done is null"
                " and attempts < ? and at > ? and claimed < ? order by at, id limit 1",
                (target, MOST_ATTEMPTS, now - GIVE_UP_SECONDS, now),
            ).fetchone()
            if row is None:
                return None
            claim = (now + CLAIM_SECONDS, row[0], target)
            db.execute("update deliveries set attempts = attempts + 1, claimed = ? where notice = ? and target = ?", claim)
        return Taken(row[0], row[1], row[2] + 1)

    def delivered(self, id: str, target: str) -> None:
        with self._open(write=True) as db:
            done = (time.time(), id, target)
            db.execute("update deliveries set done = ?, error = null where notice = ? and target = ?", done)

    def failed(self, id: str, target: str, error: str) -> None:
        """Give it back, to be tried at the next turn."""
        with self._open(write=True) as db:
            db.execute("update deliveries set claimed = 0, error = ? where notice = ? and target = ?", (error, id, target))

    def name_of(self, address: str) -> str:
        """What an address is called here."""
        with self._open(write=True) as db:
            found = db.execute("select salt from salt").fetchone()
            salt = found[0] if found else os.urandom(16)
            if found is None:
                db.execute("insert into salt values (?)", (salt,))
        return hashlib.scrypt(address.encode(), salt=salt, n=2**12, r=8, p=1, dklen=16).hex()

    def undelivered(self) -> Undelivered:
        """Across all addresses, those that are set no more among them."""
        if not self.path.exists():
            return Undelivered(0, 0, None, None)
        with self._open(write=False) as db:
            query = "select attempts < ? and at > ?, at, error from deliveries join notices on id = notice where done is null"
            rows = db.execute(f"{query} order by at", (MOST_ATTEMPTS, time.time() - GIVE_UP_SECONDS)).fetchall()
        waiting = sum(1 for row in rows if row[0])
        errors = [row[2] for row in rows if row[2]]
        return Undelivered(waiting, len(rows) - waiting, rows[0][1] if rows else None, errors[-1] if errors else None)

    def forget_others(self, targets: Sequence[str]) -> int:
        """Drop what is undelivered to addresses that are set no more; how many deliveries that was."""
        if not self.path.exists():
            return 0
        marks = ",".join("?" * len(targets))
        with self._open(write=True) as db:
            return db.execute(f"delete from deliveries where done is null and target not in ({marks})", targets).rowcount

    @contextmanager
    def _open(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        if write and not self.path.exists():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = str(self.path) if write else f"{self.path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(where, timeout=PATIENCE, isolation_level=None, uri=not write)) as db:
            if not write:
                yield db
                return
            if not db.execute("select 1 from sqlite_master where name = 'deliveries_open'").fetchone():
                db.executescript(_TABLES)
                self.path.chmod(0o600)
            db.execute("begin immediate")
            try:
                yield db
            except BaseException:
                db.execute("rollback")
                raise
            db.execute("commit")
