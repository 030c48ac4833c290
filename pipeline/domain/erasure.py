"""What was erased on request: the tombstones that keep a record out, and the stored files that were taken away with it.

An erased event of the ledger carries an Erasure as its record. It holds keyed digests and digests of files, never the record.
Pure: events in, answers out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from pipeline.domain.privacy import key_check
from pipeline.domain.record import Record, Value
from pipeline.domain.release import Event, EventKind
from pipeline.domain.sightings import Tombstone, WhoHas
from pipeline.errors import Broken

LIMIT = 20
"""More rows than this are not forgotten at once unless a person says how many: a text may be a greeting that thousands share."""


class ErasedFile(Value):
    """A file that held the record and was taken away. path: its place in a run's folder, or among a run's artifacts.

    md5: what the data store named it by; empty for an artifact. left: MD5 of the same table without the record, which stands in
    its place for whoever asks about other records; empty where there is none.
    """

    path: str
    sha256: str
    md5: str = ""
    left: str = ""


class Erasure(Record):
    """One request to forget. ids, texts: keyed digests, sorted, of what may not come back: the ids of the rows that were asked
    for, and the text, if it was a text. key_check: tells the key they were made with. rows: how many were found. runs, versions:
    those that had them. files: what was taken away; empty where the request was only to forget.
    """

    kind: ClassVar[str] = "erasure"

    model: str
    ids: tuple[str, ...]
    texts: tuple[str, ...] = ()
    key_check: str
    rows: int
    runs: tuple[str, ...]
    versions: tuple[str, ...]
    purge: bool = False
    files: tuple[ErasedFile, ...] = ()

    @property
    def tombstones(self) -> frozenset[str]:
        return frozenset({*self.ids, *self.texts})


class Tombstones(Value):
    """Keyed digests of all that may not come back, of one model."""

    ids: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    @property
    def every(self) -> frozenset[str]:
        return self.ids | self.texts


class Hit(Value):
    """A stored file that holds a text. inside: where in it; text: its number among those looked for, -1 for an example's id."""

    place: str
    inside: str
    text: int


class SearchReport(Value):
    """What a search of stored bytes went through, and found. counts: files, packed ones, tables, databases, git objects."""

    texts: int
    bytes: int
    counts: dict[str, int]
    hits: tuple[Hit, ...]

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(hit.place for hit in self.hits))

    def __add__(self, other: SearchReport) -> SearchReport:
        counts = {name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in sorted({*self.counts, *other.counts})}
        return SearchReport(texts=self.texts, bytes=self.bytes + other.bytes, counts=counts, hits=self.hits + other.hits)


class Sought(Value):
    """What a purge looks for: the texts and the example ids of the record."""

    texts: tuple[str, ...]
    ids: tuple[str, ...]


class SourceLeft(Value):
    """A source file of the user's that still holds the record, and the lines (or rows, in Parquet) where it does."""

    name: str
    lines: tuple[int, ...]


class Purged(Value):
    """What a purge did. event: the one that lists what was taken away. files: how many that are. cells: how many values in
    databases were blanked. run: the kept run that later ones begin from, where one had to be made. shared: texts of the record
    that other records hold too, which were therefore neither removed nor searched for. others: other models of the project that
    hold the record. search: the proof."""

    event: int
    files: int
    cells: int
    run: str | None
    shared: int
    others: tuple[str, ...]
    search: SearchReport


class Forgotten(Value):
    """The answer to forget. event: the tombstone; fresh: whether this call appended it. sources: files that still hold the
    record. remains: what is left to do, a sentence each."""

    model: str
    event: int
    fresh: bool
    found: WhoHas
    sources: tuple[SourceLeft, ...]
    remains: tuple[str, ...]
    purged: Purged | None = None

    @property
    def clean(self) -> bool:
        """False when a purge left something behind that it should have removed."""
        return self.purged is None or not self.purged.search.hits


def erasures(events: Iterable[Event]) -> Iterator[tuple[Event, Erasure]]:
    """The erased events among a model's events and what they say."""
    for event in events:
        if event.event is EventKind.ERASED and event.record is not None:
            yield event, Erasure.from_json(event.record, where=f"ledger, event {event.sequence}", digest=event.subject)


def tombstones(events: Iterable[Event], key: bytes) -> Tombstones:
    """Of a model's events. Raises Broken when `key` is not the key that they were made with."""
    ids: set[str] = set()
    texts: set[str] = set()
    for event, erasure in erasures(events):
        if erasure.key_check != key_check(key):
            raise Broken(
                "the project's key is not the one that records were forgotten with, so they cannot be kept out",
                where=f"ledger, event {event.sequence}",
                fix="restore the key file of the state folder from a backup, or set TUNELINE_RECORD_KEY to what it was",
            )
        ids.update(erasure.ids)
        texts.update(erasure.texts)
    return Tombstones(ids=frozenset(ids), texts=frozenset(texts))


def tombstone(events: Iterable[Event], digest: str) -> Tombstone | None:
    """When a keyed digest was forgotten, and what had it then; None when it was not."""
    found = [(event.sequence, erasure) for event, erasure in erasures(events) if digest in erasure.tombstones]
    if not found:
        return None
    first, erasure = found[0]
    return Tombstone(event=first, purged=any(one.purge for _, one in found), runs=erasure.runs, versions=erasure.versions)


def left_of(events: Iterable[Event]) -> dict[str, str]:
    """MD5 of a table that was taken away → MD5 of what is left of it, which may have been taken away in turn."""
    return {file.md5: file.left for _, erasure in erasures(events) for file in erasure.files if file.left}


def erased_files(events: Iterable[Event]) -> dict[str, int]:
    """SHA-256 and MD5 of every file taken away on request → the event that says so."""
    found: dict[str, int] = {}
    for event, erasure in erasures(events):
        for file in erasure.files:
            found.setdefault(file.sha256, event.sequence)
            if file.md5:
                found.setdefault(file.md5, event.sequence)
    return found
