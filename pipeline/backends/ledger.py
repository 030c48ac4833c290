"""The release ledger: append-only events, each with the digest of the one before. Implements ports.Ledger.

Rows are kept by ledger_store.py (SQLite or PostgreSQL); a SQLite file is sealed by ledger_seal.py. Here an append becomes a
compare-and-swap, and what is read is checked against its digests. What an event means is domain/release.py's to say.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from pipeline.backends.ledger_seal import Head, SealFile, behind_seal
from pipeline.backends.ledger_store import RESTORE, EventStore, Row, Taken
from pipeline.domain.record import digest_bytes
from pipeline.domain.release import GENESIS, Event, EventKind
from pipeline.domain.wording import check_words
from pipeline.errors import Broken, Conflict, Misuse, Tampered, TryLater, TunelineError


class SqlLedger:
    """location: a path (SQLite) or a URL (`postgresql+psycopg://…`). patience: seconds to wait for a lock before TryLater.

    The database is made by the first append, in a private folder; until then there are no events. Processes and threads may
    share it.
    """

    def __init__(self, location: Path | str, *, patience: float = 10.0) -> None:
        self._store = EventStore(location, patience)
        self._seal = SealFile(self._store.path) if self._store.path else None
        self._patience = patience
        self.where = self._store.where

    def events(self, model: str) -> tuple[Event, ...]:
        # The seal is read first: rows only grow, so what it names must be among the rows that are read after it.
        seal = self._seal.read() if self._seal else None
        rows = self._store.rows(model) if self._exists() else []
        found = tuple(self._whole(model, rows))
        if self._seal and rows and seal is None:
            raise Tampered("the ledger's seal is missing", where=str(self._seal.path), fix=RESTORE)
        if seal and (lost := behind_seal(seal, {model: {r.sequence: r.digest for r in rows}}, only=model)):
            raise Tampered(lost, where=self.where, fix=RESTORE)
        return found

    def models(self) -> tuple[str, ...]:
        return self._store.models() if self._exists() else ()

    def append(
        self,
        model: str,
        event: EventKind,
        *,
        expected: int,
        version: str,
        subject: str,
        stage: str | None,
        leaves: str | None,
        actor: str,
        reason: str,
        at: datetime,
        record: str | None = None,
    ) -> Event:
        named = version or None  # which events name none is checked by the event itself
        check_words(actor=actor, reason=reason, model=model, version=named, stage=stage, leaves=leaves)
        if at.tzinfo is None:
            raise Misuse("the time of an event needs its offset from UTC", where=at.isoformat())
        content: dict[str, Any] = {"model": model, "event": event, "version": version, "subject": subject, "record": record}
        content |= {"stage": stage, "leaves": leaves, "actor": actor, "reason": reason, "at": at.astimezone(UTC)}
        with self._alone():
            if not self._exists():
                self._create()
            heads = self._trusted_heads()
            appended = self._insert(model, expected, content)
            if self._seal:
                later = Head(sequence=appended.sequence, digest=appended.digest)
                if model not in heads or heads[model].sequence < later.sequence:
                    heads[model] = later
                self._seal.write(heads, settled=self._store.settle())
        return appended

    def verify(self) -> tuple[str, ...]:
        """What is broken, a sentence each. A seal that a crash left behind a whole chain is not: it is brought up to date."""
        with self._alone() if self._present() else nullcontext():
            try:
                if not self._exists():
                    return ()
                problems, heads, stale = self._inspect()
                if self._seal and stale and not problems:
                    self._seal.write(heads, settled=self._store.settle())
            except TryLater:
                raise
            except TunelineError as error:
                return (str(error).splitlines()[0],)
        return tuple(problems)

    def reseal(self) -> None:
        """Accept a SQLite file as it stands, once a person has looked into it. Raises Tampered unless every chain is whole."""
        if self._seal is None or not self._store.exists():
            return
        with self._alone():
            settled = self._store.settle()
            problems, digests = self._broken_chains()
            if problems:
                raise Tampered("\n".join(problems), where=self.where, fix=RESTORE)
            self._seal.write(_heads(digests), settled=settled)

    def _insert(self, model: str, expected: int, content: Mapping[str, Any]) -> Event:
        there = self._store.around(model, expected)
        before = there.get(expected)
        if expected and before is None:
            raise self._conflict(model, expected)
        if before and digest_bytes(before.body.encode()) != before.digest:
            raise Tampered(f"event {expected} of {model} does not have its digest", where=self.where, fix=RESTORE)
        made = Event.model_validate({**content, "sequence": expected + 1, "previous": before.digest if before else GENESIS})
        row = Row(model, made.sequence, made.digest, made.to_json())
        try:
            if expected + 1 not in there:
                self._store.insert(row)
                return made
        except (Taken, TryLater) as error:
            # Someone was faster, or the answer to our commit was lost. What is stored by now tells which.
            there = self._store.around(model, expected)
            if expected + 1 not in there:
                raise TryLater("the ledger did not take the event", where=self.where, fix="try again") from error
        if there[expected + 1] != row:
            raise self._conflict(model, expected)
        return made

    def _trusted_heads(self) -> dict[str, Head]:
        """Where the chains end. Nothing is appended to a file that is not what was sealed, lest the new seal cover it up."""
        if self._seal is None:
            return {}
        seal = self._seal.read()
        if seal and not self._seal.unsettled and self._seal.bytes_now() == seal.sha256:
            return dict(seal.heads)
        problems, heads, _ = self._inspect()
        if problems:
            raise Tampered(problems[0], fix=RESTORE)
        return heads

    def _inspect(self) -> tuple[list[str], dict[str, Head], bool]:
        """What is broken, where the chains end, and whether the seal is to be renewed. The caller holds the lock."""
        before = self._seal.bytes_now() if self._seal else None
        try:
            self._store.settle()
            problems, digests = self._broken_chains()
            heads = _heads(digests)
        except TryLater:
            raise
        except (TunelineError, SQLAlchemyError, sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            # A damaged file makes SQLite say nearly anything.
            return [f"{self.where}: the ledger cannot be read: {str(error).splitlines()[0]}"], {}, False
        if self._seal is None:
            return problems, heads, False
        seal = self._seal.read()
        if seal is None:
            missing = [f"{self._seal.path}: the seal is missing, so a cut-off end would go unseen"] if heads else []
            return problems + missing, heads, True
        if lost := behind_seal(seal, digests):
            problems.append(f"{self.where}: {lost}")
        elif seal.heads == heads and seal.sha256 and {before, self._seal.bytes_now()} != {seal.sha256}:
            problems.append(f"{self.where}: the file's bytes were changed since it was sealed")
        return problems, heads, seal.heads != heads or seal.sha256 is None

    def _broken_chains(self) -> tuple[list[str], dict[str, dict[int, str]]]:
        """What is broken in the table, and model → sequence → digest of what is stored."""
        problems = [f"{self.where}: {line}" for line in self._store.complaints()]
        digests: dict[str, dict[int, str]] = {}
        for model, group in groupby(self._store.rows(), key=lambda row: row.model):
            rows = list(group)
            digests[model] = {row.sequence: row.digest for row in rows}
            try:
                for event in self._whole(model, rows):
                    if event.digest != digests[model][event.sequence]:
                        problems.append(f"{self.where}: event {event.sequence} of {model} is not in its canonical form")
            except Tampered as error:
                problems.append(str(error).splitlines()[0])
        return problems, digests

    def _whole(self, model: str, rows: Iterable[Row]) -> Iterator[Event]:
        """Rows as events. Raises Tampered at the first that does not have its digest or does not follow the one before."""
        previous = GENESIS
        for expected, row in enumerate(rows, start=1):
            where = f"{self.where}, event {expected} of {model}"
            if row.sequence != expected:
                raise Tampered(f"the event is missing: {row.sequence} follows", where=where, fix=RESTORE)
            if not isinstance(row.body, str) or digest_bytes(row.body.encode("utf-8", "surrogatepass")) != row.digest:
                raise Tampered("the stored event does not have its digest", where=where, fix=RESTORE)
            try:
                event = Event.from_json(row.body)
            except Broken as error:
                raise Tampered("what is stored is no event", where=where, fix=RESTORE) from error
            if (event.model, event.sequence, event.previous) != (model, expected, previous):
                raise Tampered("the event does not follow the one before it", where=where, fix=RESTORE)
            previous = row.digest
            yield event

    def _exists(self) -> bool:
        if self._store.exists():
            return True
        if self._seal and (seal := self._seal.read()) and seal.heads:
            raise Tampered("the ledger is gone, but its seal is there", where=self.where, fix=RESTORE)
        return False

    def _present(self) -> bool:
        """Whether anything of the ledger is there; asking must not make a folder."""
        return self._seal is None or self._store.exists() or self._seal.path.exists()

    def _create(self) -> None:
        self._store.create()
        if self._seal:
            self._seal.write({}, settled=True)

    def _alone(self) -> AbstractContextManager[None]:
        return self._seal.locked(self._patience) if self._seal else nullcontext()

    def _conflict(self, model: str, expected: int) -> Conflict:
        said = f"the ledger of {model} no longer ends with event {expected}; nothing was changed"
        return Conflict(said, where=self.where, fix="read it again")


def _heads(digests: Mapping[str, Mapping[int, str]]) -> dict[str, Head]:
    return {model: Head(sequence=max(rows), digest=rows[max(rows)]) for model, rows in digests.items()}
