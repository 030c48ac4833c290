"""What is broken in a ledger's rows: chains, canonical form, and the index beside them, which is made again and compared.

Findings are sentences that name the event. Nothing is read or written here; rows come from ledger_store.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby, zip_longest
from typing import Protocol

from pipeline.backends.ledger_engines import RESTORE
from pipeline.backends.ledger_index import derive_all
from pipeline.backends.ledger_questions import Questions
from pipeline.backends.ledger_seal import Head
from pipeline.backends.ledger_store import Row
from pipeline.domain.record import digest_bytes
from pipeline.domain.release import GENESIS, Event
from pipeline.errors import Broken, Tampered


class Signatures(Protocol):
    """Who may sign, and whether what was signed is to be believed. See identities.py."""

    def signer(self, actor: str, at: datetime) -> str:
        """Id of the key with which this process signs as `actor`. Raises Misuse when it may not."""
        ...

    def sign(self, body: str) -> str:
        """The signature of an event's JSON."""
        ...

    def problems(self, earlier: Sequence[Event], events: Sequence[Event], signatures: Mapping[int, str]) -> Iterator[str]:
        """What is wrong with the signatures of `events`, which follow `earlier` ones that were found right, a sentence each."""
        ...


def whole(model: str, rows: Iterable[Row], place: str, *, after: int = 0, previous: str = GENESIS) -> Iterator[Event]:
    """Rows as events that go on after `after`. Raises Tampered at the first that does not have its digest or does not follow."""
    for expected, row in enumerate(rows, start=after + 1):
        where = f"{place}, event {expected} of {model}"
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


def broken_chains(rows: Iterable[Row], place: str) -> tuple[dict[str, list[Event]], dict[str, dict[int, str]], list[str]]:
    """Of each model: its events as far as they are whole, and the digests of all that is stored; and what is broken."""
    problems = list[str]()
    chains: dict[str, list[Event]] = {}
    digests: dict[str, dict[int, str]] = {}
    for model, group in groupby(rows, key=lambda row: row.model):
        of_model = list(group)
        digests[model] = {row.sequence: row.digest for row in of_model}
        chains[model] = []
        try:
            for event in whole(model, of_model, place):
                if event.digest != digests[model][event.sequence]:
                    problems.append(f"{place}: event {event.sequence} of {model} is not in its canonical form")
                chains[model].append(event)
        except Tampered as error:
            problems.append(str(error).splitlines()[0])
    return chains, digests, problems


def index_problems(questions: Questions, chains: Mapping[str, Sequence[Event]], place: str) -> Iterator[str]:
    """Where the index does not say what the events say."""
    for model in sorted(questions.models() - chains.keys()):
        yield f"{place}: the index speaks of {model}, of which there are no events"
    for model, events in chains.items():
        listed, turns = questions.all_rows(model)
        right, right_turns = derive_all(events)
        for made, stored in zip_longest(right, listed):
            if made != stored:
                yield f"{place}: the index of event {(made or stored).sequence} of {model} is not what the event says"
                break
        for turn, kept in zip_longest(right_turns, turns):
            if turn != kept:
                one = min((row for row in (turn, kept) if row), key=lambda row: (row.sequence, row.stage))
                yield f"{place}: the index of who holds {one.stage} of {model} is wrong at event {one.sequence}"
                break
        kept_for, signed = questions.signatures(model).keys(), {e.sequence for e in events if e.signer}
        for sequence in sorted(kept_for - signed):
            yield f"{place}: a signature is kept for event {sequence} of {model}, which names no signer"
        for sequence in sorted(signed - kept_for):
            yield f"{place}: event {sequence} of {model} has lost its signature"


def heads_of(digests: Mapping[str, Mapping[int, str]]) -> dict[str, Head]:
    return {model: Head(sequence=max(rows), digest=rows[max(rows)]) for model, rows in digests.items()}
