"""Promotions and rollbacks from eight processes at once, on SQLite and on a PostgreSQL that is killed and restarted meanwhile.

None may be lost, none doubled, no gap, one winner each, and what everybody was told and saw must be explained by the ledger's own
order (release_history.py). That the checker finds something is proven with planted bugs. `make drill-race` tries ten thousand
moves each; small seeded samples run with the other tests.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from release_history import Deed, violations
from release_postgres import KillablePostgres
from release_race import PLANTED, prepared, race, stored

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.release import EventKind, holder

PROCESSES = 8
MOVES, WON = 10_000, 2_800
"""So many moves are tried, most of which lose or find their work done; so many of them, all processes together, win."""
KILLS = 20


@pytest.fixture
def server() -> Iterator[KillablePostgres]:
    made = KillablePostgres()
    yield made
    made.close()


def killing(server: KillablePostgres, times: int, pause: float, done: Counter[str]) -> Callable[[], bool]:
    """Kill, or drop all sessions, by turns, and start again; with time to work in between."""

    def once() -> bool:
        time.sleep(pause)
        if done["kills"] >= times:
            return False
        server.kill() if done["kills"] % 2 == 0 else server.stop(signal.SIGQUIT)
        done["kills"] += 1
        time.sleep(0.2)
        server.start()
        return True

    return once


def settled(location: Path | str, deeds: list[Deed], world: object, moves: int) -> None:
    events = stored(location)
    assert violations(events, deeds) == []
    ledger = SqlLedger(location, patience=60)
    assert ledger.verify() == ()
    won = [deed for deed in deeds if deed.outcome == "won"]
    assert len(won) == moves
    assert sum(deed.outcome == "lost" for deed in deeds) > 0, "there was no race"
    tried = sum(deed.outcome != "saw" for deed in deeds)
    assert tried >= MOVES or moves < WON, f"only {tried} moves were tried"
    moved = sum(event.event is not EventKind.REGISTERED for event in events)
    assert moves <= moved <= moves + sum(deed.outcome == "unknown" for deed in deeds)
    for stage in ("staging", "production"):
        held = holder(ledger.events("desk"), stage)
        assert ledger.holder("desk", stage) == world.registry.aliases("desk")[stage] == held  # type: ignore[attr-defined]


@pytest.mark.parametrize("moves", [3, pytest.param(WON // PROCESSES, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_moves_that_race_on_sqlite_happen_one_after_the_other(tmp_path: Path, moves: int) -> None:
    location = tmp_path / "state" / "ledger.db"
    world = prepared(tmp_path, location)
    deeds, counts = race(world, location, processes=PROCESSES, moves=moves, seed=7)
    settled(location, deeds, world, PROCESSES * moves)
    print(dict(counts))


@pytest.mark.parametrize(
    ("moves", "kills", "pause"),
    [(3, 2, 0.7), pytest.param(WON // PROCESSES, KILLS, 4.0, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])],
)
def test_moves_that_race_on_a_postgresql_that_is_killed_happen_one_after_the_other(
    tmp_path: Path, server: KillablePostgres, moves: int, kills: int, pause: float
) -> None:
    world = prepared(tmp_path, server.url)
    done = Counter[str]()
    deeds, counts = race(
        world, server.url, processes=PROCESSES, moves=moves, seed=7, meanwhile=killing(server, kills, pause, done)
    )
    from pipeline.steps.reconcile import reconcile

    reconcile("desk", ("staging", "production"), registry=world.registry, ledger=world.ledger)
    settled(server.url, deeds, world, PROCESSES * moves)
    assert done["kills"] > 0
    print(dict(counts), dict(done))


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(tmp_path: Path, bug: type[SqlLedger]) -> None:
    location = tmp_path / "state" / "ledger.db"
    world = prepared(tmp_path, location)
    deeds, _ = race(world, location, processes=4, moves=8, seed=7, make=lambda place: bug(place, patience=60))
    assert violations(stored(location), deeds)


def test_a_history_that_was_tampered_with_is_found(tmp_path: Path) -> None:
    """The checker against single lies, each about one deed of a real history."""
    location = tmp_path / "state" / "ledger.db"
    world = prepared(tmp_path, location)
    deeds, _ = race(world, location, processes=2, moves=10, seed=7)
    events = stored(location)
    assert violations(events, deeds) == []
    first, *_, last = sorted((d for d in deeds if d.outcome == "won"), key=lambda d: d.sequence)
    saw = next(d for d in deeds if d.outcome == "saw")
    for lie in (
        replace(last, outcome="lost"),
        replace(last, sequence=last.sequence - 1),
        replace(last, began=0, ended=1),
        replace(first, began=last.ended + 1, ended=last.ended + 2),
        replace(last, name="nobody"),
        replace(first, outcome="refused"),
    ):
        old = first if lie.name == first.name else last
        assert violations(events, [lie if deed is old else deed for deed in deeds]), lie
    for lie in (
        replace(saw, sequence=0, began=last.ended + 1),
        replace(saw, version="9"),
        replace(saw, sequence=len(events) + 1),
    ):
        assert violations(events, [lie if deed is saw else deed for deed in deeds]), lie
    for wrong in (events[:-1], [*events[:-2], events[-1]], [*events[:-2], events[-1], events[-2]], [*events, events[-1]]):
        assert violations(wrong, deeds)
