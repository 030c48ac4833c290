"""What people think of answers, and the answers they may still think something of. Implements ports.FeedbackBook.

SQLite in the folder of what the server keeps, or the ledger's own PostgreSQL, where several servers share it. Personal data is
redacted by whoever calls: nothing here looks into a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pipeline.backends.database import Database
from pipeline.backends.ledger_engines import url_of
from pipeline.backends.ledger_index import micros
from pipeline.domain.feedback import GivenAnswer, Remark, rows_of
from pipeline.errors import Conflict

_CREATING, _NUMBERING = 7_205_761, 7_205_762
"""Advisory locks of PostgreSQL: tables are made, and remarks numbered, by one process after the other."""
_AT_ONCE = 500

_tables = sa.MetaData()
_answers = sa.Table(
    "feedback_answers",
    _tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("feedback_answers_by_time", "model", "at"),
)
_remarks = sa.Table(
    "feedback_remarks",
    _tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("model", "answer", "caller", "kind"),
)
"""number: without gaps and in the order in which transactions end, so that who has read up to one has missed none before it.
rows: how many rows it can become."""


class SqlFeedback:
    """location: a path (SQLite) or a URL. taken: the number of the last remark that a model's newest snapshot has.

    Threads and processes may share it.
    """

    def __init__(self, location: Path | str, *, taken: Callable[[str], int] = lambda model: 0, patience: float = 10.0) -> None:
        self._taken = taken
        self._database = Database(location, _tables, what="the store of feedback", lock=_CREATING, patience=patience)

    @classmethod
    def beside(cls, ledger: Path | str, file: Path, *, taken: Callable[[str], int] = lambda model: 0) -> SqlFeedback:
        """In the ledger's database where that is a server's, else in a file."""
        shared = not isinstance(ledger, Path) and url_of(ledger).get_backend_name() != "sqlite"
        return cls(ledger if shared else file, taken=taken)

    def keep(self, answers: Sequence[GivenAnswer], *, before: datetime, most: int) -> None:
        """See ports.FeedbackBook."""
        rows = [{"model": a.model, "id": a.id, "at": micros(a.at), "body": a.model_dump_json()} for a in answers]

        def write() -> None:
            with self._database.writing() as connection:
                for row in rows:
                    gone = (_answers.c.model == row["model"]) & (_answers.c.id == row["id"])
                    connection.execute(sa.delete(_answers).where(gone))
                if rows:
                    connection.execute(sa.insert(_answers), rows)
                for model in {row["model"] for row in rows}:
                    mine = _answers.c.model == model
                    newest = sa.select(_answers.c.at).where(mine).order_by(_answers.c.at.desc()).offset(most).limit(1)
                    beyond = connection.execute(newest).scalar()
                    oldest = max(micros(before), int(beyond) + 1 if beyond is not None else 0)
                    connection.execute(sa.delete(_answers).where(mine, _answers.c.at < oldest))

        self._database.patiently(write)

    def find(self, model: str, id: str) -> GivenAnswer | None:
        """See ports.FeedbackBook."""
        query = sa.select(_answers.c.body).where(_answers.c.model == model, _answers.c.id == id)
        with self._database.reading() as connection:
            body = connection.execute(query).scalar() if connection else None
        return GivenAnswer.model_validate_json(body) if body is not None else None

    def say(self, remark: Remark) -> bool:
        """See ports.FeedbackBook."""
        given = remark.answer
        its = {"model": given.model, "answer": given.id, "caller": given.caller, "kind": remark.kind.value}

        def write() -> bool:
            with self._database.writing() as connection:
                if self._database.path is None:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_NUMBERING)))
                same = sa.select(_remarks.c.body).where(*(_remarks.c[name] == value for name, value in its.items()))
                said = connection.execute(same).scalar()
                if said is not None:
                    return _repeated(Remark.model_validate_json(said), remark)
                last = sa.select(sa.func.max(_remarks.c.number)).where(_remarks.c.model == given.model)
                number = int(connection.execute(last).scalar() or 0) + 1
                more: dict[str, Any] = {"number": number, "rows": len(rows_of(remark)), "body": remark.model_dump_json()}
                connection.execute(sa.insert(_remarks), {**its, **more})
                return True

        return self._database.patiently(write)

    def after(self, model: str, number: int, *, until: datetime | None = None) -> Iterator[tuple[int, Remark]]:
        """See ports.FeedbackBook."""
        while True:
            query = sa.select(_remarks.c.number, _remarks.c.body).where(_remarks.c.model == model, _remarks.c.number > number)
            with self._database.reading() as connection:
                ordered = query.order_by(_remarks.c.number).limit(_AT_ONCE)
                rows = list(connection.execute(ordered)) if connection else []
            for found, body in rows:
                remark = Remark.model_validate_json(body)
                if until is not None and remark.at > until:
                    return
                number = int(found)
                yield number, remark
            if len(rows) < _AT_ONCE:
                return

    def waiting(self, model: str) -> int:
        """See ports.FeedbackBook."""
        with self._database.reading() as connection:
            if connection is None:
                return 0
            mine = (_remarks.c.model == model) & (_remarks.c.number > self._taken(model))
            return int(connection.execute(sa.select(sa.func.sum(_remarks.c.rows)).where(mine)).scalar() or 0)


def _repeated(before: Remark, now: Remark) -> bool:
    """False: the same was said. Raises Conflict where something else was."""
    if (before.good, before.text, before.over) != (now.good, now.text, now.over):
        raise Conflict("this caller has said something else of this answer before", fix="each answer is judged once by a caller")
    return False
