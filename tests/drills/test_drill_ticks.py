"""A thousand ticks with several workers that are woken twice, late and by wrong clocks, killed, stopped and woken after they were
taken over, on SQLite and on a PostgreSQL that is killed and restarted: exactly one candidate for each tick that had a fresh file,
none for the others. That the checks find something is proven with planted bugs. `make drill-ticks` runs all of it; small seeded
samples run with the other tests.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from release_postgres import KillablePostgres
from ticks_conductor import Conductor
from ticks_workers import BUGS, Place

LONG = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture
def server() -> Iterator[KillablePostgres]:
    made = KillablePostgres()
    yield made
    made.close()


@pytest.mark.parametrize("ticks", [6, pytest.param(1000, marks=LONG)])
def test_each_tick_with_fresh_data_has_one_candidate(tmp_path: Path, ticks: int) -> None:
    conductor = Conductor(Place.made(tmp_path), seed=7, harm=0.3 if ticks > 100 else 0.7)
    assert conductor.conduct(ticks) == []
    print(ticks, "ticks,", len(conductor.with_file), "with a fresh file,", dict(conductor.counts))
    assert conductor.with_file
    assert conductor.counts["killed"] + conductor.counts["stopped and woken"] > 0, "nobody came to harm"


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("ticks", [1000])
def test_nor_does_a_database_that_is_killed_change_that(tmp_path: Path, server: KillablePostgres, ticks: int) -> None:
    killed = []

    def restart() -> None:
        server.kill() if len(killed) % 2 == 0 else server.stop(signal.SIGQUIT)
        killed.append(time.monotonic())
        time.sleep(0.2)
        server.start()

    conductor = Conductor(Place.made(tmp_path, server.url), seed=8, restart=restart, restarts=0.02)
    assert conductor.conduct(ticks) == []
    print(ticks, "ticks,", len(conductor.with_file), "with a fresh file,", dict(conductor.counts))
    assert killed


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("bug", [None, *BUGS])
def test_a_planted_bug_is_found(tmp_path: Path, bug: str | None) -> None:
    """Harm where it is worst, and nothing wrong without a bug."""
    ways = ("kill",) if bug == "without_takeover" else ("stop",)
    words: dict[str, Any] = {"near": 1, "far": 3, "fresh": 0.8, "harm": 0.8, "places": ("ingested", "kept"), "ways": ways}
    conductor = Conductor(Place.made(tmp_path), seed=7, bug=bug, patience=60 if bug is None else 15, **words)
    assert bool(conductor.conduct(25)) == (bug is not None)
