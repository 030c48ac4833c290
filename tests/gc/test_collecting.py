"""gc on a real project: what goes, what stays, what a kill leaves, and that every release still verifies and rolls back.

The tests share one project and go in order: what one leaves is what the next begins with.
"""

from __future__ import annotations

import json
import os

import pytest
from gc_world import LATER, MODEL, PARAMS, Desk

from pipeline.backends.data_reach import object_path, object_stores
from pipeline.backends.git import Git
from pipeline.backends.run_folder import open_kept
from pipeline.backends.run_locks import one_run_at_a_time
from pipeline.errors import TryLater
from tests.checkouts import git

ADAPTER = "work/train/adapter/adapter_model.safetensors"
ALL = {"run/0001", "run/0002", "run/0003", "run/0004", "data/0005", "run/0006", "run/0007"}


def test_nothing_goes_while_any_model_is_at_work(desk: Desk) -> None:
    desk.remember()
    for name in (MODEL, f"{MODEL}-sweep", "a-model-of-no-run-yet"):
        with one_run_at_a_time(desk.project, name), pytest.raises(TryLater, match=name):
            desk.collect()
    claim = desk.world.run_book.claim(MODEL, "by hand", LATER)
    with pytest.raises(TryLater, match="another run"):
        desk.collect()
    desk.world.run_book.finish(claim, "nothing new")
    assert desk.tags() == {f"{MODEL}/{tag}" for tag in ALL}


def test_a_dry_run_lists_what_would_go_and_changes_nothing(desk: Desk) -> None:
    before = sorted((path, path.lstat().st_mtime_ns) for path in desk.checkout.rglob("*") if path.is_file())
    done = desk.collect(dry=True)
    after = sorted((path, path.lstat().st_mtime_ns) for path in desk.checkout.rglob("*") if path.is_file())
    changed = {path for path, _ in set(before) ^ set(after)}
    assert all(path.is_relative_to(desk.project.locks) or path.name.startswith(("ledger.db", "runs.db")) for path in changed), (
        changed
    )
    assert [one.what for one in done.freed if one.sort == "run"] == [f"{MODEL}-0002 (run)", f"{MODEL}-0005 (data)"]
    count, amount = done.totals["data in the cache"]
    assert count > 0 < amount
    assert done.kept[f"refs/tags/tuneline/{MODEL}/run/0004"] == "made version 3, which holds production"
    assert done.kept[f"refs/tags/tuneline/{MODEL}/run/0006"].endswith("waits to be approved or promoted")
    assert done.kept[f"refs/tags/tuneline/{MODEL}/run/0001"] == "made version 1"


def test_what_is_young_stays(desk: Desk) -> None:
    params = PARAMS.model_copy(update={"retention": PARAMS.retention.model_copy(update={"keep_days": 90.0})})
    assert desk.collect(params, dry=True).freed == ()


def test_data_of_people_and_of_killed_runs_stays(desk: Desk) -> None:
    """What `dvc add` put there by hand, on another branch or not committed, and finished stages of a run that was killed."""
    words = (b"by hand", b"branch", b"stage", b"nobody's")
    by_hand, on_branch, of_stage, garbage = (desk.put(word, remote=False) for word in words)
    listing = desk.put(json.dumps([{"md5": on_branch, "relpath": "rows.txt"}]).encode(), ".dir", remote=False)
    (desk.checkout / "raw.csv.dvc").write_text(f"outs:\n- md5: {by_hand}\n  size: 7\n  hash: md5\n  path: raw.csv\n")
    git(desk.checkout, "switch", "--quiet", "--create", "side")
    (desk.checkout / "more.dvc").write_text(f"outs:\n- md5: {listing}\n  hash: md5\n  path: more\n")
    git(desk.checkout, "add", "more.dvc")
    git(desk.checkout, "commit", "--quiet", "--message", "more")
    git(desk.checkout, "switch", "--quiet", "main")
    entry = desk.checkout / ".dvc" / "cache" / "runs" / "ab" / "abc" / "def"
    entry.parent.mkdir(parents=True)
    entry.write_text(f"cmd: x\nouts:\n- path: work/train\n  md5: {of_stage}\n")
    os.utime(entry, (LATER.timestamp(), LATER.timestamp()))
    going = {one.what for one in desk.collect(dry=True).freed}
    assert garbage in going
    assert not going & {by_hand, on_branch, listing, of_stage}
    os.utime(entry, (0, 0))
    assert {of_stage, "def"} <= {one.what for one in desk.collect(dry=True).freed}


def test_a_listing_that_is_lost_keeps_all_data(desk: Desk) -> None:
    """Else the files that it lists, which may be whole, would be taken for garbage."""
    (md5,) = (md5 for path, md5 in desk.md5s["four"] if path == "work/train/")
    places = [object_path(store, md5) for store in object_stores(desk.project)]
    for place in places:
        place.rename(place.with_suffix(".away"))
    done = desk.collect(dry=True)
    assert not any(sort.startswith("data") for sort in done.totals)
    assert any(md5 in said for said in done.left)
    for place in places:
        place.with_suffix(".away").rename(place)


def test_the_last_whole_copy_is_never_removed(desk: Desk) -> None:
    """Version 1 lies outside of the window: its copy in the cache may go only if the remote's is whole."""
    (md5,) = (md5 for path, md5 in desk.md5s["one"] if path == ADAPTER)
    place = object_path(object_stores(desk.project)[1], md5)
    content = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(content[:-1] + b"!")
    assert not any(one.what.startswith(md5) for one in desk.collect(dry=True).freed)
    place.write_bytes(content)
    assert any(one.what.startswith(md5) for one in desk.collect(dry=True).freed)


def test_days_of_requests_that_are_over_go(desk: Desk) -> None:
    """Those that serve.log keeps no longer; the day says it, not when the file was last touched."""
    folder = desk.project.serving / "requests"
    folder.mkdir(parents=True)
    young, old = f"{LATER:%Y-%m-%d}.000001.jsonl", "2026-01-02.000003.jsonl"
    for name in (young, old, "notes.jsonl"):
        (folder / name).write_text("{}\n")
    assert [one.what for one in desk.collect(dry=True).freed if one.sort == "requests"] == [old]


def test_windows_of_the_monitor_go_but_the_newest(desk: Desk) -> None:
    folder = desk.project.monitor / MODEL / "000003"
    folder.mkdir(parents=True)
    for number in range(1, 404):
        (folder / f"window-{number:06d}.json").write_text("{}")
    found = [one.what for one in desk.collect(dry=True).freed if one.sort == "window of the monitor"]
    assert found == [f"window-{number:06d}.json" for number in (1, 2, 3)]


def test_killed_anywhere_it_is_finished_by_the_next(desk: Desk) -> None:
    whole = len(desk.collect(dry=True).freed)
    for at in (whole // 2,):
        done = desk.killed(at)
        assert done.returncode == -9, done.stderr
        assert all(desk.verify(version).ok for version in "1234"), "a kill must not harm a release"
    moved: list[str] = []

    def meanwhile(_: str, done: int, __: int) -> None:
        """Promotions and rollbacks wait for nobody."""
        if done == 2:
            desk.promote("4")
            moved.append(desk.ledger.holder(MODEL, "production") or "")
        if done == 4:
            desk.rollback()
            moved.append(desk.ledger.holder(MODEL, "production") or "")

    left = desk.collect(progress=meanwhile)
    assert moved == ["4", "3"]
    assert 0 < len(left.freed) < whole
    assert desk.collect().freed == (), "a second time finds nothing"


def test_afterwards_every_release_verifies_and_refused_runs_are_gone(desk: Desk) -> None:
    assert desk.tags() == {f"{MODEL}/{tag}" for tag in ALL - {"run/0002", "data/0005"}}
    for version in "1234":
        report = desk.verify(version)
        assert report.ok, [check for check in report.checks if not check.ok]
    held = {name: desk.stored(name, ADAPTER) for name in desk.kept}
    assert held["one"] == (False, True), "outside of the window: in the remote alone"
    assert held["two"] == held["five"] == (False, False)
    assert {held[name] for name in ("three", "four", "six", "seven")} == {(True, True)}
    assert not (desk.project.runs / f"{MODEL}-0001").exists()
    assert (desk.project.runs / f"{MODEL}-0007").exists(), "the next run begins from it"


def test_afterwards_rolling_back_and_opening_an_old_run_work(desk: Desk) -> None:
    desk.rollback()
    assert desk.ledger.holder(MODEL, "production") == "2"
    desk.rollback()
    assert desk.ledger.holder(MODEL, "production") == "1"
    assert desk.verify("production").ok
    opened = open_kept(Git.find(desk.checkout), desk.project, desk.kept["one"], remote=None)
    assert b"weights of one" in (opened.training / "adapter" / "adapter_model.safetensors").read_bytes()
    # It is in the window again: once it lies in the cache, it stays there.
    assert desk.stored("one", ADAPTER) == (True, True)
    desk.collect()
    assert desk.stored("one", ADAPTER) == (True, True)
