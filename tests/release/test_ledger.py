"""The ledger against a real SQLite file: compare-and-swap, crashes, locks, and every way of tampering with the file."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from whole_chain import first_broken_link

from pipeline.backends import ledger_engines, ledger_store
from pipeline.backends.ledger import SqlLedger
from pipeline.backends.ledger_seal import SealFile
from pipeline.backends.ledger_store import EventStore, Row, Taken
from pipeline.domain.record import digest_bytes
from pipeline.domain.release import Event, EventKind
from pipeline.errors import Broken, Conflict, Misuse, Tampered, TryLater, TunelineError

FORK = multiprocessing.get_context("fork")
AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def add(ledger: SqlLedger, expected: int, model: str = "desk", **changes: Any) -> Event:
    words: dict[str, Any] = {"version": "1", "subject": "0" * 64, "stage": "production", "leaves": None}
    words |= {"actor": "ada", "reason": f"reason {expected}", "at": AT, **changes}
    return ledger.append(model, EventKind.PROMOTED, expected=expected, **words)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> SqlLedger:
    return SqlLedger(path)


@pytest.fixture
def filled(ledger: SqlLedger) -> SqlLedger:
    for expected in range(4):
        add(ledger, expected)
    add(ledger, 0, "other")
    return ledger


def seal_of(path: Path) -> dict:
    return json.loads(path.with_name("ledger.db.seal").read_text())


def test_events_come_back_as_they_were_appended(filled: SqlLedger, path: Path) -> None:
    events = filled.events("desk")
    assert [e.sequence for e in events] == [1, 2, 3, 4]
    assert [e.reason for e in events] == [f"reason {n}" for n in range(4)]
    assert first_broken_link(events) is None
    assert filled.models() == ("desk", "other")
    assert filled.verify() == ()
    assert SqlLedger(f"sqlite:///{path}").events("desk") == events
    assert seal_of(path)["heads"]["desk"] == {"sequence": 4, "digest": events[-1].digest}


def test_before_the_first_append_there_is_nothing_and_asking_makes_nothing(ledger: SqlLedger, path: Path) -> None:
    assert (ledger.events("desk"), ledger.models(), ledger.verify()) == ((), (), ())
    assert not path.parent.exists()


def test_file_and_folder_are_private(filled: SqlLedger, path: Path) -> None:
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_stale_expectation_changes_nothing(filled: SqlLedger, path: Path) -> None:
    before = path.read_bytes(), seal_of(path)
    for expected in (0, 3, 5, 99):
        with pytest.raises(Conflict, match="nothing was changed"):
            add(filled, expected, actor="bob")
    assert (path.read_bytes(), seal_of(path)) == before


def test_repeating_an_append_of_unknown_outcome_returns_the_event_it_made(filled: SqlLedger) -> None:
    events = filled.events("desk")
    assert add(filled, 2) == events[2]
    assert add(filled, 3) == events[3]
    assert filled.events("desk") == events
    assert filled.verify() == ()


def test_bad_words_and_naive_times_are_refused_before_anything_is_written(ledger: SqlLedger, path: Path) -> None:
    for changes in (
        {"actor": "a\0"},
        {"reason": "\0"},
        {"actor": "a" * 201},
        {"reason": "r" * 2001},
        {"reason": ""},
        {"version": "\0"},
    ):
        with pytest.raises(Misuse):
            add(ledger, 0, **changes)
    with pytest.raises(Misuse, match="offset"):
        add(ledger, 0, at=datetime(2026, 1, 1))
    assert not path.exists()


def test_urls() -> None:
    for bad in ("mysql://h/d", "sqlite://", "sqlite:///:memory:", "not a url", "sqlite:///file:x?uri=true"):
        with pytest.raises(Misuse, match="ledger"):
            SqlLedger(bad)
    assert ledger_engines.url_of("postgresql://u:secret@h/d").drivername == "postgresql+psycopg"


def test_the_tables_compile_for_postgresql() -> None:
    from sqlalchemy.dialects import postgresql

    text = str(sa.schema.CreateTable(ledger_store._events).compile(dialect=postgresql.dialect()))
    assert "PRIMARY KEY (model, sequence)" in text
    assert "sequence BIGINT NOT NULL" in text


def test_a_newer_schema_is_refused(filled: SqlLedger, path: Path) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE schema_version SET version = '3'")
    for call in (lambda: filled.events("desk"), filled.models):
        with pytest.raises(Broken, match="schema 3") as caught:
            call()
        assert "newer" in str(caught.value)
    assert any("schema 3" in said for said in filled.verify())


def test_a_file_that_is_no_ledger_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, but it is long enough to be taken for one" * 100)
    ledger = SqlLedger(path)
    for call in (lambda: ledger.events("desk"), lambda: add(ledger, 0)):
        with pytest.raises(Tampered, match="not a database"):
            call()
    assert "not a database" in ledger.verify()[0]


def test_a_locked_database_is_waited_for_and_then_said_to_be(filled: SqlLedger, path: Path) -> None:
    impatient = SqlLedger(path, patience=0.1)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(TryLater, match="locked"):
        add(impatient, 4)
    raw.execute("ROLLBACK")
    raw.close()
    with SealFile(path).locked(1), pytest.raises(TryLater, match=r"0\.1 s"):
        add(impatient, 4)
    assert add(impatient, 4).sequence == 5
    assert impatient.verify() == ()


def test_a_reader_in_the_way_of_settling_leaves_a_seal_without_bytes_that_is_mended(filled: SqlLedger, path: Path) -> None:
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM events").fetchall()
    hasty = SqlLedger(path, patience=0.1)
    add(hasty, 4)
    assert seal_of(path)["sha256"] is None
    assert len(filled.events("desk")) == 5
    reader.execute("ROLLBACK")
    reader.close()
    assert filled.verify() == ()
    assert seal_of(path)["sha256"] == digest_bytes(path.read_bytes())
    add(filled, 5)
    assert filled.verify() == ()


# Many at once


def _append_in_turn(path: Path, actor: str, count: int) -> None:
    ledger = SqlLedger(path, patience=60)
    for number in range(count):
        while True:
            try:
                add(ledger, len(ledger.events("desk")), actor=actor, reason=f"{actor} {number}")
                break
            except Conflict:
                continue


def _append_once(path: Path, actor: str, barrier: Any, results: Any) -> None:
    ledger = SqlLedger(path, patience=60)
    barrier.wait()
    try:
        add(ledger, 0, actor=actor)
        results.put("won")
    except Conflict:
        results.put("lost")


def _run_all(target: Callable[..., None], *arguments: tuple) -> None:
    processes = [FORK.Process(target=target, args=words) for words in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0] * len(processes)


def test_eight_processes_append_without_gap_or_loss(ledger: SqlLedger, path: Path) -> None:
    _run_all(_append_in_turn, *((path, f"p{n}", 6) for n in range(8)))
    events = ledger.events("desk")
    assert [e.sequence for e in events] == list(range(1, 49))
    assert sorted(e.reason for e in events) == sorted(f"p{n} {k}" for n in range(8) for k in range(6))
    assert ledger.verify() == ()


def test_of_eight_that_expect_the_same_head_one_wins(ledger: SqlLedger, path: Path) -> None:
    barrier, results = FORK.Barrier(8), FORK.Queue()
    _run_all(_append_once, *((path, f"p{n}", barrier, results) for n in range(8)))
    assert sorted(results.get() for _ in range(8)) == ["lost"] * 7 + ["won"]
    assert len(ledger.events("desk")) == 1
    assert ledger.verify() == ()


def test_the_database_itself_refuses_a_second_event_of_one_sequence(filled: SqlLedger, path: Path, monkeypatch: Any) -> None:
    """What a shared PostgreSQL relies on, where no file lock keeps writers apart: they read the same head and both insert."""
    real, calls = EventStore.around, []

    def blind_once(store: EventStore, model: str, sequence: int) -> dict[int, Row]:
        calls.append(sequence)
        rows = real(store, model, sequence)
        return {k: v for k, v in rows.items() if k == sequence} if len(calls) == 1 else rows

    monkeypatch.setattr(EventStore, "around", blind_once)
    with pytest.raises(Conflict):
        add(filled, 3, actor="late")
    calls.clear()
    assert add(filled, 3) == filled.events("desk")[3]
    with pytest.raises(Taken):
        EventStore(path, 1).insert(Row("desk", 1, "d", "b"))
    assert filled.verify() == ()


# Crashes: the child is killed at a point, the parent looks at what is left.


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_at(owner: type, name: str, moment: str, work: Callable[[], object]) -> None:
    """Run `work` in a child that is killed right before or after `owner.name` is called."""

    def child() -> None:
        real = getattr(owner, name)

        def dying(*words: Any, **named: Any) -> Any:
            if moment == "before":
                _die()
            real(*words, **named)
            _die()

        setattr(owner, name, dying)
        work()

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


POINTS = [
    (EventStore, "insert", "before"),
    (EventStore, "insert", "after"),
    (EventStore, "settle", "before"),
    (EventStore, "settle", "after"),
    (SealFile, "write", "before"),
    (SealFile, "write", "after"),
]


@pytest.mark.parametrize(("owner", "name", "moment"), POINTS)
@pytest.mark.parametrize("look", ["append", "verify", "read"])
def test_a_kill_anywhere_in_an_append_heals(
    filled: SqlLedger, path: Path, owner: type, name: str, moment: str, look: str
) -> None:
    _killed_at(owner, name, moment, lambda: add(filled, 4))
    stored = len(filled.events("desk"))
    assert stored == (4 if (name, moment) == ("insert", "before") else 5)
    if look == "verify":
        assert filled.verify() == ()
        assert seal_of(path)["heads"]["desk"]["sequence"] == stored
    if look == "read":
        with sqlite3.connect(path) as raw:
            assert raw.execute("SELECT count(*) FROM events").fetchone() == (stored + 1,)
        raw.close()
    assert add(filled, 4).sequence == 5
    assert add(filled, 5).sequence == 6
    assert filled.verify() == ()
    assert seal_of(path)["sha256"] == digest_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("owner", "name", "moment"), [(EventStore, "create", "before"), (EventStore, "create", "after"), *POINTS]
)
def test_a_kill_anywhere_in_the_first_append_heals(ledger: SqlLedger, path: Path, owner: type, name: str, moment: str) -> None:
    _killed_at(owner, name, moment, lambda: add(ledger, 0))
    assert len(ledger.events("desk")) in (0, 1)
    assert ledger.verify() == ()
    assert add(ledger, 0).sequence == 1
    assert ledger.verify() == ()
    left = {p.name for p in path.parent.iterdir()}
    assert left == {"ledger.db", "ledger.db.seal", "ledger.db.lock"}


def test_a_crash_does_not_excuse_an_edit(filled: SqlLedger, path: Path) -> None:
    _killed_at(SealFile, "write", "before", lambda: add(filled, 4))
    _edit(path, "UPDATE events SET body = replace(body, 'ada', 'eve') WHERE model = 'desk' AND sequence = 2")
    assert any("event 2 of desk" in said for said in filled.verify())
    with pytest.raises(Tampered):
        add(filled, 5)


# Tampering


def _edit(path: Path, *statements: str) -> None:
    raw = sqlite3.connect(path)
    for statement in statements:
        raw.execute(statement)
    raw.commit()
    raw.close()


def _forge(path: Path, sequence: int, **changes: Any) -> None:
    """Rewrite an event with its digest, as one would who knows the format but leaves the rest alone."""
    raw = sqlite3.connect(path)
    body = json.loads(raw.execute("SELECT body FROM events WHERE model='desk' AND sequence=?", (sequence,)).fetchone()[0])
    text = json.dumps({**body, **changes}, sort_keys=True, separators=(",", ":")) + "\n"
    raw.execute(
        "UPDATE events SET body=?, digest=? WHERE model='desk' AND sequence=?", (text, digest_bytes(text.encode()), sequence)
    )
    raw.commit()
    raw.close()


TAMPERINGS: dict[str, Callable[[Path], None]] = {
    "edit a body": lambda p: _edit(p, "UPDATE events SET body = replace(body, 'ada', 'eve') WHERE sequence = 2"),
    "edit a digest": lambda p: _edit(p, "UPDATE events SET digest = 'd' WHERE model = 'desk' AND sequence = 4"),
    "forge a middle event": lambda p: _forge(p, 2, actor="eve"),
    "forge the last event": lambda p: _forge(p, 4, actor="eve"),
    "drop a middle event": lambda p: _edit(p, "DELETE FROM events WHERE model = 'desk' AND sequence = 2"),
    "drop the first event": lambda p: _edit(p, "DELETE FROM events WHERE model = 'desk' AND sequence = 1"),
    "cut the end off": lambda p: _edit(p, "DELETE FROM events WHERE model = 'desk' AND sequence = 4"),
    "cut it all off": lambda p: _edit(p, "DELETE FROM events WHERE model = 'desk'"),
    "reorder": lambda p: _edit(
        p,
        "UPDATE events SET sequence = 9 WHERE model = 'desk' AND sequence = 2",
        "UPDATE events SET sequence = 2 WHERE model = 'desk' AND sequence = 3",
        "UPDATE events SET sequence = 3 WHERE model = 'desk' AND sequence = 9",
    ),
    "drop and renumber": lambda p: _edit(
        p,
        "DELETE FROM events WHERE model = 'desk' AND sequence = 3",
        "UPDATE events SET sequence = 3 WHERE model = 'desk' AND sequence = 4",
    ),
    "move to another model": lambda p: _edit(p, "UPDATE events SET model = 'desk2' WHERE model = 'desk'"),
    "a body that is a number": lambda p: _edit(p, "UPDATE events SET body = 5 WHERE sequence = 2"),
    "a body that is bytes": lambda p: _edit(p, "UPDATE events SET body = x'ff00' WHERE sequence = 2"),
    "a body that is nothing": lambda p: _edit(p, "UPDATE events SET body = '' WHERE sequence = 2"),
    "drop the table": lambda p: _edit(p, "DROP TABLE events"),
    "truncate the file": lambda p: os.truncate(p, p.stat().st_size // 2),
    "empty the file": lambda p: os.truncate(p, 0),
    "remove the file": lambda p: p.unlink(),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_tampering_is_seen_by_readers_writers_and_verify(filled: SqlLedger, path: Path, tampering: str) -> None:
    TAMPERINGS[tampering](path)
    for call in (lambda: filled.events("desk"), lambda: add(filled, 4)):
        with pytest.raises(Broken):
            call()
    said = filled.verify()
    assert said
    assert str(path) in said[0]


@pytest.mark.parametrize("statement", ["VACUUM", "CREATE TABLE notes (x)", "DELETE FROM events WHERE model = 'other'"])
def test_changes_beside_the_chain_are_seen_by_writers_and_verify(filled: SqlLedger, path: Path, statement: str) -> None:
    _edit(path, "CREATE TABLE spare (x)", "DROP TABLE spare", statement)
    assert filled.verify()
    with pytest.raises(Tampered):
        add(filled, 4)
    assert len(filled.events("desk")) == 4


def test_a_missing_or_edited_seal_is_seen_and_a_person_can_seal_again(filled: SqlLedger, path: Path) -> None:
    seal = path.with_name("ledger.db.seal")
    whole = seal.read_bytes()
    for offset in range(len(whole)):
        seal.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        assert filled.verify(), f"byte {offset}"
    for broken in (b"", b"{}", b"\xff", whole + b"\n", None):
        seal.unlink() if broken is None else seal.write_bytes(broken)
        assert any("seal" in said for said in filled.verify())
        for call in (lambda: filled.events("desk"), lambda: add(filled, 4)):
            with pytest.raises(Tampered, match="seal"):
                call()
    filled.reseal()
    assert seal.read_bytes() == whole
    assert filled.verify() == ()
    TAMPERINGS["edit a body"](path)
    with pytest.raises(Tampered, match="event 2"):
        filled.reseal()


def test_an_older_seal_put_back_is_behind_and_an_older_file_is_caught(filled: SqlLedger, path: Path) -> None:
    older = path.read_bytes()
    add(filled, 4)
    path.write_bytes(older)
    assert any("5 were sealed, 4 are there" in said for said in filled.verify())
    with pytest.raises(Tampered):
        filled.events("desk")


def test_every_flipped_byte_of_the_file_is_detected(filled: SqlLedger, path: Path) -> None:
    """Any byte, in slack space too. A reader never gets anything but the truth or an error, whichever byte it is."""
    whole = path.read_bytes()
    truth = filled.events("desk")
    assert filled.verify() == ()
    for offset in [*range(110), *range(110, len(whole), 397)]:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes([whole[offset] ^ (1 << offset % 8)]))
        assert filled.verify(), f"byte {offset} of {len(whole)}"
        with suppress(TunelineError):
            assert filled.events("desk") == truth
        for debris in path.parent.glob("ledger.db-*"):
            debris.unlink()
        path.write_bytes(whole)
    assert filled.verify() == ()
