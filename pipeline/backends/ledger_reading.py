"""The reading half of the ledger: events checked against their digests, and questions answered from the index beside them.

What was read and found whole is kept, so that only what came since is read. Nothing is written here: ledger.py does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pipeline.backends.ledger_engines import RESTORE
from pipeline.backends.ledger_index import micros
from pipeline.backends.ledger_proof import Signatures, whole
from pipeline.backends.ledger_seal import Seal, SealFile, behind_seal
from pipeline.backends.ledger_store import Bare, EventStore, Fence, Row
from pipeline.domain.record import digest_bytes
from pipeline.domain.reigns import Reign, latest_of, reign_at
from pipeline.domain.release import GENESIS, OPINIONS, Event, EventKind, registrations
from pipeline.domain.release import holder as holder_of
from pipeline.errors import Tampered


class _Read(NamedTuple):
    """Events of a model that were read and found whole, with their digests."""

    events: tuple[Event, ...] = ()
    digests: tuple[str, ...] = ()


class LedgerReading:
    """See ledger.py's SqlLedger, which adds what writes."""

    def __init__(
        self,
        location: Path | str,
        *,
        patience: float = 10.0,
        identities: Signatures | None = None,
        fence: Fence | None = None,
    ) -> None:
        self._store = EventStore(location, patience, fence)
        self._seal = SealFile(self._store.path) if self._store.path else None
        self._patience = patience
        self._identities = identities
        self._read: dict[str, _Read] = {}
        self.where = self._store.where

    def events(self, model: str) -> tuple[Event, ...]:
        # The seal is read first: rows only grow, so what it names must be among the rows that are read after it.
        seal = self._seal.read() if self._seal else None
        known = self._read.get(model, _Read())
        if known.events:
            found = self._since(model, known)
            known = found if found is not None else _Read()
        if not known.events:
            known = self._all(model)
        if self._seal and known.events and seal is None:
            raise Tampered("the ledger's seal is missing", where=str(self._seal.path), fix=RESTORE)
        if seal and (lost := behind_seal(seal, {model: dict(enumerate(known.digests, start=1))}, only=model)):
            raise Tampered(lost, where=self.where, fix=RESTORE)
        self._read[model] = known
        return known.events

    def models(self) -> tuple[str, ...]:
        return self._store.models() if self._exists() else ()

    def head(self, model: str) -> tuple[int, str]:
        """Sequence and digest of a model's last event; (0, GENESIS) for none. Costs a millisecond: followers ask all the time."""
        seal = self._seal.read() if self._seal else None
        found = (self._store.head(model) if self._exists(seal) else None) or (0, GENESIS)
        sealed = seal.heads.get(model) if seal else None
        if sealed and (found[0] < sealed.sequence or (found[0] == sealed.sequence and found[1] != sealed.digest)):
            raise Tampered(f"the ledger of {model} ends before what was sealed", where=self.where, fix=RESTORE)
        return found

    def holder(self, model: str, stage: str) -> str | None:
        """Who holds a stage, from the index; `verify` compares it with the events."""
        with self._looking(model) as there:
            try:
                return self._store.questions.holder(model, stage) if there else None
            except Bare:
                return holder_of(self.events(model), stage)

    def reign(self, model: str, stage: str, when: datetime | None = None) -> Reign | None:
        """Who held a stage at an instant (default: now), since which event and until which, from the index."""
        with self._looking(model) as there:
            try:
                turns = self._store.questions.turns(model, stage, when=micros(when) if when else None) if there else []
            except Bare:
                return reign_at(self.events(model), stage, when)
            if not turns or turns[0].version is None:
                return None
            rows = self._store.at(model, [turn.sequence for turn in turns])
        since, *until = (self._single(model, rows.get(turn.sequence), turn.sequence) for turn in turns)
        return Reign(version=turns[0].version, since=since, until=until[0] if until else None)

    def latest(self, model: str, stage: str | None = None, *, count: int) -> tuple[Event, ...]:
        """The last `count` events of a model, oldest first; of one stage, with those that end any stage's reigns."""
        with self._looking(model) as there:
            try:
                found = self._store.questions.latest(model, stage, count) if there else []
            except Bare:
                return latest_of(self.events(model), stage, count)
            rows = self._store.at(model, found) if found else {}
        return tuple(self._single(model, rows.get(sequence), sequence) for sequence in found)

    def stages(self, model: str) -> tuple[str, ...]:
        """Every stage that a version of the model holds or has held."""
        try:
            return self._store.questions.stages(model) if self._exists() else ()
        except Bare:
            return tuple(sorted({e.stage for e in self.events(model) if e.stage and e.event not in OPINIONS}))

    def registration(self, model: str, version: str) -> Event | None:
        """The event that registered a version; None for a version that there is not."""
        with self._looking(model) as there:
            try:
                found = self._store.questions.of_version(model, version, (EventKind.REGISTERED,)) if there else []
            except Bare:
                return registrations(self.events(model)).get(version)
            rows = self._store.at(model, found[-1:]) if found else {}
        return self._single(model, rows[found[-1]], found[-1]) if found else None

    def concerning(self, model: str, stage: str, *, version: str | None = None, after: str | None = None) -> tuple[Event, ...]:
        """The events on which a decision about `stage` comes out as on all of them; the last one is the ledger's last.

        They are looked up as far as an event that was last when the look began. All events are given where there is no index
        yet, where signatures are to be believed (one is proven by all that came before), and where a revocation was what
        changed the stage last.
        """
        if self._identities is None:
            with self._looking(model) as there:
                head = (self._store.head(model) or (0, GENESIS))[0] if there else 0
                try:
                    found = self._store.questions.concerning(model, head, stage, version, after) if head else None
                    rows = self._store.at(model, found.sequences) if found else {}
                except Bare:
                    found, rows = None, {}
            if found:
                part = tuple(self._single(model, rows.get(sequence), sequence) for sequence in found.sequences)
                if holder_of(part, stage) == found.holder:
                    return part
        return self.events(model)

    @contextmanager
    def _looking(self, model: str) -> Iterator[bool]:
        """One connection for a look at the index; whether there is a ledger. What was sealed must be there."""
        if not self._exists():
            yield False
            return
        with self._store.held_open():
            self.head(model)
            yield True

    def _since(self, model: str, known: _Read) -> _Read | None:
        """What is known, and what came after it; None when what is stored does not go on from there."""
        rows = self._store.rows(model, start=len(known.events)) if self._exists() else []
        if not rows or (rows[0].sequence, rows[0].digest) != (len(known.events), known.digests[-1]):
            return None
        return self._checked(model, rows[1:], known) if len(rows) > 1 else known

    def _all(self, model: str) -> _Read:
        return self._checked(model, self._store.rows(model), _Read()) if self._exists() else _Read()

    def _checked(self, model: str, rows: list[Row], known: _Read) -> _Read:
        fresh = tuple(whole(model, rows, self.where, after=len(known.events), previous=(known.digests or (GENESIS,))[-1]))
        if self._identities and fresh:
            try:
                signatures = self._store.questions.signatures(model, start=fresh[0].sequence)
            except Bare:
                signatures = {}
            for said in self._identities.problems(known.events, fresh, signatures):
                raise Tampered(said, where=self.where, fix="tuneline audit verify names all; docs/releases.md says what to do")
        return _Read((*known.events, *fresh), (*known.digests, *(row.digest for row in rows)))

    def _single(self, model: str, row: Row | None, sequence: int) -> Event:
        """A row as an event, checked against its digest alone: the chain around it was not read."""
        where = f"{self.where}, event {sequence} of {model}"
        if row is None or digest_bytes(row.body.encode("utf-8", "surrogatepass")) != row.digest:
            raise Tampered("the stored event does not have its digest, or is missing", where=where, fix=RESTORE)
        return Event.from_json(row.body, where=where)

    def _exists(self, seal: Seal | None = None) -> bool:
        if self._store.exists():
            return True
        if self._seal and (seal := seal or self._seal.read()) and seal.heads:
            raise Tampered("the ledger is gone, but its seal is there", where=self.where, fix=RESTORE)
        return False
