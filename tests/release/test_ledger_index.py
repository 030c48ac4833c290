"""What is kept beside the events: it answers as the events do, is made for older ledgers, and cannot be changed unseen."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from release_world import MODEL, World

from pipeline.backends import ledger_questions
from pipeline.backends.ledger import SqlLedger
from pipeline.backends.ledger_seal import BLOCK
from pipeline.domain.lineage import holding
from pipeline.domain.moves import plan_promotion, plan_rollback
from pipeline.domain.reigns import latest_of, reign_at
from pipeline.domain.release import (
    GENESIS,
    Event,
    EventKind,
    ModelVersion,
    holder,
    registrations,
    resolve,
    revoked,
    stack,
)
from pipeline.domain.stage_rules import ApprovalRules, StageRules, decide_promotion
from pipeline.errors import Conflict, Misuse, RulesUnmet, Tampered
from pipeline.moving import planned, resolved
from pipeline.steps.history import at, history

START = datetime(2026, 3, 1, tzinfo=UTC)
STAGES = ("staging", "production")


RECORD: dict[str, Any] = {"name": "desk", "run_id": "r", "commit": "c", "tag": "t", "dirty": False, "files": ()}
RECORD |= {"training": "a" * 64, "evaluation": "b" * 64, "decision": "c" * 64}


def add(
    ledger: SqlLedger, kind: EventKind, version: str, stage: str | None, at: datetime = START, reason: str = "r", **more: str
) -> Event:
    head = ledger.head("desk")[0]
    words = {"version": version, "subject": "0" * 64, "stage": stage, "leaves": None, "actor": "ada", "reason": reason, **more}
    return ledger.append("desk", kind, expected=head, at=at, **words)


def play(ledger: SqlLedger, moves: list[tuple[str, str, int]]) -> None:
    """Promotions, adoptions, rollbacks and revocations that a stage allows, at times that go back and forth."""
    for deed, version, minutes in moves:
        events, when = ledger.events("desk"), START + timedelta(minutes=minutes)
        stage = STAGES[int(version) % 2]
        held = stack(events, stage)
        if deed == "back" and len(held) > 1:
            add(ledger, EventKind.ROLLED_BACK, held[-2], stage, when)
        elif deed == "revoke" and any(version in stack(events, one) for one in STAGES):
            add(ledger, EventKind.REVOKED, version, None, when)
        elif held[-1:] != (version,):
            add(ledger, EventKind.ADOPTED if deed == "adopt" else EventKind.PROMOTED, version, stage, when)


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.sampled_from(["to", "to", "adopt", "back", "revoke"]), st.sampled_from("123456"), st.integers(-30, 60)),
             max_size=10),
    st.integers(-40, 80),
)  # fmt: skip
def test_the_index_answers_as_the_events_do(moves: list[tuple[str, str, int]], minute: int) -> None:
    with TemporaryDirectory() as folder:
        ledger = SqlLedger(Path(folder) / "ledger.db")
        play(ledger, moves)
        events, when = SqlLedger(Path(folder) / "ledger.db").events("desk"), START + timedelta(minutes=minute)
        fresh = SqlLedger(Path(folder) / "ledger.db")
        assert fresh.head("desk") == ((len(events), events[-1].digest) if events else (0, GENESIS))
        for stage in STAGES:
            assert fresh.holder("desk", stage) == holder(events, stage)
            for instant in (None, when):
                assert fresh.reign("desk", stage, instant) == reign_at(events, stage, instant)
            assert fresh.latest("desk", stage, count=3) == latest_of(events, stage, 3)
            if events:
                assert at("desk", stage, when, ledger=fresh, stages=STAGES) == holding(events, "desk", stage, when)
        assert fresh.latest("desk", count=4) == events[-4:]
        assert fresh.verify() == ()


def outcome(decide: Callable[[], object]) -> object:
    try:
        return decide()
    except (Misuse, Conflict, RulesUnmet) as error:
        return type(error), str(error)


deeds = st.tuples(
    st.sampled_from(["to", "to", "to", "back", "revoke", "approve", "refuse", "register"]),
    st.sampled_from("123456"),
    st.integers(0, 50),
)


@settings(max_examples=25)
@given(st.lists(deeds, max_size=14), st.sampled_from("123456"), st.sampled_from([None, "staging", "production"]))
def test_a_move_is_decided_on_what_concerns_it_as_on_all(
    moves: list[tuple[str, str, int]], version: str, after: str | None
) -> None:
    """With a look at two moves of a stage only, so that most of the ledger stays unread."""
    rules = StageRules(after=after, hours=0.4 if after else 0.0, approvals=ApprovalRules(count=1))
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_questions, "RECENT", 2)
        ledger = SqlLedger(Path(folder) / "ledger.db")
        for deed, number, minutes in [("register", "1", 0), *moves]:
            when = START + timedelta(minutes=minutes)
            events, known = ledger.events("desk"), registrations(ledger.events("desk"))
            if deed == "register":
                new = str(len(known) + 1)
                record = ModelVersion(**RECORD, version=new, adapter_digest=new * 64)
                add(ledger, EventKind.REGISTERED, new, None, when, subject=record.digest, record=record.to_json())
            elif number in known and deed in ("approve", "refuse"):
                stage, kind = STAGES[minutes % 2], EventKind.APPROVED if deed == "approve" else EventKind.REFUSED
                add(ledger, kind, number, stage, when, subject=known[number].subject, actor="bob")
            elif number in known and number not in revoked(events):
                play(ledger, [(deed, number, minutes)])
        whole, fresh = ledger.events("desk"), SqlLedger(Path(folder) / "ledger.db")
        words = {"actor": "carol", "now": START + timedelta(minutes=70)}
        for stage in STAGES:
            promotion = lambda seen: plan_promotion(  # noqa: E731
                seen,
                version,
                stage,  # noqa: B023 - called at once
                unmet=lambda those: decide_promotion(those, version, stage, rules, **words),  # noqa: B023
            )
            decided = outcome(lambda: planned(promotion, "desk", stage, fresh, version=version, after=after))  # noqa: B023
            assert decided == outcome(lambda: promotion(whole))  # noqa: B023
            for leaving, to in ((holder(whole, stage) or "1", None), (version, None), (holder(whole, stage) or "1", version)):
                back = lambda seen: plan_rollback(seen, stage, to=to, leaving=leaving)  # noqa: B023, E731
                assert outcome(lambda: planned(back, "desk", stage, fresh)) == outcome(lambda: back(whole))  # noqa: B023
        for text in (version, f"v{version}", *STAGES, "0" * 8, (version * 64)[:10]):
            asked = outcome(lambda: resolved(text, "desk", fresh, STAGES))  # noqa: B023
            assert asked == outcome(lambda: resolve(whole, text, STAGES))  # noqa: B023
        assert fresh.registration("desk", version) == registrations(whole).get(version)


def test_what_concerns_a_move_is_little(world: World) -> None:
    for name in ("one", "two", "three"):
        world.register(name)
    for turn in range(40):
        world.promote(str(1 + turn % 3))
        world.promote(str(1 + turn % 3), to="staging")
    part = SqlLedger(world.ledger.where and Path(world.ledger.where)).concerning(MODEL, "production", version="2")
    assert len(part) < len(world.ledger.events(MODEL)) / 1.5
    assert part[-1] == world.ledger.events(MODEL)[-1]
    assert sum(event.stage == "staging" for event in part) == 1, "the last event of all"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ledger = SqlLedger(tmp_path / "ledger.db")
    for version in ("1", "2", "3"):
        add(ledger, EventKind.PROMOTED, version, "production")
    return tmp_path / "ledger.db"


def sql(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute(statement)
    raw.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE holders SET version = '1' WHERE sequence = 3", "who holds production of desk is wrong at event 3"),
        ("DELETE FROM holders WHERE sequence = 3", "who holds production of desk is wrong at event 3"),
        ("INSERT INTO holders VALUES ('desk', 'staging', 2, '9', 0)", "who holds staging of desk is wrong at event 2"),
        ("UPDATE event_index SET counts_from = 0 WHERE sequence = 2", "index of event 2 of desk"),
        ("DELETE FROM event_index WHERE sequence = 3", "index of event 3 of desk"),
        ("INSERT INTO event_index VALUES ('ghost', 1, 'promoted', 'production', 0)", "speaks of ghost"),
        ("INSERT INTO signatures VALUES ('desk', 2, 'x')", "a signature is kept for event 2 of desk"),
    ],
)
def test_an_index_that_does_not_say_what_the_events_say_is_named(path: Path, statement: str, said: str) -> None:
    sql(path, statement)
    assert any(said in problem for problem in SqlLedger(path).verify())
    with pytest.raises(Tampered):
        add(SqlLedger(path), EventKind.PROMOTED, "4", "production")


def test_a_ledger_from_before_there_was_an_index_is_read_as_it_is_and_given_one_by_the_next_append(path: Path) -> None:
    for table in ("event_index", "holders", "signatures"):
        sql(path, f"DROP TABLE {table}")
    sql(path, "UPDATE schema_version SET version = '1'")
    SqlLedger(path).reseal()
    old = SqlLedger(path)
    events = old.events("desk")
    assert (old.holder("desk", "production"), old.head("desk")[0], old.stages("desk")) == ("3", 3, ("production",))
    assert old.reign("desk", "production", START) == reign_at(events, "production", START)
    assert old.latest("desk", "production", count=2) == events[-2:]
    assert old.verify() == ()
    add(old, EventKind.PROMOTED, "4", "production")
    fresh = SqlLedger(path)
    assert fresh.verify() == ()
    assert fresh.events("desk")[:-1] == events
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM holders").fetchone() == (4,)
    raw.close()


def test_a_large_file_is_sealed_block_by_block_and_every_block_counts(path: Path) -> None:
    ledger = SqlLedger(path)
    for n in count():
        add(ledger, EventKind.PROMOTED, str(n % 2 + 1), "production", reason="x" * 1900)
        if path.stat().st_size > 2.2 * BLOCK and n % 2:
            break
        if n == 0:
            sql(
                path,
                f"INSERT INTO events SELECT 'other', value, 'd', printf('%2000d', value) FROM json_each('{list(range(280))}')",
            )
            sql(path, "DELETE FROM events WHERE model = 'other'")
            ledger.reseal()
    assert SqlLedger(path).verify() == ()
    whole = path.read_bytes()
    for block in range(len(whole) // BLOCK + 1):
        where = min(block * BLOCK + 5000, len(whole) - 1)
        path.write_bytes(whole[:where] + bytes([whole[where] ^ 1]) + whole[where + 1 :])
        assert SqlLedger(path).verify(), f"block {block}"
    path.write_bytes(whole)
    assert SqlLedger(path).verify() == ()
    assert add(SqlLedger(path), EventKind.PROMOTED, "9", "production").sequence > 3


def test_what_was_read_is_not_read_again_and_what_came_since_is(path: Path) -> None:
    reader, writer = SqlLedger(path), SqlLedger(path)
    first = reader.events("desk")
    add(writer, EventKind.PROMOTED, "4", "production")
    second = reader.events("desk")
    assert second[:3] == first
    assert second[0] is first[0]
    sql(path, "UPDATE events SET body = replace(body, 'ada', 'eve') WHERE sequence = 4")
    with pytest.raises(Tampered):
        SqlLedger(path).events("desk")
    assert reader.events("desk") == second, "a reader has the truth, or an error"
    sql(path, "DELETE FROM events WHERE sequence = 4")
    with pytest.raises(Tampered):
        reader.events("desk")


def test_history_can_be_cut_to_the_newest(world: World) -> None:
    world.register("one")
    world.register("two")
    world.promote("1")
    world.promote("2")
    assert [row.event.sequence for row in history(MODEL, ledger=world.ledger, last=2)] == [3, 4]
    assert history(MODEL, "production", ledger=world.ledger, last=9) == history(MODEL, "production", ledger=world.ledger)


def test_a_writer_that_slept_through_a_move_is_told_when_it_wakes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between deciding and writing, as a paused machine is; what it decided on is gone when it goes on."""
    for name in ("one", "two", "three"):
        world.register(name)
    world.promote("1")
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    real = SqlLedger.append

    def asleep(ledger: SqlLedger, *words: object, **more: object) -> Event:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(ledger, *words, **more)  # type: ignore[arg-type]

    def child() -> None:
        try:
            told.put(world.promote("2").changed)
        except Conflict as error:
            told.put(error.what)

    parent = os.getpid()
    monkeypatch.setattr(SqlLedger, "append", asleep)
    process = context.Process(target=child)
    process.start()
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    world.promote("3", by="carol")
    os.kill(process.pid or 0, signal.SIGCONT)
    assert "carol moved production" in told.get(timeout=120)
    process.join()
    assert world.ledger.holder(MODEL, "production") == world.registry.aliases(MODEL)["production"] == "3"


def until(true: Callable[[], bool]) -> None:
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")
