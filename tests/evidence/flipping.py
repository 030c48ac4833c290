"""Harm done to a release and its ledger, one at a time and undone again, and whether the audit names it.

`files` are checked one at a time, by the functions that audit.verify itself calls for that file: a whole audit for each of a
hundred thousand flips would take days. `whole` runs the whole audit; it is used for a sample of flips and for every other harm.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evidence_world import EvidenceWorld
from release_world import MODEL

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.lineage import read_chain
from pipeline.domain.proof import differences
from pipeline.domain.release import Event, version_record
from pipeline.steps import audit


@dataclass(frozen=True)
class Target:
    """A file that an audit reads. named: what a report that finds it broken holds. check: the audit's own look at it."""

    path: Path
    named: str
    check: Callable[[], str | None]


def targets(world: EvidenceWorld) -> list[Target]:
    """Every file of version 1: those of the model and its evidence, reports, and each stored copy of data and records."""
    record = version_record(world.ledger.events(MODEL), "1")
    chain, _ = read_chain(record, lambda digest: world.archive.record(record, digest))
    found = []
    for folder, files in ((world.folder, record.files), (world.registry.run_artifacts(record.run_id), record.reports)):
        for file in files:
            look = lambda folder=folder, file=file: next(iter(differences(folder, [file], extra=True)), None)  # noqa: E731
            found.append(Target(folder / file.path, str(folder / file.path), look))
    recorded = audit._recorded_files(chain)
    for stored in world.archive.files(record):
        look = lambda stored=stored: audit._wrong_copy(stored, recorded.get(stored.path))  # type: ignore[misc]  # noqa: E731
        found.append(Target(stored.stored, stored.path, look))
    return list({target.path: target for target in found}.values())


def flip(path: Path, offset: int, mask: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def unseen_flips(target: Target, offsets: Iterator[int] | range, dice: random.Random) -> list[int]:
    """The offsets at which a changed byte was not found; the file is as before afterwards."""
    missed = []
    for offset in offsets:
        mask = dice.randrange(1, 256)
        flip(target.path, offset, mask)
        said = target.check()
        flip(target.path, offset, mask)
        if said is None:
            missed.append(offset)
    return missed


def missed_by_the_ledger(world: EvidenceWorld, path: Path, offsets: Iterator[int] | range, dice: random.Random) -> list[int]:
    """The same for the ledger's file and its seal, by the check of the ledger that audit.verify begins with."""
    missed, content = [], path.read_bytes()
    for offset in offsets:
        mask = dice.randrange(1, 256)
        flip(path, offset, mask)
        said = SqlLedger(world.root / "state" / "ledger.db").verify()
        path.write_bytes(content)
        if not any(str(world.root / "state") in line for line in said):
            missed.append(offset)
    return missed


def broken(world: EvidenceWorld) -> list[str]:
    """What a whole audit of version 1 finds, a line each."""
    world.ledger = SqlLedger(world.root / "state" / "ledger.db", patience=30)
    return [f"{c.name}: {c.detail}" for c in world.verify().broken]


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """What lies at `path` is there again afterwards, and nothing else beside it that was not."""
    aside, folder = path.with_name(f".{path.name}.aside"), path.parent
    before = set(folder.iterdir())
    os.link(path, aside)
    content = aside.read_bytes()
    try:
        yield
    finally:
        for place in set(folder.iterdir()) - before - {aside}:
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        aside.rename(path)
        path.write_bytes(content)


def _swap(path: Path) -> None:
    other = next(p for p in sorted(path.parent.parent.rglob("*")) if p.is_file() and p.read_bytes() != path.read_bytes())
    path.write_bytes(other.read_bytes())


def _link(path: Path, aside: Path) -> None:
    """The very same bytes, behind a link that can be turned elsewhere."""
    shutil.copy(path, aside / "same")
    path.unlink()
    path.symlink_to(aside / "same")


HARMS: dict[str, Callable[[Path, Path], object]] = {
    "cut to nothing": lambda path, _: path.write_bytes(b""),
    "cut by a byte": lambda path, _: os.truncate(path, path.stat().st_size - 1),
    "a byte more": lambda path, _: path.write_bytes(path.read_bytes() + b"\0"),
    "removed": lambda path, _: path.unlink(),
    "renamed": lambda path, _: path.rename(path.with_name("other name")),
    "another file's bytes": lambda path, _: _swap(path),
    "a link to the same bytes": _link,
    "a folder in its place": lambda path, _: (path.unlink(), path.mkdir()),
    "a pipe in its place": lambda path, _: (path.unlink(), os.mkfifo(path)),
}
"""What can be done to a file; each must be found, and its path named. The second argument is a folder for what lies elsewhere."""


def forged(world: EvidenceWorld, change: Callable[[list[Event]], list[Event]]) -> None:
    """Put a ledger in the place of the world's that tells another story, with every digest, link and seal as it should be."""
    events = change(list(world.ledger.events(MODEL)))
    fake = world.root / "forged"
    shutil.rmtree(fake, ignore_errors=True)
    ledger = SqlLedger(fake / "ledger.db")
    for number, event in enumerate(events):
        words = {"version": event.version, "subject": event.subject, "stage": event.stage, "leaves": event.leaves}
        said = {"actor": event.actor, "reason": event.reason, "at": event.at, "record": event.record}
        ledger.append(MODEL, event.event, expected=number, **words, **said)
    for path in (world.root / "state").glob("ledger.db*"):
        path.unlink()
    for path in fake.glob("ledger.db*"):
        path.rename(world.root / "state" / path.name)
    world.ledger = SqlLedger(world.root / "state" / "ledger.db", patience=30)


FORGERIES: dict[str, Callable[[list[Event]], list[Event]]] = {
    "edited": lambda events: [*events[:-1], events[-1].model_copy(update={"actor": "mallory"})],
    "dropped": lambda events: [*events[:1], *events[2:]],
    "reordered": lambda events: [events[0], *reversed(events[1:])],
    "forked": lambda events: [*events[:2], events[2].model_copy(update={"reason": "another story"}), *events[3:]],
    "cut off": lambda events: events[:-1],
}
"""How a whole ledger can be rewritten by someone who knows of the seal; only what was anchored elsewhere can tell."""
