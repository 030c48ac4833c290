"""The run book: which tick of a model runs, under whose lease, how each one ended; and what was seen, for triggers.

One lease a model. It is held by heartbeats that are counted, not timed: who would take it over watches, by a clock of its own
that no one can set, that the count stands still for as long as the lease lasts; a holder that has ended on this very machine is
taken over at once. Each claim has a greater fence than the one before, and what writes for a run has it checked
(run_book_fence.py). SQLite or PostgreSQL, by the same statements. Implements ports.RunBook and ports.Signals.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pipeline.backends.database import end_idle
from pipeline.backends.ledger_index import micros
from pipeline.backends.run_book_holder import Holder
from pipeline.backends.run_book_tables import RunBookDatabase, callers, leases, ticks
from pipeline.backends.run_book_tables import signals as seen
from pipeline.domain.record import canonical_json
from pipeline.domain.signals import Signal, SignalKind
from pipeline.domain.ticks import Tick, Unfinished, tick_key
from pipeline.errors import Stale, TryLater
from pipeline.moving import utc_now

LEASE_SECONDS = 60.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
IDLE_KEPT = 20_000
"""How many ticks back those that only looked are remembered."""
_LOOKS = 20
"""How often a heartbeat is looked for within the time of a lease."""


@dataclass(frozen=True)
class Claim:
    """A tick that was claimed. done: how it had ended before, and then nothing is to be done and no lease is held.

    lost: set when the lease turned out to be another's. took_over: whom it was taken from, if from anyone.
    """

    model: str
    key: str
    fence: int
    holder: Holder
    lasts: float
    done: Tick | None = None
    took_over: Holder | None = None
    lost: threading.Event = field(default_factory=threading.Event, compare=False)


class RunBook:
    """location: a path (SQLite) or a URL. patience: seconds to wait for a lock, or for a server that does not answer."""

    def __init__(self, location: Path | str, *, patience: float = 10.0) -> None:
        self._database = RunBookDatabase(location, patience)
        self.where = self._database.where

    @classmethod
    def beside(cls, ledger: Path | str) -> RunBook:
        """The run book that belongs to a ledger: in its database if that is a server, else in the file runs.db beside its own."""
        database = RunBookDatabase(ledger, 0.0)
        return cls(database.path.with_name("runs.db") if database.path else ledger)

    @property
    def shared(self) -> bool:
        """Whether it lies in a server's database."""
        return self._database.path is None

    def fence(self, claim: Claim) -> LedgerFence:
        """What the ledger asks before it takes an event of the claim's run."""
        return LedgerFence(self, claim.model, claim.fence)

    def claim(
        self,
        model: str,
        deployment: str,
        tick: datetime,
        *,
        holder: Holder | None = None,
        lasts: float = LEASE_SECONDS,
        watch: bool = True,
    ) -> Claim:
        """The lease on a model for a tick. Takes it over from a holder that has ended here, or whose heartbeat stands still.

        watch: look for the heartbeat of a holder that is seen to run on this machine, too; else it is taken at its word.
        Raises TryLater while the lease is another's.
        """
        me, token, key = holder or Holder.here(), secrets.token_hex(8), tick_key(model, deployment, tick)
        asked = {"key": key, "model": model, "deployment": deployment, "at": micros(tick)}
        watched: tuple[int, int] | None = None
        since = time.monotonic()
        while True:
            still = watched if watched is not None and time.monotonic() - since >= self._lasts(model) else None
            found = self._database.patiently(lambda: self._try(asked, me, token, lasts, still))  # noqa: B023 - called here
            if isinstance(found, Claim):
                return found
            now = (int(found["fence"]), int(found["beat"]))
            other = _holder(found)
            if (watched is not None and watched != now) or not (watch or not other.near or other.stopped):
                raise TryLater(f"another run of {model} is under way ({other})", where=self.where, fix="wait for it to end")
            if watched is None:
                watched, since = now, time.monotonic()
            time.sleep(min(float(found["lasts"]) / _LOOKS, 1.0))

    def finish(
        self, claim: Claim, ending: str, version: str | None = None, *, inputs: str | None = None, why: tuple[str, ...] = ()
    ) -> None:
        """Write down how a claimed tick ended, and let the lease go. Safe to repeat. Raises Stale when it was taken over."""
        said = {"ended": micros(utc_now()), "ending": str(ending), "version": version, "inputs": inputs}

        def write() -> None:
            with self._database.writing() as connection:
                mine = (leases.c.model == claim.model) & (leases.c.fence == claim.fence)
                if not connection.execute(sa.update(leases).where(mine).values(held=0)).rowcount:
                    raise stale(claim.model, claim.fence)
                its = (ticks.c.key == claim.key) & (ticks.c.fence == claim.fence)
                connection.execute(sa.update(ticks).where(its).values(why=canonical_json(list(why)), **said))

        self._database.patiently(write)

    def heartbeat(self, claim: Claim) -> bool:
        """Say once that the holder lives. False, and claim.lost set, when the lease is not its own any more."""
        with self._database.writing() as connection:
            mine = (leases.c.model == claim.model) & (leases.c.fence == claim.fence) & (leases.c.held == 1)
            beat = connection.execute(sa.update(leases).where(mine).values(beat=leases.c.beat + 1)).rowcount
        if not beat:
            claim.lost.set()
        return bool(beat)

    @contextmanager
    def kept(self, claim: Claim) -> Iterator[None]:
        """A heartbeat every third of the lease, by a thread of its own, as long as the block lasts."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(claim.lasts / 3) and not claim.lost.is_set():
                try:
                    self.heartbeat(claim)
                except TryLater:
                    continue  # the next one may get through; if none does, another takes over, and the fence says so

        thread = threading.Thread(target=beat, name=f"lease of {claim.model}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def check(self, claim: Claim) -> None:
        """Raises Stale unless the lease is still the claim's."""
        with self._database.reading() as connection:
            if connection is None or not _holds(connection, claim.model, claim.fence):
                raise stale(claim.model, claim.fence)

    @contextmanager
    def holding(self, model: str, fence: int) -> Iterator[None]:
        """A block in which nobody can take the lease over. Raises Stale when someone has. Keep it short."""
        with self._database.writing() as connection:
            if not _holds(connection, model, fence):
                raise stale(model, fence)
            yield

    def running(self, model: str) -> Tick | None:
        """The tick whose lease is held now, alive or not; None when there is none."""
        held = sa.select(ticks).join(leases, (leases.c.tick == ticks.c.key) & (leases.c.fence == ticks.c.fence))
        found = self._read(held.where(leases.c.model == model, leases.c.held == 1))
        return found[0] if found else None

    def ticks(self, model: str, count: int) -> tuple[Tick, ...]:
        """The last `count` ticks that were claimed, oldest first, and how they ended."""
        last = sa.select(ticks).where(ticks.c.model == model).order_by(ticks.c.fence.desc()).limit(count)
        return tuple(reversed(self._read(last)))

    def runs(self, model: str, count: int) -> tuple[Tick, ...]:
        """The last `count` ticks that did more than look, oldest first: those with inputs, and those that did not end."""
        more = ticks.c.inputs.is_not(None) | ticks.c.ending.in_(list(Unfinished))
        last = sa.select(ticks).where(ticks.c.model == model, more).order_by(ticks.c.fence.desc()).limit(count)
        return tuple(reversed(self._read(last)))

    def called(self, model: str, run: str) -> None:
        """Note that this process is the flow run `run`. It stays noted until `forget_callers`: a process may be killed between
        the end of its work and telling Prefect of it."""

        def write(*statements: sa.Executable) -> None:
            with self._database.writing() as connection:
                for statement in statements:
                    connection.execute(statement)

        gone = sa.delete(callers).where(callers.c.run == run)
        its = {"run": run, "model": model, "holder": Holder.here().model_dump_json(), "gone": 0}
        self._database.patiently(lambda: write(gone, sa.insert(callers).values(its)))

    def callers(self, model: str) -> frozenset[str]:
        """Flow runs whose process is noted, whether it lives or not."""
        with self._database.reading() as connection:
            query = sa.select(callers.c.run).where(callers.c.model == model)
            return frozenset(str(run) for (run,) in connection.execute(query)) if connection else frozenset()

    def dead_callers(self, model: str) -> tuple[str, ...]:
        """Flow runs whose process is certain to have ended, or whose lease was taken over."""
        with self._database.reading() as connection:
            query = sa.select(callers.c.run, callers.c.holder, callers.c.gone).where(callers.c.model == model)
            rows = list(connection.execute(query)) if connection else []
        return tuple(str(run) for run, holder, gone in rows if gone or Holder.model_validate_json(holder).gone)

    def forget_callers(self, runs: tuple[str, ...]) -> None:
        def write() -> None:
            with self._database.writing() as connection:
                connection.execute(sa.delete(callers).where(callers.c.run.in_(runs)))

        if runs:
            self._database.patiently(write)

    def note(self, signal: Signal) -> None:
        """See ports.Signals."""
        its = {"model": signal.model, "what": signal.what.value, "window": signal.window}

        def write() -> None:
            with self._database.writing() as connection:
                connection.execute(sa.delete(seen).where(*(seen.c[name] == value for name, value in its.items())))
                connection.execute(sa.insert(seen), {**its, "at": micros(signal.at), "body": signal.to_json()})

        self._database.patiently(write)

    def recent(self, model: str, what: SignalKind, *, count: int) -> tuple[Signal, ...]:
        """See ports.Signals."""
        query = sa.select(seen.c.body).where(seen.c.model == model, seen.c.what == what.value)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(seen.c.at.desc(), seen.c.window.desc()).limit(count)) if connection else ()
            return tuple(reversed([Signal.from_json(row[0], where=self.where) for row in rows]))

    def _try(
        self, asked: dict[str, Any], me: Holder, token: str, lasts: float, still: tuple[int, int] | None
    ) -> Claim | dict[str, Any]:
        """The claim, or the row of the lease that is in the way. still: the fence and count of a heartbeat that stands still."""
        with self._database.writing() as connection:
            row = _for_update(connection, leases, leases.c.model == asked["model"])
            if row and row["token"] == token:
                # What this very attempt wrote before the answer was lost.
                return _claim(asked, me, row)
            there = _for_update(connection, ticks, ticks.c.key == asked["key"])
            if there and (tick := _tick(there)).done:
                return Claim(asked["model"], asked["key"], tick.fence, me, lasts, done=tick)
            other = _holder(row) if row and row["held"] else None
            if row and other and not other.gone and (row["fence"], row["beat"]) != still:
                return row
            fence = (row["fence"] if row else 0) + 1
            words = {"fence": fence, "beat": 0, "held": 1, "lasts": lasts, "token": token}
            words |= {"holder": me.model_dump_json(), "tick": asked["key"]}
            _put(connection, leases, leases.c.model == asked["model"], {"model": asked["model"], **words}, there=bool(row))
            if row and other:
                left = (ticks.c.model == asked["model"]) & (ticks.c.ending == Unfinished.RUNNING)
                connection.execute(sa.update(ticks).where(left).values(ending=Unfinished.TAKEN_OVER, ended=micros(utc_now())))
                connection.execute(sa.update(callers).where(callers.c.holder == row["holder"]).values(gone=1))
            # Ticks that found nothing to do are many, and mean nothing once they are old.
            old = (ticks.c.model == asked["model"]) & (ticks.c.fence < fence - IDLE_KEPT) & ticks.c.inputs.is_(None)
            connection.execute(sa.delete(ticks).where(old & ticks.c.version.is_(None)))
            begun = {"fence": fence, "began": micros(utc_now()), "ended": None, "ending": Unfinished.RUNNING.value}
            _put(connection, ticks, ticks.c.key == asked["key"], {**asked, **begun, "why": "[]"}, there=bool(there))
            return _claim(asked, me, words, other)

    def _lasts(self, model: str) -> float:
        with self._database.reading() as connection:
            query = sa.select(leases.c.lasts).where(leases.c.model == model)
            return float(connection.execute(query).scalar() or 0.0) if connection else 0.0

    def _read(self, query: sa.Select[Any]) -> list[Tick]:
        with self._database.reading() as connection:
            return [_tick(dict(row)) for row in connection.execute(query).mappings()] if connection else []


class LedgerFence:
    """Implements ledger_store.Fence: in one transaction with the ledger's where both lie in one database; else the run book's
    write lock is held around it, under which nobody takes a lease over."""

    def __init__(self, book: RunBook, model: str, fence: int) -> None:
        self._book, self._model, self._fence = book, model, fence

    def around(self) -> AbstractContextManager[None]:
        return nullcontext() if self._book.shared else self._book.holding(self._model, self._fence)

    def check(self, connection: sa.Connection) -> None:
        if self._book.shared:
            end_idle(connection)
            if not _holds(connection, self._model, self._fence):
                raise stale(self._model, self._fence)


def stale(model: str, fence: int) -> Stale:
    return Stale(
        f"this run of {model} was taken over (its fence is {fence}); nothing was changed",
        fix="nothing: the run that took over does the work",
    )


def _holds(connection: sa.Connection, model: str, fence: int) -> bool:
    query = sa.select(leases.c.fence, leases.c.held).where(leases.c.model == model).with_for_update(read=True)
    row = connection.execute(query).first()
    return row is not None and (row[0], row[1]) == (fence, 1)


def _for_update(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> dict[str, Any] | None:
    row = connection.execute(sa.select(table).where(which).with_for_update()).mappings().first()
    return dict(row) if row else None


def _put(
    connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool], values: dict[str, Any], *, there: bool
) -> None:
    connection.execute(sa.update(table).where(which).values(values) if there else sa.insert(table).values(values))


def _claim(asked: dict[str, Any], me: Holder, lease: dict[str, Any], other: Holder | None = None) -> Claim:
    return Claim(asked["model"], asked["key"], int(lease["fence"]), me, float(lease["lasts"]), took_over=other)


def _holder(lease: dict[str, Any]) -> Holder:
    return Holder.model_validate_json(lease["holder"])


def _tick(row: dict[str, Any]) -> Tick:
    instants = {name: _instant(row[name]) for name in ("at", "began", "ended")}
    return Tick.model_validate({**row, **instants, "why": tuple(json.loads(row["why"]))})


def _instant(stored: int | None) -> datetime | None:
    return None if stored is None else _EPOCH + timedelta(microseconds=stored)
