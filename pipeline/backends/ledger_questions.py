"""What is asked of the index beside a ledger's events: who holds a stage, since when, what came last. SQL, nothing else.

Answers are rows and numbers; that they are right is not known here: ledger.py's `verify` makes the index again and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import sqlalchemy as sa

from pipeline.backends.ledger_index import ENDS_REIGNS, HolderRow, IndexRow, holders, index, signatures
from pipeline.domain.record import canonical_json
from pipeline.domain.release import OPINIONS, EventKind

events = sa.table("events", sa.column("model"), sa.column("sequence"), sa.column("body"))

RECENT = 50
"""How many of a stage's last moves are looked at first: a rollback by more reads all."""


class Concern(NamedTuple):
    """Sequences of the events that concern a move, and who holds its stage by then."""

    sequences: list[int]
    holder: str | None


class Questions:
    """indexed: opens a connection for reading, and raises ledger_store.Bare where there is no index yet."""

    def __init__(self, indexed: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
        self._indexed = indexed

    def before(self, model: str, sequence: int) -> tuple[int | None, dict[str, str | None]]:
        """counts_from of an event, and who held each stage once it had happened: what the next event's rows are made from."""
        with self._indexed() as connection:
            counts: int | None = connection.execute(_COUNTS, {"of": model, "at": sequence}).scalar()
            held = {stage: _held(connection, model, stage, sequence) for stage in _stages(connection, model)}
        return counts, held

    def holder(self, model: str, stage: str) -> str | None:
        """Who holds a stage now."""
        with self._indexed() as connection:
            return _held(connection, model, stage, _LAST)

    def turns(self, model: str, stage: str, *, when: int | None = None) -> list[HolderRow]:
        """Whose turn it is, now or at an instant (microseconds), and the turn after it, if any. Empty before the first."""
        query = sa.select(holders).where(holders.c.model == model, holders.c.stage == stage)
        begun = query.where(holders.c.counts_from <= when) if when is not None else query
        with self._indexed() as connection:
            # Times never go back as sequences go on, so this is the order of sequences, and the index has it.
            row = connection.execute(begun.order_by(holders.c.counts_from.desc(), holders.c.sequence.desc()).limit(1)).first()
            if row is None:
                return []
            found = [HolderRow(*row)]
            later = query.where(holders.c.sequence > found[0].sequence).order_by(holders.c.sequence).limit(1)
            return [*found, *(HolderRow(*row) for row in connection.execute(later))]

    def latest(self, model: str, stage: str | None, count: int) -> list[int]:
        """Sequences of the last `count` events, of one stage or of all, oldest first."""
        query = sa.select(index.c.sequence).where(index.c.model == model).order_by(index.c.sequence.desc()).limit(count)
        with self._indexed() as connection:
            if stage is None:
                return sorted(connection.execute(query).scalars())
            found = set(connection.execute(query.where(index.c.stage == stage)).scalars())
            for kind in ENDS_REIGNS:
                found.update(connection.execute(query.where(index.c.kind == kind.value)).scalars())
            return sorted(found)[-count:]

    def stages(self, model: str) -> tuple[str, ...]:
        """Every stage that somebody held, or holds."""
        with self._indexed() as connection:
            return _stages(connection, model)

    def concerning(self, model: str, head: int, stage: str, version: str | None, after: str | None) -> Concern | None:
        """What a decision about a stage needs of events 1 to `head`; None where there are none. See ledger_reading.py.

        A stage's moves from some event on make a stack that is the upper end of the whole one, so a version's time in a stage
        shows by the moves since it was registered, and who holds one by those since it took it.
        """
        if not head:
            return None
        own = self.of_version(model, version, (EventKind.REGISTERED, *OPINIONS)) if version is not None else []
        moves = sa.select(index.c.sequence).where(index.c.model == model, index.c.kind.not_in(_OPINIONS))
        moves = moves.where(index.c.sequence <= head)
        with self._indexed() as connection:
            turn = connection.execute(_TURN_NOW, {"of": model, "stage": stage, "at": head}).first()
            last = moves.where(index.c.stage == stage).order_by(index.c.sequence.desc()).limit(RECENT)
            recent = list(connection.execute(last).scalars())
            if turn and recent and turn[0] < recent[-1]:
                recent += connection.execute(moves.where(index.c.stage == stage, index.c.sequence >= turn[0])).scalars()
            if after is not None and own:
                recent += connection.execute(moves.where(index.c.stage == after, index.c.sequence > own[0])).scalars()
            revoked = index.c.kind == EventKind.REVOKED.value
            recent += connection.execute(sa.select(index.c.sequence).where(index.c.model == model, revoked)).scalars()
        found = {*own, *recent, *([turn[0]] if turn else []), head}
        return Concern(sorted(sequence for sequence in found if sequence <= head), turn[1] if turn else None)

    def of_version(self, model: str, version: str, kinds: Sequence[EventKind]) -> list[int]:
        """Sequences of the events of some kinds about a version, oldest first. Its name ends an event's canonical JSON."""
        joined = index.join(events, sa.and_(events.c.model == index.c.model, events.c.sequence == index.c.sequence))
        asked = sa.select(index.c.sequence).select_from(joined).where(index.c.model == model)
        asked = asked.where(index.c.kind.in_([kind.value for kind in kinds]))
        ends = f'"version":{canonical_json(version)}}}\n'
        with self._indexed() as connection:
            return sorted(connection.execute(asked.where(events.c.body.endswith(ends, autoescape=True))).scalars())

    def signatures(self, model: str, *, start: int = 1) -> dict[int, str]:
        """Sequence → signature, from `start` on."""
        query = sa.select(signatures.c.sequence, signatures.c.signature)
        with self._indexed() as connection:
            found = connection.execute(query.where(signatures.c.model == model, signatures.c.sequence >= start))
            return {int(row[0]): str(row[1]) for row in found}

    def all_rows(self, model: str) -> tuple[list[IndexRow], list[HolderRow]]:
        """All that the index says of a model, sorted."""
        with self._indexed() as connection:
            found = connection.execute(sa.select(index).where(index.c.model == model))
            turns = connection.execute(sa.select(holders).where(holders.c.model == model))
            # By Python, not by the database: its collation may be another.
            return sorted((IndexRow(*r) for r in found), key=lambda r: r.sequence), sorted(
                (HolderRow(*r) for r in turns), key=lambda r: (r.sequence, r.stage)
            )

    def models(self) -> set[str]:
        """Models that the index or the signatures speak of."""
        with self._indexed() as connection:
            named = (connection.execute(sa.select(table.c.model).distinct()).scalars() for table in (index, holders, signatures))
            return {str(model) for models in named for model in models}


_OPINIONS = sorted(kind.value for kind in OPINIONS)
_LAST = 2**62
_OF, _AT, _UPTO = (
    index.c.model == sa.bindparam("of"),
    index.c.sequence == sa.bindparam("at"),
    holders.c.sequence <= sa.bindparam("at"),
)
_COUNTS = sa.select(index.c.counts_from).where(_OF, _AT)
_TURN = holders.c.model == sa.bindparam("of")
_FIRST_STAGE = sa.select(sa.func.min(holders.c.stage)).where(_TURN)
_NEXT_STAGE = _FIRST_STAGE.where(holders.c.stage > sa.bindparam("after"))
_HELD = sa.select(holders.c.version).where(_TURN, holders.c.stage == sa.bindparam("stage"), _UPTO)
_HELD = _HELD.order_by(holders.c.sequence.desc()).limit(1)


_TURN_NOW = sa.select(holders.c.sequence, holders.c.version).where(_TURN, holders.c.stage == sa.bindparam("stage"), _UPTO)
_TURN_NOW = _TURN_NOW.order_by(holders.c.sequence.desc()).limit(1)


def _stages(connection: sa.Connection, model: str) -> tuple[str, ...]:
    """A stage has one name and many turns: each next name is looked up, rather than all turns read."""
    found = list[str]()
    while True:
        asked = {"of": model, "after": found[-1]} if found else {"of": model}
        name = connection.execute(_NEXT_STAGE if found else _FIRST_STAGE, asked).scalar()
        if name is None:
            return tuple(found)
        found.append(name)


def _held(connection: sa.Connection, model: str, stage: str, sequence: int) -> str | None:
    found: str | None = connection.execute(_HELD, {"of": model, "stage": stage, "at": sequence}).scalar()
    return found
