"""Forget a record: a tombstone in the ledger that keeps it out of every later snapshot, and the list of what it had reached.

The ledger gets keyed digests, never the record. What earlier runs hold stays where it is until it is purged (purging.py); this
step says what that is. Here also stands what ingest asks: which rows may not come in, and which must leave the parent's shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.curation.forgetting import drop_forgotten, forgotten_rows
from pipeline.domain.data import Shard, Snapshot
from pipeline.domain.erasure import LIMIT, ErasedFile, Erasure, Tombstones, erased_files, erasures, tombstones
from pipeline.domain.privacy import key_check, keyed
from pipeline.domain.release import Event, EventKind
from pipeline.domain.sightings import WhoHas
from pipeline.domain.wording import check_words
from pipeline.errors import Conflict, Misuse, Stale, TryLater
from pipeline.moving import ATTEMPTS, utc_now
from pipeline.ports import Ledger, RecordIndex


def forget(
    found: WhoHas,
    *,
    by: str,
    reason: str,
    key: bytes,
    ledger: Ledger,
    limit: int = LIMIT,
    purge: bool = False,
    files: Sequence[ErasedFile] = (),
    now: Callable[[], datetime] = utc_now,
) -> tuple[Event, bool]:
    """Append the tombstone of what who-has `found`, and return its event and whether this call appended it.

    purge, files: for a purge, what is about to be taken away. Safe to repeat: what is forgotten, and purged, already gets no
    second event. A record that no run has can be forgotten too: it may not come in then.
    Raises Misuse when more than `limit` rows would go, or for words no ledger should be given.
    """
    check_words(actor=by, reason=reason)
    if found.count > limit:
        raise Misuse(
            f"{found.count} rows hold this record, more than {limit}",
            fix=f"give the id of the one row that is meant, or --limit {found.count} if it is all of them",
        )
    for _ in range(ATTEMPTS):
        events = ledger.events(found.model)
        erasure = _erasure(found, key, purge, files)
        done = _done(events, erasure, key)
        if done is not None:
            return done, False
        try:
            event = ledger.append(
                found.model,
                EventKind.ERASED,
                expected=len(events),
                version="",
                subject=erasure.digest,
                stage=None,
                leaves=None,
                actor=by,
                reason=reason,
                at=now(),
                record=erasure.to_json(),
            )
        except Stale:
            raise
        except Conflict:
            continue
        return event, True
    raise TryLater(f"the ledger of {found.model} is busier than {ATTEMPTS} tries", fix="try again")


def keep_out(
    model: str, *, ledger: Ledger, key: bytes, index: RecordIndex
) -> tuple[Callable[[Path, Snapshot], Snapshot], Callable[[Any], list[bool]]] | None:
    """What ingest needs to keep out what was forgotten: its `forget` and its `forgotten`; None when nothing was.

    Raises Broken when the key is not the one that the tombstones were made with.
    """
    stones = tombstones(ledger.events(model), key)
    if not stones.every:
        return None
    return partial(take_out, stones=stones, index=index), forgotten_rows(key, stones.ids, stones.texts)


def take_out(folder: Path, parent: Snapshot, *, stones: Tombstones, index: RecordIndex) -> Snapshot:
    """The snapshot in `folder` without what was forgotten since it was made; see curation.forgetting.drop_forgotten."""
    fresh = sorted(stones.every.difference(parent.tombstones))

    def rows_of(shard: Shard) -> list[int]:
        if not fresh:
            return []
        index.add(shard.sha256[:16], folder / shard.path)
        return index.rows(shard.sha256[:16], fresh)

    return drop_forgotten(folder, parent, fresh, rows_of)


def _erasure(found: WhoHas, key: bytes, purge: bool, files: Iterable[ErasedFile]) -> Erasure:
    ids = {keyed(key, row.id) for row in found.rows}
    # A keyed digest that no row bears as its id may be that of a text, or of an id that is yet to come.
    texts = {found.keyed} - ids if found.asked != "id" else set()
    ids |= {found.keyed} if found.asked == "id" or (found.asked == "keyed" and not found.rows) else set()
    return Erasure(
        model=found.model,
        ids=tuple(sorted(ids)),
        texts=tuple(sorted(texts)),
        key_check=key_check(key),
        rows=found.count,
        runs=tuple(run.run for run in found.runs),
        versions=tuple(release.version for release in found.releases),
        purge=purge,
        files=tuple(sorted(files, key=lambda file: (file.path, file.sha256))),
    )


def _done(events: Sequence[Event], wanted: Erasure, key: bytes) -> Event | None:
    """The event that said all of this already."""
    stones = tombstones(events, key)
    said = stones.ids >= set(wanted.ids) and stones.texts >= set(wanted.texts)
    if not said or {file.sha256 for file in wanted.files} - erased_files(events).keys():
        return None
    mine = [event for event, erasure in erasures(events) if erasure.tombstones & wanted.tombstones]
    purged = [event for event, erasure in erasures(events) if erasure.purge and erasure.tombstones & wanted.tombstones]
    return (purged[-1] if purged else None) if wanted.purge else mine[0]
