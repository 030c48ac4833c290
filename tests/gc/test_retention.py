"""What is kept, as a table; and what becomes of caches, debris and runs in MLflow that nothing needs."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from release_world import MODEL, World

from pipeline.backends.garbage import long_log, old_entries, tree_bytes
from pipeline.backends.mlflow import RUN_KEY, connect
from pipeline.backends.mlflow_leftovers import leftover_runs, remove_run
from pipeline.domain.release import EventKind
from pipeline.domain.retention import RunMark, kept_marks, window
from pipeline.steps.revoke import revoke

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LONG_AGO, YESTERDAY = NOW - timedelta(days=300), NOW - timedelta(days=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Versions 1 to 6: 1, 2, 3 held production in turn, 4 was rolled back, 5 was revoked, 6 is approved and waits."""
    made = World(tmp_path_factory.mktemp("release"))
    for number, name in enumerate(("one", "two", "three", "four", "five"), start=1):
        made.register(name)
        made.promote(str(number))
    # From five back over four to three.
    stores = {"registry": made.registry, "ledger": made.ledger}
    made.rollback()
    made.rollback()
    revoke("5", "ada", "it leaks", model=MODEL, stages=("production",), now=made.clock, **stores)
    made.register("six")
    return made


def mark(number: int, *, kind: str = "run", at: datetime = LONG_AGO, tag: str | None = None) -> RunMark:
    return RunMark(tag=tag or f"tag-{number}", kind=kind, number=number, commit=f"{number:040d}", at=at)


@pytest.mark.parametrize(
    ("holders", "near"),
    [(1, {"3", "6"}), (2, {"3", "4", "2", "6"}), (3, {"3", "4", "2", "1", "6"}), (100, {"1", "2", "3", "4", "6"})],
)
def test_the_window_is_who_held_last_and_who_can_be_rolled_back_to(world: World, holders: int, near: set[str]) -> None:
    """The last holders as they were (3 now, 4 before it), and the stack (3 over 2 over 1). 5 is revoked."""
    found = window(world.ledger.events(MODEL), holders)
    assert set(found) == near
    assert found["3"] == "holds production"
    assert found["6"].startswith("waits")


def test_a_version_that_is_approved_for_a_stage_lies_at_hand_until_it_takes_it(world: World) -> None:
    events = world.ledger.events(MODEL)
    assert "1" not in window(events, 1)
    subject = events[0].subject
    words = {"actor": "bob", "reason": "fine", "at": NOW, "leaves": None, "subject": subject, "version": "1"}
    world.ledger.append(MODEL, EventKind.APPROVED, expected=len(events), stage="staging", **words)
    assert window(world.ledger.events(MODEL), 1)["1"].startswith("waits")


TABLE = [
    # what it is about, the runs, how many newest, which stay
    ("the newest", [mark(1), mark(2), mark(3)], 2, {"tag-2", "tag-3"}),
    ("one at least, whatever is asked", [mark(1), mark(2)], 0, {"tag-2"}),
    ("young ones", [mark(1, at=YESTERDAY), mark(2), mark(3)], 1, {"tag-1", "tag-3"}),
    ("those that made a version", [mark(1, tag="run-one"), mark(2), mark(3)], 1, {"run-one", "tag-3"}),
    ("the head of data behind refused data", [mark(1), mark(2), mark(3, kind="invalid")], 1, {"tag-2", "tag-3"}),
    ("the newest that was gated behind data", [mark(1), mark(2, kind="data"), mark(3, kind="data")], 1, {"tag-1", "tag-3"}),
    ("all heads, where all is refused", [mark(1, kind="invalid"), mark(2, kind="invalid")], 1, {"tag-2"}),
    ("nothing of nothing", [], 5, set()),
]


@pytest.mark.parametrize(("marks", "newest", "kept"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_which_runs_stay(world: World, marks: list[RunMark], newest: int, kept: set[str]) -> None:
    events = world.ledger.events(MODEL)
    found = kept_marks(marks, events, newest=newest, since=NOW - timedelta(days=30), holders=1)
    assert set(found) == kept
    assert all(one.why for one in found.values())


def test_a_version_outside_of_the_window_stays_but_not_at_hand(world: World) -> None:
    marks = [mark(1, tag="run-one"), mark(2, tag="run-two"), mark(3, tag="run-three"), mark(9)]
    found = kept_marks(marks, world.ledger.events(MODEL)[:-1], newest=1, since=NOW, holders=1)
    assert {tag: one.near for tag, one in found.items()} == {
        "run-one": False,
        "run-two": False,
        "run-three": True,
        "tag-9": True,
    }


def test_old_entries_are_those_in_which_nothing_was_written_since(tmp_path: Path) -> None:
    for name, age in (("old", 40), ("young", 1), (".lock", 40)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("1234")
        for path in (tmp_path / name / "file", tmp_path / name):
            os.utime(path, ((NOW - timedelta(days=age)).timestamp(),) * 2)
    (tmp_path / "old" / "deep").mkdir()
    os.utime(tmp_path / "old" / "deep", (YESTERDAY.timestamp(),) * 2)
    (tmp_path / "link").symlink_to(tmp_path / "young")
    assert list(old_entries("checkpoints", tmp_path, NOW - timedelta(days=30))) == [], "a folder is as young as what is in it"
    os.utime(tmp_path / "old" / "deep", (LONG_AGO.timestamp(),) * 2)
    os.utime(tmp_path / "old", (LONG_AGO.timestamp(),) * 2)
    (found,) = old_entries("checkpoints", tmp_path, NOW - timedelta(days=30))
    assert (found.freed.what, found.freed.bytes) == ("old", 4)
    found.remove()
    found.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "link", "young"]


def test_a_second_name_of_a_file_gives_no_room_back(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "own").write_bytes(b"1" * 100)
    (tmp_path / "cached").write_bytes(b"2" * 1000)
    (tmp_path / "folder" / "linked").hardlink_to(tmp_path / "cached")
    assert tree_bytes(tmp_path / "folder") == 100


def test_a_log_that_has_grown_long_is_emptied_under_its_process(tmp_path: Path) -> None:
    with (tmp_path / "server.log").open("ab") as log:
        log.write(b"x" * (17 << 20))
        log.flush()
        (found,) = long_log(tmp_path / "server.log")
        found.remove()
        log.write(b"goes on")
        log.flush()
    assert (tmp_path / "server.log").read_bytes() == b"goes on"
    assert list(long_log(tmp_path / "server.log")) == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """MLflow's embedded store, and the folder that it and its artefacts lie in."""
    root = tmp_path_factory.mktemp("store")
    return connect(f"sqlite:///{root / 'mlflow.db'}", artifacts=root / "artifacts"), root


def test_runs_in_mlflow_that_nothing_needs_go_with_their_files(store: tuple[Any, Path]) -> None:
    """Those of people, of versions, of kept runs, under way or young stay; a removal that was killed half-way is finished."""
    client, tmp_path = store
    experiment = client.create_experiment("desk", artifact_location=(tmp_path / "artifacts" / "desk").as_uri())
    note = tmp_path / "note.txt"
    note.write_text("curves")
    made = {}
    for key, tags, status in (
        ("desk-0001", {}, "FINISHED"),
        ("desk-0002", {}, "FINISHED"),
        ("desk-0003", {}, "FINISHED"),
        ("desk-0004", {}, "RUNNING"),
        ("desk-0005", {}, "FAILED"),
        ("desk-sweep", {}, "FINISHED"),
    ):
        run = client.create_run(experiment, tags={RUN_KEY: key, "tuneline.commit": "c", **tags}, run_name=key)
        client.log_artifact(run.info.run_id, str(note), "records")
        if status != "RUNNING":
            client.set_terminated(run.info.run_id, status)
        made[key] = run.info.run_id
    client.set_terminated(client.create_run(experiment, run_name="desk-0009").info.run_id)
    words = {"keep_ids": {made["desk-0001"]}, "keep_keys": {"desk-0002"}, "artifacts": tmp_path / "artifacts"}
    assert list(leftover_runs(client, "desk", before=datetime.now(UTC) - timedelta(days=1), **words)) == []
    later = datetime.now(UTC) + timedelta(days=1)
    found = list(leftover_runs(client, "desk", before=later, **words))
    assert sorted(left.key for left in found) == ["desk-0003", "desk-0005"]
    client.delete_run(made["desk-0003"])
    for left in leftover_runs(client, "desk", before=later, **words):
        remove_run(client, left)
        assert left.folder is not None
        assert not left.folder.exists()
    assert list(leftover_runs(client, "desk", before=later, **words)) == []
    folders = {path.name for path in (tmp_path / "artifacts" / "desk").iterdir()}
    assert folders == {made[key] for key in ("desk-0001", "desk-0002", "desk-0004", "desk-sweep")}


def test_a_store_that_points_elsewhere_makes_nothing_there_go(store: tuple[Any, Path]) -> None:
    """An address in the database is not to be trusted with `rm -r`."""
    client, tmp_path = store
    experiment = client.create_experiment("shop", artifact_location=(tmp_path / "precious").as_uri())
    run = client.create_run(experiment, tags={RUN_KEY: "shop-0001", "tuneline.commit": "c"}, run_name="shop-0001")
    client.set_terminated(run.info.run_id)
    (tmp_path / "precious").mkdir(exist_ok=True)
    (tmp_path / "precious" / "file").write_text("precious")
    words = {"keep_ids": set(), "keep_keys": set(), "artifacts": tmp_path / "artifacts"}
    (left,) = leftover_runs(client, "shop", before=datetime.now(UTC) + timedelta(days=1), **words)
    assert left.folder is None
    remove_run(client, left)
    assert (tmp_path / "precious" / "file").exists()
