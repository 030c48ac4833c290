"""Release deeds in a child that dies at its Nth change of the disk; run as a process of its own, with the shim preloaded.

Reads orders as JSON lines from stdin and answers each with a line. For each point it copies a prepared project, forks a child
that does the deed and is killed, looks at what is left, and lets a fresh child make the next start. Everything was imported
before, so that a point costs a fork and not a start of Python.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "release"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from folder_registry import FolderRegistry
from release_world import MODEL, STAGES, World

import pipeline.moving
from pipeline.backends.ledger import SqlLedger
from pipeline.backends.ledger_seal import Head
from pipeline.domain.proof import differences
from pipeline.domain.release import registrations, version_record
from pipeline.errors import TunelineError
from pipeline.steps.reconcile import reconcile

SHIM = ctypes.CDLL(None)
Deed = Callable[[World], object]
DEEDS: dict[str, Deed] = {
    "register": lambda world: world.register("three", candidate=world.kept),  # type: ignore[attr-defined]
    "promote": lambda world: world.promote("2"),
    "rollback": lambda world: world.rollback(leaving="2"),
}


def prepare(root: Path, deed: str) -> World:
    """Two versions, of which production has held the first, or both where it is to be rolled back; and a third candidate."""
    world = World(root)
    world.kept = world.candidate("three")  # type: ignore[attr-defined]
    for name in ("one", "two"):
        world.register(name)
    world.promote("1")
    if deed == "rollback":
        world.promote("2")
    return world


def moved(world: World, root: Path) -> World:
    """The same world in a copy of its folder."""
    other = World.__new__(World)
    other.__dict__.update(world.__dict__)
    shutil.copytree(world.root, root)
    other.root, other.ledger = root, SqlLedger(root / "state" / "ledger.db", patience=30)
    other.registry = type(world.registry)(root / "registry")
    other.archive = type(world.archive)(root / "archive")
    return other


def wrong(world: World) -> Iterator[str]:
    """What must hold at any moment: both pointers name a version that is registered and whole, and aliases lag at most."""
    fresh = SqlLedger(Path(world.ledger.where))
    try:
        events = fresh.events(MODEL)
        held = fresh.holder(MODEL, "production")
    except TunelineError as error:
        yield f"the ledger cannot be read: {error.what}"
        return
    named = world.registry.aliases(MODEL).get("production")
    ever = {e.version for e in events if e.stage == "production"}
    if named is not None and named not in ever:
        yield f"the alias names {named}, which the ledger never gave production"
    for version in registrations(events):
        record = version_record(events, version)
        try:
            broken = differences(world.registry.artifacts(MODEL, version), record.files)
        except TunelineError as error:
            broken = (error.what,)
        if broken:
            holds = " and holds production" if version == held else ""
            yield f"version {version} is registered{holds}, and not whole: {broken[0]}"


def start_again(world: World, deed: str) -> Iterator[str]:
    """The next start: aliases follow the ledger, the deed is done again; then all is as after a quiet one, with nothing left."""
    try:
        reconcile(MODEL, STAGES, registry=world.registry, ledger=world.ledger)
        DEEDS[deed](world)
    except TunelineError as error:
        yield f"the next start needs a person: {error.what}"
        return
    yield from wrong(world)
    events = world.ledger.events(MODEL)
    expected = {"register": "1", "promote": "2", "rollback": "1"}[deed]
    shown, held = world.registry.aliases(MODEL).get("production"), world.ledger.holder(MODEL, "production")
    if (shown, held) != (expected, expected):
        yield f"production is held by {held} and shown as {shown}, not {expected}"
    if len(registrations(events)) != (3 if deed == "register" else 2):
        yield f"{len(registrations(events))} versions are registered"
    yield from world.ledger.verify()
    left = {p.name for p in (world.root / "state").iterdir()} - {"ledger.db", "ledger.db.seal", "ledger.db.lock"}
    if left:
        yield f"left behind: {', '.join(sorted(left))}"


def in_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """(exit status, what `work` returned, by JSON)."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        os.close(reading)
        said = work()
        SHIM.kill_at_arm(0)
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps(said))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    status = os.waitpid(pid, 0)[1]
    return (-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)), json.loads(text) if text else None


def deed_killed_at(world: World, deed: str, number: int, bug: str | None) -> int:
    if bug:
        BUGS[bug]()
    SHIM.kill_at_arm(ctypes.c_long(number))
    DEEDS[deed](world)
    return int(SHIM.kill_at_counted())


# Ordering bugs to plant: each does what must come last first.


def points_before_it_writes() -> None:
    """The alias is moved, and then the event appended."""
    real = pipeline.moving.refuse_damaged

    def hasty(record: Any, registry: Any) -> None:
        registry.point(record.name, "production", record.version)
        real(record, registry)

    pipeline.moving.refuse_damaged = hasty


def registers_before_it_copies() -> None:
    """The version's files are put into their place after its event."""
    made, found, appended = FolderRegistry.register, FolderRegistry.artifacts, SqlLedger.append

    def register(registry: FolderRegistry, name: str, **words: Any) -> str:
        version = made(registry, name, **words)
        place = found(registry, name, version)
        place.rename(place.with_name("late"))
        return version

    def artifacts(registry: FolderRegistry, name: str, version: str) -> Path:
        late = registry.root / "models" / name / version / "late"
        return late if late.exists() else found(registry, name, version)

    def append(ledger: SqlLedger, *words: Any, **more: Any) -> Any:
        event = appended(ledger, *words, **more)
        for late in Path(ledger.where).parent.parent.glob("registry/models/*/*/late"):
            late.rename(late.with_name("files"))
        return event

    FolderRegistry.register, FolderRegistry.artifacts = register, artifacts  # type: ignore[method-assign]
    SqlLedger.append = append  # type: ignore[method-assign]


def seals_before_it_stores() -> None:
    """The seal names an event that is not in the database yet."""
    real = SqlLedger._insert

    def hasty(ledger: SqlLedger, model: str, expected: int, content: Any) -> Any:
        assert ledger._seal is not None
        ledger._seal.write({model: Head(sequence=expected + 1, digest="f" * 64)}, settled=False)
        return real(ledger, model, expected, content)

    SqlLedger._insert = hasty  # type: ignore[method-assign]


BUGS = {f.__name__: f for f in (points_before_it_writes, registers_before_it_copies, seals_before_it_stores)}


def answer(home: Path, prepared: dict[str, World], deed: str, number: int, bug: str | None) -> dict[str, Any]:
    """One point: kill, look, start again, look."""
    if deed not in prepared:
        prepared[deed] = prepare(home / deed, deed)
    world = moved(prepared[deed], home / "point")
    status, counted = in_child(lambda: deed_killed_at(world, deed, number, bug))
    found = [f"right after: {said}" for said in wrong(world)]
    if status not in (0, -signal.SIGKILL):
        found.append(f"the deed ended with {status}")
    if status == -signal.SIGKILL:
        again, said = in_child(lambda: list(start_again(world, deed)))
        found += [f"afterwards: {one}" for one in said] if again == 0 else [f"the next start ended with {again}"]
    shutil.rmtree(home / "point")
    return {"killed": status == -signal.SIGKILL, "counted": counted, "found": found}


def main(home: Path) -> None:
    prepared: dict[str, World] = {}
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(answer(home, prepared, order["deed"], order["number"], order.get("bug"))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
