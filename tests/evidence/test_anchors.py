"""The ledger's end, written down outside its database: what was cut off, forked, or restored from an old copy shows."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest
from evidence_world import EvidenceWorld
from release_world import MODEL

from pipeline.backends.anchors import Anchors, FolderAnchors, GitAnchors, stores_of
from pipeline.backends.git import Git
from pipeline.backends.ledger import SqlLedger
from pipeline.errors import Broken
from tests.checkouts import git


def broken(world: EvidenceWorld) -> dict[str, str]:
    return {c.name: c.detail for c in world.verify().broken}


def keep(world: EvidenceWorld, aside: Path) -> None:
    shutil.copytree(world.root / "state", aside)


def restore(world: EvidenceWorld, aside: Path) -> None:
    """Database and seal together, as they were: nothing inside them can tell."""
    shutil.rmtree(world.root / "state")
    shutil.copytree(aside, world.root / "state")
    world.ledger = SqlLedger(world.root / "state" / "ledger.db", patience=30)


@pytest.fixture(params=["git", "folder", "memory"])
def anchored(request: pytest.FixtureRequest, tmp_path: Path) -> EvidenceWorld:
    """A world whose anchors lie in one of the stores."""
    address = {"git": "", "folder": str(tmp_path / "anchors"), "memory": f"memory://{tmp_path.name}"}[request.param]
    (tmp_path / "world").mkdir()
    world = EvidenceWorld(tmp_path / "world")
    store = FolderAnchors(address) if address else GitAnchors(world.git)
    world.anchors = Anchors([store], tell=world.told.append)
    world.register("one")
    return world


def test_an_old_copy_of_ledger_and_seal_is_named(anchored: EvidenceWorld, tmp_path: Path) -> None:
    world = anchored
    keep(world, tmp_path / "old")
    world.promote("1")
    world.anchor_head()
    assert broken(world) == {}
    restore(world, tmp_path / "old")
    found = broken(world)
    assert set(found) == {"anchor 2", "alias production"} or set(found) == {"anchor 2"}
    assert "the ledger ends with 1: it was cut off, or is an old copy" in found["anchor 2"]
    # Going on from the old copy is a fork, which the next anchor says, and the audit too.
    world.promote("1", to="staging")
    world.anchor_head()
    assert "another digest" in world.told[-1]
    assert "is not the one that was anchored" in broken(world)["anchor 2"]


def test_a_ledger_that_is_gone_altogether_is_named(anchored: EvidenceWorld) -> None:
    shutil.rmtree(anchored.root / "state")
    anchored.ledger = SqlLedger(anchored.root / "state" / "ledger.db", patience=30)
    report = anchored.verify()
    assert not report.ok
    assert next(c.name for c in report.broken) == "anchor 1"
    assert "the ledger ends with 0" in report.broken[0].detail


def test_an_anchor_again_changes_nothing_and_a_later_one_repairs_what_failed(world: EvidenceWorld) -> None:
    before = git(world.git.root, "for-each-ref")
    world.anchor_head()
    assert git(world.git.root, "for-each-ref") == before
    lost = Anchors([GitAnchors(Git(world.root / "nowhere")), FolderAnchors("nofs://x")], tell=world.told.append)
    world.promote("1", to="staging")
    lost.after(world.ledger.events(MODEL)[-1])
    assert len(world.told) == 2
    assert all("is not anchored in" in line and "; the next event is" in line for line in world.told)
    assert (
        next(c.detail for c in world.verify().checks if c.name == "anchors")
        == "up to event 2 by 2 anchors, 1 newer events are not yet"
    )
    world.register("two")
    assert next(c.detail for c in world.verify().checks if c.name == "anchors") == "up to event 4 by 3 anchors"


def test_a_store_that_does_not_answer_holds_nobody_up(world: EvidenceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from pipeline.backends import anchors

    monkeypatch.setattr(anchors, "PATIENCE", 0.05)
    never = threading.Event()

    class Slow(FolderAnchors):
        def put(self, model: str, sequence: int, digest: str) -> None:
            never.wait(30)

    Anchors([Slow("x")], tell=world.told.append).anchor(MODEL, 3, "a" * 64)
    never.set()
    assert "no answer within" in world.told[-1]


@pytest.mark.parametrize("content", [b"", b"{", b"7", b'{"model": "desk", "sequence": 9, "digest": "x"}', b'{"digest": []}'])
def test_an_anchor_that_was_changed_is_named(tmp_path: Path, content: bytes) -> None:
    world = EvidenceWorld(tmp_path, further=(str(tmp_path / "anchors"),))
    world.register("one")
    assert broken(world) == {}
    (tmp_path / "anchors" / MODEL / "0000000001.json").write_bytes(content)
    assert "anchor was changed" in broken(world)["anchors"]
    (tmp_path / "anchors" / MODEL / "0000000001.json").rename(tmp_path / "anchors" / MODEL / "notes.txt")
    assert "no anchor" in broken(world)["anchors"]


def _put(root: Path, address: str, sequence: int) -> None:
    told: list[str] = []
    Anchors(stores_of(Git(root), [address]), tell=told.append).anchor(MODEL, sequence, f"{sequence % 4:x}" * 64)
    assert not told, told


def test_many_processes_anchor_at_once(world: EvidenceWorld, tmp_path: Path) -> None:
    address = str(tmp_path / "anchors")
    processes = [
        multiprocessing.get_context("fork").Process(target=_put, args=(world.git.root, address, 10 + n % 4)) for n in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0] * 8
    held = Anchors(stores_of(world.git, [address])).anchored(MODEL)
    assert [a.sequence for a in held] == [1, 2, 10, 10, 11, 11, 12, 12, 13, 13]
    assert all(git(world.git.root, "show", f"{a.where}:anchor.json") for a in held if a.where.startswith("refs/"))


def test_no_password_of_an_address_is_told(world: EvidenceWorld) -> None:
    store = FolderAnchors("ftp://user:secret@host.invalid/x")
    assert store.where == "ftp://host.invalid/x"
    with pytest.raises(Broken) as caught:
        list(FolderAnchors("nofs://user:secret@h/x").all(MODEL))
    assert "secret" not in str(caught.value)
