"""How long promote and rollback take to commit, and questions to a ledger of a hundred thousand events. `make bench-release`.

Each figure is a median with its quartiles, beside a peer measured in the same run: one durable write of the same kind (for a
commit: a transaction of one row in a database of the same sort, synchronous; for a question: one SELECT by primary key).
PostgreSQL is measured where its server is installed. What is committed is the event; the version's files are re-hashed before,
and how long that takes depends on how large they are, so it is told beside it. CPU time is told too: a machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT, ROOT / "tests" / "release", ROOT / "tests" / "drills"):
    sys.path.insert(0, str(place))

from pipeline.backends.ledger import SqlLedger  # noqa: E402
from pipeline.backends.ledger_index import derive_all  # noqa: E402
from pipeline.domain.record import digest_bytes  # noqa: E402
from pipeline.domain.release import GENESIS, Event, EventKind, ModelVersion  # noqa: E402
from pipeline.moving import utc_now  # noqa: E402

LIMITS = {"commit, SQLite": 50.0, "commit, PostgreSQL": 100.0, "question": 50.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--no-postgresql", action="store_true")
    chosen = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        results += commits(home / "sqlite", home / "sqlite" / "state" / "ledger.db", "SQLite", chosen.repeats, sqlite_peer(home))
        if not chosen.no_postgresql:
            with postgresql() as url:
                if url:
                    results += commits(home / "pg", url, "PostgreSQL", chosen.repeats, postgresql_peer(url))
        results += questions(home / "large", chosen.events, chosen.repeats)
    width = max(len(row["what"]) for row in results)
    for row in results:
        limit = f"  at most {row['limit']:g}: {'yes' if row['median'] <= row['limit'] else 'NO'}" if "limit" in row else ""
        spread = f"({row['low']:.2f} to {row['high']:.2f}), computing {row['cpu']:.2f}"
        print(f"{row['what']:{width}}  {row['median']:8.2f} ms  {spread}{limit}")
    print(json.dumps(results))


def commits(home: Path, location: Path | str, name: str, repeats: int, peer: Callable[[], object]) -> list[dict[str, Any]]:
    """Promotions and rollbacks by turns, as the command line does them, without its start."""
    from release_world import MODEL, World

    world = World(home)
    world.ledger, world.clock = SqlLedger(location), utc_now
    world.register("one")
    world.register("two")
    world.promote("1")
    appended = _timed_appends(world.ledger)
    whole: dict[str, list[Took]] = {"promote": [], "rollback": []}
    for _ in range(repeats):
        whole["promote"].append(timed(lambda: world.promote("2")))
        whole["rollback"].append(timed(lambda: world.rollback(leaving="2")))
    assert world.ledger.verify() == ()
    assert world.ledger.holder(MODEL, "production") == "1"
    rows = [told(f"{name}: commit of a promotion", appended[0::2], LIMITS[f"commit, {name}"])]
    rows += [told(f"{name}: commit of a rollback", appended[1::2], LIMITS[f"commit, {name}"])]
    rows += [told(f"{name}: whole {deed}, files re-hashed, alias pointed", times) for deed, times in whole.items()]
    return [*rows, told(f"{name}: peer, one row in a transaction", [timed(peer) for _ in range(repeats)])]


def questions(home: Path, events: int, repeats: int) -> list[dict[str, Any]]:
    """holder, at, history of a large ledger, by a process that has read nothing before; and an append to it."""
    path = home / "ledger.db"
    made = large_ledger(path, events)
    half = made[len(made) // 2].at
    from pipeline.steps.history import at, history

    polled = SqlLedger(path)
    asked: dict[str, Callable[[], object]] = {
        "head": lambda: SqlLedger(path).head("desk"),
        "head, asked again": lambda: polled.head("desk"),
        "holder": lambda: SqlLedger(path).holder("desk", "production"),
        "at": lambda: at("desk", "production", half, ledger=SqlLedger(path)),
        "history, the last 200 of a stage": lambda: history("desk", "production", ledger=SqlLedger(path), last=200),
        "history, the last 50": lambda: history("desk", ledger=SqlLedger(path), last=50),
    }
    rows = [
        told(f"{events} events: {name}", [timed(work) for _ in range(repeats)], LIMITS["question"])
        for name, work in asked.items()
    ]
    with sqlite3.connect(path) as raw:
        peer = lambda: raw.execute("SELECT body FROM events WHERE model = 'desk' AND sequence = ?", (events // 2,)).fetchone()  # noqa: E731
        rows.append(told("  peer, one row by primary key, connection open", [timed(peer) for _ in range(repeats)]))
    raw.close()
    ledger, words = SqlLedger(path), {"subject": "0" * 64, "stage": "production", "actor": "bench", "reason": "r"}
    number = iter(range(events, events + repeats))

    def append() -> None:
        n = next(number)
        ledger.append(
            "desk", EventKind.PROMOTED, expected=n, version=str(2 + n % 2), leaves=str(3 - n % 2), at=utc_now(), **words
        )

    rows.append(told(f"{events} events: commit of one more", [timed(append) for _ in range(repeats)], LIMITS["commit, SQLite"]))
    said: list[object] = []
    rows.append(told(f"{events} events: verify, once", [timed(lambda: said.append(ledger.verify()))]))
    assert said == [()]
    return rows


def large_ledger(path: Path, events: int) -> list[Event]:
    """A ledger whose rows are put in at once; its seal and its index are what appends would have made."""
    path.parent.mkdir(parents=True)
    SqlLedger(path)._create()
    store = SqlLedger(path)._store
    made: list[Event] = []
    at, previous = datetime(2016, 1, 1, tzinfo=UTC), GENESIS
    for version in ("1", "2", "3"):
        named = {
            "training": "a" * 64,
            "evaluation": "b" * 64,
            "decision": "c" * 64,
            "adapter_digest": digest_bytes(version.encode()),
        }
        record = ModelVersion(name="desk", version=version, run_id="r", files=(), commit="c", tag="t", dirty=False, **named)
        made.append(_event(len(made), previous, EventKind.REGISTERED, version, record.digest, None, None, at, record.to_json()))
        previous = made[-1].digest
    held = None
    while len(made) < events:
        version, at = str(2 + len(made) % 2), at + timedelta(minutes=50)
        made.append(_event(len(made), previous, EventKind.PROMOTED, version, "0" * 64, "production", held, at, None))
        held, previous = version, made[-1].digest
    with sqlite3.connect(path) as raw:
        raw.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", ((e.model, e.sequence, e.digest, e.to_json()) for e in made))
        listed, turns = derive_all(made)
        raw.executemany("INSERT INTO event_index VALUES (?, ?, ?, ?, ?)", listed)
        raw.executemany("INSERT INTO holders VALUES (?, ?, ?, ?, ?)", turns)
    raw.close()
    assert store.exists()
    SqlLedger(path).reseal()
    return made


def _event(
    before: int,
    previous: str,
    kind: EventKind,
    version: str,
    subject: str,
    stage: str | None,
    leaves: str | None,
    at: datetime,
    record: str | None,
) -> Event:
    words = {"model": "desk", "sequence": before + 1, "previous": previous, "event": kind, "version": version, "subject": subject}
    return Event(**words, stage=stage, leaves=leaves, actor="bench", reason="r", at=at, record=record)


def _timed_appends(ledger: SqlLedger) -> list[Took]:
    """Milliseconds of each append of a ledger from now on."""
    real, times = ledger.append, list[Took]()

    def append(*words: Any, **more: Any) -> Event:
        made: list[Event] = []
        times.append(timed(lambda: made.append(real(*words, **more))))
        return made[0]

    ledger.append = append  # type: ignore[method-assign]
    return times


def sqlite_peer(home: Path) -> Callable[[], object]:
    raw = sqlite3.connect(home / "peer.db", isolation_level=None)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("PRAGMA synchronous=FULL")
    raw.execute("CREATE TABLE peer (id INTEGER PRIMARY KEY, body TEXT)")
    return lambda: raw.execute("INSERT INTO peer (body) VALUES (?)", ("x" * 500,))


def postgresql_peer(url: str) -> Callable[[], object]:
    import psycopg

    raw = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
    raw.execute("CREATE TABLE peer (id SERIAL PRIMARY KEY, body TEXT)")
    return lambda: raw.execute("INSERT INTO peer (body) VALUES (%s)", ("x" * 500,))


@contextmanager
def postgresql() -> Iterator[str | None]:
    import pytest
    from release_postgres import KillablePostgres

    try:
        server = KillablePostgres()
    except pytest.skip.Exception as why:
        print(f"PostgreSQL is not measured: {why}")
        yield None
        return
    try:
        yield server.url
    finally:
        server.close()


class Took(NamedTuple):
    """Milliseconds by the clock, and of this process's own computing."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Took:
    began, spent = time.perf_counter(), time.process_time()
    work()
    return Took(1000 * (time.perf_counter() - began), 1000 * (time.process_time() - spent))


def told(what: str, times: list[Took], limit: float | None = None) -> dict[str, Any]:
    walls = [took.wall for took in times]
    low, middle, high = statistics.quantiles(walls, n=4) if len(times) > 1 else (walls[0],) * 3
    found = {"what": what, "median": middle, "low": low, "high": high, "cpu": statistics.median(took.cpu for took in times)}
    return {**found, **({"limit": limit} if limit else {})}


if __name__ == "__main__":
    main()
