"""Many processes that promote and roll back at once, and write down what they were told; and bugs to plant among them."""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "release"))

from release_history import Deed
from release_world import MODEL, STAGES, World

from pipeline.backends.ledger import SqlLedger
from pipeline.backends.ledger_store import EventStore, Row, Taken
from pipeline.domain.release import Event
from pipeline.errors import Broken, Conflict, Misuse, TryLater, TunelineError
from pipeline.moving import utc_now

FORK = multiprocessing.get_context("fork")
VERSIONS = 4
Location = Path | str
MakeLedger = Callable[[Location], SqlLedger]


def sound(location: Location) -> SqlLedger:
    return SqlLedger(location, patience=60)


def prepared(root: Path, location: Location) -> World:
    """A project with a few versions, whose ledger lies at `location`."""
    world = World(root)
    world.ledger, world.clock = sound(location), utc_now
    for number in range(VERSIONS):
        world.register(f"run{number}")
    return world


def race(
    world: World,
    location: Location,
    *,
    processes: int,
    moves: int,
    seed: int,
    make: MakeLedger = sound,
    meanwhile: Callable[[], bool] = lambda: False,
) -> tuple[list[Deed], Counter[str]]:
    """Let `processes` do `moves` moves each that win, and tell what happened; and how often answers of the store were lost.

    meanwhile: called again and again while they run, until it says False or they have ended.
    """
    logs = [world.root / f"deeds-{number}.jsonl" for number in range(processes)]
    running = [FORK.Process(target=_move, args=(world, location, log, moves, f"{seed} {n}", make)) for n, log in enumerate(logs)]
    for process in running:
        process.start()
    while any(process.is_alive() for process in running) and meanwhile():
        pass
    for process in running:
        process.join()
    deeds, counts = list[Deed](), Counter[str]()
    for log in logs:
        for line in log.read_text().splitlines():
            said = json.loads(line)
            if "counts" in said:
                counts.update(said["counts"])
            else:
                deeds.append(Deed(**said))
    assert counts["ended"] == processes, [process.exitcode for process in running]
    return deeds, counts


def stored(location: Location) -> list[Event]:
    """The events as they lie there, whole or not."""
    return [Event.from_json(row.body) for row in EventStore(location, 60).rows(MODEL)]


def _move(world: World, location: Location, log: Path, moves: int, seed: str, make: MakeLedger) -> None:
    rng, world.ledger = random.Random(seed), make(location)
    counts = Counter[str]()
    _count_lost_answers(counts)
    number = won = 0
    with log.open("w") as file:
        while won < moves and number < 40 * moves:
            number += 1
            deed = _one(world, rng, f"{seed}-{number}")
            won += deed.outcome == "won"
            counts[deed.outcome] += 1
            file.write(json.dumps(asdict(deed)) + "\n")
            file.flush()
            if deed.outcome == "unknown":
                time.sleep(0.2)
            if deed.outcome == "broken":
                break
        file.write(json.dumps({"counts": {**counts, "ended": 1}}) + "\n")


def _one(world: World, rng: random.Random, name: str) -> Deed:
    stage, drawn = rng.choice(STAGES), rng.random()
    words: dict[str, Any] = {"name": name, "stage": stage, "began": time.monotonic_ns()}
    try:
        if drawn < 0.1:
            head, _ = world.ledger.head(MODEL)
            held = world.ledger.holder(MODEL, stage)
            return Deed(outcome="saw", version=held or "", sequence=head, ended=time.monotonic_ns(), **words)
        if drawn < 0.65:
            record = _promote(world, str(rng.randint(1, VERSIONS)), stage, name)
        else:
            record = _roll_back(world, stage, name)
    except Conflict:
        return Deed(outcome="lost", ended=time.monotonic_ns(), **words)
    except TryLater:
        return Deed(outcome="unknown", ended=time.monotonic_ns(), **words)
    except Misuse:
        return Deed(outcome="refused", ended=time.monotonic_ns(), **words)
    except Broken as error:
        return Deed(outcome="broken", version=str(error).splitlines()[0], ended=time.monotonic_ns(), **words)
    outcome = "won" if record.changed else "held already"
    return Deed(outcome=outcome, version=record.version, sequence=record.sequence, ended=time.monotonic_ns(), **words)


def _promote(world: World, version: str, stage: str, name: str) -> Any:
    from pipeline.steps.promote import promote

    return promote(version, stage, "racer", name, model=MODEL, stages=STAGES, registry=world.registry, ledger=world.ledger)


def _roll_back(world: World, stage: str, name: str) -> Any:
    from pipeline.steps.rollback import rollback

    return rollback(stage, "racer", name, model=MODEL, registry=world.registry, ledger=world.ledger)


def _count_lost_answers(counts: Counter[str]) -> None:
    """How often the store did not answer an insert, and how often it had taken it all the same."""
    real = EventStore.insert

    def counting(store: EventStore, row: Row, *words: Any) -> None:
        try:
            real(store, row, *words)
        except TryLater:
            counts["answers lost"] += 1
            raise
        except Taken:
            there = store.at(row.model, [row.sequence]).get(row.sequence)
            counts["taken by ourselves, found by reading"] += there == row
            raise

    EventStore.insert = counting  # type: ignore[method-assign]


# Bugs to plant. Each is one that a ledger in use has had somewhere; the checker must find all of them.


class LastWriterWins(SqlLedger):
    """Writes without looking whether the place is taken, as an alias is set."""

    def _insert(self, model: str, expected: int, content: Any) -> Event:
        there = self._store.around(model, expected)
        time.sleep(0.005)
        made = Event.model_validate({**content, "sequence": expected + 1, "previous": there[expected].digest})
        with self._store._engine.execution_options(tuneline_write=True).begin() as connection:
            for table in ("events", "event_index", "holders"):
                connection.exec_driver_sql(f"DELETE FROM {table} WHERE sequence = {expected + 1}")
        self._store.insert(Row(model, made.sequence, made.digest, made.to_json()), self._derived(made))
        return made


class DecidesOnce(SqlLedger):
    """Meets a conflict by trying again at the new end, without deciding anew."""

    def append(self, model: str, event: Any, *, expected: int, **words: Any) -> Event:
        time.sleep(0.05)
        while True:
            try:
                return super().append(model, event, expected=expected, **words)
            except Conflict:
                expected = self.head(model)[0]


class AnswersTooEarly(SqlLedger):
    """Says that an event is stored which, now and then, is not."""

    def _insert(self, model: str, expected: int, content: Any) -> Event:
        if random.random() < 0.1:
            there = self._store.around(model, expected)
            return Event.model_validate({**content, "sequence": expected + 1, "previous": there[expected].digest})
        return super()._insert(model, expected, content)


class SeesThePast(SqlLedger):
    """Remembers who held a stage, and the end of the chain, and looks again only now and then."""

    _seen: dict[Any, tuple[int, Any]] = {}  # noqa: RUF012 - one a process

    def head(self, model: str) -> tuple[int, str]:
        asked, found = self._seen.get(model, (0, None))
        if found is None or asked >= 40:
            asked, found = 0, super().head(model)
        self._seen[model] = (asked + 1, found)
        return found


class Twice(SqlLedger):
    """Takes a lost answer for a no, and writes the event again behind it."""

    def append(self, model: str, event: Any, *, expected: int, **words: Any) -> Event:
        made = super().append(model, event, expected=expected, **words)
        if random.random() < 0.1:
            try:
                return super().append(model, event, expected=made.sequence, **words)
            except TunelineError:
                return made
        return made


PLANTED = (LastWriterWins, DecidesOnce, AnswersTooEarly, SeesThePast, Twice)
