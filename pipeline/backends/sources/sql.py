"""Rows of a database query as a file of JSON lines in staging, the same bytes whenever the rows are the same.

A query runs read-only and is streamed. Addresses come from the environment, and neither they nor values of a row enter a message.
What a row means is curation's; which queries may stand in params is params/ways_in.py's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from pipeline.backends.sources.staged_rows import StagedRows
from pipeline.domain.data import SourceFile
from pipeline.errors import BadInput, TryLater, TunelineError
from pipeline.params.ingest import Reading, SourceParams
from pipeline.ports import Found

_ROWS = 1000
_PLAIN = re.compile(r"[\w .:+/-]{1,100}", re.ASCII)
"""Texts that can be a watermark: times, dates, numbers, identifiers."""
_END_OF_TIME = "9999-12-31 23:59:59+00:00"


def fetch_rows(
    entry: SourceParams,
    reading: Reading,
    folder: Path,
    *,
    root: Path,
    as_of: datetime | None,
    earlier: Sequence[SourceFile],
    limit: int,
) -> Iterator[Found]:
    """The rows of a query as one file `sql/NAME.jsonl` in `folder`, sorted, since databases give rows in any order.

    `:since` is the greatest value that the watermark column had in the earlier rows of this entry, or NULL. Nothing comes of a
    query without rows. limit: bytes that the rows may take. Raises BadInput for a query that fails, TryLater for a database that
    does not answer.
    """
    assert entry.sql is not None
    since = _last_watermark(entry, earlier)
    url, where = _address(entry, root), f"ingest.sources, {entry.origin}"
    if as_of is not None and not _binds(entry.sql, "as_of"):
        fix = "say which rows are older, e.g. AND updated_at <= :as_of"
        raise BadInput("the query has no :as_of, so --as-of cannot be kept to", where=where, fix=fix)
    rows = StagedRows(folder, limit, where)
    try:
        mark = _run(entry, url, since, as_of, rows)
    except TunelineError:
        raise
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        raise _explained(error, url, where) from None
    if not rows.count:
        return
    path = rows.merged()
    # Rows have no time of their own that we know; what --as-of leaves out is said by the query.
    modified = as_of.timestamp() if as_of is not None else path.stat().st_mtime
    name = f"sql/{entry.origin}.jsonl"
    yield Found(path, name, "jsonl", False, modified, reading, entry.origin, reading.license, mark or since, staged=True)


def _run(entry: SourceParams, url: sa.URL, since: str | None, as_of: datetime | None, rows: StagedRows) -> str | None:
    """Run the query, and return the greatest watermark of its rows as JSON."""
    values = {"since": orjson.loads(since) if since is not None else None, "as_of": _instant(as_of)}
    # Written into the query, as a person would: a parameter of unknown type cannot be compared with NULL on PostgreSQL. Only
    # numbers and texts without quotes come here (see _greater).
    binds = [sa.bindparam(k, v, type_=_type(v), literal_execute=True) for k, v in values.items() if _binds(str(entry.sql), k)]
    query = sa.text(str(entry.sql)).bindparams(*binds)
    engine = sa.create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=_connect_options(url))
    greatest: Any = None
    with engine.connect() as connection:
        _read_only(connection)
        streaming = connection.execution_options(stream_results=True, yield_per=_ROWS)
        # Closed at once, also when a row is refused: what still reads would lock an SQLite file.
        with closing(streaming.execute(query)) as result:
            columns = list(result.keys())
            _check_columns(columns, entry, rows.where)
            at = columns.index(entry.watermark) if entry.watermark is not None else None
            for row in result:
                if at is not None and row[at] is not None:
                    greatest = _greater(greatest, row[at], rows.where)
                rows.add(dict(zip(columns, row, strict=True)))
    return None if greatest is None else orjson.dumps(_mark(greatest)).decode()


def _address(entry: SourceParams, root: Path) -> sa.URL:
    where = f"ingest.sources, {entry.origin}"
    text = str(entry.url)
    if text.startswith("env:"):
        variable = text.removeprefix("env:")
        found = os.environ.get(variable)
        if not found:
            raise BadInput(f"the environment variable {variable} is not set", where=where, fix="put the database's URL there")
        text, named = found, variable
    else:
        named = "url"
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        fix = "give an SQLAlchemy URL, such as postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        raise BadInput(f"{named} holds no URL of a database", where=where, fix=fix) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        return url
    path = root / (url.database or "")
    if not url.database or url.database.startswith("file:") or not path.is_file() or path.is_symlink():
        raise BadInput("there is no such SQLite file", where=where, fix="name a file that is there: sqlite:///FILE")
    # Opened read-only, so that a wrong name creates nothing and no query writes.
    return sa.URL.create(url.drivername, database=f"file:{quote(str(path.absolute()))}", query={"mode": "ro", "uri": "true"})


def _connect_options(url: sa.URL) -> dict[str, Any]:
    return {"connect_timeout": 15} if url.get_backend_name() in ("postgresql", "mysql", "mariadb") else {}


def _read_only(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execution_options(postgresql_readonly=True)


def _check_columns(columns: Sequence[str], entry: SourceParams, where: str) -> None:
    if len(set(columns)) != len(columns):
        raise BadInput("two columns of the query share a name", where=where, fix="name them apart: SELECT a.id AS order_id, …")
    if entry.watermark is not None and entry.watermark not in columns:
        seen = ", ".join(columns[:12])
        raise BadInput(f"the query has no column {entry.watermark!r}; there are: {seen}", where=where, fix="correct watermark")


def _greater(one: Any, other: Any, where: str) -> Any:
    odd = isinstance(other, str) and not _PLAIN.fullmatch(other)
    if not isinstance(other, int | float | Decimal | str | date) or isinstance(other, bool) or odd:
        what = "the watermark is neither a number, a time nor a plain text"
        raise BadInput(what, where=where, fix="take a column of numbers or times that only grows")
    try:
        return other if one is None or other > one else one
    except TypeError:
        raise BadInput("the watermark changes its type", where=where, fix="take a column of one type") from None


def _type(value: Any) -> Any:
    return sa.String() if value is None or isinstance(value, str) else sa.Integer() if isinstance(value, int) else sa.Float()


def _mark(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else str(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return value.isoformat() if isinstance(value, date | time) else value


def _last_watermark(entry: SourceParams, earlier: Sequence[SourceFile]) -> str | None:
    if entry.watermark is None:
        return None
    return next((s.watermark for s in reversed(earlier) if s.origin == entry.origin and s.watermark is not None), None)


def _instant(as_of: datetime | None) -> str:
    return as_of.astimezone(UTC).isoformat(sep=" ") if as_of is not None else _END_OF_TIME


def _binds(query: str, name: str) -> bool:
    return re.search(rf"(?<![:\w\\]):{name}\b", query) is not None


def _explained(error: Exception, url: sa.URL, where: str) -> TunelineError:
    """What went wrong, in the database's words but for the password; SQLAlchemy's would repeat the query and its values."""
    if isinstance(error, ModuleNotFoundError | NoSuchModuleError):
        what = f"the driver of {url.drivername} is not installed"
        return BadInput(what, where=where, fix="install it; for PostgreSQL: pip install 'tuneline[postgresql]'")
    said = str(error.orig) if isinstance(error, DBAPIError) and error.orig is not None else type(error).__name__
    said = " ".join(said.split())
    if secret := str(url.password or ""):
        for form in (secret, quote(secret), quote_plus(secret), quote(secret, safe="")):
            said = said.replace(form, "***")
    if isinstance(error, OperationalError | InterfaceError) and not _is_answer(error):
        return TryLater(f"the database cannot be reached: {said[:300]}", where=where, fix="check that it is up, and its URL")
    return BadInput(f"the query fails: {said[:300]}", where=where, fix="run it by hand, and correct it in params.yaml")


def _is_answer(error: DBAPIError) -> bool:
    """Whether an operational error is what the database said of the query: SQLite says `no such table` this way."""
    return (
        type(error.orig).__module__.startswith("sqlite3") and "locked" not in str(error.orig) and "unable" not in str(error.orig)
    )
