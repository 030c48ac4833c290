"""The release ledger: append-only events, each with the digest of the one before. Implements ports.Ledger.

Rows are kept by ledger_store.py (SQLite or PostgreSQL); a SQLite file is sealed by ledger_seal.py; what is broken is found by
ledger_proof.py; reading is ledger_reading.py's. Here an append becomes a compare-and-swap. What an event means is
domain/release.py's to say.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from pipeline.backends.ledger_engines import RESTORE
from pipeline.backends.ledger_index import Derived, derive, derive_all, micros
from pipeline.backends.ledger_proof import broken_chains, heads_of, index_problems
from pipeline.backends.ledger_reading import LedgerReading
from pipeline.backends.ledger_seal import Head, Seal, behind_seal
from pipeline.backends.ledger_store import Bare, Row, Taken
from pipeline.domain.record import digest_bytes
from pipeline.domain.release import GENESIS, Event, EventKind
from pipeline.domain.wording import check_words
from pipeline.errors import Conflict, Misuse, Tampered, TryLater, TunelineError


class SqlLedger(LedgerReading):
    """location: a path (SQLite) or a URL (`postgresql+psycopg://…`). patience: seconds to wait for a lock, or for a server that
    does not answer, before TryLater. identities: who signs, and whose signatures are believed; None: nobody signs.
    fence: what an append has to pass, where a run writes; it is checked in the append's own transaction.

    The database is made by the first append, in a private folder; until then there are no events. Processes and threads may
    share it. An instance remembers what it has read and found whole, and reads only what came since.
    """

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
        if self._identities:
            content["signer"] = self._identities.signer(actor, at)
        with self._alone():
            if not self._exists():
                self._create()
            with self._store.held_open():
                heads, before = self._trusted_heads()
                if self._store.bare():
                    self._add_index(heads)
                    before = None
                appended = self._insert(model, expected, content)
                if self._seal:
                    later = Head(sequence=appended.sequence, digest=appended.digest)
                    if model not in heads or heads[model].sequence < later.sequence:
                        heads[model] = later
                    changed = self._seal.waiting_blocks()
                    self._seal.write(heads, settled=self._store.settle(), before=before, changed=changed)
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
            problems, digests = self._broken()
            if problems:
                raise Tampered("\n".join(problems), where=self.where, fix=RESTORE)
            self._seal.write(heads_of(digests), settled=settled)

    def _insert(self, model: str, expected: int, content: Mapping[str, Any]) -> Event:
        there = self._store.around(model, expected)
        before = there.get(expected)
        if expected and before is None:
            raise self._conflict(model, expected)
        if before and digest_bytes(before.body.encode()) != before.digest:
            raise Tampered(f"event {expected} of {model} does not have its digest", where=self.where, fix=RESTORE)
        made = Event.model_validate({**content, "sequence": expected + 1, "previous": before.digest if before else GENESIS})
        row = Row(model, made.sequence, made.digest, made.to_json())
        if expected + 1 not in there:
            signature = self._identities.sign(row.body) if self._identities else None
            there = self._stored(row, self._derived(made), signature)
        if there[expected + 1] != row:
            raise self._conflict(model, expected)
        return made

    def _stored(self, row: Row, derived: Derived, signature: str | None) -> dict[int, Row]:
        """Insert, and if the answer was lost or someone was faster, read what is stored by now, which tells which.

        A lost answer may be that of a commit that happened. Inserting the same row again is harmless: its place is taken by then.
        """
        deadline = time.monotonic() + (self._patience if self._seal is None else 0.0)
        pause = 0.05
        while True:
            try:
                try:
                    self._store.insert(row, derived, signature)
                    return {row.sequence: row}
                except Taken:
                    pass
                except TryLater:
                    if row.sequence not in (there := self._store.around(row.model, row.sequence - 1)):
                        raise
                    return there
                there = self._store.around(row.model, row.sequence - 1)
                if row.sequence in there:
                    return there
                said = f"the index of event {row.sequence} of {row.model} is there, the event is not"
                raise Tampered(said, where=self.where, fix=RESTORE)
            except TryLater as error:
                if time.monotonic() >= deadline:
                    raise TryLater("the ledger did not take the event", where=self.where, fix="try again") from error
                time.sleep(pause)
                pause = min(2 * pause, 1.0)

    def _derived(self, made: Event) -> Derived:
        counts, held = self._store.questions.before(made.model, made.sequence - 1)
        if counts is None and made.sequence > 1:
            raise Tampered(f"the index lacks event {made.sequence - 1} of {made.model}", where=self.where, fix=RESTORE)
        earlier = lambda: self.events(made.model)[: made.sequence - 1]  # noqa: E731 - only a revocation needs them
        return derive(made, counts if counts is not None else micros(made.at), held, earlier)

    def _add_index(self, heads: Mapping[str, Head]) -> None:
        """Bring a ledger from before there was an index up to date. A kill in here leaves a seal that tells no bytes."""
        if self._seal:
            self._seal.write(heads, settled=False)
        self._store.add_index([derive_all(self._all(model).events) for model in self._store.models()])

    def _trusted_heads(self) -> tuple[dict[str, Head], Seal | None]:
        """Where the chains end, and the seal if it is right. Nothing is appended to a file that is not what was sealed, lest the
        new seal cover it up."""
        if self._seal is None:
            return {}, None
        seal = self._seal.read()
        if seal and self._seal.untouched(seal):
            return dict(seal.heads), seal
        problems, heads, _ = self._inspect()
        if problems:
            raise Tampered(problems[0], fix=RESTORE)
        return heads, None

    def _inspect(self) -> tuple[list[str], dict[str, Head], bool]:
        """What is broken, where the chains end, and whether the seal is to be renewed. The caller holds the lock."""
        before = self._seal.bytes_now() if self._seal else None
        try:
            self._store.settle()
            problems, digests = self._broken()
            heads = heads_of(digests)
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

    def _broken(self) -> tuple[list[str], dict[str, dict[int, str]]]:
        """What is broken in the tables, and model → sequence → digest of what is stored."""
        problems = [f"{self.where}: {line}" for line in self._store.complaints()]
        events, digests, said = broken_chains(self._store.rows(), self.where)
        problems += said
        try:
            problems += index_problems(self._store.questions, events, self.where)
            signatures = {model: self._store.questions.signatures(model) for model in events}
        except Bare:
            signatures = {}
        if self._identities:
            for model, chain in events.items():
                wrong = self._identities.problems((), chain, signatures.get(model, {}))
                problems += [f"{self.where}: {line}" for line in wrong]
        return problems, digests

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
