"""The ledger's table in a SQL database: rows in, rows out. SQLite from a path, PostgreSQL from a URL, through SQLAlchemy Core.

Rows are only ever inserted. What a row means, and whether it is whole, is ledger.py's to say; what is asked of the index beside
the events stands in ledger_questions.py; connections and their complaints in ledger_engines.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from pipeline.backends import ledger_index as beside
from pipeline.backends.ledger_engines import pragma, sqlite_engine, translated, url_of
from pipeline.backends.ledger_index import Derived, HolderRow, IndexRow
from pipeline.backends.ledger_questions import Questions
from pipeline.errors import Broken

SCHEMA = "2"
BARE = "1"
"""The schema before there was an index: events alone. Read as it is; the next append makes the index."""
_CREATING = 7_205_759
"""The advisory lock under which processes make tables in PostgreSQL, one after the other."""

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
_SCHEMA = sa.select(_schema.c.version)
_HEAD = sa.select(_events.c.sequence, _events.c.digest).where(_events.c.model == sa.bindparam("of"))
_HEAD = _HEAD.order_by(_events.c.sequence.desc()).limit(1)
_columns = (_events.c.model, _events.c.sequence, _events.c.digest, _events.c.body)


class Row(NamedTuple):
    """One stored event. The primary key (model, sequence) is the compare-and-swap; digest names the body."""

    model: str
    sequence: int
    digest: str
    body: str


class Taken(Exception):
    """Another row has this model and sequence."""


class Bare(Exception):
    """The ledger has no index yet."""


class Fence(Protocol):
    """What an insert has to pass: the lease of the run that writes must still be its own."""

    def around(self) -> AbstractContextManager[None]:
        """A block around the whole transaction. Raises Stale."""
        ...

    def check(self, connection: sa.Connection) -> None:
        """Asked within the transaction. Raises Stale."""
        ...


class _Mine(threading.local):
    """The connection that a thread holds open."""

    connection: sa.Connection | None = None


class EventStore:
    """location: a path (SQLite) or a URL (`postgresql+psycopg://…`). patience: seconds to wait for a locked database. fence: what
    every insert has to pass, where a run writes.

    No connection to SQLite outlives its use, so forks and threads are safe. `path` is None for PostgreSQL; `where` shows no
    password.
    """

    def __init__(self, location: Path | str, patience: float, fence: Fence | None = None) -> None:
        url = url_of(location)
        self._patience = patience
        self._fence = fence
        self.path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        self.where = url.render_as_string(hide_password=True) if self.path is None else str(self.path)
        self._engine = (
            sqlite_engine(url, patience)
            if self.path
            else sa.create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args={"connect_timeout": 10})
        )
        self._there = False
        self._mine = _Mine()
        self.questions = Questions(self._indexed)

    def exists(self) -> bool:
        if self.path:
            return self.path.exists()
        if not self._there:
            with self._translated():
                self._there = sa.inspect(self._engine).has_table(_schema.name)
        return self._there

    def create(self) -> None:
        """Make the tables. A SQLite file is made whole before it gets its name, so that a crash leaves no half-made ledger."""
        if self.path is None:
            self._create_tables(self._engine)
            return
        fresh = self.path.with_name(self.path.name + ".new")
        for debris in (fresh, *(fresh.with_name(fresh.name + end) for end in ("-wal", "-shm", "-journal"))):
            debris.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL, 0o600))
        engine = sqlite_engine(url_of(fresh), self._patience)
        pragma(engine, "PRAGMA journal_mode=WAL")
        self._create_tables(engine)
        os.replace(fresh, self.path)

    def add_index(self, rows: Iterable[tuple[list[IndexRow], list[HolderRow]]]) -> None:
        """Give a bare ledger its index, in one transaction; nothing where it has one by now."""
        with self._translated(), self._transaction(write=True) as connection:
            if self.path is None:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
            if self._check_schema(connection) != BARE:
                return
            beside.tables.create_all(connection)
            for found, changed in rows:
                if found:
                    connection.execute(sa.insert(beside.index), [row._asdict() for row in found])
                if changed:
                    connection.execute(sa.insert(beside.holders), [row._asdict() for row in changed])
            connection.execute(sa.update(_schema).values(version=SCHEMA))

    def rows(self, model: str | None = None, *, start: int = 1) -> list[Row]:
        """All rows from sequence `start` on, of one model or of all, by model and sequence."""
        query = sa.select(*_columns).order_by(_events.c.model, _events.c.sequence)
        if model is not None:
            query = query.where(_events.c.model == model)
        if start > 1:
            query = query.where(_events.c.sequence >= start)
        with self._reading() as connection:
            return [Row(*row) for row in connection.execute(query)]

    def at(self, model: str, sequences: Iterable[int]) -> dict[int, Row]:
        """The rows at these sequences, as far as they are there."""
        query = sa.select(*_columns).where(_events.c.model == model, _events.c.sequence.in_(list(sequences)))
        with self._reading() as connection:
            return {row[1]: Row(*row) for row in connection.execute(query)}

    def around(self, model: str, sequence: int) -> dict[int, Row]:
        """The row at `sequence` and the one after it, as far as they are there."""
        return self.at(model, (sequence, sequence + 1))

    def head(self, model: str) -> tuple[int, str] | None:
        """Sequence and digest of the last row."""
        with self._reading() as connection:
            row = connection.execute(_HEAD, {"of": model}).first()
            return (int(row[0]), str(row[1])) if row else None

    def models(self) -> tuple[str, ...]:
        with self._reading() as connection:
            return tuple(connection.execute(sa.select(_events.c.model).distinct().order_by(_events.c.model)).scalars())

    def insert(self, row: Row, derived: Derived | None = None, signature: str | None = None) -> None:
        """Store a row, and what belongs beside it, in one transaction. Raises Taken, changing nothing, if its place is, and Stale
        when the fence does not let it pass."""
        around = self._fence.around() if self._fence else nullcontext()
        try:
            with around, self._translated(), self._transaction(write=True) as connection:
                self._check_schema(connection)
                if self._fence:
                    self._fence.check(connection)
                connection.execute(sa.insert(_events), row._asdict())
                if derived is not None:
                    connection.execute(sa.insert(beside.index), derived.listed._asdict())
                    for holder in derived.holders:
                        connection.execute(sa.insert(beside.holders), holder._asdict())
                if signature is not None:
                    said = {"model": row.model, "sequence": row.sequence, "signature": signature}
                    connection.execute(sa.insert(beside.signatures), said)
        except IntegrityError as error:
            raise Taken from error

    def complaints(self) -> list[str]:
        """What the database itself finds wrong with its file."""
        if self.path is None:
            return []
        with self._reading() as connection:
            said = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        return [line for line in said if line != "ok"]

    def bare(self) -> bool:
        """Whether there is no index yet."""
        with self._translated(), self._transaction() as connection:
            return self._check_schema(connection) == BARE

    @contextmanager
    def held_open(self) -> Iterator[None]:
        """Let all that this thread does in the block use one connection to SQLite: it need not be opened again and again, and
        SQLite moves its write-ahead log into the file by itself when the last one closes."""
        if self.path is None or self._mine.connection is not None:
            yield
            return
        with self._translated():
            held = self._engine.connect()
        try:
            self._mine.connection = held
            yield
        finally:
            self._mine.connection = None
            held.close()

    def settle(self) -> bool:
        """Move what waits in SQLite's write-ahead log into the file. False when a reader or other checkpoint was in the way."""
        if self.path is None:
            return True
        with self._translated():
            busy = pragma(self._mine.connection or self._engine, "PRAGMA wal_checkpoint(TRUNCATE)")[0]
        return not busy

    def _create_tables(self, engine: sa.Engine) -> None:
        with self._translated(), engine.execution_options(tuneline_write=True).begin() as connection:
            if self.path is None:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
            _tables.create_all(connection)
            if not connection.execute(sa.select(_schema.c.version)).first():
                beside.tables.create_all(connection)
                connection.execute(sa.insert(_schema), {"version": SCHEMA})

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        held = self._mine.connection
        if held is None:
            with self._engine.connect() as opened, opened.execution_options(tuneline_write=write).begin():
                yield opened
        else:
            with held.execution_options(tuneline_write=write).begin():
                yield held

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._translated(), self._transaction() as connection:
            self._check_schema(connection)
            yield connection

    @contextmanager
    def _indexed(self) -> Iterator[sa.Connection]:
        with self._translated(), self._transaction() as connection:
            if self._check_schema(connection) == BARE:
                raise Bare
            yield connection

    def _check_schema(self, connection: sa.Connection) -> str:
        found = list(connection.execute(_SCHEMA).scalars())
        if found in ([BARE], [SCHEMA]):
            return str(found[0])
        raise Broken(
            f"the ledger has the schema {', '.join(map(str, found)) or 'none'}, and this Tuneline knows {SCHEMA}",
            where=self.where,
            fix="install the Tuneline that wrote it, or a newer one",
        )

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.where, file=self.path is not None)
