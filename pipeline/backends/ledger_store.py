"""The ledger's table in a SQL database: rows in, rows out. SQLite from a path, PostgreSQL from a URL, through SQLAlchemy Core.

Rows are only ever inserted. What a row means, and whether it is whole, is ledger.py's to say; this speaks SQL and turns the
database's complaints into ours.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from pipeline.errors import Broken, Misuse, Tampered, TryLater

SCHEMA = "1"
RESTORE = "restore the ledger and its seal together from a backup; docs/runbook.md says how to tell which one is right"

_tables = sa.MetaData()
_events = sa.Table(
    "events",
    _tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
_schema = sa.Table("schema_version", _tables, sa.Column("version", sa.Text, primary_key=True))
_columns = (_events.c.model, _events.c.sequence, _events.c.digest, _events.c.body)


class Row(NamedTuple):
    """One stored event. The primary key (model, sequence) is the compare-and-swap; digest names the body."""

    model: str
    sequence: int
    digest: str
    body: str


class Taken(Exception):
    """Another row has this model and sequence."""


class EventStore:
    """location: a path (SQLite) or a URL (`postgresql+psycopg://…`). patience: seconds to wait for a locked database.

    No connection to SQLite outlives its use, so forks and threads are safe. `path` is None for PostgreSQL; `where` shows no
    password.
    """

    def __init__(self, location: Path | str, patience: float) -> None:
        url = _url(location)
        self._patience = patience
        self.path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        self.where = url.render_as_string(hide_password=True) if self.path is None else str(self.path)
        self._engine = (
            _sqlite_engine(url, patience)
            if self.path
            else sa.create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED")
        )

    def exists(self) -> bool:
        if self.path:
            return self.path.exists()
        with self._translated():
            return sa.inspect(self._engine).has_table(_schema.name)

    def create(self) -> None:
        """Make the tables. A SQLite file is made whole before it gets its name, so that a crash leaves no half-made ledger."""
        if self.path is None:
            self._create_tables(self._engine)
            return
        fresh = self.path.with_name(self.path.name + ".new")
        for debris in (fresh, *(fresh.with_name(fresh.name + end) for end in ("-wal", "-shm", "-journal"))):
            debris.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL, 0o600))
        engine = _sqlite_engine(_url(fresh), self._patience)
        _pragma(engine, "PRAGMA journal_mode=WAL")
        self._create_tables(engine)
        os.replace(fresh, self.path)

    def rows(self, model: str | None = None) -> list[Row]:
        """All rows, of one model or of all, by model and sequence."""
        query = sa.select(*_columns).order_by(_events.c.model, _events.c.sequence)
        if model is not None:
            query = query.where(_events.c.model == model)
        with self._reading() as connection:
            return [Row(*row) for row in connection.execute(query)]

    def around(self, model: str, sequence: int) -> dict[int, Row]:
        """The row at `sequence` and the one after it, as far as they are there."""
        query = sa.select(*_columns).where(_events.c.model == model, _events.c.sequence.in_([sequence, sequence + 1]))
        with self._reading() as connection:
            return {row[1]: Row(*row) for row in connection.execute(query)}

    def models(self) -> tuple[str, ...]:
        with self._reading() as connection:
            return tuple(connection.execute(sa.select(_events.c.model).distinct().order_by(_events.c.model)).scalars())

    def insert(self, row: Row) -> None:
        """Store a row for good, in a transaction of its own. Raises Taken, changing nothing, if its place is."""
        try:
            with self._translated(), self._engine.execution_options(tuneline_write=True).begin() as connection:
                self._check_schema(connection)
                connection.execute(sa.insert(_events), row._asdict())
        except IntegrityError as error:
            raise Taken from error

    def complaints(self) -> list[str]:
        """What the database itself finds wrong with its file."""
        if self.path is None:
            return []
        with self._reading() as connection:
            said = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        return [line for line in said if line != "ok"]

    def settle(self) -> bool:
        """Move what waits in SQLite's write-ahead log into the file. False when a reader or other checkpoint was in the way."""
        if self.path is None:
            return True
        with self._translated():
            busy = _pragma(self._engine, "PRAGMA wal_checkpoint(TRUNCATE)")[0]
        return not busy

    def _create_tables(self, engine: sa.Engine) -> None:
        with self._translated():
            _tables.create_all(engine)
            try:
                with engine.begin() as connection:
                    if not connection.execute(sa.select(_schema.c.version)).first():
                        connection.execute(sa.insert(_schema), {"version": SCHEMA})
            except IntegrityError:
                pass  # another process has just written the same row

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._translated(), self._engine.begin() as connection:
            self._check_schema(connection)
            yield connection

    def _check_schema(self, connection: sa.Connection) -> None:
        found = list(connection.execute(sa.select(_schema.c.version)).scalars())
        if found != [SCHEMA]:
            raise Broken(
                f"the ledger has the schema {', '.join(map(str, found)) or 'none'}, and this Tuneline knows {SCHEMA}",
                where=self.where,
                fix="install the Tuneline that wrote it, or a newer one",
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The database's complaints as ours: locked or unreachable is TryLater, damaged is Tampered, the rest Broken."""
        try:
            yield
        except IntegrityError:
            raise
        except (DBAPIError, sqlite3.Error, UnicodeDecodeError) as error:
            # SQLAlchemy wraps what its own statements raise, not what pragmas and hooks do; and sqlite3 stumbles over its own
            # messages where they quote damaged text.
            said = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()[0]
            if self.path is None:
                raise TryLater(f"the ledger does not answer: {said}", where=self.where, fix="try again") from error
            if "locked" in said or "busy" in said:
                raise TryLater(f"the ledger is locked: {said}", where=self.where, fix="try again") from error
            if any(sign in said for sign in ("malformed", "not a database", "decode", "no such table", "no such column")):
                raise Tampered(f"the file is damaged, or is no ledger: {said}", where=self.where, fix=RESTORE) from error
            raise Broken(f"the ledger cannot be used: {said}", where=self.where, fix="look for free space and access") from error


def _url(location: Path | str) -> sa.URL:
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


def _sqlite_engine(url: sa.URL, patience: float) -> sa.Engine:
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


def _pragma(engine: sa.Engine, statement: str) -> Any:
    """Run a pragma outside any transaction and return its first row."""
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        row = cursor.execute(statement).fetchone()
        cursor.close()
        return row
    finally:
        raw.close()
