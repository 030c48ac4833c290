"""The run book's tables, and the database they lie in: beside the ledger's in PostgreSQL, a file of their own with SQLite.

The ledger's SQLite file is sealed byte for byte, so a heartbeat could not be written there. Nothing is decided here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from pipeline.backends.ledger_engines import pragma, sqlite_engine, translated, url_of
from pipeline.errors import Broken, TryLater

SCHEMA = "1"
IDLE_MILLISECONDS = 10_000
_CREATING = 7_205_760
"""The advisory lock under which processes make tables in PostgreSQL, one after the other."""
T = TypeVar("T")

tables = sa.MetaData()
leases = sa.Table(
    "run_leases",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("held", sa.Integer, nullable=False),
    sa.Column("lasts", sa.Float, nullable=False),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("tick", sa.Text, nullable=False),
)
"""One row a model, for ever: its fence only grows. token: names the very attempt that claimed it. tick: the key of the tick."""
ticks = sa.Table(
    "run_ticks",
    tables,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("began", sa.BigInteger, nullable=False),
    sa.Column("ended", sa.BigInteger),
    sa.Column("ending", sa.Text, nullable=False),
    sa.Column("version", sa.Text),
    sa.Column("inputs", sa.Text),
    sa.Column("why", sa.Text, nullable=False),
    sa.Index("run_ticks_by_fence", "model", "fence"),
)
signals = sa.Table(
    "run_signals",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("window", sa.Text, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("run_signals_by_time", "model", "what", "at"),
)
callers = sa.Table(
    "run_callers",
    tables,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("gone", sa.Integer, nullable=False),
)
"""Which process each flow run is, as long as it lasts: by this one tells the dead from those that wait. gone: its lease was taken
over."""
_schema = sa.Table("run_book_version", tables, sa.Column("version", sa.Text, primary_key=True))


class Database:
    """location: a path (SQLite) or a URL. patience: seconds to wait for a lock, or for a server that does not answer.

    Made by the first write, in a private folder. Processes and threads may share it; no connection to SQLite outlives its use.
    """

    def __init__(self, location: Path | str, patience: float) -> None:
        url = url_of(location)
        self.path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        self.where = url.render_as_string(hide_password=True) if self.path is None else str(self.path)
        self._patience = patience
        self._engine = (
            sqlite_engine(url, patience)
            if self.path
            else sa.create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args={"connect_timeout": 10})
        )
        self._there = False

    @contextmanager
    def reading(self) -> Iterator[sa.Connection | None]:
        """A transaction for reading; None where nothing was ever written."""
        if not self._exists():
            yield None
            return
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds SQLite's write lock from its beginning. With PostgreSQL, rows are locked as they are read."""
        if not self._exists():
            self._create()
        with self._translated(), self._engine.execution_options(tuneline_write=True).begin() as connection:
            if self.path is None:
                end_idle(connection)
            yield connection

    def patiently(self, work: Callable[[], T]) -> T:
        """Do `work`, again and again while the database is locked or does not answer, for as long as patience lasts."""
        deadline, pause = time.monotonic() + self._patience, 0.05
        while True:
            try:
                return work()
            except TryLater:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 1.0)

    def _exists(self) -> bool:
        if not self._there:
            if self.path and not self.path.exists():
                return False
            with self._translated(), self._engine.connect() as connection, connection.begin():
                if sa.inspect(connection).has_table(_schema.name):
                    found = list(connection.execute(sa.select(_schema.c.version)).scalars())
                    if found and found != [SCHEMA]:
                        raise Broken(
                            f"the run book has the schema {', '.join(found)}, and this Tuneline knows {SCHEMA}",
                            where=self.where,
                            fix="install the Tuneline that wrote it, or a newer one",
                        )
                    self._there = bool(found)
        return self._there

    def _create(self) -> None:
        if self.path:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._translated():
            if self.path:
                pragma(self._engine, "PRAGMA journal_mode=WAL")
            with self._engine.execution_options(tuneline_write=True).begin() as connection:
                if self.path is None:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
                tables.create_all(connection)
                if not connection.execute(sa.select(_schema.c.version)).first():
                    connection.execute(sa.insert(_schema), {"version": SCHEMA})
        self._there = True

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated(self.where, file=self.path is not None, what="the run book"):
                yield
        except IntegrityError as error:
            # Two made the same first row: whoever looks again finds it.
            raise TryLater("another process was faster", where=self.where, fix="try again") from error


def end_idle(connection: sa.Connection) -> None:
    """A process that is stopped within this transaction holds others up for so long only: PostgreSQL ends its session."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {IDLE_MILLISECONDS}")
    connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_MILLISECONDS}")
