"""The run book's tables, and the database they lie in: beside the ledger's in PostgreSQL, a file of their own with SQLite.

The ledger's SQLite file is sealed byte for byte, so a heartbeat could not be written there. Nothing is decided here.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from pipeline.backends.database import Database
from pipeline.errors import Broken

SCHEMA = "1"

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


class RunBookDatabase(Database):
    """The tables, of a schema that this Tuneline knows."""

    def __init__(self, location: Path | str, patience: float) -> None:
        super().__init__(location, tables, what="the run book", lock=7_205_760, patience=patience)

    def made(self, connection: sa.Connection) -> None:
        if not connection.execute(sa.select(_schema.c.version)).first():
            connection.execute(sa.insert(_schema), {"version": SCHEMA})

    def found(self, connection: sa.Connection) -> bool:
        if not sa.inspect(connection).has_table(_schema.name):
            return False
        versions = list(connection.execute(sa.select(_schema.c.version)).scalars())
        if versions and versions != [SCHEMA]:
            raise Broken(
                f"the run book has the schema {', '.join(versions)}, and this Tuneline knows {SCHEMA}",
                where=self.where,
                fix="install the Tuneline that wrote it, or a newer one",
            )
        return bool(versions)
