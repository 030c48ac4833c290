"""Connections to the databases a ledger can lie in, and their complaints as ours. SQLite from a path, PostgreSQL from a URL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from pipeline.errors import Broken, Misuse, Tampered, TryLater

RESTORE = "restore the ledger and its seal together from a backup; docs/runbook.md says how to tell which one is right"


@contextmanager
def translated(where: str, *, file: bool, what: str = "the ledger") -> Iterator[None]:
    """The database's complaints as ours: locked or unreachable is TryLater, damaged is Tampered, the rest Broken."""
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, sqlite3.Error, UnicodeDecodeError) as error:
        # SQLAlchemy wraps what its own statements raise, not what pragmas and hooks do; and sqlite3 stumbles over its own
        # messages where they quote damaged text.
        said = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()[0]
        if not file:
            raise TryLater(f"{what} does not answer: {said}", where=where, fix="try again") from error
        # "locking protocol": whoever opens or closes the file just now was stopped, or is slow.
        if "locked" in said or "busy" in said or "locking protocol" in said:
            raise TryLater(f"{what} is locked: {said}", where=where, fix="try again") from error
        if any(sign in said for sign in ("malformed", "not a database", "decode", "no such table", "no such column")):
            raise Tampered(f"the file is damaged, or is not {what}: {said}", where=where, fix=RESTORE) from error
        raise Broken(f"{what} cannot be used: {said}", where=where, fix="look for free space and access") from error


def url_of(location: Path | str) -> sa.URL:
    if isinstance(location, Path):
        return sa.URL.create("sqlite", database=str(location))
    fix = "give a file for SQLite, or postgresql+psycopg://USER@HOST/NAME"
    try:
        url = sa.make_url(location)
    except (sa.exc.ArgumentError, ValueError):
        raise Misuse("the ledger's URL cannot be read", fix=fix) from None
    if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith((":", "file:")):
        return url
    if url.get_backend_name() == "postgresql":
        # SQLAlchemy 2.0 still takes a bare postgresql:// for psycopg2.
        return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
    raise Misuse(f"a ledger cannot be kept in {url.drivername}:{'memory' if not url.database else ''}", fix=fix)


def sqlite_engine(url: sa.URL, patience: float) -> sa.Engine:
    options = {"timeout": patience, "isolation_level": None}
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=options)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes later can not wait for its turn; one that is to write says so at once.
        write = connection.get_execution_options().get("tuneline_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def pragma(through: sa.Engine | sa.Connection, statement: str) -> Any:
    """Run a pragma outside any transaction and return its first row."""
    raw = through.raw_connection() if isinstance(through, sa.Engine) else through.connection
    try:
        cursor = raw.cursor()
        row = cursor.execute(statement).fetchone()
        cursor.close()
        return row
    finally:
        if isinstance(through, sa.Engine):
            raw.close()
