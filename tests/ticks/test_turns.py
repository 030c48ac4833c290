"""A run in its turn: one tick once, reasons looked for without anything heavy, failures and takeovers written down."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from pipeline import ticking
from pipeline.backends.run_book_holder import Holder
from pipeline.domain.outcome import Ending, RunOutcome
from pipeline.errors import Broken, Stale, TryLater
from pipeline.params import Params
from pipeline.ticking import Call, in_turn
from pipeline.wiring import World
from tests.drills.ticks_workers import EVERY, FIRST, PARAMS, Order, Place, _do, _run

HOUR = timedelta(hours=1)
FAR = Holder(host="elsewhere", place="another machine", pid=1, created="1")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.made(tmp_path)


@pytest.fixture
def world(place: Place) -> World:
    return place.world("state")


def tick(number: int) -> Call:
    return Call(FIRST + number * EVERY, "desk-scheduled", scheduled=True)


def turn(
    world: World, place: Place, number: int, params: Params = PARAMS, work: Callable[[World], RunOutcome] | None = None
) -> RunOutcome:
    work = work or (lambda held: _run(place, held, lambda where: None))
    return in_turn(world, params, tick(number), work, now=lambda: FIRST + number * EVERY)


def never(held: World) -> RunOutcome:
    pytest.fail("there was nothing to do")


def with_schedule(**words: object) -> Params:
    return PARAMS.model_copy(update={"schedule": PARAMS.schedule.model_copy(update=words)})


def test_a_tick_done_before_does_nothing_and_says_so(world: World, place: Place) -> None:
    place.put(0)
    assert (turn(world, place, 0).ending, turn(world, place, 0, work=never).ending) == (Ending.REGISTERED, Ending.DONE_BEFORE)
    again = turn(world, place, 0, work=never)
    assert again.version == "1"
    assert "registered" in again.facts[0]
    place.put(1)
    assert turn(world, place, 0, work=never).ending is Ending.DONE_BEFORE
    assert turn(world, place, 1).version == "2"


def test_a_late_wake_up_does_nothing_where_params_say_so(world: World, place: Place) -> None:
    place.put(0)
    late = with_schedule(catch_up="none")
    found = in_turn(world, late, tick(0), never, now=lambda: FIRST + HOUR)
    assert found.ending is Ending.SKIPPED
    assert "1:00:00 late" in found.facts[0]
    assert world.run_book.ticks("desk", 9) == ()


def test_after_a_downtime_one_run_stands_for_all_that_were_missed(world: World, place: Place) -> None:
    for number in range(6):
        place.put(number)
    woken = [
        in_turn(world, PARAMS, tick(n), lambda held: _run(place, held, lambda w: None), now=lambda: FIRST + HOUR)
        for n in range(6)
    ]
    assert [one.ending for one in woken] == [Ending.REGISTERED, *[Ending.NOTHING_NEW] * 5]


def test_what_is_a_reason_to_run_and_what_is_none(world: World, place: Place) -> None:
    root = place.root
    assert turn(world, place, 0, work=lambda held: _run(place, held, lambda w: None)).ending is Ending.NOTHING_NEW
    assert turn(world, place, 1, work=never).ending is Ending.NOTHING_NEW
    (root / "docs.md").write_text("no code\n")
    assert turn(world, place, 2, work=never).ending is Ending.NOTHING_NEW
    (root / "pipeline" / "code.py").write_text("pass  # changed\n")
    said: list[str] = []
    assert turn(world, place, 3, work=_noting(said)).ending is Ending.REFUSED_BY_GATE
    other = PARAMS.model_copy(update={"train": PARAMS.train.model_copy(update={"seed": 99})})
    assert turn(world, place, 4, other, work=_noting(said)).ending is Ending.REFUSED_BY_GATE
    assert turn(world, place, 5, other, work=never).ending is Ending.NOTHING_NEW
    quick = other.model_copy(update={"schedule": other.schedule.model_copy(update={"late_after": 5.0})})
    assert turn(world, place, 6, quick, work=never).ending is Ending.NOTHING_NEW, "what is not learned from is no reason"
    place.put(7)
    few = quick.schedule.triggers.model_copy(update={"fresh": quick.schedule.triggers.fresh.model_copy(update={"min_rows": 4})})
    waiting = quick.model_copy(update={"schedule": quick.schedule.model_copy(update={"triggers": few})})
    assert turn(world, place, 7, waiting, work=never).ending is Ending.WAITING
    assert len(said) == 2


def test_files_that_a_run_refused_are_looked_into_once(world: World, place: Place) -> None:
    place.put(0)
    said: list[str] = []
    assert turn(world, place, 0, work=_noting(said)).ending is Ending.REFUSED_BY_GATE
    assert turn(world, place, 1, work=never).ending is Ending.NOTHING_NEW
    place.put(2)
    assert turn(world, place, 2, work=_noting(said)).ending is Ending.REFUSED_BY_GATE


def test_a_run_that_fails_is_tried_again_by_the_next_tick(world: World, place: Place) -> None:
    place.put(0)

    def fails(held: World) -> RunOutcome:
        raise Broken("the disk is gone")

    with pytest.raises(Broken):
        turn(world, place, 0, work=fails)
    [failed] = world.run_book.ticks("desk", 9)
    assert (failed.ending, failed.why) == ("failed", ("the disk is gone",))
    assert world.run_book.running("desk") is None
    assert turn(world, place, 1).ending is Ending.REGISTERED


def test_who_calls_by_hand_does_not_wait_and_a_schedule_waits_its_turn(
    world: World, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticking, "WAIT_SECONDS", 0.05)
    held = world.run_book.claim("desk", "other", FIRST)
    by_hand = Call(datetime.now(UTC))
    with pytest.raises(TryLater, match=str(os.getpid())):
        in_turn(world, PARAMS, by_hand, never)
    with world.run_book.kept(replace(held, lasts=0.3)):
        later = in_turn(world, PARAMS, tick(1), never, now=lambda: FIRST + 2 * EVERY)
        assert later.ending is Ending.SKIPPED
        place.put(2)
        ended: list[RunOutcome] = []
        waiting = threading.Thread(target=lambda: ended.append(turn(place.world("state"), place, 2)))
        waiting.start()
        time.sleep(0.5)
        assert ended == []
        world.run_book.finish(held, "nothing new")
    waiting.join()
    assert ended[0].ending is Ending.REGISTERED


def test_a_run_that_was_taken_over_changes_nothing_and_says_so(world: World, place: Place) -> None:
    place.put(0)
    taken: list[int] = []

    def loses_its_lease(held: World) -> RunOutcome:
        with world.run_book._database.writing() as connection:  # as if it were far away, and silent for long
            connection.exec_driver_sql("UPDATE run_leases SET lasts = 0.1, holder = ?", (FAR.model_dump_json(),))
        taken.append(world.run_book.claim("desk", "desk-scheduled", FIRST + EVERY).fence)
        return _run(place, held, lambda where: None)

    with pytest.raises(Stale):
        turn(world, place, 0, with_schedule(lease=60.0), work=loses_its_lease)
    assert world.ledger.events("desk") == ()
    assert [one.ending for one in world.run_book.ticks("desk", 9)] == ["taken over", "running"]


def test_a_stopped_run_is_ended_by_who_takes_over_lest_it_writes_into_the_same_folder(place: Place) -> None:
    place.put(0)
    pid = os.fork()
    if not pid:
        _do(place, place.world("state"), Order(0, harm=("ingested", "stop")))
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    done = turn(place.world("state"), place, 1)
    assert (done.ending, done.version) == (Ending.REGISTERED, "1")
    assert not psutil.pid_exists(pid)


def test_a_tick_with_nothing_to_do_imports_nothing_heavy(world: World, place: Place) -> None:
    turn(world, place, 0)
    heavy = ("torch", "mlflow", "dvc", "prefect", "transformers", "pyarrow", "pandas", "numpy", "ray", "apprise")
    code = f"""
import sys
from datetime import timedelta
sys.path.insert(0, {str(Path(__file__).resolve().parent.parent.parent)!r})
from pathlib import Path
from pipeline.params import Params
from pipeline.settings import Settings
from pipeline.ticking import Call, in_turn
from pipeline.wiring import World
from datetime import datetime
params = Params.model_validate_json({PARAMS.model_dump_json(by_alias=True)!r}, strict=False)
at = datetime.fromisoformat({(FIRST + EVERY).isoformat()!r})
world = World(Path({str(place.root)!r}), Settings(home={str(place.root.parent / "state")!r}, ledger_url={place.ledger!r}))
print(in_turn(world, params, Call(at, "desk-scheduled", scheduled=True), None, now=lambda: at).ending)
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=place.root)
    assert done.stdout.splitlines() == ["nothing new", "[]"], done.stderr


def _noting(said: list[str]) -> Callable[[World], RunOutcome]:
    def work(held: World) -> RunOutcome:
        said.append("ran")
        return RunOutcome(model="desk", run="desk-0001", ending=Ending.REFUSED_BY_GATE, reasons=("too bad",))

    return work
