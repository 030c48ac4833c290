"""Tables of our own beside the ledger: in its PostgreSQL, which machines share, or in a SQLite file of their own.

Made by the first write, in a private folder; processes and threads may share them. What stands in the tables is not known here.
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
from pipeline.errors import TryLater

IDLE_MILLISECONDS = 10_000
T = TypeVar("T")


class Database:
    """location: a path (SQLite) or a URL. what: the tables, as errors call them. lock: an advisory lock of PostgreSQL's, under
    which processes make them, one after the other. patience: seconds to wait for a lock, or for a server that does not answer.

    No connection to SQLite outlives its use.
    """

    def __init__(self, location: Path | str, tables: sa.MetaData, *, what: str, lock: int, patience: float) -> None:
        url = url_of(location)
        self.path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        self.where = url.render_as_string(hide_password=True) if self.path is None else str(self.path)
        self._tables, self._what, self._lock, self._patience = tables, what, lock, patience
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

    def made(self, connection: sa.Connection) -> None:
        """What is written as the tables are made, in the same transaction; nothing, unless a subclass says so."""

    def found(self, connection: sa.Connection) -> bool:
        """Whether the tables are there and can be used. A subclass may raise Broken for those of another schema."""
        return bool(sa.inspect(connection).has_table(self._tables.sorted_tables[0].name))

    def _exists(self) -> bool:
        if not self._there and not (self.path and not self.path.exists()):
            with self._translated(), self._engine.connect() as connection, connection.begin():
                self._there = self.found(connection)
        return self._there

    def _create(self) -> None:
        if self.path:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        with self._translated():
            if self.path:
                pragma(self._engine, "PRAGMA journal_mode=WAL")
            with self._engine.execution_options(tuneline_write=True).begin() as connection:
                if self.path is None:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._lock)))
                self._tables.create_all(connection)
                self.made(connection)
        self._there = True

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated(self.where, file=self.path is not None, what=self._what):
                yield
        except IntegrityError as error:
            # Two made the same first row: whoever looks again finds it.
            raise TryLater("another process was faster", where=self.where, fix="try again") from error


def end_idle(connection: sa.Connection) -> None:
    """A process that is stopped within this transaction holds others up for so long only: PostgreSQL ends its session."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {IDLE_MILLISECONDS}")
    connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_MILLISECONDS}")
